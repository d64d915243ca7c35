"""The folder of an evaluation: what it is of, one JSON line per scored item, and the summary. A killed run goes on.

run.json       protocol, data, seed, figures and systems: what every line depends on
items.jsonl    one line per system and item, appended as it is done
frames.jsonl   with an encoder: the embeddings of each estimate and target, for Frechet distances
summary.json   means with intervals, differences, tables by class and by SNR; made from the lines
summary.md     the same for people
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsep import __version__
from flowsep.atomic import atomic_output, refuse_unwritable
from flowsep.errors import InputError
from flowsep.evaluation.encoders import TextAudioEncoder
from flowsep.evaluation.protocols import ItemSet
from flowsep.evaluation.systems import System

SCHEMA_VERSION = 1
RUN, ITEMS, FRAMES, SUMMARY, TABLE = "run.json", "items.jsonl", "frames.jsonl", "summary.json", "summary.md"
Key = tuple[str, str]  # system and item
Frames = tuple[Tensor, Tensor]  # embeddings of an estimate's pieces (N, D) and of its target's
NAMES = {
    "protocol": "protocol",
    "data": "data or their files",
    "sample_rate": "sample rate",
    "average": "average",
    "draw": "seed or count of the draw",
    "figures": "figures",
    "encoder": "encoder",
}


@dataclass
class Results:
    """Scored items by (system, id), in memory and, if there is a folder, on the disk."""

    run: dict[str, Any]
    folder: Path | None = None
    rows: dict[Key, dict[str, Any]] = field(default_factory=dict)
    frames: dict[Key, Frames] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        items: ItemSet,
        systems: Sequence[System],
        folder: Path | None,
        encoder: TextAudioEncoder | None = None,
        overwrite: bool = False,
    ) -> Results:
        """Results in `folder`, gone on with where they are of the same items, settings and models.

        InputError where they are not, or the folder holds something else; `overwrite` begins anew instead.
        """
        run = {
            "schema_version": SCHEMA_VERSION,
            "flowsep": __version__,
            "protocol": items.name,
            "title": items.protocol.title,
            "mixtures": items.protocol.mixtures,
            "data": items.digest,
            "sample_rate": items.protocol.sample_rate,
            "average": items.protocol.average,
            "draw": {"seed": items.draw.seed, "count": items.draw.count} if items.protocol.drawn else None,
            "figures": list(items.protocol.figures),
            "encoder": None if encoder is None else {"score": encoder.score_name, "name": encoder.name},
            "systems": {system.name: system.about() for system in systems},
        }
        if folder is None:
            return cls(run)
        refuse_unwritable(folder)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / RUN).is_file():
            raise InputError(f"{folder} holds other files; choose another folder with -o")
        if overwrite or not (folder / RUN).is_file():
            results = cls(run, folder)
        else:
            results = read_results(folder)
            refuse_other(results.run, run, folder)
            again = {name for name, about in run["systems"].items() if about["kind"] == "estimates"}
            results.rows = {key: row for key, row in results.rows.items() if key[0] not in again}
            results.run["systems"] |= run["systems"]
        results.save()
        return results

    def done(self, system: str, item: str) -> bool:
        """Whether an item is scored."""
        return (system, item) in self.rows

    def add(self, row: dict[str, Any], frames: Frames | None = None) -> None:
        """Keep one scored item, on the disk at once; NaN and infinity, which are no figures, as None."""
        row = {name: finite(value) for name, value in row.items()}
        key = row["system"], row["id"]
        if frames is not None:
            self.frames[key] = frames
            self.append(FRAMES, frames_line(key, frames))  # before the row, which says that all of an item is there
        self.rows[key] = row
        self.append(ITEMS, line_of(row))

    def append(self, name: str, line: str) -> None:
        """One more line in a file of the folder, if there is one."""
        if self.folder is not None:
            with (self.folder / name).open("a", encoding="utf-8") as file:
                file.write(line)

    def of(self, system: str, ids: Iterable[str]) -> list[dict[str, Any]]:
        """The rows of a system, in the order of the items."""
        return [self.rows[system, name] for name in ids if (system, name) in self.rows]

    def save(self) -> None:
        """Write run.json and the lines anew, whole or not at all: what a killed run tore off is gone."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / ITEMS, "".join(line_of(row) for row in self.rows.values()))
        kept = {key: frames for key, frames in self.frames.items() if key in self.rows}
        if kept or (self.folder / FRAMES).is_file():
            write_text(self.folder / FRAMES, "".join(frames_line(*pair) for pair in kept.items()))
        write_text(self.folder / RUN, json.dumps(self.run, indent=2, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """The value, or None for a number that is NaN or infinite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def line_of(row: dict[str, Any]) -> str:
    """One JSON line."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def frames_line(key: Key, frames: Frames) -> str:
    """One line of embeddings, to six digits."""
    estimate, target = ([[float(f"{value:.6g}") for value in piece] for piece in one.tolist()] for one in frames)
    return line_of({"system": key[0], "id": key[1], "estimate": estimate, "target": target})


def read_results(folder: Path) -> Results:
    """What a folder holds; a last line that was torn off is passed over. InputError for another folder."""
    path = folder / RUN
    if not path.is_file():
        raise InputError(f"{folder} is no folder of results: it has no {RUN}; give one that flowsep evaluate -o wrote")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        version = run["schema_version"]
        rows = {(row["system"], row["id"]): row for row in read_lines(folder / ITEMS)}
        frames = {
            (row["system"], row["id"]): (torch.tensor(row["estimate"]), torch.tensor(row["target"]))
            for row in read_lines(folder / FRAMES)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} cannot be read as results ({error}); choose another folder with -o") from error
    if version != SCHEMA_VERSION:
        raise InputError(f"{path} is of version {version}, this is {SCHEMA_VERSION}; choose another folder with -o")
    absent = [key for key in ("systems", "title", "mixtures", *NAMES) if key not in run]
    if absent:
        raise InputError(f"{path} does not say its {absent[0]}; choose another folder with -o")
    return Results(run, folder, rows, frames)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of JSON lines, none without the file; a last line that a kill tore off is passed over."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    *whole, last = lines or [""]
    rows = [json.loads(line) for line in whole]
    try:
        return [*rows, json.loads(last)] if last else rows
    except ValueError:
        return rows


def refuse_other(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """InputError where results on the disk are of other items, settings or models than those asked for."""
    differs = [title for key, title in NAMES.items() if found[key] != wanted[key]]
    systems = found["systems"]
    differs += [
        f"{name}'s weights or options" for name, about in wanted["systems"].items() if systems.get(name, about) != about
    ]
    if differs:
        raise InputError(
            f"{folder} is of another evaluation ({', '.join(differs)}); choose another folder with -o, or --overwrite"
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_output(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
