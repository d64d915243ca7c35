"""Teaching a small T5 encoder what wordings mean, before the flow hears a sound.

Trained only through the separation loss, the encoder of the small model told a quarter of its own classes apart
(docs/experiments.md). Here every wording is to name its class and its family, masked words are to be guessed from the
others, which teaches the words of captions that belong to no class, and a sentence encoder, if there is one, says what
texts mean (`flowsep.training.teacher`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from flowsep.text import TextEncoder
from flowsep.training.teacher import Meanings

UNKNOWN, FIRST_WORD = 2, 3  # ids of `train_tokenizer`: padding 0, end 1, unknown 2, then the vocabulary
NO_CLASS = -100  # what cross_entropy skips
# Words in no wording of a class and in no training caption: what is known of them is the teacher's single word.
UNHEARD = (
    "bulldog", "dachshund", "whippet", "mastiff", "greyhound", "lynx", "mule", "bison", "heron", "pelican", "cockatoo",
    "thrush", "owlet", "cobra", "hailstorm", "sleet", "geyser", "weep", "preacher", "limousine", "moped", "convertible",
    "zeppelin", "canoe", "kayak", "ukulele", "zither", "harpsichord", "accordion", "bagpipes",
)  # fmt: skip
FRAMES = ("{}", "{}", "{}", "the sound of {}", "sound of {}", "{} sound", "{} in the background", "a recording of {}")


@dataclass(frozen=True)
class TextLossConfig:
    """What the text stage draws and minimises."""

    free_share: float = 0.4  # of the items: captions of no class, where there are any
    word_share: float = 0.3  # of the items: single words, where a teacher knows what they mean
    hide: float = 0.15  # share of the words hidden from the encoder
    sharpness: float = 12.0  # of the softmax over cosines
    family: float = 0.5  # weight beside the class's 1
    words: float = 0.3  # weight of the hidden words' cross-entropy
    teacher: float = 10.0  # weight of 1 - cosine to the teacher's embedding


class WordingDataset(Dataset[dict[str, Any]]):
    """Texts with class and family numbers; item n depends on (seed, n) only. Classes are drawn uniformly."""

    def __init__(
        self,
        wordings: dict[str, Sequence[str]],
        families: dict[str, str],
        free: Sequence[str],
        config: TextLossConfig,
        seed: int,
        meanings: Meanings | None = None,
        words: Sequence[str] = (),
    ) -> None:
        self.labels = sorted(wordings)
        self.families = sorted({families.get(label, label) for label in self.labels})
        self.wordings = [tuple(dict.fromkeys(wordings[label])) for label in self.labels]
        self.family_of = [self.families.index(families.get(label, label)) for label in self.labels]
        self.free, self.free_share = list(free), config.free_share if free else 0.0
        self.words, self.word_share = list(words), config.word_share if words else 0.0
        self.seed, self.meanings = seed, meanings

    def __len__(self) -> int:
        return 2**31 - 1  # items are drawn, not stored

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, index])
        kind = rng.random()
        if kind < self.free_share + self.word_share:
            texts = self.free if kind < self.free_share else self.words
            plain = text = texts[rng.integers(len(texts))]
            label = family = NO_CLASS
        else:
            label = int(rng.integers(len(self.labels)))
            family = self.family_of[label]
            plain = self.wordings[label][rng.integers(len(self.wordings[label]))]
            text = FRAMES[rng.integers(len(FRAMES))].format(plain)
        item = {"text": text, "label": torch.tensor(label), "family": torch.tensor(family)}
        return item if self.meanings is None else {**item, "meaning": self.meanings.of(plain)}


class TextObjective(nn.Module):
    """Cross-entropy of class, family and hidden words from partly hidden wordings; cosine to the teacher's meaning."""

    def __init__(
        self, text: TextEncoder, labels: int, families: int, config: TextLossConfig, teacher_width: int | None = None
    ) -> None:
        super().__init__()
        width = text.config.d_model
        self.text, self.config = text, config
        self.classes = nn.Parameter(torch.randn(labels, width))
        self.families = nn.Parameter(torch.randn(families, width))
        self.words = nn.Linear(width, width)
        self.meaning = nn.Linear(width, teacher_width) if teacher_width else None

    def similarity(self, pooled: Tensor, prototypes: Tensor) -> Tensor:
        """Scaled cosines (B, K)."""
        normalize = nn.functional.normalize
        return self.config.sharpness * normalize(pooled, dim=-1) @ normalize(prototypes, dim=-1).T

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        ids, mask = self.text.tokens(batch["text"])
        hidden_words = (torch.rand(ids.shape).to(ids.device) < self.config.hide) & (ids >= FIRST_WORD)
        state = self.text.states(ids.masked_fill(hidden_words, UNKNOWN), mask)
        pooled = state.pooled()
        cross_entropy = nn.functional.cross_entropy
        logits = self.similarity(pooled, self.classes)
        known = (batch["label"] != NO_CLASS).sum().clamp(min=1)
        label_loss = cross_entropy(logits, batch["label"], reduction="sum") / known
        family_loss = cross_entropy(self.similarity(pooled, self.families), batch["family"], reduction="sum") / known
        embeddings = self.text.model.shared.weight
        guesses = self.words(state.hidden[hidden_words]) @ embeddings.T * embeddings.shape[1] ** -0.5
        word_loss = cross_entropy(guesses, ids[hidden_words], reduction="sum") / hidden_words.sum().clamp(min=1)
        correct = (logits.argmax(1) == batch["label"]).sum() / known
        parts = {"class": label_loss, "family": family_loss, "words": word_loss, "correct": correct}
        loss = label_loss + self.config.family * family_loss + self.config.words * word_loss
        if self.meaning is not None:
            cosine = nn.functional.cosine_similarity(self.meaning(pooled), batch["meaning"], dim=-1)
            parts["teacher"] = 1 - cosine.mean()
            loss = loss + self.config.teacher * parts["teacher"]
        return loss, parts


@torch.no_grad()
def wording_accuracy(
    objective: TextObjective, dataset: WordingDataset, wordings: dict[str, Sequence[str]]
) -> dict[str, float]:
    """Share of wordings whose nearest class, and whose nearest family, is the right one; and their number."""
    texts = [(text, label) for label, options in sorted(wordings.items()) for text in options]
    labels = torch.tensor([dataset.labels.index(label) for _, label in texts])
    families = torch.tensor(dataset.family_of)[labels]
    pooled = torch.cat([objective.text.states(*objective.text.tokens([text])).pooled() for text, _ in texts])
    right = (objective.similarity(pooled, objective.classes).argmax(1) == labels).float().mean()
    kin = (objective.similarity(pooled, objective.families).argmax(1) == families).float().mean()
    return {"class": round(float(right), 4), "family": round(float(kin), 4), "wordings": len(texts)}


@torch.no_grad()
def nearest_classes(
    objective: TextObjective, dataset: WordingDataset, words: Sequence[str], count: int = 3
) -> dict[str, dict[str, float]]:
    """The `count` classes whose prototypes are nearest to each word, nearest first, with their cosines."""
    found = {}
    for word in words:
        pooled = objective.text.states(*objective.text.tokens([word])).pooled()
        best = (objective.similarity(pooled, objective.classes)[0] / objective.config.sharpness).topk(count)
        found[word] = {
            dataset.labels[number]: round(cosine, 3)
            for number, cosine in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        }
    return found
