"""`flowsep train clap`: the proxy encoder, by contrast between sounds and wordings of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsep.checkpoint import SHIPPED
from flowsep.config import ModelConfig, save_config
from flowsep.data.mel_items import MelItems
from flowsep.proxy.encoder import ProxyEncoder
from flowsep.proxy.network import ProxyNetwork
from flowsep.text import TextEncoder
from flowsep.training.loop import fit
from flowsep.training.objectives import full_precision
from flowsep.training.recipes import prepare_run, text_encoder_of, training_clips, wordings_for


class ProxyObjective(nn.Module):
    """Cross-entropy between what the cosines say and how much of each sound each wording describes, both ways."""

    def __init__(self, network: ProxyNetwork, text: TextEncoder) -> None:
        super().__init__()
        self.network, self.text = network, text
        self.text.requires_grad_(False)

    def train(self, mode: bool = True) -> ProxyObjective:
        super().train(mode)
        self.text.eval()
        return self

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        texts = [*batch["text"], *batch["other_text"]]
        with torch.no_grad(), full_precision(batch["mel"]):  # all at once: too many wordings to keep their states
            pooled = self.text.states(*self.text.tokens(texts)).pooled()
        sounds, words = self.network.audio(batch["mel"]), self.network.words(pooled)
        shares = shares_of(batch)
        by_sound, by_text = contrastive_losses(self.network.sharpness * sounds @ words.T, shares)
        right = (sounds @ words.T).argmax(1)
        correct = shares.gather(1, right[:, None])[:, 0] >= shares.amax(1) - 1e-6
        parts = {
            "by_sound": by_sound,
            "by_text": by_text,
            "correct": correct.float().mean(),
            "sharpness": self.network.sharpness,
        }
        return 0.5 * (by_sound + by_text), parts


def shares_of(batch: dict[str, Any]) -> Tensor:
    """What share of the energy of sound b each of the 2 B wordings describes, (B, 2 B): all wordings of its classes."""
    labels = torch.cat([batch["label"], batch["other_label"]])
    first, second = (batch[name][:, None] == labels for name in ("label", "other_label"))
    return batch["share"][:, None] * first + batch["other_share"][:, None] * second


def contrastive_losses(logits: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """(loss over the sounds, loss over the texts) of logits (B, K), each a cross-entropy in nats.

    InfoNCE both ways, the goal of each row (column) the shares (B, K), 0..1, brought to a sum of 1. A mixture of two
    described sounds is thus to lie between both, at a difference of similarities that grows with the SNR; to a text
    the purest sound is to be nearest. Texts that describe none of the sounds are no rows of the second loss, but are
    wrong answers in the first.
    """
    rows = shares / shares.sum(1, keepdim=True).clamp(min=1e-6)
    by_sound = -(rows * logits.log_softmax(1)).sum(1).mean()
    described = shares.sum(0)
    columns = shares / described.clamp(min=1e-6)
    by_text = -(columns * logits.log_softmax(0)).sum(0)
    known = (described > 0).to(by_text)
    return by_sound, (by_text * known).sum() / known.sum().clamp(min=1)


def train_clap(
    config: ModelConfig,
    data: Path,
    run: Path,
    text: Path | None = None,
    max_minutes: float | None = None,
    quiet: bool = False,
) -> Path:
    """Train the proxy encoder; writes run/clap, a folder for `load_proxy`, and returns it.

    `text` is a folder written by `train_text`, or a model (its folder, or the name of a shipped one), whose text
    encoder stays as it is. Learns from the train split, without non-commercial clips unless the data says otherwise.
    """
    prepare_run(config, run)
    clips, _ = training_clips(config, data)
    phrasings = wordings_for(config, "train") if config.data.phrasings else None
    encoder = text_encoder_of(config, text)
    mel = config.vocoder.mel
    dataset = MelItems(clips, config.clap_data, config.clap, mel, config.seed, phrasings)
    network = ProxyNetwork(config.clap, mel.n_mels, encoder.model.config.d_model)
    objective = ProxyObjective(network, encoder)
    step = fit(objective, dataset, config.clap_stage, run, config.seed, max_minutes, quiet=quiet)
    save_config(config, run / "config.yaml")
    shared = str(text) if text is not None and (SHIPPED / text / "text_encoder").is_dir() else None
    trained = ProxyEncoder(objective.cpu().network, encoder, mel, config.name)
    trained.save_pretrained(run / "clap", shared, {"steps": step, "seed": config.seed, "clips": len(clips)})
    return run / "clap"
