"""remove, remix and segments on the command line: files, sidecars, one line per error, the right exit codes."""

from __future__ import annotations

import csv
import json
import os

import pytest
import soundfile
import torch

from flowsep.audio import read_audio, write_audio
from flowsep.cli import main
from tests.conftest import install
from tests.fakes import FakeSeparator, tone
from tests.test_audio import BAD, bad_inputs
from tests.test_cli import failure

VERBS = {"remove": ["--text", "a dog"], "remix": ["--gain", "a dog=-12"], "segments": ["--text", "a dog"]}
WRITING = ("remove", "remix")
OUTPUTS = {"remove": "mix.v2.without-a-dog", "remix": "mix.v2.remix-a-dog-minus-12"}


def command(verb: str, *arguments: object) -> list[str]:
    """A command line of the verb with its usual query."""
    return [verb, *map(str, arguments), *VERBS[verb]]


# What is written


@pytest.mark.parametrize(("verb", "factor"), [("remove", 0.5), ("remix", 1 + 0.5 * (10 ** (-12 / 20) - 1))])
def test_output_and_sidecar_are_written_and_their_paths_printed(tmp_path, mixture, separator, capfd, verb, factor):
    out = tmp_path / "new" / "folder"
    assert main([*command(verb, mixture, "-o", out), "-q"]) == 0
    names = [f"{OUTPUTS[verb]}.wav", f"{OUTPUTS[verb]}.json"]
    assert capfd.readouterr().out.split() == [str(out / name) for name in names]
    assert sorted(os.listdir(out)) == sorted(names)
    recording, found = read_audio(mixture), read_audio(out / names[0])
    assert (found.sample_rate, found.samples.shape) == (44100, recording.samples.shape)
    torch.testing.assert_close(found.samples, factor * recording.samples, rtol=0, atol=1e-5)
    document = json.loads((out / names[1]).read_text())
    [part] = document[verb]["parts"]
    assert (part["query"], part["gain_db"]) == ("a dog", None if verb == "remove" else -12.0)
    assert document[verb]["rest"]["gain_db"] == 0.0
    assert document["outputs"][0]["role"] == verb and document["scores"]["sum_error_db"] < -130
    assert {"masks": "model", "nfe": 6, "windows": 3, "seed": 0}.items() <= document["params"].items()


def test_zero_decibels_write_the_input_bit_for_bit(tmp_path, mixture, separator, capfd):
    arguments = ["remix", str(mixture), "--gain", "a dog=0", "--gain", "rain=+0 dB", "-o", str(tmp_path), "--json"]
    assert main(arguments) == 0
    document = json.loads(capfd.readouterr().out)
    path = document["outputs"][0]["path"]
    assert path == str(tmp_path / "mix.v2.remix-a-dog-0-rain-0.wav")
    recording, _ = soundfile.read(mixture, dtype="float32")
    assert soundfile.read(path, dtype="float32")[0].tobytes() == recording.tobytes()


def test_several_sounds_in_several_files(tmp_path, mixture, separator, capfd):
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / mixture.name
    second.write_bytes(mixture.read_bytes())
    arguments = ["remove", str(mixture), str(second), "--text", "a dog", "--text", "rain", "--format", "flac", "-q"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    stems = [f"{stem}.without-a-dog-and-rain" for stem in ("mix.v2", "mix.v2-2")]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(f"{s}.{kind}" for s in stems for kind in ("flac", "json"))
    found = read_audio(tmp_path / "out" / f"{stems[1]}.flac").samples
    torch.testing.assert_close(found, 0.25 * read_audio(mixture).samples, rtol=0, atol=1e-5)


def test_the_rest_can_be_muted(tmp_path, mixture, separator, capfd):
    arguments = ["remix", str(mixture), "--gain", "a dog=0", "--rest", "mute", "-o", str(tmp_path), "-q"]
    assert main(arguments) == 0
    found = read_audio(tmp_path / "mix.v2.remix-a-dog-0-rest-mute.wav").samples
    torch.testing.assert_close(found, 0.5 * read_audio(mixture).samples, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("format", "clip", "peak", "words"),
    [
        ("wav", "warn", 2.0, "float wav keeps it"),
        ("flac", "warn", 1.0, "samples are clipped; --clip scale"),
        ("wav", "scale", 1.0, "turned down by 6.02 dB"),
        ("flac", "scale", 1.0, "turned down by 6.02 dB"),
    ],
)
def test_a_peak_above_full_scale_is_told_and_kept_clipped_or_scaled(
    tmp_path, monkeypatch, capfd, format, clip, peak, words
):
    install(FakeSeparator(), monkeypatch)
    recording = tone(1.0, 16000)
    write_audio(tmp_path / "in.wav", recording / recording.abs().max(), 16000)
    arguments = ["remix", str(tmp_path / "in.wav"), "--gain", f"all={20 * 0.30103:.4f}", "--format", format]
    assert main([*arguments, "--clip", clip, "-o", str(tmp_path), "-q", "--json"]) == 0
    out, err = capfd.readouterr()
    assert err.count("\n") == 1 and "peak +6.02 dBFS" in err and words in err
    [written] = json.loads(out)["outputs"]
    report = written["clipping"]
    assert report["peak_dbfs"] == 6.02
    assert report["scale_db"] == pytest.approx(-6.02 if clip == "scale" else 0.0, abs=0.01)
    assert (report["clipped_samples"] > 0) == (format == "flac" and clip == "warn")
    assert float(read_audio(written["path"]).samples.abs().max()) == pytest.approx(peak, abs=1e-4)
    assert written["peak"] == pytest.approx(peak if clip == "scale" else 2.0, abs=1e-4)


def test_segments_go_to_stdout_or_into_the_format_that_the_suffix_names(tmp_path, mixture, separator, capfd):
    arguments = [*command("segments", mixture, "--text", "rain", "--share", "7"), "-q"]
    assert main(arguments) == 0
    document = json.loads(capfd.readouterr().out)
    rain, dog = document["queries"]
    assert (rain["segments"], dog["query"], dog["active_s"]) == ([], "a dog", 2.5)
    assert dog["segments"][0]["share_db"] == pytest.approx(-6.02, abs=0.1)
    assert document["rule"]["share_db"] == 7 and document["params"]["nfe"] == 12
    for suffix in ("json", "csv", "txt"):
        path = tmp_path / "deep" / f"found.{suffix}"
        assert main([*arguments, "-o", str(path)]) == 0
        assert capfd.readouterr().out == f"{path}\n"
    assert json.loads((tmp_path / "deep" / "found.json").read_text())["queries"] == document["queries"]
    assert (tmp_path / "deep" / "found.txt").read_text() == "0.000000\t2.500000\ta dog\n"
    [row] = csv.DictReader((tmp_path / "deep" / "found.csv").open())
    assert (row["start"], row["end"], row["text"]) == ("0.0", "2.5", "a dog")


@pytest.mark.parametrize("verb", VERBS)
def test_a_saved_model_runs(tmp_path, mixture, capfd, verb):
    from tests.tiny import tiny_separator

    tiny_separator().save_pretrained(tmp_path / "model")
    more = ["--json", "-o", tmp_path] if verb in WRITING else []
    assert main([*command(verb, mixture, "--model", tmp_path / "model", *more), "-q"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["params"]["render"] == "mixture" and len(document["model"]["hash"]) == 64


# What is refused


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", [kind for kind in BAD if kind != "folder"])  # a folder is searched
def test_a_bad_input_exits_with_3_and_one_line(tmp_path, separator, capfd, verb, kind):
    path, words = bad_inputs(tmp_path)[kind]
    target = tmp_path / "out" if verb in WRITING else tmp_path / "out" / "x.json"
    code, line = failure(capfd, command(verb, path, "-o", target))
    assert code == 3 and words in line
    assert not (tmp_path / "out").exists() and not separator.seen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["remove"], "--text"),
        (["remove", "--text", " "], "--text is empty"),
        (["remove", "--text", "x" * 10_000], "10000 characters"),
        (["remove", "--text", "a dog", "--text", "A Dog"], "twice"),
        (["remove", "--text", "a dog", "--clip", "magic"], "choose from warn, scale"),
        (["remove", "--text", "a dog", "--format", "mp4"], "choose from wav, flac"),
        (["remove", "--text", "a dog", "--steps", "0"], "--steps"),
        (["remix"], "--gain"),
        (["remix", "--gain", "a dog"], "has no '='"),
        (["remix", "--gain", "=3"], "--gain is empty"),
        (["remix", "--gain", "a dog=loud"], "not a number"),
        (["remix", "--gain", "a dog=nan"], "not a number"),
        (["remix", "--gain", "a dog=60.1"], "beyond +-60 dB"),
        (["remix", "--gain", "a dog=-61"], "beyond +-60 dB"),
        (["remix", "--gain", "a dog=3", "--gain", "a dog=4"], "twice"),
        (["remix", "--gain", "a dog=3", "--rest", "99"], "--rest: 99 dB is beyond"),
        (["remix", "--gain", "a dog=3", "--rest", "quiet"], "--rest: 'quiet' is not a number"),
        (["remix", "--gain", "a dog=3", "--solver", "magic"], "choose from euler"),
        (["remix", "--gain", "a dog=3", "--device", "gpu"], "choose from auto, cpu"),
        (["segments", "--text", ""], "--text is empty"),
        (["segments", "--text", "a dog", "-o", "labels.doc"], ".json, .csv, .txt"),
        (["segments", "--text", "a dog", "--share", "-1"], "--share"),
        (["segments", "--text", "a dog", "--merge-gap", "nan"], "--merge-gap"),
        (["segments", "--text", "a dog", "--guidance", "nan"], "guidance"),
    ],
)
def test_a_usage_error_exits_with_2_and_one_line(mixture, separator, capfd, arguments, words):
    verb, *more = arguments
    code, line = failure(capfd, [verb, mixture, *more])
    assert code == 2 and words in line
    assert not separator.seen


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_model_exits_with_4(mixture, capfd, verb):
    code, line = failure(capfd, command(verb, mixture, "--model", "no-such-model"))
    assert code == 4 and "no-such-model" in line


@pytest.mark.parametrize("verb", VERBS)
def test_existing_outputs_are_refused_before_any_work_unless_overwritten(tmp_path, mixture, separator, capfd, verb):
    path = tmp_path / (f"{OUTPUTS[verb]}.json" if verb in WRITING else "labels.json")
    path.write_text("mine")
    arguments = command(verb, mixture, "-o", tmp_path if verb in WRITING else path)
    code, line = failure(capfd, arguments)
    assert code == 3 and "--overwrite" in line and not separator.seen and path.read_text() == "mine"
    assert main([*arguments, "--overwrite", "-q"]) == 0
    assert json.loads(path.read_text())["schema_version"] == 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_cannot_be_written_exits_with_3_before_any_work(tmp_path, mixture, separator, capfd, verb):
    folder = mixture / "below"
    code, line = failure(capfd, command(verb, mixture, "-o", folder if verb in WRITING else folder / "x.csv"))
    assert code == 3 and "cannot write" in line and not separator.seen


def test_segments_never_overwrite_their_input(tmp_path, separator, capfd):
    path = tmp_path / "in.txt"
    write_audio(path, tone(0.5, 16000), 16000)
    before = path.read_bytes()
    code, line = failure(capfd, ["segments", path, "--text", "a dog", "-o", path, "--overwrite"])
    assert code == 3 and "is the input" in line and path.read_bytes() == before


@pytest.mark.parametrize("verb", WRITING)
def test_an_interrupted_run_leaves_nothing(tmp_path, mixture, separator, capfd, monkeypatch, verb):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowsep.remix_files.describe_gains", interrupt)  # the audio is staged already
    assert main([*command(verb, mixture, "-o", tmp_path / "out"), "-q"]) == 130
    assert os.listdir(tmp_path / "out") == []


def test_one_bad_file_does_not_stop_the_others(tmp_path, mixture, separator, capfd):
    arguments = command("remove", tmp_path / "none.wav", mixture, "-o", tmp_path / "out", "-q", "--json")
    assert main(arguments) == 6
    failed, done = json.loads(capfd.readouterr().out)
    assert failed["error"]["exit_code"] == 3 and done["remove"]["parts"][0]["query"] == "a dog"
