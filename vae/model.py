"""The latent codecs: mel (B, N, M) -> latent (B, C, S, F) and back, S latent frames and F latent bands.

`MelVAE` is FlowSep's KL autoencoder. `MelPatches` is the lossless member of the same
seam: space-to-depth with dataset constants, nothing to train, for small models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vae.products import use_products
from vae.winograd import use_winograd
from vocoder.measures import for_inference, measures
from vocoder.weights import WEIGHTS, load_network


@dataclass(frozen=True)
class CodecConfig:
    """Which codec, and its sizes. The defaults are FlowSep's VAE."""

    kind: str = "vae"  # vae | patches
    channels: tuple[int, ...] = (128, 256, 512)  # of the VAE; one downsampling by 2 between neighbours
    layers: int = 2  # residual blocks per level of the encoder
    latent_channels: int = 8
    groups: int = 32
    scaling_factor: float = 1.0  # latents are multiplied by it: 1 / their standard deviation over the training data
    patch: int = 4  # of the patches: frames and bands per side
    mean: float = -5.0  # of the patches: dataset mean of the log-mel
    std: float = 3.0


class Codec(Protocol):
    """What the flow knows of a codec."""

    latent_channels: int
    stride: int  # mel frames per latent frame, and mel bands per latent band

    def encode(self, mel: Tensor, seeds: Sequence[int] | None = None) -> Tensor: ...
    def decode(self, latent: Tensor) -> Tensor: ...


class MelVAE(nn.Module):
    """FlowSep's mel autoencoder: diffusers' AutoencoderKL on a one-channel mel image, latents scaled."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        from vae.attention import block_attention

        use_winograd(autoencoder)
        use_products(autoencoder)
        block_attention(autoencoder)
        for part in (autoencoder.encoder, autoencoder.decoder):
            part.conv_in.register_forward_hook(_channels_last)  # what follows keeps the order of its input
        self.autoencoder = autoencoder
        self.latent_channels = autoencoder.config.latent_channels
        self.stride = 2 ** (len(autoencoder.config.block_out_channels) - 1)

    @classmethod
    def build(cls, config: CodecConfig) -> MelVAE:
        """A freshly initialised autoencoder of these sizes."""
        from diffusers import AutoencoderKL

        levels = len(config.channels)
        return cls(
            AutoencoderKL(
                in_channels=1,
                out_channels=1,
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                block_out_channels=tuple(config.channels),
                layers_per_block=config.layers,
                latent_channels=config.latent_channels,
                norm_num_groups=config.groups,
                scaling_factor=config.scaling_factor,
            )
        )

    @property
    def scaling_factor(self) -> float:
        """What latents are multiplied by."""
        return float(self.autoencoder.config.scaling_factor)

    def posterior(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (clamped to -30..20), both (B, C, S, F), unscaled, of mel (B, N, M)."""
        moments = self.autoencoder._encode(mel[:, None])
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def encode(self, mel: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Scaled latent (B, C, S, F) of mel (B, N, M): the posterior mean, or samples by `seeds`, one per item."""
        mean, logvar = self.posterior(mel)
        if seeds is not None:
            noise = [torch.randn(mean.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            mean = mean + torch.exp(0.5 * logvar) * torch.stack(noise).to(mean)
        return self.scaling_factor * mean

    def decode(self, latent: Tensor) -> Tensor:
        """Log-mel (B, N, M) of a scaled latent (B, C, S, F)."""
        return self.autoencoder.decode(latent / self.scaling_factor, return_dict=False)[0][:, 0]

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and diffusion_pytorch_model.safetensors."""
        self.autoencoder.save_pretrained(folder)


def _channels_last(layer: nn.Module, inputs: tuple[Tensor, ...], made: Tensor) -> Tensor:
    """Features (B, C, H, W) in the order that oneDNN's bfloat16 convolutions are fast in; float32 would err more."""
    if measures().channels_last and made.dtype == torch.bfloat16 and for_inference(made):
        return made.contiguous(memory_format=torch.channels_last)
    return made


class MelPatches(nn.Module):
    """Lossless codec: a patch of p frames by p bands becomes p * p channels; mean and std are dataset constants."""

    def __init__(self, patch: int = 4, mean: float = -5.0, std: float = 3.0) -> None:
        super().__init__()
        self.stride, self.mean, self.std = patch, mean, std
        self.latent_channels = patch * patch

    def encode(self, mel: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Latent (B, p * p, N / p, M / p) of mel (B, N, M); deterministic, so `seeds` changes nothing."""
        return nn.functional.pixel_unshuffle((mel[:, None] - self.mean) / self.std, self.stride)

    def decode(self, latent: Tensor) -> Tensor:
        """Log-mel (B, N, M), the exact inverse of `encode`."""
        return nn.functional.pixel_shuffle(latent, self.stride)[:, 0] * self.std + self.mean

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json; there are no weights."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        config = {"_class_name": "MelPatches", "patch": self.stride, "mean": self.mean, "std": self.std}
        (Path(folder) / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def build_codec(config: CodecConfig) -> MelVAE | MelPatches:
    """A freshly initialised codec; unknown kinds are errors."""
    if config.kind == "vae":
        return MelVAE.build(config)
    if config.kind == "patches":
        return MelPatches(config.patch, config.mean, config.std)
    raise ValueError(f"unknown codec.kind {config.kind!r}; choose vae or patches")


def load_codec(folder: Path, dtype: torch.dtype = torch.float32) -> MelVAE | MelPatches:
    """The codec saved in `folder`, whichever member of the seam it is, frozen; OSError where tensors are missing."""
    config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
    if config.get("_class_name") == "MelPatches":
        return MelPatches(config["patch"], config["mean"], config["std"])
    from diffusers import AutoencoderKL

    config = AutoencoderKL.load_config(folder, local_files_only=True)
    return MelVAE(load_network(partial(AutoencoderKL.from_config, config), folder / WEIGHTS, dtype))
