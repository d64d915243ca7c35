"""BigVGAN behind our own loader: log-mel (B, N, M) -> waveform (B, T).

The network is the PyPI package's; its `from_pretrained` fails with the current hub library and reads pickles, so saving
and loading here are safetensors with a config.json that also holds the mel definition the weights were trained on.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vocoder.mel import MelConfig
from vocoder.weights import WEIGHTS, load_network


@dataclass(frozen=True)
class VocoderConfig:
    """Sizes of the BigVGAN generator. The defaults are FlowSep's: 14.0 M parameters."""

    upsample_rates: tuple[int, ...] = (5, 4, 2, 2, 2)  # their product is the hop
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 8, 4, 4)
    upsample_initial_channel: int = 512
    resblock: str = "1"
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    activation: str = "snakebeta"
    snake_logscale: bool = True
    mel: MelConfig = field(default_factory=MelConfig)

    def __post_init__(self) -> None:
        # A merged configuration is checked as a whole; while it is being merged, mel is not a MelConfig yet.
        if isinstance(self.mel, MelConfig) and math.prod(self.upsample_rates) != self.mel.hop_length:
            product = math.prod(self.upsample_rates)
            raise ValueError(f"upsample_rates multiply to {product}, which is not the hop of {self.mel.hop_length}")

    def hyperparameters(self) -> dict[str, Any]:
        """The dictionary `h` of the bigvgan package."""
        values = asdict(self)
        values["num_mels"] = values.pop("mel")["n_mels"]
        # The package compares and indexes lists.
        return {key: json.loads(json.dumps(value)) for key, value in values.items()}


def build_generator(config: VocoderConfig) -> nn.Module:
    """bigvgan.BigVGAN of these sizes, with weight norm removed, so that its keys are those of a full checkpoint."""
    import contextlib
    import io
    import warnings

    from vocoder.activation import frame_activations
    from vocoder.package import AttrDict, BigVGAN

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", FutureWarning)  # the package uses the deprecated weight_norm
        generator = BigVGAN(AttrDict(config.hyperparameters()))
        generator.remove_weight_norm()
    frame_activations(generator)
    return generator


class Vocoder(nn.Module):
    """Log-mel to waveform at config.mel.sample_rate."""

    def __init__(self, config: VocoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or VocoderConfig()
        self.generator = build_generator(self.config)

    def audio(self, mel: Tensor, length: int | None = None) -> Tensor:
        """Waveform (B, T) in -1..1 of log-mel (B, N, M), cut or zero-padded to `length` samples if given.

        The first up-sampler adds 32 samples at FlowSep's sizes (kernel 16, stride 5), hence the cut.
        """
        waveform = self.generator(mel.transpose(1, 2))[:, 0]
        if length is None:
            return waveform
        return nn.functional.pad(waveform, (0, max(0, length - waveform.shape[-1])))[:, :length]

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and the weights as safetensors."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": "BigVGAN", **asdict(self.config)}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        state = {key: value.contiguous() for key, value in self.generator.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    @classmethod
    def from_pretrained(cls, folder: Path | str, dtype: torch.dtype = torch.float32) -> Vocoder:
        """The vocoder saved in `folder`, on the CPU, frozen; OSError where its file lacks tensors."""
        folder = Path(folder)
        config = vocoder_config_from_dict(json.loads((folder / "config.json").read_text()))
        with torch.device("meta"):
            vocoder = cls(config)
        vocoder.generator = load_network(lambda: vocoder.generator, folder / WEIGHTS, dtype)
        return vocoder.eval()


def vocoder_config_from_dict(values: dict[str, Any]) -> VocoderConfig:
    """VocoderConfig of a config.json; unknown keys are a TypeError."""
    values = {key: value for key, value in values.items() if not key.startswith("_")}
    values["mel"] = MelConfig(**values["mel"])
    tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    tuples["resblock_dilation_sizes"] = tuple(tuple(row) for row in values["resblock_dilation_sizes"])
    return VocoderConfig(**{**values, **tuples})
