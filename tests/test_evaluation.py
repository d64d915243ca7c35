import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowsep.cli import main
from flowsep.data.manifest import read_manifest
from flowsep.data.mixing import energy
from flowsep.errors import InputError
from flowsep.evaluation.complete import complete_lines, complete_report, word_figures
from flowsep.evaluation.oracle import ClassSpectra, oracle_lines, oracle_recipe, oracle_row
from flowsep.evaluation.recipe import MixtureRow, draw_recipe, read_recipe, render_row, write_recipe
from flowsep.evaluation.run import ask, captions_of, evaluate_recipe, evaluate_row, other_queries, summary_lines
from flowsep.evaluation.signal import si_sdr
from flowsep.heard import normalise
from flowsep.protocol import SampleOptions, Separation
from flowsep.training.chain import clips_hash
from tests.fakes import FakeSeparator
from tests.tiny import MIXTURE, tiny_separator, write_clips
from tests.tiny_masks import tiny_masker
from vocoder.mel import MelConfig, log_mel


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_clips(tmp_path_factory.mktemp("data"), seconds=2.0)
    rows = [f"{label}/{n}.wav,{label},{label},the {label}" for label in ("low_hum", "hiss", "clicks") for n in range(3)]
    (folder / "manifest.csv").write_text("path,class,family,caption_candidates\n" + "\n".join(rows) + "\n")
    return folder


ROW = MixtureRow("t0", "low_hum/0.wav", "hiss/0.wav", 0.5, 0.0, 3.0, "the low_hum", "low_hum", "hiss", 3.0)


def test_a_row_is_mixed_by_its_rule(data):
    mixture, target, other = render_row(ROW, data)
    assert mixture.shape == (48000,) and not target[:8000].any() and target[8000:40000].any()
    assert 10 * np.log10(energy(target) / energy(other)) == pytest.approx(3.0, abs=1e-3)
    np.testing.assert_allclose(mixture, target + other, atol=1e-6)
    assert max(np.abs(part).max() for part in (mixture, target, other)) <= 0.95 + 1e-6


def test_a_drawn_recipe_is_the_same_for_a_seed_and_keeps_its_promises(data, tmp_path):
    clips = read_manifest(data)
    rows = draw_recipe(clips, data, 12, seed=1)
    assert rows == draw_recipe(clips, data, 12, seed=1) != draw_recipe(clips, data, 12, seed=2)
    assert all(row.target_class != row.interferer_class and -5 <= row.snr_db <= 5 for row in rows)
    assert {row.target_class for row in rows[:3]} == {"low_hum", "hiss", "clicks"}
    write_recipe(tmp_path / "new" / "recipe.csv", rows)
    assert read_recipe(tmp_path / "new" / "recipe.csv") == rows


def test_a_recipe_may_be_drawn_for_some_targets_only(data, tmp_path, capsys):
    rows = draw_recipe(read_manifest(data), data, 6, seed=1, targets=["hiss"])
    assert {row.target_class for row in rows} == {"hiss"} and len({row.interferer_class for row in rows}) == 2
    assert main(["recipe", str(data), str(tmp_path / "r.csv"), "--split", "train", "--target", "wolf"]) == 2
    assert "no clip of 1.5 s or more is a wolf" in capsys.readouterr().err


class Oracle(FakeSeparator):
    """Gives back the target for its own caption, and the rest of the mixture for any other."""

    def __init__(self, target):
        super().__init__(window=10**6)
        self.target = torch.from_numpy(target)[None]

    def separate(self, mixture, texts, options=None):
        out = self.target if texts == ["the low_hum"] else mixture - self.target
        return Separation(
            out, mixture - out, 1, {"all": 0.5}, {"steps": 1, "solver": "euler", "render": "mixture", "seed": 0}
        )


def test_evaluation_rewards_the_right_sound_and_shows_the_wrong_one(data):
    _, target, _ = render_row(ROW, data)
    report = evaluate_recipe(Oracle(target), [ROW], data, SampleOptions(), model="oracle", recipe="one")
    assert report["si_sdri"]["mean"] > 80 and report["si_sdri_wrong_query"]["mean"] < -10
    assert report["items"][0]["wrong_query"] == "the hiss" and report["improved_by_1_db"]["mean"] == 1
    assert report["log_mel_l1_ratio"]["mean"] == pytest.approx(0, abs=1e-3) and report["nfe"] == 1
    text = "\n".join(summary_lines(report))
    assert (
        "SI-SDR improvement" in text
        and "log-mel L1, one mean over the other" in text
        and "oracle on one: 1 mixtures" in text
    )


def test_evaluation_asks_for_an_absent_sound_and_in_a_wording_never_trained_on(data):
    _, target, _ = render_row(ROW, data)
    clips = captions_of(data)
    unseen = {"low_hum": ("a drone", "some humming")}
    queries = other_queries(ROW, clips, unseen)
    assert queries["absent_query"] == "the clicks" and queries["wrong_query"] == "the hiss"
    assert queries["unseen_query"] in unseen["low_hum"] and queries == other_queries(ROW, clips, unseen)
    assert set(other_queries(ROW, {}, {})) == {"wrong_query"}
    half = {path: clip for path, clip in clips.items() if path != ROW.interferer_path}  # it may be what is asked for
    assert set(other_queries(ROW, half, {})) == {"wrong_query"}
    item = evaluate_row(Oracle(target), ROW, data, clips, SampleOptions(), unseen)
    assert item["unseen_wording_loss"] > 80 and item["absent_level_db"] < 0  # the oracle knows one wording only


def test_a_manifest_may_name_clips_by_their_whole_path(data, tmp_path):
    rows = [f"{clip.path},{clip.label}" for clip in read_manifest(data)]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,class", *rows]))
    drawn = draw_recipe(read_manifest(tmp_path), tmp_path, 3, seed=1, length_s=2.0)
    write_recipe(tmp_path / "recipe.csv", drawn)
    row = read_recipe(tmp_path / "recipe.csv")[0]
    assert {row.target_path, row.interferer_path} <= captions_of(tmp_path).keys()
    assert render_row(row, tmp_path)[0].any() and len(clips_hash(tmp_path)) == 64


def test_oracles_are_ordered_and_exact_where_bands_do_not_overlap(data):
    low_and_high = replace(ROW, interferer_path="high_whistle/0.wav", interferer_class="high_whistle")
    report = oracle_recipe([ROW, low_and_high], data, "two")
    ceiling, streams = report["stft_mask"]["mean"], report["mel_mask_two_streams"]["mean"]
    assert ceiling > streams > report["class_spectra"]["mean"] > 0
    assert report["items"][1]["mel_mask_two_streams"] > 30 and report["hard"] == []
    assert report["hard_classes"] == [] and report["si_sdr_mixture"]["mean"] == pytest.approx(ROW.snr_db, abs=0.3)
    assert "floor: the mixture itself" in "\n".join(oracle_lines(report))


def test_an_oracle_names_the_mixtures_and_classes_where_it_fails_too(data, monkeypatch):
    easy = replace(ROW, id="easy", interferer_path="high_whistle/0.wav", interferer_class="high_whistle")
    monkeypatch.setattr("flowsep.evaluation.oracle.HARD_DB", 30.0)
    assert oracle_recipe([ROW, easy], data, "two")["hard"] == ["t0"]
    text = "\n".join(oracle_lines(oracle_recipe([ROW], data, "one")))
    assert "less than 30 dB: t0 (low_hum)" in text and "classes, likewise: low_hum" in text


class Wordy(Oracle):
    """Gives the target for its caption and one wording, the mixture for another, next to nothing for other words."""

    def separate(self, mixture, texts, options=None):
        heard = mixture[:1]
        answers = {"the low_hum": self.target, "a drone": self.target, "some humming": 0.5 * heard}
        out = torch.cat([answers.get(text, 1e-3 * heard) for text in texts])
        return Separation(out, mixture - out, 1, {"all": 0.5}, {}, presence=torch.linspace(0, 1, len(texts)))


def test_all_held_out_wordings_and_an_unknown_word_are_asked_for(data):
    mixture, target, _ = (torch.from_numpy(audio) for audio in render_row(ROW, data))
    separator = Wordy(target.numpy())
    found = word_figures(separator, ROW, mixture, target, SampleOptions(), ("a drone", "some humming"))
    known = ask(separator, mixture, ["the low_hum"], SampleOptions())[0]
    lost = si_sdr(known[0], target) - si_sdr(0.5 * mixture, target)
    assert found["unseen_wordings_loss"] == pytest.approx(lost.item() / 2, rel=1e-3)  # of two wordings one is right
    assert found["unknown_level_db"] == pytest.approx(-60, abs=0.1) and found["unknown_presence"] == 1
    assert "unseen_wordings_loss" not in word_figures(separator, ROW, mixture, target, SampleOptions(), ())


class OffBy(torch.nn.Module):
    """A codec whose every value comes back 0.1 too high."""

    def encode(self, mel):
        return mel

    def decode(self, latent):
        return latent + 0.1


def test_a_models_codec_and_vocoder_are_measured_on_true_mels(data):
    separator = tiny_separator()
    found = oracle_row(ROW, data, ClassSpectra([]), separator)
    assert "codec_mask" not in found and found["vocoder_mel_l1_ratio"] > 0  # patches lose nothing
    separator.codec = OffBy()
    separator.vocoder.audio = lambda mel, length: heard_target(ROW, data)
    found = oracle_row(ROW, data, ClassSpectra([]), separator)
    assert found["codec_error_db"] == pytest.approx(0.8686, abs=1e-3)
    assert found["codec_mask"] == pytest.approx(found["mel_mask_two_streams"], abs=0.3)  # both streams err alike
    assert found["vocoder_mel_l1_ratio"] == pytest.approx(0, abs=0.02)
    separator.vocoder = None
    assert "vocoder_mel_l1_ratio" not in oracle_row(ROW, data, ClassSpectra([]), separator)


def heard_target(row, data):
    """What a perfect vocoder makes of the target: (1, T) at the level that the network hears."""
    mixture, target, _ = (torch.from_numpy(audio) for audio in render_row(row, data))
    _, mean, gain = normalise(mixture[None])
    return (target - mean) * gain


def test_oracle_of_a_model_without_parts_is_refused(data, tmp_path, capsys):
    write_recipe(tmp_path / "one.csv", [ROW])
    command = ["evaluate", "--recipe", str(tmp_path / "one.csv"), "--data", str(data), "--oracle"]
    tiny_separator().save_pretrained(tmp_path / "m")
    assert main([*command, "--model", str(tmp_path / "m")]) == 0
    assert "true mel vocoded" in capsys.readouterr().out
    assert main(command) == 0
    assert "vocoded" not in capsys.readouterr().out
    tiny_masker("clap").save_pretrained(tmp_path / "mask")
    assert main([*command, "--model", str(tmp_path / "mask")]) == 2
    assert "no codec and no vocoder" in capsys.readouterr().err


def test_doing_nothing_improves_nothing(data):
    report = evaluate_recipe(FakeSeparator(window=10**6), [ROW], data, SampleOptions(), model="copy", recipe="one")
    assert report["si_sdri"]["mean"] == pytest.approx(0, abs=1e-6)
    assert report["log_mel_l1_ratio"]["mean"] == pytest.approx(1, abs=1e-4)


def test_log_mel_errors_are_in_db_and_their_means_are_compared_too(data):
    rows = [ROW, replace(ROW, id="soft", snr_db=20.0)]
    report = evaluate_recipe(FakeSeparator(window=10**6), rows, data, SampleOptions(), model="copy", recipe="two")
    mixture, target, _ = (torch.from_numpy(audio) for audio in render_row(ROW, data))
    expected = 20 / math.log(10) * (log_mel(mixture, MelConfig()) - log_mel(target, MelConfig())).abs().mean().item()
    assert report["items"][0]["log_mel_l1_db"] == pytest.approx(expected, rel=1e-4)
    means = [sum(item[name] for item in report["items"]) for name in ("log_mel_l1_db", "log_mel_l1_mixture_db")]
    assert report["log_mel_l1_ratio_of_means"] == pytest.approx(means[0] / means[1])


@pytest.mark.parametrize(("change", "message"), [({"target_path": "no.wav"}, "no.wav"), ({}, "no rows")])
def test_unusable_recipes_say_why(data, change, message):
    rows = [replace(ROW, **change)] if change else []
    with pytest.raises(InputError, match=message):
        evaluate_recipe(FakeSeparator(window=10**6), rows, data, SampleOptions(), model="copy", recipe="one")


@pytest.mark.parametrize(
    ("text", "message"), [("id,query\n1,a\n", "lacks the column target_path"), ("", "lists no mixtures")]
)
def test_unreadable_recipes_say_what_is_missing(tmp_path, text, message):
    (tmp_path / "recipe.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "recipe.csv")


def test_evaluate_and_recipe_commands_run_end_to_end(data, tmp_path, capsys):
    tiny_separator(replace(MIXTURE, sampling=replace(MIXTURE.sampling, window_frames=512))).save_pretrained(
        tmp_path / "m"
    )
    recipe = tmp_path / "recipe.csv"
    assert main(["recipe", str(data), str(recipe), "--split", "train", "--count", "2"]) == 0
    assert main(["recipe", str(data), str(recipe), "--split", "train", "--count", "2"]) == 3
    report = tmp_path / "out" / "report.json"
    command = ["evaluate", "--recipe", str(recipe), "--data", str(data), "--model", str(tmp_path / "m"), "-q"]
    capsys.readouterr()
    assert main([*command, "-o", str(report)]) == 0
    assert "2 mixtures, mixture rendering, 1 steps (euler), 1 NFE" in capsys.readouterr().out
    assert len(json.loads(report.read_text())["items"]) == 2
    assert main([*command, "-o", str(report)]) == 3 and "--overwrite" in capsys.readouterr().err
    assert main([*command, "-o", str(report), "--overwrite"]) == 0
    assert main([*command[:2], str(tmp_path / "none.csv"), *command[3:]]) == 3


def test_the_validation_list_is_readable_and_has_two_hundred_mixtures():
    from flowsep.data.manifest import PHRASINGS

    rows = read_recipe(PHRASINGS.with_name("mixtures_valid.csv"))
    assert len(rows) == 200 and len({row.target_class for row in rows}) > 140


SHORT = replace(ROW, target_offset_s=0.0, length_s=1.0)  # no longer than the tiny models' windows


def test_a_complete_evaluation_has_steps_vocoder_time_and_size(data):
    separator = tiny_separator()
    rows = [SHORT, replace(SHORT, id="t1", snr_db=-2.0)]
    report = complete_report(separator, rows, data, SampleOptions(), "small")
    for steps in (1, 10):
        options = SampleOptions(steps=steps)
        alone = evaluate_recipe(separator, rows, data, options, "m", "r")["si_sdri"]["mean"]
        assert report["steps"][str(steps)]["mean"] == pytest.approx(alone, abs=1e-4)
    means = {steps: figure["mean"] for steps, figure in report["steps"].items()}
    best = str(report["best_of_few"]["steps"])
    assert means[best] == max(means[few] for few in ("1", "2", "4"))
    assert report["best_of_few"]["mean"] == pytest.approx(means[best] - means["10"], abs=1e-6)
    vocoded = evaluate_recipe(separator, rows, data, SampleOptions(render="vocoder"), "m", "r")
    assert report["vocoder"]["log_mel_l1_ratio"] == vocoded["log_mel_l1_ratio"]
    assert report["seconds_per_10_s"] > 0 and 0 < report["weights_mb"] < report["shipped_mb"] <= 24
    assert set(report["words"]) == {"unknown_level_db"}  # of low_hum the project has no wordings; no presence score
    text = "\n".join(complete_lines(report))
    assert "level for a word never trained on" in text
    assert "SI-SDR improvement at 4 steps" in text and "over the mixture, of the means" in text and "10 s" in text


def test_a_complete_evaluation_leaves_out_what_a_model_does_not_have(data):
    separator = tiny_separator()
    separator.vocoder = None
    assert "vocoder" not in complete_report(separator, [SHORT], data, SampleOptions(), "small")
    report = complete_report(tiny_masker(), [SHORT], data, SampleOptions(), "small")
    assert "steps" not in report and "vocoder" not in report and report["seconds_per_10_s"] > 0
    assert "steps" not in "\n".join(complete_lines(report))


@pytest.mark.parametrize(
    "words", [["--steps", "2"], ["--oracle"], ["--render", "vocoder"], ["--model", "small,mixture"]]
)
def test_a_complete_evaluation_refuses_what_it_varies_itself(words, data, tmp_path, capsys):
    write_recipe(tmp_path / "recipe.csv", [ROW])
    asked = ["evaluate", "--data", str(data), "--recipe", str(tmp_path / "recipe.csv"), "--complete", *words]
    assert main(asked) == 2
    assert "--complete" in capsys.readouterr().err


def test_the_command_prints_the_complete_table(data, tmp_path, capsys):
    write_recipe(tmp_path / "recipe.csv", [ROW])
    asked = ["evaluate", "--data", str(data), "--recipe", str(tmp_path / "recipe.csv"), "--complete", "-q"]
    assert main([*asked, "-o", str(tmp_path / "out.json")]) == 0
    assert "all weights that ship" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["complete"]["steps"]["10"]["mean"]
