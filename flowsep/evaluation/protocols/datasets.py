"""Data sets as their archives unpack, one small reader each: recordings with the words and classes that they have.

Sets of video sound (VGGSound, AudioCaps) have lost clips for everybody: what is not on the disk is left out, and the
caller says how much that was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowsep.data.manifest import AUDIO_SUFFIXES, words
from flowsep.errors import InputError
from flowsep.evaluation.protocols.listed import read_lines, read_table


@dataclass(frozen=True)
class Recording:
    """One clip: what may be asked for it, and all that it is: two clips with any of `classes` in common are not mixed.

    Where a data set has no classes, a clip is its own and only one.
    """

    path: Path
    texts: tuple[str, ...]
    classes: tuple[str, ...]
    label: str = ""  # the class in tables, if there are classes


def read_esc50(data: Path) -> list[Recording]:
    """ESC-50: meta/esc50.csv and audio/."""
    rows = read_table(data / "meta" / "esc50.csv", ("filename", "category"), "the data set ESC-50")
    return [
        Recording(data / "audio" / row["filename"], (words(row["category"]),), (row["category"],), row["category"])
        for row in rows
    ]


def read_vggsound(data: Path) -> list[Recording]:
    """VGGSound, test split: vggsound.csv (no header: video, second, label, split) and audio/VIDEO_SSSSSS.wav."""
    path = data / "vggsound.csv"
    rows = read_lines(path, "the data set VGGSound")
    bad = next((number for number, row in enumerate(rows, 1) if len(row) != 4 or not row[1].strip().isdigit()), None)
    if bad is not None or not rows:
        place = f"row {bad}" if rows else "no rows"
        raise InputError(f"{path}, {place}: each is video, second, label, split (no header); get the data set VGGSound")
    listed = [(f"{row[0]}_{int(row[1]):06d}", (row[2],), row[2]) for row in rows if row[3].strip() == "test"]
    return present(data / "audio", listed, "VGGSound")


def read_audiocaps(data: Path) -> list[Recording]:
    """AudioCaps, test split: test.csv (several captions of one video) and audio/VIDEO.wav or YVIDEO.wav."""
    captions: dict[str, list[str]] = {}
    for row in read_table(data / "test.csv", ("youtube_id", "caption"), "the data set AudioCaps"):
        captions.setdefault(row["youtube_id"], []).append(row["caption"])
    return present(data / "audio", [(name, tuple(texts), "") for name, texts in captions.items()], "AudioCaps")


def read_clotho(data: Path) -> list[Recording]:
    """Clotho, evaluation split: clotho_captions_evaluation.csv and evaluation/."""
    columns = ("file_name", *(f"caption_{number}" for number in range(1, 6)))
    rows = read_table(data / "clotho_captions_evaluation.csv", columns, "the data set Clotho")
    return [
        Recording(data / "evaluation" / row["file_name"], tuple(row[name] for name in columns[1:]), (row["file_name"],))
        for row in rows
    ]


def read_fsd50k(data: Path) -> list[Recording]:
    """FSD50K, evaluation split: FSD50K.ground_truth/eval.csv and FSD50K.eval_audio/; the query names all its labels."""
    rows = read_table(data / "FSD50K.ground_truth" / "eval.csv", ("fname", "labels"), "the data set FSD50K")
    recordings = []
    for row in rows:
        labels = tuple(row["labels"].split(","))
        text = ", ".join(words(label) for label in labels)
        recordings.append(Recording(data / "FSD50K.eval_audio" / f"{row['fname']}.wav", (text,), labels, labels[0]))
    return recordings


def read_music(data: Path) -> list[Recording]:
    """MUSIC, solos: one folder of sound files per instrument."""
    files = sorted(path for path in data.glob("*/*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise InputError(
            f"{data} has no folders of sound named by instrument; get the solos of the data set MUSIC as audio files"
        )
    return [Recording(path, (words(path.parent.name),), (path.parent.name,), path.parent.name) for path in files]


def read_three_sets(data: Path) -> list[Recording]:
    """AudioCaps, Clotho and FSD50K in folders of these names (in small letters), one after another."""
    return [
        *read_audiocaps(data / "audiocaps"),
        *read_clotho(data / "clotho"),
        *read_fsd50k(data / "fsd50k"),
    ]


def present(folder: Path, listed: Sequence[tuple[str, tuple[str, ...], str]], data_set: str) -> list[Recording]:
    """Those of the listed (name, texts, class if any) whose file is in `folder`; InputError where none is."""
    files = {path.stem: path for path in sound_files(folder)}
    found = []
    for name, texts, label in listed:
        path = files.get(name) or files.get(f"Y{name}")
        if path is not None:
            found.append(Recording(path, texts, (label or name,), label))
    if not found:
        first = f", such as {listed[0][0]}.wav" if listed else ""
        raise InputError(f"{folder} has none of the {len(listed)} clips that are listed{first}; get {data_set}'s sound")
    return found


def sound_files(folder: Path) -> Iterator[Path]:
    """Audio files right in a folder, in order; of two that differ in the suffix alone the last counts."""
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
