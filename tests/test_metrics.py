"""Metrics against golden values of the public scripts and against closed forms."""

from __future__ import annotations

import importlib.util
import json
import math

import numpy as np
import pytest
import torch

from flowsep.errors import ModelError, UsageError
from flowsep.evaluation.encoders import ClapEncoder
from flowsep.evaluation.semantic import (
    Score,
    afsim,
    clap_score,
    clap_score_audio,
    for_encoder,
    frechet_distance,
    frechet_score,
    inception_score,
    kl_divergence,
    retrieval_recall,
    state_similarity,
)
from flowsep.evaluation.signal import improvement, sdr, segment_sdr, si_sdr, snr
from flowsep.evaluation.spectral import (
    log_mel_l1,
    log_spectral_distance,
    log_spectral_distance_audioldm,
    mel_image,
    mel_psnr,
    mel_ssim,
)
from flowsep.evaluation.speech import package, pesq, stoi
from tests.official_files import REFERENCE
from tests.tiny_masks import CLAP, ROBERTA_TOKENS, tokenizer

GOLDEN = json.loads((REFERENCE / "audiosep" / "metrics_golden.json").read_text())
DECIBEL, RELATIVE = {"abs": 1e-3}, {"rel": 1e-4}


@pytest.fixture(scope="module")
def arrays():
    with np.load(REFERENCE / "audiosep" / "metrics_golden.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def sounds(arrays, snr_db: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Estimate, mixture and reference of the README's rule, float32."""
    ref, noise, err = (arrays[f"{name}_int16"].float() / 32768 for name in ("ref", "noise", "err"))
    noise = noise * torch.sqrt(ref.square().mean() / 10 ** (snr_db / 10) / noise.square().mean())
    mix = ref + noise
    if mix.abs().max() > 1:
        gain = 0.9 / mix.abs().max()
        ref, mix = ref * gain, mix * gain
    return 0.8 * ref + 0.1 * (mix - ref) + err, mix, ref


# --- signal


@pytest.mark.parametrize("snr_db", [-15, 0, 7])
def test_sdr_and_si_sdr_equal_the_public_scripts(arrays, snr_db):
    estimate, mixture, reference = sounds(arrays, snr_db)
    golden = GOLDEN[f"dcase_snr_{snr_db}"]
    assert sdr(estimate, reference).item() == pytest.approx(golden["sdr"], **DECIBEL)
    assert sdr(mixture, reference).item() == pytest.approx(golden["sdr_mixture"], **DECIBEL)
    assert improvement(sdr, estimate, mixture, reference).item() == pytest.approx(golden["sdri"], **DECIBEL)
    assert si_sdr(estimate, reference).item() == pytest.approx(golden["sisdr"], **DECIBEL)
    assert si_sdr(mixture, reference).item() == pytest.approx(golden["sisdr_mixture"], **DECIBEL)


def test_segment_sdr_equals_the_public_script(arrays):
    estimate, _, reference = sounds(arrays, 0)
    assert segment_sdr(estimate, reference, 16000).item() == pytest.approx(
        GOLDEN["segmentwise_sdr_1s_median"], **DECIBEL
    )


def test_segment_sdr_is_the_median_and_passes_over_what_is_shorter_than_a_segment():
    reference = torch.ones(1, 401)
    gains = torch.cat([torch.full((100,), g) for g in (1.1, 1.01, 1.001, 2.0)] + [torch.tensor([50.0])])
    found = segment_sdr(gains * reference, reference, 100)
    torch.testing.assert_close(found, torch.tensor([30.0]).double(), atol=0.01, rtol=0)  # of 20, 40, 60 and 0
    assert segment_sdr(1.1 * reference, reference, 1000).item() == pytest.approx(20, abs=1e-3)


def test_snr_takes_the_means_off_and_its_improvement_is_a_difference():
    reference, error = torch.randn(3, 1000), 0.1 * torch.randn(3, 1000)
    error -= error.mean(-1, keepdim=True)
    centred = reference - reference.mean(-1, keepdim=True)
    expected = 10 * torch.log10(centred.double().square().sum(-1) / error.double().square().sum(-1))
    torch.testing.assert_close(snr(reference + error + 5.0, reference - 3.0), expected, atol=1e-3, rtol=0)
    gained = improvement(snr, reference + error, reference + 10 * error, reference)
    torch.testing.assert_close(gained, torch.full((3,), 20.0).double(), atol=1e-3, rtol=0)


# --- spectra


def test_log_spectral_distance_equals_both_public_scripts(arrays):
    estimate, mixture, reference = (x[None] for x in sounds(arrays, 0))
    for name, sound in (("est", estimate), ("mix", mixture)):
        plain = log_spectral_distance(sound, reference, 16000).item()
        assert plain == pytest.approx(GOLDEN[f"lsd_plain_{name}_vs_ref"], **RELATIVE)
        for offset in (0, 1120):
            found = log_spectral_distance_audioldm(sound, reference, 16000, offset).item()
            golden = GOLDEN[f"lsd_audioldm_eval_offset{offset}_{name}_vs_ref"]
            assert found == pytest.approx(golden, rel=5e-4)  # the clip holds silence: rounding noise counts


def test_log_spectral_distance_of_a_gain_is_its_logarithm():
    sound = torch.randn(2, 16000)
    found = log_spectral_distance(10 * sound, sound, 16000)
    torch.testing.assert_close(found, torch.full((2,), 2.0).double(), atol=1e-5, rtol=0)


def test_silent_frames_of_the_reference_may_be_left_out():
    sound = torch.randn(1, 16000)
    padded = torch.cat([sound, torch.zeros(1, 16000)], 1)
    wrong = padded + torch.cat([torch.zeros(1, 17000), 0.1 * torch.randn(1, 15000)], 1)
    assert log_spectral_distance(wrong, padded, 16000).item() > 5
    assert log_spectral_distance(wrong, padded, 16000, skip_silence=True).item() < 0.1


def test_mel_pictures_equal_the_public_script(arrays):
    estimate, _, reference = (x[None] for x in sounds(arrays, 0))
    picture = mel_image(reference)
    assert picture.mean().item() == pytest.approx(GOLDEN["mel_mean_ref"], **RELATIVE)
    assert mel_psnr(estimate, reference).item() == pytest.approx(GOLDEN["mel_psnr_est_vs_ref"], **DECIBEL)
    assert mel_ssim(estimate, reference).item() == pytest.approx(GOLDEN["mel_ssim_est_vs_ref"], **RELATIVE)


def test_equal_sounds_are_equal_by_every_measure():
    sound = 0.1 * torch.randn(2, 16000)
    torch.testing.assert_close(mel_ssim(sound, sound), torch.ones(2).double())
    assert mel_psnr(sound, sound).tolist() == [math.inf] * 2
    assert log_mel_l1(sound, sound).tolist() == [0.0, 0.0]
    torch.testing.assert_close(log_mel_l1(2 * sound, sound), torch.full((2,), math.log(2)), atol=1e-4, rtol=0)


# --- speech


def test_a_package_that_is_not_there_is_named():
    with pytest.raises(ModelError, match=r"needs the package no_such_thing; pip install 'flowsep-toolkit\[speech\]'"):
        package("no_such_thing")


@pytest.mark.skipif(importlib.util.find_spec("pystoi") is None, reason="pystoi is not installed")
def test_stoi_is_one_for_the_truth_and_falls_with_noise(arrays):
    _, mixture, reference = sounds(arrays, 0)
    found = stoi(torch.stack([reference, mixture]), torch.stack([reference, reference]), 16000)
    assert found[0] == pytest.approx(1.0, abs=1e-6) and found[1] < 0.95


@pytest.mark.skipif(importlib.util.find_spec("pesq") is None, reason="pesq is not installed")
def test_pesq_is_at_its_top_for_the_truth_and_falls_with_noise(arrays):
    _, mixture, reference = sounds(arrays, 0)
    found = pesq(torch.stack([reference, mixture]), torch.stack([reference, reference]), 16000)
    assert found[0] == pytest.approx(4.64, abs=0.02) and found[1] < found[0] - 0.5
    with pytest.raises(UsageError, match="resample first"):
        pesq(mixture[None], reference[None], 44100)


# --- semantic


def test_frechet_distance_equals_the_golden_value_and_the_closed_form(arrays):
    found = frechet_distance(arrays["feat_a"], arrays["feat_b"])
    assert found == pytest.approx(GOLDEN["frechet_distance"], **RELATIVE)
    assert frechet_distance(arrays["feat_b"], arrays["feat_a"]) == pytest.approx(found, rel=1e-9)
    # Diagonal covariances: |m|^2 + sum (s_a - s_b)^2. Rows +-s sqrt((N - 1) / N) have exactly that covariance.
    scale = math.sqrt((4 - 1) / 2)
    corners = scale * torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    a, b = corners * torch.tensor([1.0, 2.0]), corners * torch.tensor([3.0, 0.5]) + torch.tensor([1.0, -2.0])
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + (1 - 3) ** 2 + (2 - 0.5) ** 2, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    with pytest.raises(UsageError, match="at least two"):
        frechet_distance(a[:1], b)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_kl_equals_the_public_script_and_is_zero_for_equal_logits(arrays, activation):
    estimate, reference = arrays["logits_est"], arrays["logits_ref"]
    found = kl_divergence(estimate, reference, activation)
    assert found.shape == (40,)
    assert found.mean().item() == pytest.approx(GOLDEN[f"kullback_leibler_divergence_{activation}"], **RELATIVE)
    assert kl_divergence(reference, reference).abs().max() < 1e-3
    two = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kl_divergence(*two).item() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UsageError, match="softmax or sigmoid"):
        kl_divergence(*two, "tanh")


def test_the_inception_score_equals_the_public_script(arrays):
    found = inception_score(arrays["logits_est"])
    assert found == pytest.approx((GOLDEN["inception_score_mean"], GOLDEN["inception_score_std"]), **RELATIVE)


def test_retrieval_recall_counts_captions_whose_clip_is_near():
    sounds_ = torch.eye(3)
    texts = torch.tensor([[1.0, 0.2, 0.0], [0.9, 1.0, 0.0], [1.0, 0.5, 0.1], [0.0, 0.0, 2.0]])
    owners = [0, 0, 2, 2]
    assert [retrieval_recall(texts, sounds_, owners, k) for k in (1, 2, 3)] == [0.5, 0.75, 1.0]
    with pytest.raises(UsageError, match="as many owners"):
        retrieval_recall(texts, sounds_, [0], 1)


class Levels:
    """A text-audio encoder of two dimensions: what a text says of loudness, and how loud a sound is."""

    name, score_name, sample_rate = "levels-2d", "proxy", 8000

    def __init__(self):
        self.heard = []

    def text(self, texts):
        return torch.nn.functional.normalize(torch.tensor([[1.0, float("loud" in text)] for text in texts]), dim=-1)

    def audio(self, audio):
        self.heard.append(audio.shape[-1])
        return torch.nn.functional.normalize(torch.stack([torch.ones(len(audio)), audio.abs().amax(-1)], 1), dim=-1)

    def frames(self, audio):
        return audio.unfold(0, 1000, 1000)[:, :2]


def test_scores_name_their_encoder_and_are_cosines():
    encoder, audio = Levels(), torch.ones(2, 16000)
    score = clap_score(encoder, ["loud", "quiet"], audio, 16000)
    assert (score.metric, score.encoder) == ("proxy", "levels-2d") and "levels-2d" in str(score)
    torch.testing.assert_close(score.values, torch.tensor([1.0, 1 / math.sqrt(2)]), atol=0.04, rtol=0)
    assert encoder.heard == [8000]
    same = clap_score_audio(encoder, audio, audio, 16000)
    assert same.metric == "proxy_A" and same.mean == pytest.approx(1)


def test_legacy_rate_plays_at_double_speed():
    encoder, audio = Levels(), torch.ones(1, 32000)
    score = clap_score(encoder, ["loud"], audio, 32000, legacy_rate=True)
    assert score.metric == "proxy (legacy rate)" and encoder.heard == [4000]  # 1 s as half a second at 8 kHz
    assert for_encoder(audio, 32000, 48000, False).shape == (1, 48000)


def test_frechet_score_pools_the_pieces_of_all_sounds():
    encoder = Levels()
    estimates, references = [torch.randn(32000) for _ in range(3)], [torch.randn(16000) for _ in range(4)]
    score = frechet_score(encoder, estimates, references, 8000)
    pooled = [torch.cat([encoder.frames(x) for x in sounds_]) for sounds_ in (estimates, references)]
    assert score.mean == pytest.approx(frechet_distance(*pooled), rel=1e-5) and score.encoder == "levels-2d"


def test_afsim_is_the_cosine_of_mean_states():
    a, b = torch.tensor([[2.0, 0], [0, 2]]), torch.tensor([[1.0, 0]])
    assert state_similarity(a, b).item() == pytest.approx(1 / math.sqrt(2))
    score = afsim(lambda x: x[None], "identity", [a[0], b[0]], [b[0], b[0]])
    assert score.values.tolist() == [1.0, 1.0] and score.encoder == "identity"


def test_clap_scores_run_on_a_tiny_random_clap():
    from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel, ClapTextConfig

    torch.manual_seed(0)
    audio = ClapAudioConfig(
        spec_size=256, num_mel_bins=64, patch_embeds_hidden_size=8, hidden_size=16, projection_dim=12,
        depths=[1, 1], num_attention_heads=[2, 2], num_hidden_layers=2, window_size=4, patch_size=4, patch_stride=4,
    )  # fmt: skip
    model = ClapModel(
        ClapConfig(text_config=ClapTextConfig(**CLAP).to_dict(), audio_config=audio.to_dict(), projection_dim=12)
    )
    extractor = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    encoder = ClapEncoder(model, tokenizer(ROBERTA_TOKENS), extractor, "tiny random CLAP")
    sound = 0.1 * torch.randn(2, 16000 * 11)
    again, once = (clap_score(encoder, ["a dog", "rain"], sound, 16000) for _ in range(2))
    assert torch.equal(again.values, once.values)  # longer than CLAP hears, and still not random
    assert again.metric == "CLAPScore" and again.values.shape == (2,) and again.values.abs().max() <= 1
    assert encoder.frames(torch.randn(48000 * 11)).shape == (2, 12)
    assert Score("x", "y", torch.tensor([1.0, 2.0])).mean == 1.5
