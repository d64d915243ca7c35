import librosa
import numpy as np
import torch

from vocoder.mel import MelConfig, log_mel, mel_filterbank

CONFIG = MelConfig()


def test_filterbank_equals_librosas_slaney_bands():
    expected = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64, fmin=0, fmax=8000)
    np.testing.assert_allclose(mel_filterbank(CONFIG).numpy(), expected, atol=1e-7)


def test_filterbank_follows_other_band_counts_and_limits():
    config = MelConfig(sample_rate=24000, n_fft=2048, n_mels=100, fmin=40.0, fmax=11000.0)
    expected = librosa.filters.mel(sr=24000, n_fft=2048, n_mels=100, fmin=40, fmax=11000)
    np.testing.assert_allclose(mel_filterbank(config).numpy(), expected, atol=1e-7)


def test_silence_is_the_logarithm_of_the_floor_and_never_zero():
    mel = log_mel(torch.zeros(1, 16000), CONFIG)
    assert mel.shape == (1, 101, 64)
    torch.testing.assert_close(mel, torch.full_like(mel, np.log(1e-5)))


def test_ten_times_the_amplitude_adds_ln_ten():
    audio = torch.randn(2, 8000) * 0.01
    torch.testing.assert_close(log_mel(10 * audio, CONFIG), log_mel(audio, CONFIG) + np.log(10), atol=1e-4, rtol=0)


def test_log_mel_is_differentiable_and_batched():
    audio = (torch.randn(3, 2, 4000) * 0.1).requires_grad_()
    mel = log_mel(audio, CONFIG)
    assert mel.shape == (3, 2, 26, 64)
    torch.testing.assert_close(mel[1, 1], log_mel(audio[1, 1], CONFIG))
    mel.sum().backward()
    assert torch.isfinite(audio.grad).all() and audio.grad.abs().sum() > 0
