"""`flowsep train mask`: a mask separator on the same mixtures as the flow, with its published loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsep.checkpoint import load_separator
from flowsep.config import ModelConfig, save_config
from flowsep.errors import ModelError
from flowsep.masks.config import MaskLossConfig
from flowsep.masks.lassnet import LassNet
from flowsep.masks.query import T5Query
from flowsep.masks.resunet import ResUNet30
from flowsep.masks.separator import MaskSeparator, Origin
from flowsep.masks.spectrum import spectrum_of
from flowsep.training.loop import fit
from flowsep.training.media import MediaLogger
from flowsep.training.objectives import SNR_FLOOR, full_precision
from flowsep.training.recipes import copy_weights, prepare_run, text_encoder_of, training_data


class MaskObjective(nn.Module):
    """Weighted distances of the separated waveform from the target; the text encoder is frozen."""

    def __init__(self, network: ResUNet30 | LassNet, text: T5Query, weights: MaskLossConfig) -> None:
        super().__init__()
        # Batch norms over few channels: a third faster on a CPU with the channels innermost.
        self.network = network.to(memory_format=torch.channels_last)
        self.text, self.weights = text, weights
        self.text.requires_grad_(False)

    def train(self, mode: bool = True) -> MaskObjective:
        super().train(mode)
        self.text.eval()
        return self

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad(), full_precision(batch["mixture"]):
            condition = self.text.encode(batch["text"])
        estimate = self.network(batch["mixture"], condition)
        with full_precision(estimate):
            parts = mask_losses(estimate, batch["target"], batch["mixture"], self.network.config)
        return sum(getattr(self.weights, name) * value for name, value in parts.items()), parts


def mask_losses(estimate: Tensor, target: Tensor, mixture: Tensor, config: Any) -> dict[str, Tensor]:
    """The parts of MaskLossConfig for waveforms (B, T); `config` has the STFT's n_fft and hop_length.

    wave: mean |e - y|. magnitude: mean ||E| - |Y|| over frames and bins.
    snr: mean over items of log10(|e - y|^2 / |x|^2 + 1e-3), energies over time, x the mixture.
    """
    found, wanted = (spectrum_of(x, config.n_fft, config.hop_length).abs() for x in (estimate, target))
    power = mixture.square().sum(-1).clamp(min=1e-6)
    return {
        "wave": (estimate - target).abs().mean(),
        "magnitude": (found - wanted).abs().mean(),
        "snr": torch.log10((estimate - target).square().sum(-1) / power + SNR_FLOOR).mean(),
    }


def train_mask(
    config: ModelConfig,
    data: Path,
    run: Path,
    text: Path | None = None,
    start: Path | None = None,
    max_minutes: float | None = None,
    quiet: bool = False,
) -> Path:
    """Train a mask separator; writes run/model, a complete model folder, and returns it.

    `text` is a folder written by `train_text`, or a model (its folder, or the name of a shipped one), whose encoder
    conditions the network by its pooled state. `start` is a mask separator to go on from; its text encoder is kept.
    """
    prepare_run(config, run)
    _, dataset = training_data(config, data)
    query = T5Query(text_encoder_of(config, text or start))
    network = config.mask.build(config.vocoder.mel.sample_rate, query.size)
    if start is not None:
        trained = load_separator(start, "cpu")
        if not isinstance(trained, MaskSeparator):
            raise ModelError(f"{start} is no mask separator; give one that `flowsep train mask` wrote")
        copy_weights(network, trained.network, f"the network of {start}")
    origin = Origin("small ResUNet30" if isinstance(network, ResUNet30) else "small LASS-Net", "trained here")
    separator = MaskSeparator(network, query, config.mask.window_seconds, config.name, origin)
    objective = MaskObjective(network, query, config.mask_loss)
    media = MediaLogger(separator, dataset, network)
    step = fit(objective, dataset, config.mask_stage, run, config.seed, max_minutes, media, quiet)
    save_config(config, run / "config.yaml")
    separator.save_pretrained(run / "model", training={"steps": step, "seed": config.seed})
    return run / "model"
