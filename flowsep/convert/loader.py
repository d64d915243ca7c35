"""The official loading of audio, number for number: resampler, channel 0, level.

Needed to reproduce the official results. Other resamplers differ by up to 0.2 of the peak on wide-band sounds;
`flowsep separate` uses a better one (`flowsep.audio`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowsep.errors import InputError

SAMPLE_RATE = 16000  # Hz
WINDOW_SAMPLES = 163840  # 10.24 s
ROLLOFF = 0.99
LOWPASS_WIDTH = 6  # zero crossings of the sinc on either side


@dataclass(frozen=True)
class OfficialInput:
    """What the official network is given: `audio` (163840,) = (resampled - mean) * gain, then zeros."""

    audio: Tensor
    mean: float
    gain: float
    length: int  # samples at 16 kHz before the padding


def official_resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """samples (T,) at `rate` Hz -> (ceil(16000 T / rate),) float64 at 16 kHz by a Hann-windowed sinc.

    With o and n the rates over their greatest common divisor, output p of each period of n is the sum over the taps
    i = -W .. W + o - 1 of samples[i] weighted by base / o sinc(u) cos^2(pi u / 12), u = base (i / o - p / n).
    """
    divisor = math.gcd(rate, SAMPLE_RATE)
    old, new = rate // divisor, SAMPLE_RATE // divisor
    if old == new:
        return samples.astype(np.float64)
    base = ROLLOFF * min(old, new)
    width = math.ceil(LOWPASS_WIDTH * old / base)
    taps = np.arange(-width, width + old) / old
    u = base * (taps[None] - np.arange(new)[:, None] / new)
    u = u.clip(-LOWPASS_WIDTH, LOWPASS_WIDTH)
    kernel = base / old * np.sinc(u) * np.cos(np.pi * u / (2 * LOWPASS_WIDTH)) ** 2  # (new, taps)
    length = math.ceil(len(samples) * new / old)
    periods = math.ceil(length / new)
    padded = np.zeros((periods - 1) * old + kernel.shape[1])
    count = min(len(samples), len(padded) - width)
    padded[width : width + count] = samples[:count]
    frames = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[1])[::old]  # (periods, taps)
    return (frames @ kernel.T).reshape(-1)[:length]


def official_load(audio: Tensor, rate: int) -> OfficialInput:
    """The official input of audio (C, T) at `rate` Hz: channel 0, the first 10.24 s, peak 0.5.

    The official loader crops longer files at a random place; here it is the beginning. The level is put back by
    output / gain + mean. Raises InputError below 101 samples, as the official code does.
    """
    if audio.ndim != 2 or audio.shape[-1] <= 100:
        raise InputError(f"audio must be (channels, more than 100 samples), not {tuple(audio.shape)}")
    piece = audio[0, : int(rate * WINDOW_SAMPLES / SAMPLE_RATE)]
    samples = official_resample(piece.double().numpy(), rate)
    mean = samples.mean()
    gain = 0.5 / (np.abs(samples - mean).max() + 1e-8)
    normalised = (samples - mean) * gain
    padded = np.zeros(WINDOW_SAMPLES, dtype=np.float32)
    length = min(len(normalised), WINDOW_SAMPLES)
    padded[:length] = normalised[:length]
    return OfficialInput(torch.from_numpy(padded), float(mean), float(gain), length)
