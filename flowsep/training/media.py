"""What a person looks at and listens to while a model trains: mel figures and audio of a few fixed items."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flowsep.evaluation.signal import si_sdr
from flowsep.protocol import SampleOptions
from flowsep.render import apply_mask
from vocoder.mel import log_mel

if TYPE_CHECKING:
    from flowsep.data.dataset import MixtureDataset
    from flowsep.masks.separator import MaskSeparator
    from flowsep.separator import LatentSeparator
    from flowsep.training.loop import Logs
    from flowsep.training.objectives import VAEObjective


class MediaLogger:
    """Separates fixed items with the averaged weights; logs SI-SDR improvement, mel triplets and sounds."""

    def __init__(
        self, separator: LatentSeparator | MaskSeparator, dataset: MixtureDataset, trained: nn.Module | None = None
    ) -> None:
        """`trained` is the part of the separator that training moves; the UNet if not given."""
        self.separator, self.items = separator, fixed_items(dataset)
        self.trained = separator.unet if trained is None else trained

    def __call__(self, logs: Logs, step: int) -> None:
        self.separator.to(next(self.trained.parameters()).device).eval()
        options = SampleOptions(render="mixture")
        gains = []
        for index, item in enumerate(self.items):
            mixture = item["mixture"][None]
            separation = self.separator.separate(mixture, [item["text"]], options)
            sounds = {
                "mixture": mixture[0],
                "target": item["target"],
                "estimate": separation.target[0].cpu(),
                "residual": separation.residual[0].cpu(),
            }
            gains.append(si_sdr(sounds["estimate"], sounds["target"]) - si_sdr(sounds["mixture"], sounds["target"]))
            for name, audio in sounds.items():
                logs.tensorboard.add_audio(f"{index}/{name}", audio[None], step, self.separator.sample_rate)
            logs.tensorboard.add_image(f"{index}/mels", self.picture(list(sounds.values())), step)
            logs.tensorboard.add_text(f"{index}/query", item["text"], step)
        logs.scalars(step, {"media/si_sdri": float(torch.stack(gains).mean())})

    def picture(self, sounds: list[torch.Tensor]) -> torch.Tensor:
        """Log-mels of waveforms (T,) on top of each other."""
        return stacked([log_mel(audio, self.separator.mel) for audio in sounds])


class VAEMedia:
    """Logs a few fixed mixtures as they went in and as the VAE gives them back.

    This stage has no vocoder: the sound is the mixture with each band at the level that the decoded mel gives it.
    """

    def __init__(self, objective: VAEObjective, dataset: MixtureDataset) -> None:
        self.objective, self.items = objective, fixed_items(dataset)
        self.sample_rate = dataset.sample_rate

    def __call__(self, logs: Logs, step: int) -> None:
        self.objective.eval()
        device = next(self.objective.parameters()).device
        for index, item in enumerate(self.items):
            with torch.no_grad():
                mel = self.objective.front_end.log_mel(
                    self.objective.front_end.spectrum(item["mixture"][None].to(device))
                )
                decoded = self.objective.codec.decode(self.objective.codec.encode(mel))
            mel, decoded = mel[0].cpu(), decoded[0].cpu()
            heard = apply_mask(
                item["mixture"][None], (decoded - mel).exp(), self.sample_rate, self.objective.front_end.config
            )
            logs.tensorboard.add_image(f"{index}/mel_and_decoded", stacked([mel, decoded]), step)
            logs.tensorboard.add_audio(f"{index}/mixture", item["mixture"][None], step, self.sample_rate)
            logs.tensorboard.add_audio(f"{index}/decoded", heard, step, self.sample_rate)


def fixed_items(dataset: MixtureDataset, count: int = 4) -> list[dict[str, Any]]:
    """The first `count` items, from a number that training never reaches, in which target and residual both sound."""
    both = (
        item
        for item in map(dataset.__getitem__, itertools.count(2**30))
        if item["target"].any() and item["residual"].any()
    )
    return list(itertools.islice(both, count))


def stacked(mels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Log-mels (N, M) on top of each other, low bands below: (1, bands, N), 80 dB from black to white."""
    picture = torch.cat([mel.T.flip(0) for mel in mels])
    return ((picture - picture.max()) / 9.21 + 1).clamp(0, 1)[None]
