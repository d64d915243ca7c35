"""A figure of one separation: log-mels of mixture, target and residual on one time axis."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from flowsep.atomic import atomic_output
from flowsep.audio import resample
from vocoder.mel import MelConfig, band_centres, log_mel

DYNAMIC_RANGE = 80.0  # dB below the loudest point of the three
COLUMNS = 3000  # more time steps than pixels are pooled by their maximum
HZ_TICKS = (250, 500, 1000, 2000, 4000, 7000)
NEPER = 20 / math.log(10)  # dB per unit of natural log magnitude


def plot_separation(
    path: Path,
    mixture: Tensor,
    target: Tensor,
    residual: Tensor,
    sample_rate: int,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Write a PNG of the log-mels of three waveforms (T,): seconds across, Hz upwards (mel-spaced), one dB scale.

    Atomic: InputError where `path` exists without `overwrite` or cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    config = MelConfig()
    panels = {"mixture": mixture, "target": target, "residual": residual}
    levels = {name: mel_decibels(wave, sample_rate, config) for name, wave in panels.items()}
    top = max(float(level.max()) for level in levels.values())
    seconds = mixture.shape[-1] / sample_rate

    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(3, 1, sharex=True, sharey=True)
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
    with atomic_output(Path(path), overwrite) as temporary:
        canvas.print_png(temporary)


def mel_decibels(wave: Tensor, sample_rate: int, config: MelConfig) -> Tensor:
    """Waveform (T,) -> mel levels in dB (N, M), N at most 3000."""
    wave = resample(wave[None], sample_rate, config.sample_rate)[0]
    wave = torch.nn.functional.pad(wave, (0, max(0, config.n_fft - len(wave))))
    level = NEPER * log_mel(wave, config)  # (N, M)
    pool = math.ceil(len(level) / COLUMNS)
    return torch.nn.functional.max_pool1d(level.T[None], pool, ceil_mode=True)[0].T


def tick_positions(config: MelConfig) -> list[float]:
    """Fractional band number of each frequency in HZ_TICKS."""
    import numpy as np

    centres = band_centres(config).numpy()
    return [float(np.interp(hz, centres, np.arange(len(centres)))) for hz in HZ_TICKS]
