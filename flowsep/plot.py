"""A figure of one separation: log-mels of mixture, target and residual on one time axis, and when the target sounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flowsep.activity import Energies, Segment, SegmentRule, active_stretches
from flowsep.atomic import atomic_output
from flowsep.audio import AudioFile, open_audio
from flowsep.blocks import Facts, Sliding, mixed_down, resampled, scan
from flowsep.errors import InputError
from flowsep.longform import in_memory
from vocoder.mel import NEPER, MelConfig, band_centres, log_mel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DYNAMIC_RANGE = 80.0  # dB below the loudest point of the three
COLUMNS = 3000  # more time steps than pixels are pooled by their maximum
BLOCK_FRAMES = 3000  # analysed at once
HZ_TICKS = (250, 500, 1000, 2000, 4000, 7000)
COLOURS = "magma"  # its lightness rises evenly, so that it reads the same in grey and to colour-blind eyes
STRIP = 0.07  # height of the strip that shows activity, in panels


def plot_separation(
    mixture: Tensor, target: Tensor, sample_rate: int, title: str = "", rule: SegmentRule | None = None
) -> Figure:
    """A matplotlib figure of a mixture (C, T), a target (C, T) taken out of it, and the residual that this leaves.

    Three log-mels over the same seconds, in Hz at mel-spaced ticks, on one scale in dB; a strip above the target
    marks when it is active by `rule`, as `flowsep segments` finds it. Shown is what a model hears of the channels, at
    16 kHz. `figure.savefig("x.png")` writes it. InputError for shapes that differ, no samples, NaN and infinity.
    """
    if mixture.shape != target.shape:
        raise InputError(f"mixture {tuple(mixture.shape)} and target {tuple(target.shape)} differ in shape")
    facts, _ = (scan(in_memory(audio, sample_rate)) for audio in (mixture, target))
    panels = {"mixture": mixture, "target": target, "residual": mixture - target}
    blocks = {name: mixed_down([audio.float()], facts.channel) for name, audio in panels.items()}
    levels, active = analysed(blocks, sample_rate, facts.frames, rule or SegmentRule())
    return separation_figure(levels, facts.frames / sample_rate, MelConfig(), title, active=active)


def plot_files(path: Path, recording: AudioFile, facts: Facts, target: tuple[Path, float], title: str) -> None:
    """Write a PNG of a recording, its target and what that leaves; memory does not grow with the length.

    `target` is the separated file and the factor that it was scaled by. What is shown is what the model hears of the
    channels. Errors as `write_figure`.
    """
    length, rate = facts.frames, recording.sample_rate
    file, factor = open_audio(target[0]), target[1]

    def residual() -> Iterator[Tensor]:
        mixture, separated = Sliding(recording.blocks()), Sliding(file.blocks())
        for start in range(0, length, rate):
            end = min(start + rate, length)
            yield mixture.span(start, end) - separated.span(start, end) / factor

    panels = {
        "mixture": recording.blocks(),
        "target": (block / factor for block in file.blocks()),
        "residual": residual(),
    }
    blocks = {name: mixed_down(panel, facts.channel) for name, panel in panels.items()}
    levels, active = analysed(blocks, rate, length, SegmentRule())
    figure = separation_figure(levels, length / rate, MelConfig(), title, active=active, start=recording.first / rate)
    write_figure(path, figure)


def analysed(
    panels: dict[str, Iterable[Tensor]], sample_rate: int, length: int, rule: SegmentRule
) -> tuple[dict[str, Tensor], list[Segment]]:
    """Levels (N, M) in dB of blocks (1, n) by name, and when the one named target is active in that named mixture."""
    config = MelConfig()
    count = at_rate(length, sample_rate, config)
    levels, energies = {}, {}
    for name, blocks in panels.items():
        meter = Energies(config.sample_rate)
        wave = meter.through(resampled(blocks, sample_rate, config.sample_rate, count))
        levels[name] = levels_of(wave, count, config)
        energies[name] = meter.total()[0]
    return levels, active_stretches(energies["target"], energies["mixture"], length / sample_rate, rule)


def write_figure(path: Path, figure: Figure, overwrite: bool = False, colours: int | None = None) -> None:
    """Write a PNG of a figure, of at most so many `colours` where that is given: a third of the bytes at 64.

    Atomic: InputError where `path` exists (without `overwrite`) or cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    with atomic_output(Path(path), overwrite) as temporary:
        if colours is None:
            canvas.print_png(temporary)
        else:
            canvas.draw()
            picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            picture.quantize(colours).save(temporary, format="PNG", optimize=True)


def separation_figure(
    levels: dict[str, Tensor],
    seconds: float,
    config: MelConfig,
    title: str = "",
    top: float | None = None,
    size: tuple[float, float] = (10, 7),
    active: Sequence[Segment] | None = None,
    start: float = 0.0,
) -> Figure:
    """Panels of levels (N, M) in dB by name: seconds across from `start` on, Hz upwards (mel-spaced), one dB scale.

    `top` is the upper end of the scale in dB, the highest level if not given; `size` is in inches at 120 dots each.
    `active`, where given, is marked in a strip above the panel named target: black on white, no colour needed.
    """
    from matplotlib.figure import Figure

    top = max(float(level.max()) for level in levels.values()) if top is None else top
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    marked = [] if active is None else ["active"]
    rows = [name for panel in levels for name in [*(marked if panel == "target" else []), panel]]
    heights = [STRIP if name == "active" else 1.0 for name in rows]
    grid = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=heights)
    axes = dict(zip(rows, grid[:, 0], strict=True))
    for name, level in levels.items():
        image = mel_panel(axes[name], level, config, top, start, seconds)
        axes[name].set_title(name, loc="left", fontsize=10)
        axes[name].set_ylabel("frequency (Hz)")
    if "active" in axes:
        mark_activity(axes["active"], active or (), start)
    axes[rows[-1]].set_xlabel("time (s)")
    figure.colorbar(image, ax=list(grid[:, 0]), label="mel band level (dB)", fraction=0.04)
    if title:
        shown = title if len(title) <= 90 else title[:89] + "…"
        figure.suptitle(shown, fontsize=11, parse_math=False)
    return figure


def mel_panel(axis: Axes, level: Tensor, config: MelConfig, top: float, start: float, seconds: float) -> AxesImage:
    """The level (N, M) in dB as a picture: seconds across from `start` on, Hz upwards, the 80 dB below `top`."""
    image = axis.imshow(
        level.T.numpy(),
        origin="lower",
        aspect="auto",
        cmap=COLOURS,
        vmin=top - DYNAMIC_RANGE,
        vmax=top,
        extent=(start, start + seconds, -0.5, config.n_mels - 0.5),
    )
    axis.set_yticks(tick_positions(config), [f"{hz:g}" for hz in HZ_TICKS])
    return image


def mark_activity(axis: Axes, active: Sequence[Segment], start: float) -> None:
    """Black bars over a white strip where the target is active; the label says so where it never is."""
    axis.broken_barh([(start + one.start, one.end - one.start) for one in active], (0, 1), facecolor="black")
    axis.set(ylim=(0, 1), yticks=[])
    axis.tick_params(bottom=False)
    label = "target active" if active else "target never active"
    axis.set_title(label, loc="left", fontsize=9, pad=2)


def at_rate(length: int, sample_rate: int, config: MelConfig) -> int:
    """`length` samples at `sample_rate` Hz, counted at the mel's rate; at least one."""
    return max(1, round(length * config.sample_rate / sample_rate))


def mel_decibels(blocks: Iterable[Tensor], sample_rate: int, length: int, config: MelConfig) -> Tensor:
    """Blocks (1, n) of `length` samples in all -> mel levels in dB (N, M), N at most 3000."""
    count = at_rate(length, sample_rate, config)
    return levels_of(resampled(blocks, sample_rate, config.sample_rate, count), count, config)


def levels_of(blocks: Iterable[Tensor], count: int, config: MelConfig) -> Tensor:
    """Blocks (1, n) of `count` samples at the mel's rate -> mel levels in dB (N, M), N at most 3000."""
    frames = count // config.hop_length + 1
    pool = math.ceil(frames / COLUMNS)
    wave = Sliding(blocks)
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
    centres = band_centres(config).numpy()
    return [float(np.interp(hz, centres, np.arange(len(centres)))) for hz in HZ_TICKS]
