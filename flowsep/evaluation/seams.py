"""Seams: how far level and spectrum jump where windows were joined, against what they do elsewhere.

A jump at a time t is the difference between the means over a stretch after and one before it, in dB: of the level, and
of the spectrum as the root mean square over the mel bands. What a recording does by itself is in the jumps everywhere;
a seam shows as jumps at the borders that are larger than those elsewhere. With the mixture given, jumps are those of
the gain that the separation applied (target over mixture), in which the recording's own events matter less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from flowsep.audio import resample
from flowsep.blocks import Recording
from flowsep.errors import UsageError
from flowsep.longform import separate_stream
from flowsep.protocol import TextSeparator
from flowsep.windows import Plan
from vocoder.mel import NEPER, MelConfig, log_mel

WIDTHS = (0.05, 0.5)  # seconds before and after: a click or a hard join, and a change of level across a fade
FLOOR_DB = 60.0  # below the loudest band: what is quieter is taken as that quiet


@dataclass(frozen=True)
class Seam:
    """Mean jumps in dB at the borders and elsewhere, with the share of places elsewhere that jump less than borders do.

    A share of 0.5 is what chance gives; a hard join comes near 1.
    """

    width: float  # seconds
    level_at_borders: float
    level_elsewhere: float
    level_rank: float
    spectrum_at_borders: float
    spectrum_elsewhere: float
    spectrum_rank: float


def window_borders(plan: Plan, sample_rate: int) -> list[float]:
    """Seconds at which neighbouring windows change over: the middle of what they share."""
    pairs = zip(plan.starts, plan.starts[1:], strict=False)
    return [(earlier + plan.window + later) / 2 / sample_rate for earlier, later in pairs]


def measure_seams(
    audio: Tensor, sample_rate: int, borders: Sequence[float], mixture: Tensor | None = None
) -> list[Seam]:
    """Seams of audio (T,) at `borders` in seconds, one entry per width of WIDTHS; mixture (T,) makes them of the gain.

    Without a border, or with nothing left elsewhere, there is nothing to compare and the list is empty.
    """
    config = MelConfig()
    levels = mel_levels(audio, sample_rate, config)  # (N, M)
    if mixture is not None:
        levels = levels - mel_levels(mixture, sample_rate, config)
    found = []
    for width in WIDTHS:
        frames = round(width * config.frame_rate)
        jumps = torch.stack([jump(total_level(levels), frames), jump(levels, frames)])  # (2, N'), first at `frames`
        places = [round(border * config.frame_rate) - frames for border in borders]
        places = [place for place in places if 0 <= place < jumps.shape[1]]
        elsewhere = torch.ones(jumps.shape[1], dtype=torch.bool)
        for place in places:
            elsewhere[max(0, place - 2 * frames) : place + 2 * frames + 1] = False
        if not places or not elsewhere.any():
            continue
        figures = []
        for one in jumps:
            there, others = one[places], one[elsewhere]
            rank = (others[None] < there[:, None]).double().mean()
            figures += [float(there.mean()), float(others.mean()), float(rank)]
        found.append(Seam(width, *(round(value, 4) for value in figures)))
    return found


def mel_levels(audio: Tensor, sample_rate: int, config: MelConfig) -> Tensor:
    """Levels (N, M) of the mel bands of audio (T,) in dB, at least FLOOR_DB below the loudest."""
    wave = resample(audio[None], sample_rate, config.sample_rate)[0]
    wave = torch.nn.functional.pad(wave, (0, max(0, config.n_fft - len(wave))))
    levels = NEPER * log_mel(wave, config)
    return levels.clamp(min=float(levels.max()) - FLOOR_DB)


def total_level(levels: Tensor) -> Tensor:
    """Level (N, 1) in dB of all bands (N, M) together."""
    return 10 * torch.log10((10 ** (levels.double() / 10)).mean(dim=1, keepdim=True)).float()


def jump(levels: Tensor, frames: int) -> Tensor:
    """RMS over the bands of what changes at each frame (N',), means of `frames` after minus before; levels (N, M).

    The first value belongs to frame number `frames`.
    """
    means = torch.nn.functional.avg_pool1d(levels.T[:, None], frames, stride=1)[:, 0].T  # (N - frames + 1, M)
    return (means[frames:] - means[:-frames]).square().mean(dim=1).sqrt()


def seams_of_recording(separator: TextSeparator, recording: Recording, text: str) -> dict[str, Any]:
    """Seams of what `text` is separated into, in the gain and on the down-mix that the model hears; as JSON has it.

    UsageError for a recording of one window, which has no border.
    """
    stream = separate_stream(separator, recording, [text])
    stream.heard_only = True
    blocks = [(block.mixture[0], block.targets[0, 0]) for block in stream]
    mixture, target = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    rate = separator.sample_rate
    borders = window_borders(Plan.of(separator, len(mixture)), rate)
    if not borders:
        raise UsageError(
            f"{recording.name} is one window and has no border; give one of over {separator.window / rate} s"
        )
    seams = measure_seams(target, rate, borders, mixture)
    return {"text": text, "windows": stream.account.windows, "seams": [asdict(seam) for seam in seams]}
