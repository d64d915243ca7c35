"""What is minimised: modules that turn a batch of waveforms into a loss and its parts."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from flowsep.config import ModelConfig
from flowsep.diffusion import process
from flowsep.flow.path import as_target, flow_matching_loss, start_of, state_at
from flowsep.render import band_mask, bin_weights, stft_mask
from flowsep.text import TextEncoder, TextState
from flowsep.unet import call_unet
from vae.loss import kl_divergence, reconstruction_loss
from vae.model import MelVAE
from vocoder.discriminators import Discriminators, adversarial_losses
from vocoder.mel import NEPER, MelConfig, mel_filterbank, mel_of_magnitude, stft
from vocoder.model import Vocoder

POWER_FLOOR = 1e-12  # far below the mel's floor: the root's derivative stays finite at digital silence
SNR_FLOOR = 1e-3  # -30 dB: below it the snr loss stops rewarding


class FrontEnd(nn.Module):
    """Waveforms -> cropped spectra and log-mels, with constants kept as buffers."""

    def __init__(self, config: MelConfig, frame_multiple: int) -> None:
        super().__init__()
        self.config, self.frame_multiple = config, frame_multiple
        self.register_buffer("filterbank", mel_filterbank(config), persistent=False)

    def spectrum(self, audio: Tensor) -> Tensor:
        """Complex spectrum (B, bins, N) of audio (B, T), N = T // hop cut to the frame multiple."""
        frames = audio.shape[-1] // self.config.hop_length
        return stft(audio, self.config)[..., : frames // self.frame_multiple * self.frame_multiple]

    def log_mel(self, spectrum: Tensor) -> Tensor:
        """Log-mel (B, N, M); digital silence is the floor, never 0."""
        # Not abs(): of complex numbers it takes three times as long, a tenth of a step of the small flow.
        return mel_of_magnitude((power_of(spectrum) + POWER_FLOOR).sqrt(), self.config, self.filterbank)


class VAEObjective(nn.Module):
    """L1 reconstruction of target and mixture mels plus KL."""

    def __init__(self, codec: MelVAE, config: ModelConfig) -> None:
        super().__init__()
        self.codec, self.kl = codec, config.vae_loss.kl
        self.front_end = FrontEnd(config.vocoder.mel, codec.stride * 4)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        with full_precision(batch["mixture"]):
            mel = self.front_end.log_mel(self.front_end.spectrum(torch.cat([batch["target"], batch["mixture"]])))
        mean, logvar = self.codec.posterior(mel)
        sampled = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        decoded = self.codec.autoencoder.decode(sampled).sample[:, 0].float()
        reconstruction = reconstruction_loss(decoded, mel)
        kl = kl_divergence(mean.float(), logvar.float())
        parts = {
            "reconstruction": reconstruction,
            "kl": kl,
            "mel_error_db": (decoded - mel).abs().mean() * NEPER,
            "latent_std": mean.std(),
        }
        return reconstruction + self.kl * kl, parts


class VocoderObjective(nn.Module):
    """Spectral reconstruction of clean targets and mixtures from their mels, and where it has a weight an adversary.

    Log-mel L1 and, at three resolutions, log-magnitude L1 and spectral convergence (Yamamoto et al., 2020). Without
    discriminators the phase of noise-like sounds stays vague; the mel is what reconstruction gets right.
    """

    RESOLUTIONS = (256, 1024, 2048)  # n_fft; the hop is a quarter

    def __init__(self, vocoder: Vocoder, config: ModelConfig) -> None:
        super().__init__()
        self.vocoder, self.weights = vocoder, config.vocoder_loss
        self.front_end = FrontEnd(config.vocoder.mel, 1)
        self.judges = Discriminators(self.weights.discriminators) if self.weights.adversarial else None

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        half = len(batch["target"]) // 2
        audio = torch.cat([batch["target"][:half], batch["mixture"][half:]])
        with full_precision(audio):
            mel = self.front_end.log_mel(self.front_end.spectrum(audio))
        made = self.vocoder.audio(mel, audio.shape[-1]).float()
        with full_precision(audio):
            loss, parts = self.distances(made, audio, mel)
        if self.judges is None:
            return loss, parts
        own, fooled, features = adversarial_losses(self.judges, made, audio)
        parts = {**parts, "discriminators": own, "fooled": fooled, "features": features}
        return loss + own + self.weights.adversarial * (fooled + self.weights.feature * features), parts

    def distances(self, made: Tensor, audio: Tensor, mel: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and parts of waveforms (B, T) against audio (B, T) with its log-mel (B, N, M)."""
        mel_loss = (self.front_end.log_mel(self.front_end.spectrum(made)) - mel).abs().mean()
        losses = [spectral_losses(made, audio, n_fft) for n_fft in self.RESOLUTIONS]
        magnitude = sum(loss[0] for loss in losses) / len(losses)
        convergence = sum(loss[1] for loss in losses) / len(losses)
        parts = {"mel": mel_loss, "magnitude": magnitude, "convergence": convergence}
        return sum(getattr(self.weights, name) * value for name, value in parts.items()), parts


def spectral_losses(made: Tensor, audio: Tensor, n_fft: int) -> tuple[Tensor, Tensor]:
    """(L1 of log magnitudes, spectral convergence) of waveforms (B, T) at one STFT size."""
    window = torch.hann_window(n_fft, device=audio.device)
    # Power plus epsilon before the root: the derivative of a magnitude is infinite at zero.
    magnitudes = [
        (power_of(torch.stft(x, n_fft, n_fft // 4, window=window, return_complex=True)) + 1e-10).sqrt()
        for x in (made, audio)
    ]
    found, wanted = magnitudes
    distance = (found.clamp(min=1e-4).log() - wanted.clamp(min=1e-4).log()).abs().mean()
    error = (found - wanted).square().sum((1, 2)).sqrt()
    return distance, (error / wanted.square().sum((1, 2)).sqrt().clamp(min=1.0)).mean()  # silence counts absolutely


class LatentObjective(nn.Module):
    """What flow and diffusion train alike: a loss on the latent, and optionally on the rendering of its estimate.

    A subclass gives the first by `latent_loss`; its `method` names the loss in the logs and its weight.
    """

    method: ClassVar[str]

    def __init__(self, unet: nn.Module, text: TextEncoder, codec: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        if config.method != self.method:
            raise ValueError(f"{type(self).__name__} trains the method {self.method}, not {config.method}")
        self.unet, self.text = unet, text
        self.codec = codec.requires_grad_(False).eval()
        self.text.requires_grad_(False).eval()  # FlowSep's Flan-T5 is frozen, and so is ours
        self.process, self.weights = config.process, config.unet_loss
        multiple = codec.stride * 2 ** (len(config.unet.channels) - 1)
        self.front_end = FrontEnd(config.vocoder.mel, multiple)
        mel = config.vocoder.mel
        frequencies = torch.arange(mel.n_fft // 2 + 1) * mel.sample_rate / mel.n_fft
        self.register_buffer("bin_weights", bin_weights(frequencies, mel), persistent=False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.codec.eval()
        self.text.eval()
        return self

    def text_state(self, texts: list[str]) -> TextState:
        """Text states with condition dropout per item; a dropped caption is the empty one, as in FlowSep."""
        dropped = torch.rand(len(texts)) < self.weights.condition_dropout
        state = self.text.encode(["" if drop else text for text, drop in zip(texts, dropped.tolist(), strict=True)])
        if not self.text.config.pad_to_max:
            return state
        keep = torch.where(dropped.to(state.mask.device)[:, None], torch.ones_like(state.mask), state.mask)
        return TextState(state.hidden, keep)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        if "latent" in batch:  # from a pool (flowsep.training.latents): encoded before, and nothing to render
            loss, _ = self.latent_loss(batch["latent"], batch["source"], batch["text"])
            return getattr(self.weights, self.method) * loss, {self.method: loss}
        mixture, target, mels, mixture_mel = self.analyse(batch)
        loss, estimate = self.latent_loss(*self.encode(mels, mixture_mel), batch["text"])
        parts = {self.method: loss}
        total = getattr(self.weights, self.method) * loss
        if self.weights.needs_waveforms:
            decoded = [mel.float() for mel in self.decode_streams(estimate)]
            with full_precision(estimate):
                rendered = rendering_losses(
                    decoded,
                    mels,
                    mixture_mel,
                    mixture,
                    target,
                    self.bin_weights,
                    self.process.mask_exponent,
                    self.weights.quiet,
                )
            parts.update(rendered)
            total = total + sum(getattr(self.weights, name) * value for name, value in rendered.items())
        return total, parts

    @torch.no_grad()
    def analyse(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """Spectra (B, bins, N) of mixture and target, log-mels (B, N, M) of each stream, and the mixture's."""
        with full_precision(batch["mixture"]):
            mixture, target = (self.front_end.spectrum(batch[key]) for key in ("mixture", "target"))
            spectra = [target, mixture - target][: self.process.stream_count]
            return mixture, target, [self.front_end.log_mel(s) for s in spectra], self.front_end.log_mel(mixture)

    @torch.no_grad()
    def encode(self, mels: list[Tensor], mixture_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, K * C, S, F) of the streams' log-mels (B, N, M), and (B, C, S, F) of the mixture's."""
        with full_precision(mixture_mel):
            return torch.cat([self.codec.encode(mel) for mel in mels], dim=1), self.codec.encode(mixture_mel)

    def latents(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What `encode` makes of a batch of waveforms, wherever it is: for a pool."""
        device = self.bin_weights.device
        return self.encode(*self.analyse({key: batch[key].to(device) for key in ("mixture", "target")})[2:])

    def latent_loss(self, latent: Tensor, source: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        """The loss, and the network's estimate of the target latent (B, K * C, S, F), at times drawn for each item.

        source (B, C, S, F) is the mixture latent.
        """
        raise NotImplementedError

    def decode_streams(self, latent: Tensor) -> list[Tensor]:
        """Log-mels (B, N, M) of each stream of a latent (B, K * C, S, F)."""
        return [self.codec.decode(stream) for stream in latent.chunk(self.process.stream_count, dim=1)]


class FlowObjective(LatentObjective):
    """The rectified flow's loss on the latent."""

    method = "flow"

    def draw_times(self, count: int) -> Tensor:
        """t (B,): start_share of the items at 0, the others uniform in 0..1."""
        t = torch.rand(count)
        return torch.where(torch.rand(count) < self.weights.start_share, torch.zeros_like(t), t)

    def latent_loss(self, latent: Tensor, source: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), full_precision(latent):
            start = start_of(source, torch.randn(latent.shape).to(latent), self.process)
            t = self.draw_times(len(latent)).to(latent)
            x = state_at(t, start, latent, self.process.sigma_min)
        output = call_unet(self.unet, t, x, source, self.text_state(texts)).float()
        loss = flow_matching_loss(output, start, latent, self.process).mean()
        return loss, as_target(output, t, x, self.process)


class DiffusionObjective(LatentObjective):
    """Mean squared error of the predicted noise, or of v or the target, at timesteps drawn evenly."""

    method = "diffusion"

    def __init__(self, unet: nn.Module, text: TextEncoder, codec: nn.Module, config: ModelConfig) -> None:
        super().__init__(unet, text, codec, config)
        self.levels = process.noise_levels(config.diffusion)  # a and s, each (N,)

    def latent_loss(self, latent: Tensor, source: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        prediction = self.process.prediction
        with torch.no_grad(), full_precision(latent):
            noise = torch.randn(latent.shape).to(latent)
            n = torch.randint(self.process.timesteps, (len(latent),))
            a, s = (level[n] for level in self.levels)
            x = process.noised(latent, noise, a, s)
            goal = process.training_goal(latent, noise, a, s, prediction)
        output = call_unet(self.unet, n.to(x.device), x, source, self.text_state(texts)).float()
        return (output - goal).square().mean(), process.as_target(output, x, a, s, prediction)


def power_of(spectrum: Tensor) -> Tensor:
    """Squared magnitudes, real, of a complex spectrum of any shape."""
    return spectrum.real.square() + spectrum.imag.square()


def latent_objective(unet: nn.Module, text: TextEncoder, codec: nn.Module, config: ModelConfig) -> LatentObjective:
    """The objective of the configuration's method."""
    kinds: dict[str, type[LatentObjective]] = {kind.method: kind for kind in (FlowObjective, DiffusionObjective)}
    return kinds[config.method](unet, text, codec, config)


def full_precision(like: Tensor) -> torch.autocast:
    """float32 for what is not a network: under autocast, mels and masks would be products in half precision."""
    return torch.autocast(like.device.type, enabled=False)


def rendering_losses(
    estimates: list[Tensor],
    mels: list[Tensor],
    mixture_mel: Tensor,
    mixture: Tensor,
    target: Tensor,
    weights: Tensor,
    exponent: float,
    quiet: float,
) -> dict[str, Tensor]:
    """Losses on the decoded estimates and on the mask that they make.

    mel: L1 on the log-mels, each cell weighted `quiet`..1 by how far the mixture stands above the floor there.
    mask: L1 between the rendering mask and the ideal one, weighted by the mixture's magnitude.
    snr: log10 of the error energy of the masked spectrum over the mixture's, floored at -30 dB (a thresholded SNR).
    """
    audible = ((mixture_mel + 9.0) / 8.0).clamp(quiet, 1.0)
    mel_loss = sum(((e - m).abs() * audible).mean() for e, m in zip(estimates, mels, strict=True)) / len(mels)
    pair = [*estimates, None][:2]
    ideal_pair = [*mels, None][:2]
    mask = band_mask(pair[0], pair[1], mixture_mel, exponent)
    ideal = band_mask(ideal_pair[0], ideal_pair[1], mixture_mel, exponent)
    loudness = mixture_mel.exp()
    mask_loss = (((mask - ideal).abs() * loudness).sum((1, 2)) / loudness.sum((1, 2)).clamp(min=1e-6)).mean()
    # |g X - Y|^2 = g^2 |X|^2 - 2 g Re(X conj Y) + |Y|^2, so that only the real gain g needs a derivative.
    gain = stft_mask(mask, weights)
    power, product = power_of(mixture), mixture.real * target.real + mixture.imag * target.imag
    error = (gain * (gain * power - 2 * product)).sum((1, 2)) + power_of(target).sum((1, 2))
    reference = power.sum((1, 2)).clamp(min=1e-6)
    error = error.clamp(min=0.0)  # rounding
    snr_loss = torch.log10(error / reference + SNR_FLOOR).mean()
    return {"mel": mel_loss, "mask": mask_loss, "snr": snr_loss}
