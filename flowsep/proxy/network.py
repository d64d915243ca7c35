"""Log-mels and pooled text states -> vectors in one space.

The sound's side is a residual network (He et al., 2016) over the log-mel, the mean of whose instants is weighted by
attention; the text's side is two layers on the mean state of a frozen text encoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowsep.proxy.config import ProxyConfig

DEPTH = 9.0  # natural-log units below the level that are told apart: 78 dB
SHARPEST = 100.0  # of the softmax over cosines


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, bias=False) if channels_in != channels else nn.Identity()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N, M) -> (B, C', N / stride, M / stride), rounded up."""
        y = torch.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        if self.stride > 1:
            x = nn.functional.avg_pool2d(x, self.stride, ceil_mode=True)
        return torch.relu(y + self.shortcut(x))


class ProxyNetwork(nn.Module):
    """Both sides, and the sharpness that makes logits of their cosines."""

    def __init__(self, config: ProxyConfig, n_mels: int, text_width: int) -> None:
        super().__init__()
        self.config, self.n_mels, self.text_width = config, n_mels, text_width
        widths = config.channels
        self.stem = nn.Conv2d(2, widths[0], 5, 2, 2)  # the log-mel, and where on the frequency axis a cell is
        stages = []
        for number, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            for block in range(config.blocks[number]):
                first = block == 0
                stages.append(ResidualBlock(before if first else width, width, 2 if first and number else 1))
        self.stages = nn.Sequential(*stages)
        bands = n_mels
        for _ in widths:  # the stem and every stage but the first halve it
            bands = -(-bands // 2)
        self.instant = nn.Linear(widths[-1] * bands, config.hidden)
        self.attention = nn.Linear(config.hidden, config.heads)
        self.drop = nn.Dropout(0.15)
        self.from_audio = nn.Linear(config.hidden, config.size)
        self.text = nn.Sequential(
            nn.LayerNorm(text_width),
            nn.Linear(text_width, config.text_hidden),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(config.text_hidden, config.size),
        )
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(10.0)))
        self.to(memory_format=torch.channels_last)

    @property
    def sharpness(self) -> Tensor:
        """Factor () that makes logits of cosines."""
        return self.log_sharpness.exp().clamp(max=SHARPEST)

    def audio(self, mel: Tensor) -> Tensor:
        """Pooled log-mels (B, N, M) -> (B, D), rows of length one. The level does not matter."""
        x = at_level(mel)[:, None]
        place = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype)
        x = torch.cat([x, place.expand_as(x)], dim=1).contiguous(memory_format=torch.channels_last)
        x = self.stages(torch.relu(self.stem(x)))  # (B, C, N', M')
        instants = torch.relu(self.instant(x.transpose(1, 2).flatten(2)))  # (B, N', hidden)
        weights = self.attention(instants).softmax(dim=1)  # (B, N', heads)
        parts = instants.unflatten(-1, (self.config.heads, -1))  # (B, N', heads, hidden / heads)
        pooled = (weights[..., None] * parts).sum(1).flatten(1)
        return nn.functional.normalize(self.from_audio(self.drop(pooled)).float(), dim=-1)

    def words(self, pooled: Tensor) -> Tensor:
        """Mean text states (B, text_width) -> (B, D), rows of length one."""
        return nn.functional.normalize(self.text(pooled).float(), dim=-1)


def at_level(mel: Tensor) -> Tensor:
    """Log-mels (B, N, M) relative to their root mean square, cut at 78 dB below it, brought to about -1..1.

    A sound and its copy at another level are the same, and so are digital silence and what cannot be heard.
    """
    level = 0.5 * torch.log((2 * mel.double()).exp().mean((-2, -1), keepdim=True)).to(mel.dtype)
    return (mel - level).clamp(min=-DEPTH) / 4.5 + 1.0


def pool_frames(mel: Tensor, count: int) -> Tensor:
    """Log-mels (..., N, M) with every `count` frames joined by their mean power, (..., N // count, M)."""
    frames = mel.shape[-2] // count
    power = (2 * mel[..., : frames * count, :]).exp().unflatten(-2, (frames, count)).mean(-2)
    return 0.5 * torch.log(power)
