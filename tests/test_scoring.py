"""Systems scored on protocols: rows, resumption, summaries, leaderboards, another tool's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flowsep.cli import main
from flowsep.evaluation.leaderboard import by_lines, summarise, table_lines
from flowsep.evaluation.protocols import read_items
from flowsep.evaluation.protocols.drawn import Draw
from flowsep.evaluation.results import Results
from flowsep.evaluation.score import score_systems
from flowsep.evaluation.semantic import frechet_distance
from flowsep.evaluation.systems import Untouched, systems_of
from flowsep.protocol import SampleOptions
from tests import layouts
from tests.layouts import sound, wav
from tests.tiny import write_clips


@pytest.fixture
def data(tmp_path) -> Path:
    return layouts.dcase(tmp_path / "data é")


def evaluate(data: Path, *words: object, protocol: str = "dcase2024-task9") -> int:
    return main(["evaluate", protocol, "--data", str(data), "-q", *map(str, words)])


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()]


def test_systems_are_scored_on_the_same_mixtures_and_ranked(data, tmp_path, separator, capsys):
    out = tmp_path / "out put"
    assert evaluate(data, "--model", "mixture,oracle,dog", "-o", out) == 0
    rows = lines(out)
    assert [(row["system"], row["id"]) for row in rows[:4]] == [
        ("mixture", "0000"),
        ("mixture", "0001"),
        ("mixture", "0002"),
        ("oracle", "0000"),
    ]
    by = {(row["system"], row["id"]): row for row in rows}
    for name in ("0000", "0001", "0002"):  # sdr - sdri is the mixture's, whoever is scored on it
        assert by["dog", name]["sdr"] - by["dog", name]["sdri"] == pytest.approx(by["mixture", name]["sdr"], abs=1e-9)
        assert by["mixture", name]["sdr"] == pytest.approx(by["mixture", name]["snr_db"], abs=1e-3)
        assert by["mixture", name]["sdri"] == 0 and by["dog", name]["si_sdri"] == pytest.approx(0, abs=1e-4)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["systems"]["oracle"]["figures"]["sdri"]["mean"] > 3
    table = (out / "summary.md").read_text().splitlines()
    assert "DCASE 2024 Task 9" in table[0] and table[4].startswith("| oracle | 3 |") and " p = " in table[4]
    assert capsys.readouterr().out.splitlines() == table
    assert [text for _, texts in separator.seen for text in texts][1:] == ["A dog barks", "A dog barks, far away"]


def test_a_run_that_was_interrupted_goes_on_where_it_was(data, tmp_path, separator):
    out = tmp_path / "out"
    original, calls = separator.separate, []

    def stopped(mixture, texts, options=None):
        calls.append(texts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(mixture, texts, options)

    separator.separate = stopped
    assert evaluate(data, "--model", "mixture,dog", "-o", out) == 130
    assert len(lines(out)) == 4
    separator.separate = original
    assert evaluate(data, "--model", "mixture,dog", "-o", out) == 0
    whole = (out / "summary.json").read_text()
    assert len(lines(out)) == 6 and len(separator.seen) == 3
    assert evaluate(data, "--model", "mixture,dog", "-o", out) == 0
    assert len(separator.seen) == 3 and (out / "summary.json").read_text() == whole


def test_a_line_that_a_kill_tore_off_is_scored_again(data, tmp_path, separator):
    out = tmp_path / "out"
    assert evaluate(data, "--model", "dog", "-o", out) == 0
    text = (out / "items.jsonl").read_text()
    (out / "items.jsonl").write_text(text[:-40])
    assert evaluate(data, "--model", "dog", "-o", out) == 0
    assert len(separator.seen) == 4 and [row["id"] for row in lines(out)] == ["0000", "0001", "0002"]
    (out / "items.jsonl").write_text(text[:40] + "\n" + text)  # a line that is broken elsewhere is no kill
    assert evaluate(data, "--model", "dog", "-o", out) == 3


def test_changed_settings_models_and_data_are_refused_until_overwritten(data, tmp_path, separator, monkeypatch, capsys):
    out = tmp_path / "out"
    assert evaluate(data, "--model", "dog", "-o", out) == 0
    for words in (["--steps", "3"], ["--seed", "1"]):
        assert evaluate(data, "--model", "dog", "-o", out, *words) == 3
        assert "(dog's weights or options); choose another folder" in capsys.readouterr().err
    monkeypatch.setattr("flowsep.files.weights_hash", lambda folder: "other")
    assert evaluate(data, "--model", "dog", "-o", out) == 3
    assert len(separator.seen) == 3
    assert evaluate(data, "--model", "dog", "-o", out, "--overwrite") == 0
    assert len(separator.seen) == 6 and len(lines(out)) == 3
    wav(data / "lass_validation" / "dog 1.wav", sound(1, 1.1))
    assert evaluate(data, "--model", "dog", "-o", out) == 3
    assert "data or their files" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert evaluate(data, "--model", "dog", "-o", tmp_path / "other") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as results"),
        ('{"schema_version": 99}', "is of version 99, this is 1"),
        ('{"schema_version": 1, "systems": {}}', "does not say its title"),
    ],
)
def test_folders_that_are_no_results_are_told(data, tmp_path, capsys, text, message):
    (tmp_path / "run.json").write_text(text)
    assert evaluate(data, "--model", "mixture", "-o", tmp_path) == 3
    assert message in capsys.readouterr().err
    assert main(["evaluate", "--compare", str(tmp_path)]) == 3


def test_models_and_mixtures_can_be_added_to_a_folder(data, tmp_path, separator):
    out = tmp_path / "out"
    assert evaluate(data, "--model", "dog", "-o", out, "--limit", "1") == 0
    assert evaluate(data, "--model", "dog", "-o", out) == 0
    assert len(separator.seen) == 3
    assert evaluate(data, "--model", "mixture", "-o", out) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["systems"]) == ["dog", "mixture"] and summary["differences"]["mixture"]["count"] == 3


def test_a_broken_clip_stops_nothing_else_and_is_tried_again(data, tmp_path, separator, capsys):
    out, clip = tmp_path / "out", data / "lass_validation" / "odd.wav"
    with (data / "lass_synthetic_validation.csv").open("a") as file:
        file.write("odd,dog 1,0,Odd\n")
    clip.write_bytes(b"RIFF nothing")
    assert evaluate(data, "--model", "mixture", "-o", out) == 6
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "1 of 4 mixtures could not be scored" in error and "odd.wav" in error
    assert len(lines(out)) == 3 and json.loads((out / "summary.json").read_text())["failed"]
    wav(clip, np.full(16000, np.nan, np.float32))
    assert evaluate(data, "--model", "mixture", "-o", out, "--overwrite") == 6
    wav(clip, sound(9))
    assert evaluate(data, "--model", "mixture", "-o", out, "--overwrite") == 0
    assert len(lines(out)) == 4


def test_silent_targets_are_left_out_and_counted(data, tmp_path, capsys):
    wav(data / "lass_validation" / "rain, heavy.wav", np.zeros(16000, np.float32))
    assert evaluate(data, "--model", "mixture,oracle", "-o", tmp_path / "out") == 0
    text = capsys.readouterr().out
    assert "mixture: 1 left out because the target is silent" in text
    assert "mixture: 2 left out because the mixture is the target alone" in text
    assert "nan" not in text.lower()
    assert main(["evaluate", "--compare", str(tmp_path / "out")]) == 0


def test_a_model_that_gives_nan_is_told_and_scores_nothing(data, tmp_path, separator, capsys):
    separator.gain = lambda text: float("nan") if text == "A dog barks" else 1.0
    assert evaluate(data, "--model", "dog", "-o", tmp_path / "out") == 6
    assert "0001 by dog: the model gave NaN" in capsys.readouterr().err
    assert [row["id"] for row in lines(tmp_path / "out")] == ["0000", "0002"]


@pytest.fixture
def written(data, tmp_path) -> Path:
    folder = tmp_path / "written é"
    words = ["mix", "dcase2024-task9", str(folder), "--data", str(data), "--targets", "--residuals", "-q"]
    assert main(words) == 0
    return folder


def test_another_tools_files_are_scored_like_a_model(data, written, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--estimates", f"best={written / 'targets'}", "--estimates", written / "mixtures", "-o", out]
    assert evaluate(data, *words) == 0
    by = {(row["system"], row["id"]): row for row in lines(out)}
    assert by["best", "0001"]["si_sdr"] > 100 and by["mixtures", "0001"]["sdri"] == 0
    assert evaluate(written, *words[:4], "--json", protocol="mixtures") == 0  # without the benchmark itself
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["systems"]["best"]["figures"]["sdr"]["mean"]
    assert found == pytest.approx(np.mean([by["best", f"000{n}"]["sdr"] for n in range(3)]))
    soundfile.write(written / "targets" / "0001.wav", sound(5), 16000, subtype="FLOAT")
    assert evaluate(data, *words) == 0  # files are read anew each time
    assert {(row["system"], row["id"]): row for row in lines(out)}["best", "0001"]["si_sdr"] < 10


def test_a_folder_of_estimates_may_have_an_equals_sign_in_its_name(written, tmp_path):
    folder = tmp_path / "a=b"
    (written / "targets").rename(folder)
    first, second = systems_of([], [str(folder), f"c={folder}"], SampleOptions())
    assert (first.name, first.folder, second.name, second.folder) == ("a=b", folder, "c", folder)


def test_written_mixtures_are_scored_at_their_rate_and_averaged_like_their_protocol(tmp_path, capsys):
    data, out = layouts.audiosep(tmp_path / "evaluation", "music"), tmp_path / "w"
    assert main(["mix", "audiosep-music", str(out), "--data", str(data), "--targets", "-q"]) == 0
    capsys.readouterr()
    words = ["--estimates", out / "targets", "--model", "mixture", "--json"]
    assert evaluate(out, *words, protocol="mixtures") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["title"] == "AudioSep's MUSIC, as written by flowsep mix"
    assert summary["average"] == "class_mean" and summary["ranked_by"] == "sdri"
    assert summary["systems"]["targets"]["figures"]["sdri"]["mean"] > 60


def rewrite(path: Path, audio: np.ndarray, rate: int = 16000) -> None:
    soundfile.write(path, audio, rate, subtype="FLOAT")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "0001.wav").unlink(), "lacks 1 of 3 estimates, the first 0001.wav"),
        (lambda f: rewrite(f / "0001.wav", sound(1), 44100), "is at 44100 Hz, its mixture at 16000; resample it"),
        (lambda f: rewrite(f / "0001.wav", sound(1, 0.9)), "has 14400 samples, its mixture 16000"),
        (lambda f: rewrite(f / "0001.wav", np.stack([sound(1)] * 2, 1)), "has 2 channels, its mixture one"),
        (lambda f: rewrite(f / "0001.flac".replace("flac", "aiff"), sound(1)), "has 0001.aiff and 0001.wav; keep one"),
        (lambda f: (f / "0001.wav").write_bytes(b""), "0001.wav is empty"),
        (lambda f: rewrite(f / "0001.wav", sound(1) * np.nan), "NaN"),
    ],
)
def test_estimates_that_do_not_fit_their_mixture_are_refused(data, written, capsys, spoil, message):
    spoil(written / "targets")
    assert evaluate(data, "--estimates", written / "targets") == 3
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_folders_are_compared_in_one_table(data, tmp_path, separator, capsys):
    a, b = tmp_path / "a", tmp_path / "b"
    assert evaluate(data, "--model", "dog,mixture", "-o", a) == 0
    assert evaluate(data, "--model", "oracle,mixture", "-o", b) == 0
    capsys.readouterr()
    assert main(["evaluate", "--compare", str(a), str(b), "--by", "snr"]) == 0
    text = capsys.readouterr().out
    assert "| oracle | 3 |" in text and "| a/mixture |" in text and "| b/mixture |" in text
    assert "p = 0.25" in next(line for line in text.splitlines() if line.startswith("| oracle"))  # 2 of 8 sign patterns
    assert "| snr | mixtures | dog | a/mixture | oracle | b/mixture |" in text


def test_other_mixtures_get_no_difference_and_other_protocols_no_table(data, tmp_path, capsys):
    clips = write_clips(tmp_path / "clips", 1.6)
    for name, seed in (("a", 1), ("b", 2)):
        words = ["--model", "mixture", "--count", 2, "--mix-seed", seed, "-o", tmp_path / name]
        assert evaluate(clips, *words, protocol="own") == 0
    capsys.readouterr()
    assert main(["evaluate", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "no difference for b/mixture: not scored on the same mixtures" in capsys.readouterr().out
    assert evaluate(data, "--model", "mixture", "-o", tmp_path / "c") == 0
    for others, code, message in (
        ([tmp_path / "a", tmp_path / "c"], 3, "another protocol than"),
        ([tmp_path / "no"], 3, "no folder of results: it has no run.json"),
        ([], 2, "nothing to compare"),
    ):
        assert main(["evaluate", "--compare", *map(str, others)]) == code
        assert message in capsys.readouterr().err


def test_classes_count_the_same_where_the_authors_had_it_so(tmp_path):
    data = layouts.audiosep(tmp_path / "evaluation", "music")
    items = read_items("audiosep-music", data, Draw())
    results = Results.open(items, [Untouched()], None)
    for number, value in enumerate((0.0, 4.0, 2.0, 9.0)):  # violin, tuba, violin, none
        about = {"system": "mixture", "id": str(number), "target_class": items.items[number].target_class}
        results.add({**about, "snr_db": 0.0, "sdri": value if number < 3 else float("nan")})
    summary = summarise(results)
    assert summary["systems"]["mixture"]["figures"]["sdri"]["mean"] == (1.0 + 4.0) / 2
    table = by_lines(summary, "class")
    assert table[4].startswith("| tuba, loud | 1 | 4.00") and table[5].startswith("| violin | 2 | 1.00")


class FakeClap:
    """Hears the level; no other text than rain."""

    name, score_name, sample_rate = "tiny", "proxy", 16000

    def text(self, texts):
        return torch.tensor([[1.0, 0.0] if "Rain" in text else [0.0, 1.0] for text in texts])

    def audio(self, audio):
        return torch.tensor([[1.0, 0.0]]).expand(len(audio), -1)


def test_scores_of_an_encoder_carry_its_name(data):
    items = read_items("dcase2024-task9", data, Draw())
    systems = systems_of(["mixture"], [], SampleOptions())
    results = Results.open(items, systems, None, FakeClap())
    assert score_systems(items, systems, results, encoder=FakeClap()) == {}
    table = table_lines(summarise(results))
    assert "| proxy [tiny] | proxy_A [tiny] |" in table[2] and "CLAPScore" not in "".join(table)
    assert "| 0.33 [" in table[4] and "| 1.00 [1.00, 1.00] |" in table[4]
    assert "Frechet" not in "".join(table)  # this one gives no frames


class FramesClap(FakeClap):
    """One embedding: level and slope."""

    def frames(self, audio):
        return torch.stack([audio.square().mean().sqrt(), audio.diff().square().mean().sqrt()])[None]


def test_a_frechet_distance_is_over_all_mixtures_and_survives_a_kill(data, tmp_path, monkeypatch, separator):
    monkeypatch.setattr("flowsep.evaluation.encoders.load_encoder", lambda name: FramesClap())
    out = tmp_path / "out"
    assert evaluate(data, "--model", "mixture,dog", "-o", out, "--encoder", "clap:x") == 0
    found = json.loads((out / "summary.json").read_text())["systems"]
    waves = [item.source.render(16000) for item in read_items("dcase2024-task9", data, Draw()).items]
    mixtures, targets = (
        torch.cat([FramesClap().frames(torch.from_numpy(getattr(one, part))) for one in waves])
        for part in ("mixture", "target")
    )
    expected = frechet_distance(mixtures, targets)
    assert found["mixture"]["figures"]["frechet"]["mean"] == pytest.approx(expected, rel=1e-3) and expected > 0
    distance = found["dog"]["figures"]["frechet"]["mean"]
    assert distance != found["mixture"]["figures"]["frechet"]["mean"]
    assert "| Frechet distance [tiny] |" in (out / "summary.md").read_text()
    text = (out / "items.jsonl").read_text()
    (out / "items.jsonl").write_text("".join(text.splitlines(True)[:-1]))  # killed between the embeddings and the row
    assert evaluate(data, "--model", "mixture,dog", "-o", out, "--encoder", "clap:x") == 0
    assert len((out / "frames.jsonl").read_text().splitlines()) == 6
    again = json.loads((out / "summary.json").read_text())["systems"]
    assert again["dog"]["figures"]["frechet"]["mean"] == pytest.approx(distance, rel=1e-3)
    assert main(["evaluate", "--compare", str(out), "--json"]) == 0
    assert evaluate(data, "--model", "mixture", "-o", out) == 3  # without the encoder it is another evaluation


def test_hsm_figures_are_those_of_the_metrics(tmp_path, written):
    data = layouts.music(tmp_path / "music")
    assert evaluate(data, "--model", "mixture", "--count", 2, "-o", tmp_path / "o", protocol="hsm-music") == 0
    first = lines(tmp_path / "o")[0]
    from flowsep.evaluation.spectral import log_spectral_distance, mel_psnr

    waves = read_items("hsm-music", data, Draw(count=2)).items[0].source.render(16000)
    pair = [torch.from_numpy(audio)[None] for audio in (waves.mixture, waves.target)]
    assert first["lsd"] == pytest.approx(log_spectral_distance(*pair, 16000).item())
    assert first["mel_psnr"] == pytest.approx(mel_psnr(*pair).item())
    assert first["lsd_audioldm"] != first["lsd"]


def test_a_perfect_score_without_a_number_is_no_figure(tmp_path):
    data = layouts.music(tmp_path / "music")
    words = ["mix", "hsm-music", str(tmp_path / "w"), "--data", str(data), "--count", "2", "--targets", "-q"]
    assert main(words) == 0
    out = tmp_path / "o"
    words = ["--estimates", tmp_path / "w" / "targets", "--count", 2, "-o", out]
    assert evaluate(data, *words, protocol="hsm-music") == 0
    assert {row["mel_psnr"] for row in lines(out)} == {None}  # of equal pictures it is infinite
    assert "mel PSNR" not in (out / "summary.md").read_text()


def test_the_oracle_works_at_32_khz(tmp_path, capsys):
    data = layouts.audiosep(tmp_path / "evaluation", "esc50")
    assert evaluate(data, "--model", "oracle,mixture", "--by", "class", protocol="audiosep-esc50") == 0
    text = capsys.readouterr().out
    assert text.index("| oracle |") < text.index("| mixture |") and "| tuba, loud | 2 |" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nonsense", "--data", "."], 2, "unknown protocol 'nonsense'; choose from own"),
        (["own"], 2, "--data is missing"),
        (["own", "hsm-music", "--data", "."], 2, "one protocol at a time"),
        (["--data", "."], 2, "name a protocol, or give a list of mixtures by --recipe"),
        (["own", "--data", ".", "--by", "size"], 2, "unknown grouping 'size'; choose from class, snr"),
        (["own", "--data", ".", "--solver", "magic"], 2, "unknown solver 'magic'"),
        (["own", "--data", ".", "--model", "mixture,mixture"], 2, "'mixture' is named twice"),
        (["own", "--data", ".", "--model", "no-such"], 4, "unknown model 'no-such'"),
        (["own", "--data", ".", "--estimates", "x="], 2, "names no folder; write NAME=DIR"),
        (["--data", ".", "--recipe", "r.csv", "--by", "snr"], 2, "--by needs a protocol"),
        (["--data", ".", "--recipe", "r.csv", "--count", "3"], 2, "--count needs a protocol"),
        (["own", "--data", ".", "--encoder", "magic"], 2, "unknown encoder 'magic'; write clap:FOLDER"),
        (["own", "--data", ".", "--encoder", "clap:no/such/clap"], 4, "the CLAP no/such/clap cannot be had"),
        (["--compare", "a", "--model", "small"], 2, "--compare measures nothing"),
    ],
)
def test_words_that_do_not_go_together_are_one_line(tmp_path, monkeypatch, capsys, words, code, message):
    write_clips(tmp_path, 1.6)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *words]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
