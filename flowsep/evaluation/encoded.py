"""What a text-audio encoder says of the estimates of a recipe: the shipped proxy's scores, where it ships."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowsep.evaluation.encoders import FrameEncoder, shipped_encoder
from flowsep.evaluation.recipe import SAMPLE_RATE
from flowsep.evaluation.semantic import clap_score, clap_score_audio, for_encoder, frechet_distance

TITLES = {  # figure -> how it is called, of what score by which encoder
    "text_score": "{score}, text to sound [{name}]",
    "audio_score": "{score}_A, sound to target [{name}]",
    "frechet": "{score} Frechet distance [{name}]",
}


class EncoderFigures:
    """Figures of one item after the other, and of all together; none at all without an encoder."""

    def __init__(self) -> None:
        self.encoder = shipped_encoder()
        self.pieces: dict[str, list[Tensor]] = {"estimates": [], "targets": []}

    def item(self, query: str, estimate: Tensor, target: Tensor) -> dict[str, float]:
        """Cosine, -1..1, between the query and the estimate (T,), and between the estimate and the target (T,)."""
        if self.encoder is None:
            return {}
        if isinstance(self.encoder, FrameEncoder):
            for name, audio in (("estimates", estimate), ("targets", target)):
                heard = for_encoder(audio[None], SAMPLE_RATE, self.encoder.sample_rate, legacy_rate=False)
                self.pieces[name].append(self.encoder.frames(heard[0]).cpu())
        return {
            "text_score": clap_score(self.encoder, [query], estimate[None], SAMPLE_RATE).mean,
            "audio_score": clap_score_audio(self.encoder, estimate[None], target[None], SAMPLE_RATE).mean,
        }

    def whole(self) -> dict[str, Any]:
        """Whose figures they are, and the Frechet distance between all estimates and all targets."""
        if self.encoder is None:
            return {}
        report: dict[str, Any] = {"encoder": {"score": self.encoder.score_name, "name": self.encoder.name}}
        if sum(len(pieces) for pieces in self.pieces["targets"]) > 1:
            found = frechet_distance(*(torch.cat(pieces) for pieces in self.pieces.values()))
            report["frechet"] = {"mean": found}
        return report


def titles_of(encoder: dict[str, str] | None) -> dict[str, str]:
    """What the figures are called, with their encoder; empty without one."""
    return {} if encoder is None else {figure: title.format(**encoder) for figure, title in TITLES.items()}
