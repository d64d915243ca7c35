"""A figure of one separation: log-mels of mixture, target and residual on one time axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from flowsep.atomic import atomic_output
from flowsep.audio import AudioFile, open_audio
from flowsep.blocks import Facts, Sliding, mixed_down, resampled
from vocoder.mel import MelConfig, band_centres, log_mel

DYNAMIC_RANGE = 80.0  # dB below the loudest point of the three
COLUMNS = 3000  # more time steps than pixels are pooled by their maximum
BLOCK_FRAMES = 3000  # analysed at once
HZ_TICKS = (250, 500, 1000, 2000, 4000, 7000)
NEPER = 20 / math.log(10)  # dB per unit of natural log magnitude


def plot_files(path: Path, recording: AudioFile, facts: Facts, target: tuple[Path, float], title: str) -> None:
    """Write a PNG of a recording, its target and what that leaves; memory does not grow with the length.

    `target` is the separated file and the factor that it was scaled by. What is shown is what the model hears of the
    channels. Errors as `draw`.
    """
    config, length = MelConfig(), facts.frames
    file, factor = open_audio(target[0]), target[1]

    def residual() -> Iterator[Tensor]:
        mixture, separated = Sliding(recording.blocks()), Sliding(file.blocks())
        for start in range(0, length, recording.sample_rate):
            end = min(start + recording.sample_rate, length)
            yield mixture.span(start, end) - separated.span(start, end) / factor

    panels = {
        "mixture": recording.blocks(),
        "target": (block / factor for block in file.blocks()),
        "residual": residual(),
    }
    levels = {
        name: mel_decibels(mixed_down(blocks, facts.channel), recording.sample_rate, length, config)
        for name, blocks in panels.items()
    }
    draw(path, levels, length / recording.sample_rate, config, title)


def draw(
    path: Path,
    levels: dict[str, Tensor],
    seconds: float,
    config: MelConfig,
    title: str = "",
    top: float | None = None,
    size: tuple[float, float] = (10, 7),
) -> None:
    """Write a PNG of levels (N, M) in dB by name: seconds across, Hz upwards (mel-spaced), one dB scale.

    `top` is the upper end of the scale in dB, the highest level if not given; `size` is in inches at 120 dots each.
    Atomic: InputError where `path` exists or cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    top = max(float(level.max()) for level in levels.values()) if top is None else top
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(levels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    positions = tick_positions(config)
    for ax, (name, level) in zip(axes, levels.items(), strict=True):
        image = ax.imshow(
            level.T.numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - DYNAMIC_RANGE,
            vmax=top,
            extent=(0, seconds, -0.5, config.n_mels - 0.5),
        )
        ax.set_title(name, loc="left", fontsize=10)
        ax.set_ylabel("frequency (Hz)")
        ax.set_yticks(positions, [f"{hz:g}" for hz in HZ_TICKS])
    axes[-1].set_xlabel("time (s)")
    figure.colorbar(image, ax=list(axes), label="mel band level (dB)", fraction=0.04)
    if title:
        shown = title if len(title) <= 90 else title[:89] + "…"
        figure.suptitle(shown, fontsize=11, parse_math=False)
    with atomic_output(Path(path)) as temporary:
        canvas.print_png(temporary)


def mel_decibels(blocks: Iterable[Tensor], sample_rate: int, length: int, config: MelConfig) -> Tensor:
    """Blocks (1, n) of `length` samples in all -> mel levels in dB (N, M), N at most 3000."""
    count = max(1, round(length * config.sample_rate / sample_rate))
    frames = count // config.hop_length + 1
    pool = math.ceil(frames / COLUMNS)
    wave = Sliding(resampled(blocks, sample_rate, config.sample_rate, count))
    edge = math.ceil(config.n_fft / 2 / config.hop_length)  # frames that the reflected borders reach into
    step = BLOCK_FRAMES // pool * pool or pool
    found = []
    for first in range(0, frames, step):
        last = min(first + step, frames)
        stretch = wave.span((first - edge) * config.hop_length, (last + edge) * config.hop_length)[0]
        level = NEPER * log_mel(stretch, config)[edge : edge + last - first]
        found.append(torch.nn.functional.max_pool1d(level.T[None], pool, ceil_mode=True)[0].T)
    return torch.cat(found)


def tick_positions(config: MelConfig) -> list[float]:
    """Fractional band number of each frequency in HZ_TICKS."""
    import numpy as np

    centres = band_centres(config).numpy()
    return [float(np.interp(hz, centres, np.arange(len(centres)))) for hz in HZ_TICKS]
