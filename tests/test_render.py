import pytest
import torch

from flowsep.render import (
    BLOCK_FRAMES,
    apply_mask,
    band_mask,
    bands_put_right,
    bin_weights,
    blended_mel,
    resample_frames,
)
from vocoder.mel import MelConfig, band_centres, log_mel, mel_filterbank

CONFIG = MelConfig()


def frames_of(samples, rate):
    return int(samples / rate * 100) + 1


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 192000])
def test_a_mask_of_ones_gives_the_audio_back_at_any_rate(rate):
    audio = torch.randn(2, rate + 17)
    ones = torch.ones(frames_of(rate + 17, rate), 64)
    torch.testing.assert_close(apply_mask(audio, ones, rate, CONFIG), audio, atol=2e-5, rtol=0)


@pytest.mark.parametrize("samples", [1, 2, 100, 1023, 1024])
def test_very_short_audio_keeps_its_length(samples):
    audio = torch.randn(1, samples)
    torch.testing.assert_close(apply_mask(audio, torch.ones(1, 64), 16000, CONFIG), audio, atol=1e-5, rtol=0)


def test_blocks_leave_no_seam():
    seconds = BLOCK_FRAMES / 100 * 1.5
    audio = torch.randn(1, int(seconds * 8000))
    mask = torch.rand(frames_of(audio.shape[1], 8000), 64)
    whole = apply_mask(audio, mask, 8000, CONFIG)
    middle = BLOCK_FRAMES * 80  # the first sample of the second block
    part = slice(middle - 8000, middle + 8000)
    alone = apply_mask(audio[:, part], mask[BLOCK_FRAMES - 100 : BLOCK_FRAMES + 101], 8000, CONFIG)
    inner = slice(1000, -1000)
    torch.testing.assert_close(whole[:, part][:, inner], alone[:, inner], atol=1e-4, rtol=0)


def test_a_band_mask_keeps_the_tone_inside_it_and_removes_the_one_outside():
    time = torch.arange(16000) / 16000
    low, high = torch.sin(2 * torch.pi * 300 * time), torch.sin(2 * torch.pi * 5000 * time)
    mask = (band_centres(CONFIG) < 1500).float().expand(101, -1)
    kept = apply_mask((low + high)[None], mask, 16000, CONFIG)[0]
    assert (kept - low)[500:-500].abs().max() < 1e-3


def test_above_the_models_band_the_edge_gain_is_held():
    centres = band_centres(CONFIG)
    weights = bin_weights(torch.tensor([0.0, 7999.0, 12000.0, 20000.0]), CONFIG)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert weights[0, 0] == 1 and (weights[2:, -1] == 1).all()
    middle = bin_weights(((centres[10] + centres[11]) / 2)[None], CONFIG)
    assert middle[0, 10].item() == pytest.approx(0.5) and middle[0, 11].item() == pytest.approx(0.5)


def test_frames_are_interpolated_and_held_at_the_ends():
    mask = torch.tensor([[0.0], [1.0]])
    times = torch.tensor([-1.0, 0.25, 1.0, 7.0])
    torch.testing.assert_close(resample_frames(mask, times)[:, 0], torch.tensor([0.0, 0.25, 1.0, 1.0]))


def test_two_stream_mask_is_the_ratio_of_magnitudes_and_one_stream_is_capped():
    target, residual, mixture = torch.rand(1, 5, 64), torch.rand(1, 5, 64), torch.rand(1, 5, 64)
    for exponent in (1.0, 2.0):
        t, r = (exponent * target).exp(), (exponent * residual).exp()
        torch.testing.assert_close(band_mask(target, residual, mixture, exponent), t / (t + r))
    single = band_mask(mixture + 1, None, mixture)
    torch.testing.assert_close(single, torch.ones_like(single))
    torch.testing.assert_close(
        band_mask(mixture - 1, None, mixture), torch.full_like(single, 0.36788), atol=1e-4, rtol=0
    )


def put_right(audio, mel, passes=2):
    weights = bin_weights(torch.arange(513) * 16000 / 1024, CONFIG)
    return bands_put_right(audio, mel, weights, mel_filterbank(CONFIG), CONFIG, passes)


def test_bands_are_brought_to_the_mel_that_was_asked_for():
    slopes = torch.linspace(-2, 1, 64)  # -17 to 9 dB
    audio = 0.1 * torch.randn(2, 16000)
    wanted = log_mel(audio, CONFIG) + slopes
    error = (log_mel(put_right(audio, wanted), CONFIG) - wanted).abs().mean()
    assert error < 0.15 * slopes.abs().mean()
    assert torch.equal(put_right(audio, wanted, passes=0), audio)


def test_where_silence_is_asked_for_there_is_silence_and_nothing_is_made_of_silence():
    audio = 0.01 * torch.randn(1, 16000)
    silence = torch.full((1, 101, 64), -11.513)
    assert put_right(audio, silence).abs().max() < 1e-4
    nothing = torch.zeros(1, 16000)
    assert put_right(nothing, torch.zeros(1, 101, 64)).abs().max() == 0


def test_at_most_20_db_are_added():
    audio = 1e-3 * torch.randn(1, 16000)
    louder = put_right(audio, torch.full((1, 101, 64), 5.0), passes=1)
    assert louder.std() / audio.std() == pytest.approx(10, rel=0.02)


@pytest.mark.parametrize("samples", [1, 161, 1023, 15999])
def test_bands_are_put_right_at_any_length(samples):
    audio = 0.1 * torch.randn(3, samples)
    found = put_right(audio, torch.full((3, 7, 64), -5.0))
    assert found.shape == audio.shape and found.isfinite().all()


def test_the_blended_mel_is_the_mixtures_where_all_passes_and_the_generated_one_where_nothing_does():
    mixture, generated = torch.full((1, 3, 64), -2.0), torch.full((1, 3, 64), -6.0)
    gains = torch.tensor([1.0, 0.0, 0.5])[None, :, None].expand(1, 3, 64)
    found = blended_mel(generated, gains, mixture)[0, :, 0]
    half = 0.5 * -6.0 + 0.5 * (-2.0 + torch.tensor(0.5).log())
    torch.testing.assert_close(found, torch.stack([torch.tensor(-2.0), torch.tensor(-6.0), half]))
    assert (blended_mel(mixture + 3, torch.zeros_like(mixture), mixture) == mixture).all()  # never more than there is
