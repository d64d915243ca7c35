"""The mask separator that `flowsep train mask` builds, and its losses: plain settings, for `flowsep.config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowsep.masks.lassnet import LassNet
    from flowsep.masks.resunet import ResUNet30


@dataclass(frozen=True)
class MaskConfig:
    """What the network is, at the rate of the mel. The defaults are the DCASE baseline's ResUNet30 at 16 kHz."""

    network: str = "resunet"  # resunet | lassnet
    n_fft: int = 1024  # samples
    hop_length: int = 160  # samples
    widths: tuple[int, ...] = (32, 64, 128, 256, 384, 384)  # channels, from full resolution down
    window_seconds: float = 10.24

    def __post_init__(self) -> None:
        if self.network not in ("resunet", "lassnet"):
            raise ValueError(f"unknown mask network {self.network!r}; choose from resunet, lassnet")

    def build(self, sample_rate: int, condition_size: int) -> ResUNet30 | LassNet:
        """A freshly initialised network."""
        from flowsep.masks.lassnet import LassNet, LassNetConfig
        from flowsep.masks.resunet import ResUNet30, ResUNetConfig

        sizes = (sample_rate, self.n_fft, self.hop_length, condition_size, self.widths)
        return LassNet(LassNetConfig(*sizes)) if self.network == "lassnet" else ResUNet30(ResUNetConfig(*sizes))


@dataclass(frozen=True)
class MaskLossConfig:
    """Weights of a mask separator's training loss. AudioSep's is the first alone, LASS-Net's the second."""

    wave: float = 1.0  # mean absolute error of the waveform
    magnitude: float = 0.0  # mean absolute error of STFT magnitudes
    snr: float = 0.0  # log10 of the error energy over the mixture's, which is what SI-SDR sees; floored at -30 dB
