"""Training losses of the mel VAE, pure functions."""

from __future__ import annotations

from torch import Tensor


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats per latent element, a scalar; mean and logvar (B, C, S, F)."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()


def reconstruction_loss(decoded: Tensor, mel: Tensor) -> Tensor:
    """L1 on the log-mel plus L1 on its first differences in time and frequency; both mels (B, N, M), a scalar.

    The differences keep onsets and harmonics sharp where a plain L1 would blur them.
    """
    loss = (decoded - mel).abs().mean()
    for axis in (1, 2):
        loss = loss + 0.5 * (decoded.diff(dim=axis) - mel.diff(dim=axis)).abs().mean()
    return loss
