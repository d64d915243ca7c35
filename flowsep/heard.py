"""The mixtures of one call of a separator, as it hears them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


def normalise(mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(normalised, mean, gain) of mixture (B, T): normalised = (mixture - mean) * gain peaks at 0.5.

    As FlowSep's loader does; mean and gain (B, 1) let the level be put back.
    """
    mean = mixture.mean(-1, keepdim=True)
    centred = mixture - mean
    gain = 0.5 / (centred.abs().amax(-1, keepdim=True) + 1e-8)
    return centred * gain, mean, gain


@dataclass(frozen=True)
class Heard:
    """B mixtures, their log-mels, and the level that was taken off before."""

    audio: Tensor  # (B, T) as given
    mel: Tensor  # log-mel (B, N, M) of the normalised mixture, padded
    mean: Tensor  # (B, 1) or (1, 1); normalised = (audio - mean) * gain
    gain: Tensor  # the same shape

    def rows(self, rows: Tensor) -> Heard:
        """Those of the given numbers (K,)."""
        count = len(self.audio)
        return Heard(self.audio[rows], self.mel[rows], *(x.expand(count, 1)[rows] for x in (self.mean, self.gain)))
