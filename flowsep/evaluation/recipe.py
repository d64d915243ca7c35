"""Fixed mixture lists: a CSV that says which clips are mixed where and how loud -> the same waveforms everywhere.

Columns: id, target_path, interferer_path, target_offset_s, interferer_offset_s, snr_db, query, target_class,
interferer_class, length_s. The rule is that of the data pack's README: clips on silent canvases at round(offset *
16000), the interferer scaled to the SNR over the whole canvas, all three scaled by one factor if a peak passes 0.95.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from flowsep.atomic import atomic_output
from flowsep.data.manifest import Clip, listed_path
from flowsep.data.mixing import Audio, limit_together, mix_at_snr, place
from flowsep.errors import InputError, UsageError

SAMPLE_RATE = 16000
VALID = Path(__file__).parents[1] / "data" / "mixtures_valid.csv"  # 200 mixtures of the project's clips


@dataclass(frozen=True)
class MixtureRow:
    """One row of a recipe."""

    id: str
    target_path: str
    interferer_path: str
    target_offset_s: float
    interferer_offset_s: float
    snr_db: float
    query: str
    target_class: str
    interferer_class: str
    length_s: float


def read_recipe(path: Path | str) -> list[MixtureRow]:
    """Rows of a recipe CSV; InputError for a missing file, column or number."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no recipe at {path}; give a CSV such as mixtures_test.csv")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise InputError(f"{path} lists no mixtures")
    missing = [column.name for column in fields(MixtureRow) if column.name not in rows[0]]
    if missing:
        raise InputError(f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(rows[0])}")
    numbers = {column.name for column in fields(MixtureRow) if column.type == "float"}
    try:
        return [
            MixtureRow(**{f.name: float(row[f.name]) if f.name in numbers else row[f.name] for f in fields(MixtureRow)})
            for row in rows
        ]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} has a row with a missing or non-numeric value: {error}") from error


def write_recipe(path: Path | str, rows: Sequence[MixtureRow]) -> None:
    """Write rows as a recipe CSV."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_output(Path(path), overwrite=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, [column.name for column in fields(MixtureRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_clip(path: Path) -> Audio:
    """One clip as mono float32 at 16 kHz."""
    from flowsep.data.dataset import load_clip

    return load_clip(path, SAMPLE_RATE).astype(np.float32)


def render_row(row: MixtureRow, root: Path) -> tuple[Audio, Audio, Audio]:
    """(mixture, target, interferer), each float32 (T,) at 16 kHz."""
    length = round(row.length_s * SAMPLE_RATE)
    target = place(read_clip(root / row.target_path), round(row.target_offset_s * SAMPLE_RATE), length)
    other = place(read_clip(root / row.interferer_path), round(row.interferer_offset_s * SAMPLE_RATE), length)
    mixture, other = mix_at_snr(target, other, row.snr_db)
    mixture, target, other = limit_together(mixture, target, other)
    return mixture, target, other


def interferer_query(row: MixtureRow, clips: dict[str, Clip]) -> str:
    """A caption of the interferer: the first candidate of its clip, or its class in words."""
    clip = clips.get(row.interferer_path)
    return clip.captions[0] if clip else row.interferer_class.replace("_", " ")


def clips_for_recipe(
    clips: Sequence[Clip], length_s: float, targets: Sequence[str]
) -> dict[str, list[tuple[Clip, float]]]:
    """By class, the clips of at least 1.5 s and how many of `length_s` seconds each fills; errors as `draw_recipe`."""
    import soundfile

    found: dict[str, list[tuple[Clip, float]]] = {}
    for clip in clips:
        try:
            duration = min(length_s, soundfile.info(clip.path).duration)
        except (OSError, soundfile.LibsndfileError) as error:
            raise InputError(f"cannot read the clip {clip.path}: {error}; remove its row from the manifest") from error
        if duration >= 1.5:
            found.setdefault(clip.label, []).append((clip, duration))
    if len({members[0][0].family for members in found.values()}) < 2:
        raise UsageError("a recipe needs clips of at least two families that last 1.5 s or more")
    unknown = sorted(set(targets) - found.keys())
    if unknown:
        near = get_close_matches(unknown[0], sorted(found))
        hint = f"did you mean {' or '.join(near)}?" if near else "classes are named in the clip list"
        raise UsageError(f"no clip of 1.5 s or more is a {unknown[0]}; {hint}")
    return found


def draw_recipe(
    clips: Sequence[Clip],
    root: Path,
    count: int,
    seed: int,
    length_s: float = 5.0,
    targets: Sequence[str] = (),
) -> list[MixtureRow]:
    """`count` mixtures of two families, every class (of `targets`, if given) as a target in turn, SNR in -5..5 dB.

    Clips last at least 1.5 s and overlap by at least 1 s and 60 % of the shorter one, as in the data pack's test list.
    UsageError for a target that has no such clip and for fewer than two families, InputError for an unreadable clip.
    """
    rng = np.random.default_rng(seed)
    long_enough = clips_for_recipe(clips, length_s, targets)
    labels = sorted(long_enough)
    wanted = [label for label in labels if not targets or label in targets]
    rows: list[MixtureRow] = []
    order: list[str] = []
    while len(rows) < count:
        order = order or [wanted[i] for i in rng.permutation(len(wanted))]
        target, target_s = long_enough[order[-1]][rng.integers(len(long_enough[order[-1]]))]
        other_label = labels[rng.integers(len(labels))]
        other, other_s = long_enough[other_label][rng.integers(len(long_enough[other_label]))]
        if other.family == target.family:
            continue
        starts = [round(float(rng.uniform(0, length_s - duration)), 3) for duration in (target_s, other_s)]
        overlap = min(starts[0] + target_s, starts[1] + other_s) - max(starts)
        if overlap < max(1.0, 0.6 * min(target_s, other_s)):
            continue
        order.pop()
        rows.append(
            MixtureRow(
                id=f"v{len(rows):03d}",
                target_path=listed_path(target.path, root),
                interferer_path=listed_path(other.path, root),
                target_offset_s=starts[0],
                interferer_offset_s=starts[1],
                snr_db=round(float(rng.uniform(-5, 5)), 2),
                query=target.captions[rng.integers(len(target.captions))],
                target_class=target.label,
                interferer_class=other.label,
                length_s=length_s,
            )
        )
    return rows
