"""What a person looks at and listens to while a flow trains: mel figures and audio of a few fixed items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from flowsep.evaluation.signal import si_sdr
from flowsep.protocol import SampleOptions
from vocoder.mel import log_mel

if TYPE_CHECKING:
    from flowsep.separator import FlowSep
    from flowsep.training.loop import Logs


class MediaLogger:
    """Separates fixed items with the averaged weights; logs SI-SDR improvement, mel triplets and sounds."""

    def __init__(self, separator: FlowSep, items: Sequence[dict[str, Any]]) -> None:
        self.separator, self.items = separator, items

    def __call__(self, logs: Logs, step: int) -> None:
        self.separator.eval()
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
        self.separator.train()

    def picture(self, sounds: list[torch.Tensor]) -> torch.Tensor:
        """Log-mels on top of each other (1, bands, frames), 80 dB from black to white."""
        mels = torch.cat([log_mel(audio, self.separator.mel).T.flip(0) for audio in sounds])
        return ((mels - mels.max()) / 9.21 + 1).clamp(0, 1)[None]
