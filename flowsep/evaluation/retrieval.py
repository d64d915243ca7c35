"""Does an encoder find the sound that a wording describes? R@k of text to audio on held-out clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowsep.audio import resample
from flowsep.data.manifest import Clip
from flowsep.data.mixing import Audio
from flowsep.errors import InputError
from flowsep.evaluation.encoders import TextAudioEncoder
from flowsep.evaluation.recipe import SAMPLE_RATE, read_clip
from flowsep.evaluation.semantic import own_ranks
from flowsep.evaluation.statistics import bootstrap_mean

SECONDS = 10.24  # of each clip that are heard
KS = (1, 5, 10)
FEWEST = 2  # classes


def retrieval(
    encoder: TextAudioEncoder,
    clips: Sequence[Clip],
    wordings: Mapping[str, Mapping[str, Sequence[str]]],
    draws: int = 20,
    seed: int = 0,
    quiet: bool = True,
) -> dict[str, Any]:
    """R@1, R@5 and R@10 for each set of `wordings` (name -> class -> texts), in a pool of one clip per class.

    Clips of a class share their wordings, so that a pool holds one of each, drawn `draws` times; every wording of every
    class is asked for in each pool. A figure is the mean over classes of the share of its wordings and pools in which
    its clip is among the k nearest, with a 95 % interval over the classes; chance is k in the number of classes.
    InputError for fewer than two classes.
    """
    from tqdm import tqdm

    labels = sorted({clip.label for clip in clips})
    if len(labels) < FEWEST:
        raise InputError("retrieval needs clips of at least two classes; give another split or folder")
    members = [[number for number, clip in enumerate(clips) if clip.label == label] for label in labels]
    sounds = torch.cat(
        [heard(encoder, read_clip(clip.path)) for clip in tqdm(clips, disable=quiet, unit="clip")]
    )  # (N, D)
    rng = np.random.default_rng(seed)
    pools = [[numbers[rng.integers(len(numbers))] for numbers in members] for _ in range(draws)]
    report: dict[str, Any] = {"encoder": {"score": encoder.score_name, "name": encoder.name}}
    report |= {"clips": len(clips), "classes": len(labels), "pools": draws, "seconds": SECONDS, "wordings": {}}
    for name, texts_of in wordings.items():
        texts = [text for label in labels for text in texts_of.get(label, ())]
        owners = [number for number, label in enumerate(labels) for _ in texts_of.get(label, ())]
        if not texts:
            raise InputError(f"none of the classes has {name} wordings")
        asked = encoder.text(texts)
        ranks = torch.stack([own_ranks(asked, sounds[pool], owners) for pool in pools])  # (draws, Q)
        report["wordings"][name] = {"texts": len(texts)} | {f"R@{k}": recall(ranks, owners, k) for k in KS}
    return report


def heard(encoder: TextAudioEncoder, audio: Audio) -> Tensor:
    """(1, D) of the beginning of a clip (T,) at 16 kHz."""
    beginning = torch.from_numpy(audio)[None, : round(SECONDS * SAMPLE_RATE)]
    return encoder.audio(resample(beginning, SAMPLE_RATE, encoder.sample_rate))


def recall(ranks: Tensor, owners: Sequence[int], k: int) -> dict[str, float]:
    """Mean over classes, with its interval, of how often ranks (draws, Q) are below k; owners (Q,) are the classes."""
    found, classes = (ranks < k).double().mean(0), torch.tensor(owners)
    return bootstrap_mean([found[classes == one].mean().item() for one in classes.unique()])


def retrieval_lines(report: dict[str, Any]) -> list[str]:
    """The report as a Markdown table."""
    score, name = report["encoder"]["score"], report["encoder"]["name"]
    count = report["classes"]
    lines = [
        f"{score} [{name}]: text to audio in {report['pools']} pools of {count} clips, one per class of "
        f"{report['clips']}; means of classes with 95 % bootstrap intervals",
        "",
        f"| wordings | texts | {' | '.join(f'R@{k}' for k in KS)} |",
        f"|{'---|' * (len(KS) + 2)}",
    ]
    for wording, row in report["wordings"].items():
        found = [{edge: 100 * value for edge, value in row[f"R@{k}"].items()} for k in KS]
        cells = [f"{one['mean']:.1f} % [{one['low']:.1f}, {one['high']:.1f}]" for one in found]
        lines.append(f"| {wording} | {row['texts']} | {' | '.join(cells)} |")
    lines.append(f"| chance | | {' | '.join(f'{100 * min(1.0, k / count):.1f} %' for k in KS)} |")
    return lines
