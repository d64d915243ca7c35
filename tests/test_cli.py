"""The command line: names and contents of what is written, one line per error, the right exit codes, clean stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
import torch

from flowsep.audio import read_audio, write_audio
from flowsep.cli import main
from flowsep.errors import DeviceError, ModelError
from tests.fakes import tone
from tests.test_audio import BAD, bad_inputs

ROOT = Path(__file__).parents[1]


def failure(capfd, arguments: list[object]) -> tuple[int, str]:
    """Exit code and the one line on stderr; fails where there is another line, a traceback or anything on stdout."""
    code = main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    assert out == "" and "Traceback" not in err
    assert err.startswith("flowsep: error: ") and err.count("\n") == 1, err
    return code, err.strip()


# What is written


def test_separate_writes_target_residual_picture_and_sidecar_and_prints_their_paths(
    tmp_path, mixture, separator, capfd
):
    out = tmp_path / "new" / "folder"
    assert (
        main(["separate", str(mixture), "--text", "A dog, barking!", "-o", str(out), "--residual", "--plot", "-q"]) == 0
    )
    names = ["mix.v2.a-dog-barking.wav", "mix.v2.a-dog-barking.residual.wav", "mix.v2.a-dog-barking.png"]
    names.append("mix.v2.a-dog-barking.json")
    assert capfd.readouterr().out.split() == [str(out / name) for name in names]
    assert sorted(os.listdir(out)) == sorted(names)
    recording, target, residual = (read_audio(path) for path in (mixture, out / names[0], out / names[1]))
    assert (target.sample_rate, target.samples.shape) == (44100, recording.samples.shape)
    torch.testing.assert_close(target.samples, 0.5 * recording.samples, rtol=0, atol=1e-5)
    torch.testing.assert_close(target.samples + residual.samples, recording.samples, rtol=0, atol=1e-7)
    assert (out / names[2]).read_bytes().startswith(b"\x89PNG")


def test_the_sidecar_tells_everything_that_is_needed_to_do_it_again(tmp_path, mixture, separator, capfd):
    main(["separate", str(mixture), "--text", "a dog", "-o", str(tmp_path), "--seed", "7", "--json", "--steps", "2"])
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert document == json.loads((tmp_path / "mix.v2.a-dog.json").read_text())
    assert document["schema_version"] == 1 and document["query"] == "a dog"
    expected = {"path": str(mixture), "sample_rate": 44100, "channels": 2, "frames": 110250}
    assert expected.items() <= document["input"].items() and len(document["input"]["sha256"]) == 64
    expected = {"seed": 7, "steps": 2, "solver": "euler", "guidance": 1.0, "nfe": 6, "windows": 3, "render": "mixture"}
    assert expected.items() <= document["params"].items()
    [target] = document["outputs"]
    samples = read_audio(target["path"]).samples
    assert target["role"] == "target" and target["peak"] == pytest.approx(float(samples.abs().max()))
    assert target["rms_db"] == pytest.approx(20 * float(torch.log10(samples.square().mean().sqrt())), abs=0.01)
    assert document["scores"]["sum_error_db"] < -120
    assert document["timing"]["rtf"] == pytest.approx(document["timing"]["run_s"] / 2.5, rel=0.01, abs=1e-3)
    assert {"python", "torch", "soundfile"} <= document["versions"].keys()
    assert document["model"]["id"] == "small" and "small" in err


def test_inputs_of_one_stem_and_queries_of_one_slug_do_not_overwrite_each_other(tmp_path, mixture, separator, capfd):
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / mixture.name
    second.write_bytes(mixture.read_bytes())
    arguments = ["separate", str(mixture), str(second), "--text", "a dog?", "--text", "A Dog!", "--text", "猫", "-q"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    paths = capfd.readouterr().out.split()
    assert len(paths) == len(set(paths)) == len(os.listdir(tmp_path / "out")) == 12
    slugs = [f"{stem}.{slug}.wav" for stem in ("mix.v2", "mix.v2-2") for slug in ("a-dog", "a-dog-2", "猫")]
    assert [Path(path).name for path in paths if path.endswith(".wav")] == slugs


def test_flac_output_and_a_list_of_documents(tmp_path, mixture, separator, capfd):
    arguments = ["separate", str(mixture), "--text", "a dog", "--text", "rain", "--format", "flac", "--json"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    documents = json.loads(capfd.readouterr().out)
    assert [document["query"] for document in documents] == ["a dog", "rain"]
    assert soundfile.info(documents[1]["outputs"][0]["path"]).subtype == "PCM_24"


@pytest.mark.parametrize(
    ("rate", "subtype", "make"),
    [
        (44100, "PCM_16", lambda: torch.full((1, 44100), 0.5)),  # constant DC
        (8000, "PCM_U8", lambda: tone(1.0, 8000)),
        (192000, "PCM_24", lambda: tone(0.3, 192000, 2)),
        (16000, "FLOAT", lambda: torch.tensor([[0.5]])),  # one sample
        (48000, "FLOAT", lambda: 1e-7 * tone(0.5, 48000, 6)),
    ],
)
def test_unusual_but_sound_inputs_work(tmp_path, separator, capfd, rate, subtype, make):
    samples, path = make(), tmp_path / "in.wav"
    soundfile.write(path, samples.T.numpy(), rate, subtype=subtype)
    assert main(["separate", str(path), "--text", "a dog", "-o", str(tmp_path), "--plot", "-q"]) == 0
    target, recording = read_audio(tmp_path / "in.a-dog.wav"), read_audio(path)
    assert target.sample_rate == rate
    step = 2**-7 if subtype == "PCM_U8" else 1e-5
    torch.testing.assert_close(target.samples, 0.5 * recording.samples, rtol=0, atol=step)


def test_digital_silence_gives_silence_and_a_warning(tmp_path, separator, capfd):
    write_audio(tmp_path / "in.wav", torch.zeros(2, 8000), 8000)
    assert main(["separate", str(tmp_path / "in.wav"), "--text", "a dog", "-o", str(tmp_path), "-q", "--plot"]) == 0
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and err.startswith("flowsep: warning:") and "silence" in err
    assert not read_audio(tmp_path / "in.a-dog.wav").samples.any()
    assert json.loads((tmp_path / "in.a-dog.json").read_text())["outputs"][0]["rms_db"] == -200.0


@pytest.mark.parametrize(("render", "dtype"), [("mixture", "float32"), ("vocoder", "bfloat16")])
def test_a_saved_model_runs_in_both_renderings_and_says_nothing_but_where_it_runs(
    tmp_path, mixture, capfd, render, dtype
):
    from tests.tiny import tiny_separator

    tiny_separator().save_pretrained(tmp_path / "model")
    capfd.readouterr()
    arguments = [
        "separate",
        str(mixture),
        "--text",
        "a dog",
        "--model",
        str(tmp_path / "model"),
        "--json",
        "--residual",
    ]
    assert (
        main(
            [
                *arguments,
                "--render",
                render,
                "--dtype",
                dtype,
                "-o",
                str(tmp_path),
                "--device",
                "cpu",
                "--clip",
                "float",
            ]
        )
        == 0
    )
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert {"render": render, "dtype": dtype, "device": "cpu"}.items() <= document["params"].items()
    assert len(document["model"]["hash"]) == 64
    assert err.count("\n") == 1 and err.startswith("flowsep: model ") and f"cpu, {dtype}" in err
    target, residual = (read_audio(output["path"]).samples for output in document["outputs"])
    torch.testing.assert_close(target + residual, read_audio(mixture).samples, rtol=0, atol=1e-6)
    assert target.square().mean() > 1e-6


# What is refused


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind != "folder"])  # a folder is searched
def test_a_bad_input_exits_with_3_and_one_line(tmp_path, separator, capfd, kind):
    path, words = bad_inputs(tmp_path)[kind]
    code, line = failure(capfd, ["separate", path, "--text", "a dog", "-o", tmp_path / "out"])
    assert code == 3 and words in line
    assert not (tmp_path / "out").exists() and not separator.seen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", ""], "--text is empty"),
        (["--text", " \n "], "--text is empty"),
        (["--text", "a dog", "--text", "x" * 10_000], "10000 characters"),
        ([], "--text"),
        (["--text", "a dog", "--steps", "0"], "--steps"),
        (["--text", "a dog", "--steps", "-3"], "--steps"),
        (["--text", "a dog", "--steps", "many"], "--steps"),
        (["--text", "a dog", "--solver", "magic"], "choose from euler, midpoint, heun, rk4, ab2, dopri5"),
        (["--text", "a dog", "--render", "magic"], "choose from mixture, vocoder"),
        (["--text", "a dog", "--format", "mp4"], "choose from wav, flac"),
        (["--text", "a dog", "--dtype", "int8"], "choose from float32"),
        (["--text", "a dog", "--device", "gpu"], "choose from auto, cpu"),
        (["--text", "a dog", "--seed", "-1"], "--seed"),
        (["--text", "a dog", "--guidance", "nan"], "guidance must be"),
        (["--text", "a dog", "--rtol", "0"], "rtol must be"),
        (["--text", "a dog", "--magic"], "--magic"),
    ],
)
def test_a_usage_error_exits_with_2_and_one_line(mixture, separator, capfd, arguments, words):
    code, line = failure(capfd, ["separate", mixture, *arguments])
    assert code == 2 and words in line
    assert not separator.seen


def test_an_unknown_command_and_an_unknown_option_are_usage_errors(capfd):
    assert failure(capfd, ["seperate"])[0] == 2
    assert failure(capfd, ["--magic"])[0] == 2


def test_an_unknown_model_exits_with_4_and_lists_the_known(mixture, capfd):
    code, line = failure(capfd, ["separate", mixture, "--text", "a dog", "--model", "no-such-model"])
    assert code == 4 and "no-such-model" in line and "small" in line


def test_existing_outputs_are_refused_before_any_work_unless_overwritten(tmp_path, mixture, separator, capfd):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mix.v2.rain.json").write_text("mine")
    arguments = ["separate", mixture, "--text", "a dog", "--text", "rain", "-o", out]
    code, line = failure(capfd, arguments)
    assert code == 3 and "--overwrite" in line and not separator.seen
    assert (os.listdir(out), (out / "mix.v2.rain.json").read_text()) == (["mix.v2.rain.json"], "mine")
    assert main([*map(str, arguments), "--overwrite"]) == 0
    assert json.loads((out / "mix.v2.rain.json").read_text())["query"] == "rain"


def test_an_input_is_never_overwritten(tmp_path, mixture, separator, capfd):
    other = tmp_path / "mix.v2.a-dog.wav"
    other.write_bytes(mixture.read_bytes())
    code, line = failure(capfd, ["separate", mixture, other, "--text", "a dog", "-o", tmp_path, "--overwrite"])
    assert code == 3 and "is an input" in line
    assert other.read_bytes() == mixture.read_bytes()


def test_an_output_name_too_long_for_a_file_is_refused_before_any_work(tmp_path, mixture, separator, capfd):
    long = mixture.rename(tmp_path / f"{'x' * 245}.wav")
    code, line = failure(capfd, ["separate", long, "--text", "a dog barking", "-o", tmp_path])
    assert code == 3 and "too long" in line and not separator.seen


@pytest.mark.parametrize("folder", ["mix.v2.wav", "mix.v2.wav/below"])
def test_a_folder_that_cannot_be_written_exits_with_3_before_any_work(tmp_path, mixture, separator, capfd, folder):
    code, line = failure(capfd, ["separate", mixture, "--text", "a dog", "-o", tmp_path / folder])
    assert code == 3 and "cannot write" in line and not separator.seen


def test_a_folder_without_permission_exits_with_3_before_any_work(tmp_path, mixture, separator, capfd, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # chmod means nothing to root
    code, line = failure(capfd, ["separate", mixture, "--text", "a dog", "-o", tmp_path])
    assert code == 3 and "no permission" in line and not separator.seen


def test_a_full_disk_exits_with_3_and_leaves_nothing(tmp_path, mixture, separator, capfd, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    code, line = failure(capfd, ["separate", mixture, "--text", "a dog", "-o", tmp_path / "out", "-q"])
    assert code == 3 and "No space left" in line
    assert os.listdir(tmp_path / "out") == []


def test_one_bad_file_does_not_stop_the_others(tmp_path, mixture, separator, capfd):
    arguments = [
        "separate",
        str(tmp_path / "none.wav"),
        str(mixture),
        "--text",
        "a dog",
        "-o",
        str(tmp_path / "out"),
        "-q",
    ]
    assert main(arguments) == 6
    out, err = capfd.readouterr()
    assert err.splitlines() == [
        f"flowsep: error: {tmp_path / 'none.wav'} does not exist",
        "flowsep: error: 1 of 2 files failed; the others are done",
    ]
    assert out.split() == [str(tmp_path / "out" / f"mix.v2.a-dog.{kind}") for kind in ("wav", "json")]
    assert main([*arguments, "--json", "--overwrite"]) == 6
    failed, done = json.loads(capfd.readouterr().out)
    assert failed["error"]["exit_code"] == 3 and done["query"] == "a dog"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ModelError("the folder x lacks unet; convert it again"), 4, "lacks unet"),
        (DeviceError("no cuda here; use --device cpu"), 5, "no cuda"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), 5, "--device"),
        (MemoryError(), 5, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 5, "out of memory"),
        (ZeroDivisionError("two\nlines"), 1, "ZeroDivisionError: two lines (run again with -v for the traceback)"),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(mixture, capfd, monkeypatch, error, code, words):
    def load(name: str) -> None:
        raise error

    monkeypatch.setattr("flowsep.checkpoint.find_model", load)
    found, line = failure(capfd, ["separate", mixture, "--text", "a dog"])
    assert found == code and words in line


@pytest.mark.parametrize("arguments", [["-v", "separate"], ["separate", "--verbose"]])
def test_verbose_shows_the_traceback_wherever_it_stands(tmp_path, capfd, arguments):
    assert main([*arguments, str(tmp_path / "none.wav"), "--text", "a dog"]) == 3
    assert "Traceback" in capfd.readouterr().err


def test_a_query_longer_than_the_model_reads_is_said_to_be_cut(mixture, separator, tmp_path, capfd):
    class Encoder:
        config = type("Config", (), {"max_length": 5})

        def token_count(self, text: str) -> int:
            return len(text.split()) + 1

    separator.text = Encoder()
    arguments = ["separate", str(mixture), "--text", "a dog", "--text", "a dog that barks at a cat", "-q"]
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    err = capfd.readouterr().err
    assert err == "flowsep: warning: 'a dog that barks at a cat' has 8 tokens and is cut to the model's 5\n"


# Interruption


def test_ctrl_c_inside_the_work_exits_with_130_and_leaves_nothing(tmp_path, mixture, separator, capfd, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowsep.files.describe_input", interrupt)  # targets are in the staging folder already
    assert main(["separate", str(mixture), "--text", "a dog", "-o", str(tmp_path / "out"), "-q"]) == 130
    out, err = capfd.readouterr()
    assert (out, err) == ("", "flowsep: interrupted\n")
    assert os.listdir(tmp_path / "out") == []


def test_ctrl_c_from_the_terminal_exits_with_130_and_leaves_nothing(tmp_path, mixture):
    arguments = ["separate", str(mixture), "--text", "a dog", "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.slow_runner", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored below a job in the background
    )
    assert "loaded" in process.stderr.readline()  # the model is there, the first of three minutes has begun
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "flowsep: interrupted\n")
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []
