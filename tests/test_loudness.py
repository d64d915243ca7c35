"""Loudness by ITU-R BS.1770, against the references of the standard and of EBU Tech 3341."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowsep.errors import InputError
from flowsep.evaluation.loudness import at_loudness, loudness
from flowsep.web.loudness import loudness as streamed_loudness


def sine(hertz: float, seconds: float, rate: int, peak: float = 1.0) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 32000, 48000])
def test_a_full_scale_sine_of_997_hz_reads_minus_three(rate):
    assert loudness(sine(997, 5, rate), rate) == pytest.approx(-3.01, abs=0.1)  # EBU Tech 3341's tolerance
    assert loudness(sine(997, 5, rate, 0.1), rate) == pytest.approx(-23.01, abs=0.1)


def test_low_sounds_weigh_less_and_high_ones_more():
    levels = {hertz: loudness(sine(hertz, 3, 48000), 48000) for hertz in (30, 997, 10000)}
    assert levels[30] < levels[997] - 6 and levels[10000] == pytest.approx(levels[997] + 3.3, abs=0.4)


def test_silence_and_quiet_parts_are_gated_away():
    loud = sine(997, 3, 16000, 0.1)
    quiet = sine(997, 3, 16000, 0.1 * 10 ** (-30 / 20))
    alone = loudness(loud, 16000)
    assert loudness(np.concatenate([loud, np.zeros(48000, np.float32)]), 16000) == pytest.approx(alone, abs=0.3)
    assert loudness(np.concatenate([loud, quiet]), 16000) == pytest.approx(alone, abs=0.3)
    assert loudness(np.zeros(16000, np.float32), 16000) == -np.inf


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_the_measure_that_reads_a_stream_gives_the_same_number(rate):
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(round(2.57 * rate))  # ends within a block
    bursts = rng.standard_normal(7 * rate) * np.repeat(10 ** -rng.uniform(0, 3, 7), rate)  # half of it below the gates
    for sound in (sine(997, 3, rate), sine(60, 3, rate), sine(3500, 3, rate), noise, bursts, noise[: rate // 2]):
        blocks = torch.from_numpy(sound.astype(np.float32))[None].split(997, dim=-1)
        assert streamed_loudness(blocks, rate)[0] == pytest.approx(loudness(sound, rate), abs=0.02)


def test_a_sound_is_brought_to_a_loudness_and_silence_left_alone():
    rng = np.random.default_rng(0)
    noise = (0.3 * rng.standard_normal(32000)).astype(np.float32)
    scaled = at_loudness(noise, 16000, -30.0)
    assert loudness(scaled, 16000) == pytest.approx(-30, abs=1e-3) and scaled.dtype == np.float32
    silence = np.zeros(16000, np.float32)
    np.testing.assert_array_equal(at_loudness(silence, 16000, -30.0), silence)
    with pytest.raises(InputError, match=r"needs 0\.4 s"):
        loudness(np.ones(100, np.float32), 16000)
