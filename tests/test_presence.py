"""The presence score: its features, its fit, and where it appears."""

from pathlib import Path

import pytest
import torch

from flowsep.checkpoint import load_separator
from flowsep.cli import main
from flowsep.evaluation.recipe import VALID
from flowsep.longform import separate_audio
from flowsep.presence import PresenceConfig, area_under_curve, fit_presence, presence_features, probability
from flowsep.protocol import SampleOptions
from flowsep.training.export import ExportNotice, export_model
from tests.tiny import tiny_separator


def test_features_are_the_share_of_energy_let_through_overall_and_where_it_is_largest():
    mel = torch.zeros(1, 200, 64)
    mask = torch.zeros(1, 200, 64)
    mask[:, 50:100] = 0.5  # a quarter of the energy for a quarter of the time
    overall, peak = presence_features(mask, mel)[0].tolist()
    assert overall == pytest.approx(10 * torch.tensor(1 / 16).log10().item(), abs=1e-4)
    assert peak == pytest.approx(10 * torch.tensor(1 / 4).log10().item(), abs=1e-4)


def test_segments_that_are_nearly_silent_do_not_count():
    mel = torch.zeros(1, 200, 64)
    mel[:, 100:] = -5.0  # 43 dB down
    mask = torch.full((1, 200, 64), 0.1)
    mask[:, 100:] = 1.0
    assert presence_features(mask, mel)[0, 1].item() == pytest.approx(-20.0, abs=0.05)
    assert presence_features(torch.zeros(1, 3, 64), mel[:, :3])[0].tolist() == pytest.approx([-60.0, -60.0])


def test_the_fit_recovers_a_logistic_function():
    torch.manual_seed(0)
    truth = PresenceConfig(overall=0.1, peak=0.2, bias=3.0)
    features = -30 * torch.rand(20000, 2)
    there = torch.rand(20000) < probability(features, truth)
    found = fit_presence(features, there, ridge=0.0)
    assert found.overall == pytest.approx(0.1, abs=0.02) and found.peak == pytest.approx(0.2, abs=0.02)
    assert found.bias == pytest.approx(3.0, abs=0.3)


def test_area_under_the_curve_counts_pairs_in_order():
    assert area_under_curve([0.9, 0.2, 0.5, 0.2], [True, True, False, False]) == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_a_calibrated_model_keeps_its_score_and_gives_one_probability_per_query(tmp_path):
    separator = tiny_separator()
    sound = 0.1 * torch.randn(1, 40000)
    assert separate_audio(separator, sound, 16000, ["rain"])[0].presence is None
    separator.presence = PresenceConfig(0.1, 0.1, 2.0)
    separator.save_pretrained(tmp_path / "model")
    loaded = load_separator(tmp_path / "model", "cpu")
    assert loaded.presence == separator.presence
    found = separate_audio(loaded, sound, 16000, ["rain", "a dog barking"], SampleOptions(steps=1))
    assert all(0 < one.presence < 1 for one in found)
    sure = PresenceConfig(0.0, 0.0, 50.0)
    loaded.presence = sure
    assert separate_audio(loaded, sound, 16000, ["rain"])[0].presence == pytest.approx(1.0)


def test_the_score_of_a_window_is_that_of_its_mask_without_the_padding():
    separator = tiny_separator()
    separator.presence = PresenceConfig(0.3, 0.1, 1.0)
    sound = 0.1 * torch.randn(1, 3000)
    found = separator.separate(sound, ["rain"], SampleOptions(steps=1))
    from flowsep.evaluation.calibrate import features_of

    features = features_of(separator, sound, ["rain"], SampleOptions(steps=1))
    torch.testing.assert_close(found.presence, probability(features, separator.presence))


def test_a_score_that_was_fitted_to_another_mask_is_not_handed_on(tmp_path):
    separator = tiny_separator()
    separator.presence = PresenceConfig(0.1, 0.1, 2.0)
    separator.save_pretrained(tmp_path / "model")
    with pytest.warns(ExportNotice, match="fitted to the mask exponent 1 and is left out; `flowsep calibrate`"):
        export_model(tmp_path / "model", tmp_path / "other", exponent=0.5)
    assert load_separator(tmp_path / "other", "cpu").presence is None
    export_model(tmp_path / "model", tmp_path / "same", exponent=1.0)
    assert load_separator(tmp_path / "same", "cpu").presence == separator.presence


def test_calibrate_says_what_it_needs(tmp_path, capfd):
    assert main(["calibrate", "small", "--recipe", "none.csv", "--data", str(tmp_path)]) == 2
    assert "is no model folder" in capfd.readouterr().err


def test_calibrate_fits_the_folder_that_it_is_given_though_a_shipped_model_has_its_name(tmp_path, monkeypatch):
    from flowsep.evaluation import calibrate

    monkeypatch.chdir(tmp_path)
    tiny_separator().save_pretrained(tmp_path / "small")
    fitted = []

    def fit(separator, *_):
        fitted.append(separator)
        return PresenceConfig(0.3, 0.1, 1.0), {}

    monkeypatch.setattr(calibrate, "calibrate", fit)
    calibrate.calibrate_folder(Path("small"), VALID, tmp_path)
    shapes = [list(one.unet.config.block_out_channels) for one in (fitted[0], tiny_separator())]
    assert shapes[0] == shapes[1]
