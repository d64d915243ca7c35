"""Discriminators of BigVGAN (Lee et al., 2023, section 3.1): waveforms folded by periods, and spectrograms.

The package has them too, but its module needs torchaudio, which must not be installed beside this toolkit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1  # of the leaky rectifiers
Judgement = tuple[Tensor, list[Tensor]]  # scores (B, n), and the features (B, C, H, W) of each layer


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the discriminators; the defaults are BigVGAN's at a quarter of its width."""

    width: float = 0.25  # times BigVGAN's channels
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples
    resolutions: tuple[int, ...] = (1024, 2048, 512)  # n_fft; window n_fft * 5 / 8 and hop a fifth of that, about

    def __post_init__(self) -> None:
        if self.width <= 0 or not self.periods or not self.resolutions:
            raise ValueError("discriminators need a width above 0 and at least one period and one resolution")


class PeriodDiscriminator(nn.Module):
    """Judges a waveform (B, T) folded into columns of `period` samples (HiFi-GAN, Kong et al., 2020)."""

    def __init__(self, period: int, width: float) -> None:
        super().__init__()
        self.period = period
        channels = [1, *(max(1, round(width * size)) for size in (32, 128, 512, 1024, 1024))]
        strides = (3, 3, 3, 3, 1)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (5, 1), (stride, 1), (2, 0)))
            for before, after, stride in zip(channels, channels[1:], strides, strict=False)
        )
        self.score = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, audio: Tensor) -> Judgement:
        audio = pad(audio, (0, -audio.shape[-1] % self.period), mode="reflect")
        return judge(self, audio.unflatten(-1, (-1, self.period))[:, None])


class ResolutionDiscriminator(nn.Module):
    """Judges the magnitude spectrogram of a waveform (B, T) at one resolution (UnivNet, Jang et al., 2021)."""

    def __init__(self, n_fft: int, width: float) -> None:
        super().__init__()
        self.n_fft, self.window, self.hop = n_fft, n_fft * 5 // 8, n_fft // 8
        channels = max(1, round(width * 32))
        shapes = [((3, 9), 1), ((3, 9), 2), ((3, 9), 2), ((3, 9), 2), ((3, 3), 1)]
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(
                    1 if number == 0 else channels,
                    channels,
                    size,
                    (1, stride),
                    (size[0] // 2, size[1] // 2),
                )
            )
            for number, (size, stride) in enumerate(shapes)
        )
        self.score = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, audio: Tensor) -> Judgement:
        window = torch.hann_window(self.window, device=audio.device)
        spectrum = torch.stft(audio, self.n_fft, self.hop, self.window, window, return_complex=True)
        # Power plus epsilon before the root: the derivative of a magnitude is infinite at zero.
        magnitude = torch.view_as_real(spectrum).square().sum(-1).add(1e-9).sqrt()
        return judge(self, magnitude[:, None])


def judge(discriminator: nn.Module, x: Tensor) -> Judgement:
    """Scores and features of x (B, 1, H, W) through the layers of a discriminator."""
    features = []
    for layer in discriminator.layers:
        x = leaky_relu(layer(x), SLOPE)
        features.append(x)
    x = discriminator.score(x)
    features.append(x)
    return x.flatten(1), features


class Discriminators(nn.Module):
    """All of them; waveforms (B, T) -> a judgement from each."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, config.width) for period in config.periods),
                *(ResolutionDiscriminator(n_fft, config.width) for n_fft in config.resolutions),
            ]
        )

    def forward(self, audio: Tensor) -> list[Judgement]:
        return [member(audio) for member in self.members]

    def frozen(self, audio: Tensor) -> list[Judgement]:
        """The same judgements, through which a gradient reaches `audio` but not the discriminators' own weights."""
        weights = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return torch.func.functional_call(self, weights, (audio,))


def adversarial_losses(judges: Discriminators, made: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(discriminators', generator's, feature) losses of generated waveforms (B, T) against real ones (B, T).

    Least squares and feature matching (HiFi-GAN eqs. 1 to 4), summed over discriminators; feature matching counts twice
    (eq. 5). The discriminators' gradient does not reach `made`, nor the generator's the discriminators, so that one
    backward pass and one optimiser serve both: both move at once instead of in turn.
    """
    real, fake, seen = judges(audio), judges(made.detach()), judges.frozen(made)
    own = sum((1 - score).square().mean() for score, _ in real) + sum(score.square().mean() for score, _ in fake)
    fooled = sum((1 - score).square().mean() for score, _ in seen)
    layers = [
        (wanted.detach() - found).abs().mean()
        for (_, of_real), (_, of_seen) in zip(real, seen, strict=True)
        for wanted, found in zip(of_real, of_seen, strict=True)
    ]
    return own, fooled, 2 * sum(layers)
