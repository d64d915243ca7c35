"""Mixtures as files with an index, so that any other tool can be scored on them (`flowsep mix`)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowsep.atomic import atomic_output, recover, refuse_existing
from flowsep.audio import write_audio
from flowsep.data.mixing import Audio
from flowsep.errors import InputError
from flowsep.evaluation.protocols import ItemSet
from flowsep.evaluation.protocols.item import Item, Waves, to_tensor
from flowsep.evaluation.protocols.listed import INDEX, INDEX_COLUMNS

FOLDERS = {"mixture": "mixtures", "target": "targets", "residual": "residuals"}
MORE_COLUMNS = ("residual", "sample_rate", "samples", "protocol")


@dataclass(frozen=True)
class Wanted:
    """What is written beside the mixtures."""

    targets: bool = False
    residuals: bool = False

    def roles(self) -> tuple[str, ...]:
        """Of the files."""
        return ("mixture", *(["target"] if self.targets else []), *(["residual"] if self.residuals else []))


def write_mixtures(
    items: ItemSet, folder: Path, wanted: Wanted, limit: int | None = None, overwrite: bool = False, quiet: bool = True
) -> Path:
    """Write 32-bit float wav files mixtures/ID.wav (targets/, residuals/) and, once all are there, index.csv.

    Returns the index. A residual is mixture - target in float32. Files that are there already are kept if
    `overwrite` is not given and the folder has no index yet: a killed run goes on. InputError for a folder that has
    one, for clips that cannot be read and for a folder that cannot be written.
    """
    from tqdm import tqdm

    index = folder / INDEX
    refuse_existing(index, overwrite)
    begun = folder / ".flowsep-mix"
    refuse_other_draw(folder, begun, items, overwrite)
    rows = [
        write_item(item, items, folder, wanted, overwrite)
        for item in tqdm(items.items[:limit], disable=quiet, unit="mixture")
    ]
    with (
        atomic_output(index, overwrite=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, [*INDEX_COLUMNS, *MORE_COLUMNS], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    begun.unlink(missing_ok=True)
    return index


def refuse_other_draw(folder: Path, begun: Path, items: ItemSet, overwrite: bool) -> None:
    """Leave a note of what is written; InputError where a killed run wrote something else into the folder."""
    if begun.is_file() and not overwrite and begun.read_text() != items.digest:
        raise InputError(f"{folder} was begun with other mixtures; choose another folder or add --overwrite")
    if not begun.is_file() and not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} holds other files; choose another folder or add --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS.values():
        recover(folder / name)
    begun.write_text(items.digest)


def write_item(item: Item, items: ItemSet, folder: Path, wanted: Wanted, overwrite: bool) -> dict[str, object]:
    """Write one item's files; its row of the index."""
    rate = items.protocol.sample_rate
    waves = item.source.render(rate)
    row: dict[str, object] = {
        "id": item.id,
        "text": item.text,
        "target_class": item.target_class,
        "other_class": item.other_class,
        "snr_db": "" if item.snr_db is None else item.snr_db,
        "sample_rate": rate,
        "samples": len(waves.mixture),
        "protocol": items.name,
    }
    for role, audio in parts(waves, wanted):
        path = folder / FOLDERS[role] / f"{item.id}.wav"
        row[role] = path.relative_to(folder).as_posix()
        path.parent.mkdir(exist_ok=True)
        if overwrite or not path.is_file():
            write_audio(path, to_tensor(audio)[None], rate, overwrite=overwrite)
    return row


def parts(waves: Waves, wanted: Wanted) -> Iterator[tuple[str, Audio]]:
    """What is written of one item."""
    audio = {"mixture": waves.mixture, "target": waves.target, "residual": waves.mixture - waves.target}
    for role in wanted.roles():
        yield role, audio[role].astype(np.float32)
