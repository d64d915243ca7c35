"""Fitting a model's presence score to mixtures whose contents are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsep.atomic import refuse_unwritable
from flowsep.audio import resample
from flowsep.checkpoint import load_separator, read_json, write_json
from flowsep.data.manifest import PHRASINGS, read_phrasings
from flowsep.errors import InputError, UsageError
from flowsep.evaluation.recipe import SAMPLE_RATE, MixtureRow, read_recipe, render_row
from flowsep.evaluation.run import captions_of, other_queries
from flowsep.heard import normalise
from flowsep.presence import PresenceConfig, area_under_curve, fit_presence, presence_features, probability
from flowsep.protocol import SampleOptions
from flowsep.separator import LatentSeparator
from vocoder.mel import stft

FOLDS = 5
FEWEST = 2 * FOLDS  # mixtures


def calibrate_folder(
    model: Path, recipe: Path, data: Path, device: str = "auto", quiet: bool = True
) -> tuple[Path, dict[str, Any]]:
    """Fit the presence score of the model folder to a list of mixtures, store it there; its file, `calibrate`'s report.

    UsageError for what is no model folder, and for models that have no such score.
    """
    if not (model / "model_index.json").is_file():
        raise UsageError(f"{model} is no model folder; a name or hub id cannot be written to, copy or export it first")
    rows, separator = read_recipe(recipe), load_separator(model.resolve(), device)  # not a shipped model of that name
    if not isinstance(separator, LatentSeparator):
        raise UsageError("only FlowSep and DiffusionSep models have a presence score")
    path = model / "scheduler" / "scheduler_config.json"
    refuse_unwritable(path.parent)
    config, report = calibrate(separator, rows, data, SampleOptions(render="mixture"), quiet)
    write_json(path, {**read_json(path), "presence": asdict(config)})
    return path, report


def calibrate(
    separator: LatentSeparator, rows: Sequence[MixtureRow], data: Path, options: SampleOptions, quiet: bool = True
) -> tuple[PresenceConfig, dict[str, Any]]:
    """The score fitted to all rows, and how well scores fitted to four fifths of them do on the others.

    Each mixture is asked for its target and for a sound of another family that is not in it. InputError where the clips
    have no manifest to choose such a sound from, or where there are too few mixtures.
    """
    from tqdm import tqdm

    clips, unseen = captions_of(data), read_phrasings(PHRASINGS, "held_out")
    if len(rows) < FEWEST:
        raise InputError(f"{len(rows)} mixtures are too few to calibrate with; give at least {FEWEST}")
    features = []
    for row in tqdm(rows, disable=quiet, unit="mixture"):
        absent = other_queries(row, clips, unseen).get("absent_query")
        if absent is None:
            raise InputError(
                f"{data} has no manifest.csv that holds both clips of mixture {row.id} and a sound of a third family: "
                "it has to say what is not in a mixture"
            )
        mixture = torch.from_numpy(render_row(row, data)[0])[None]
        mixture = resample(mixture, SAMPLE_RATE, separator.sample_rate)
        features.append(features_of(separator, mixture, [row.query, absent], options))
    stacked = torch.stack(features)  # (N, present and absent, features)
    there = torch.tensor([True, False]).expand(len(rows), 2)
    held_out = torch.empty(len(rows), 2)
    fold = torch.arange(len(rows)) % FOLDS
    for number in range(FOLDS):
        taught, asked = fold != number, fold == number
        config = fit_presence(stacked[taught].flatten(0, 1), there[taught].flatten())
        held_out[asked] = probability(stacked[asked], config)
    scores, labels = held_out.flatten(), there.flatten()
    report = {
        "mixtures": len(rows),
        "auc": area_under_curve(scores.tolist(), labels.tolist()),
        "brier": float((scores - labels.float()).square().mean()),
        "found_when_present": float((held_out[:, 0] >= 0.5).float().mean()),
        "found_when_absent": float((held_out[:, 1] >= 0.5).float().mean()),
    }
    return fit_presence(stacked.flatten(0, 1), labels), report


def features_of(separator: LatentSeparator, mixture: Tensor, texts: list[str], options: SampleOptions) -> Tensor:
    """Presence features (Q, 2) of several queries of one mixture (1, T) no longer than the window."""
    found = separator.separate(mixture.expand(len(texts), -1), texts, options)
    mel = separator.log_mel(stft(separator.pad(normalise(mixture.to(separator.device))[0]), separator.mel))
    frames = min(mixture.shape[-1] // separator.mel.hop_length + 1, mel.shape[1])
    return presence_features(found.mask[:, :frames], mel[:, :frames].expand(len(texts), -1, -1)).cpu()
