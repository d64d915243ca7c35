"""Loudness in LUFS by ITU-R BS.1770-4: K-weighting, blocks of 400 ms, absolute and relative gates (pyloudnorm).

`flowsep.web.loudness` has the same measure of recordings too long for the memory.
"""

from __future__ import annotations

import warnings

import numpy as np

from flowsep.data.mixing import Audio
from flowsep.errors import InputError

BLOCK_SECONDS = 0.4  # of the standard's gating; shorter sounds have no integrated loudness


def loudness(audio: Audio, sample_rate: int) -> float:
    """Integrated loudness in LUFS of mono audio (T,); -inf where every block is below the absolute gate of -70 LUFS.

    A sine of 997 Hz at full scale in one channel reads -3.01. InputError for less than 0.4 s.
    """
    import pyloudnorm

    if len(audio) < BLOCK_SECONDS * sample_rate:
        raise InputError(f"loudness needs {BLOCK_SECONDS} s of sound, got {len(audio) / sample_rate:.2f} s")
    with warnings.catch_warnings():  # numpy's on the mean of no blocks
        warnings.simplefilter("ignore", RuntimeWarning)
        value = float(pyloudnorm.Meter(sample_rate).integrated_loudness(audio.astype(np.float64)))
    return value if np.isfinite(value) else -np.inf


def at_loudness(audio: Audio, sample_rate: int, lufs: float) -> Audio:
    """Audio (T,) scaled to `lufs`. Nothing that is below the gate can be scaled: it comes back as it is."""
    found = loudness(audio, sample_rate)
    if not np.isfinite(found):
        return audio
    return (audio * 10 ** ((lufs - found) / 20)).astype(np.float32)
