"""Protocols that published their mixtures: DCASE 2024 Task 9, AudioSep's six sets, and folders of `flowsep mix`.

Each reader takes the folder that the authors' archive or repository unpacks to, as it is.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from flowsep.errors import InputError
from flowsep.evaluation.protocols.item import Item, Mixed, ReadyMade

INDEX = "index.csv"  # of a folder that `flowsep mix` wrote
INDEX_COLUMNS = ("id", "mixture", "target", "text", "target_class", "other_class", "snr_db")
DCASE_CSV, DCASE_FOLDER = "lass_synthetic_validation.csv", "lass_validation"


def read_table(path: Path, columns: Sequence[str], where: str) -> list[dict[str, str]]:
    """Rows of a CSV with a header; of columns of one name the first counts.

    InputError as `read_lines`, for a file without rows, for missing columns and for rows that are too short.
    """
    lines = read_lines(path, where)
    if len(lines) < 2:
        raise InputError(f"{path} lists no mixtures; get {where}")
    header = [name.strip() for name in lines[0]]
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(header)}")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) < len(header):
            raise InputError(f"{path}, row {number}: {len(line)} cells instead of {len(header)}; get {where}")
        rows.append({name: line[header.index(name)] for name in columns})
    return rows


def read_lines(path: Path, where: str) -> list[list[str]]:
    """Cells of a CSV, empty lines left out. InputError for no text and for no file; `where` says where to get it."""
    if not path.is_file():
        raise InputError(f"{path} is missing; get {where}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV in UTF-8 ({error}); get {where}") from error


def read_dcase(data: Path, where: str) -> list[Item]:
    """DCASE 2024 Task 9, synthetic validation: source + noise at a whole number of dB, query the caption."""
    rows = read_table(data / DCASE_CSV, ("source", "noise", "snr", "caption"), where)
    items = []
    for number, row in enumerate(rows):
        try:
            snr = int(row["snr"])
        except ValueError as error:
            text = f"{data / DCASE_CSV}, row {number + 2}: the snr {row['snr']!r} is no whole number of dB"
            raise InputError(f"{text}; get {where}") from error
        source, noise = (data / DCASE_FOLDER / f"{row[name]}.wav" for name in ("source", "noise"))
        items.append(Item(f"{number:04d}", row["caption"], Mixed(source, noise, snr_db=snr), snr_db=float(snr)))
    return items


def read_audiosep(name: str, data: Path, where: str) -> list[Item]:
    """One of AudioSep's sets whose files are segment-{idx}.wav and mixture-{idx}.wav."""
    labels = "labels" if name == "audiocaps" else "caption" if name in ("esc50", "music") else None
    columns = dict.fromkeys(("idx", "caption", *([labels] if labels else [])))
    folder = data / "data" / name
    return [
        Item(
            row["idx"],
            row["caption"],
            ReadyMade(folder / f"mixture-{row['idx']}.wav", folder / f"segment-{row['idx']}.wav"),
            target_class=row[labels] if labels else "",
        )
        for row in read_table(data / "metadata" / f"{name}_eval.csv", tuple(columns), where)
    ]


def read_audiosep_vggsound(data: Path, where: str) -> list[Item]:
    """AudioSep's VGGSound mixtures: columns name the files."""
    folder = data / "data" / "vggsound"
    columns = ("file_id", "mix_wav", "s0_wav", "s0_text", "s1_text")
    return [
        Item(
            row["file_id"],
            row["s0_text"],
            ReadyMade(folder / row["mix_wav"], folder / row["s0_wav"]),
            target_class=row["s0_text"],
            other_class=row["s1_text"],
        )
        for row in read_table(data / "metadata" / "vggsound_eval.csv", columns, where)
    ]


def read_audiosep_audioset(data: Path, where: str) -> list[Item]:
    """AudioSep's AudioSet mixtures: idx is the class, and the column noise_wav names the mixture."""
    items = []
    for row in read_table(data / "metadata" / "audioset_eval.csv", ("idx", "caption", "src_wav", "noise_wav"), where):
        target, mixture = (below_evaluation(data, row[name]) for name in ("src_wav", "noise_wav"))
        name = target.stem.removesuffix(",source")
        items.append(Item(name, row["caption"], ReadyMade(mixture, target), target_class=row["caption"]))
    return items


def below_evaluation(data: Path, path: str) -> Path:
    """A path as the CSV has it, "evaluation/data/...", below `data`, which is that folder evaluation."""
    parts = Path(path).parts
    return data.joinpath(*parts[1:] if parts[0] == "evaluation" else parts)


def read_mixtures(data: Path, where: str) -> list[Item]:
    """A folder that `flowsep mix --targets` wrote."""
    items = []
    for row in read_table(data / INDEX, INDEX_COLUMNS, where):
        if not row["target"]:
            raise InputError(f"{data / INDEX} has no targets to score against; write them by flowsep mix --targets")
        source = ReadyMade(data / row["mixture"], data / row["target"])
        classes = {name: row[name] for name in ("target_class", "other_class")}
        items.append(Item(row["id"], row["text"], source, **classes, snr_db=number_or_none(row["snr_db"], data)))
    return items


def written_from(data: Path, where: str) -> tuple[int, str]:
    """Sample rate in Hz and protocol of the mixtures in a folder that `flowsep mix` wrote."""
    rows = read_table(data / INDEX, ("sample_rate", "protocol"), where)
    found = {(row["sample_rate"], row["protocol"]) for row in rows}
    rate, protocol = found.pop()
    if found or not rate.isdigit() or int(rate) == 0:
        raise InputError(f"{data / INDEX} has no one sample rate and protocol for all mixtures; get {where}")
    return int(rate), protocol


def number_or_none(text: str, data: Path) -> float | None:
    """A number, or None for an empty cell; InputError otherwise."""
    try:
        return float(text) if text.strip() else None
    except ValueError as error:
        raise InputError(f"{data / INDEX} has the snr_db {text!r}, which is no number") from error
