"""What was taken out of a down-mix, taken out of every channel of the recording."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowsep.render import BLOCK_FRAMES, overlap_add

WINDOW = 0.064  # seconds
POWER_FLOOR = 1e-10  # of the down-mix in a bin, so that silence has no gain


def share_channels(audio: Tensor, mono: Tensor, target: Tensor, sample_rate: int) -> Tensor:
    """Target (T,) separated from the down-mix mono (T,) of audio (C, T) -> the target in each channel (C, T).

    Every STFT bin of every channel is multiplied by the complex gain of the down-mix,

        G = Y conj(M) / (|M|^2 + 1e-10),  |G| <= 1,

    Y the target's spectrum, M the down-mix's (64 ms Hann, hop a quarter). Level and phase differences between the
    channels stay, and where the down-mix is the channels' mean, the mean of the result is the target again, as far as
    the limit leaves G alone. It is right for a target that is in phase with the recording, and for no other.
    """
    n_fft = 4 * round(WINDOW * sample_rate / 4)
    hop, length = n_fft // 4, audio.shape[-1]
    frames = length // hop + 1
    window = torch.hann_window(n_fft, dtype=audio.dtype)
    padded = nn.functional.pad(torch.cat([audio, mono[None], target[None]]), (n_fft // 2, n_fft // 2 + hop))
    out, envelope = torch.zeros_like(padded[:-2]), torch.zeros(padded.shape[-1], dtype=audio.dtype)
    for first in range(0, frames, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, frames - first)
        span = slice(first * hop, first * hop + (count - 1) * hop + n_fft)
        spectra = torch.fft.rfft(padded[:, span].unfold(-1, n_fft, hop) * window)  # (C + 2, K, bins)
        *_, mixed, wanted = spectra
        gain = wanted * mixed.conj() / (mixed.abs().square() + POWER_FLOOR)
        gain = gain / gain.abs().clamp(min=1.0)
        shared = torch.fft.irfft(spectra[:-2] * gain, n=n_fft) * window
        out[:, span] += overlap_add(shared, hop)
        envelope[span] += overlap_add(window.square().expand(1, count, n_fft), hop)[0]
    return (out / envelope.clamp(min=1e-8))[:, n_fft // 2 : n_fft // 2 + length]
