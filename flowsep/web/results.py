"""An order carried out: the files that the command line would write, copies to listen to, pictures, and a zip of it."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsep.gains import MUTE, gains_in_words
from flowsep.naming import MixJob, Naming, Source, plan_mixes, refuse_outputs
from flowsep.settings import FileSettings
from flowsep.web.orders import Order

if TYPE_CHECKING:
    from flowsep.audio import AudioFile
    from flowsep.blocks import Facts
    from flowsep.files import LoadedModel

PICTURE = (3.8, 2.4)  # inches
Report = Callable[[float, str], None]  # share of the work that is done, 0..1, and what is being done


class Stopped(Exception):
    """Somebody pressed Cancel, or left."""


@dataclass(frozen=True)
class Panel:
    """One recording of the result, beside the others."""

    role: str  # mixture, target, residual or remix
    title: str
    note: str  # what there is to know of it, or nothing
    audio: Path  # to keep: at its own level
    player: Path  # to listen to: as loud as the others
    player_gain_db: float
    picture: Path


@dataclass(frozen=True)
class Result:
    """What came of an order."""

    panels: tuple[Panel, ...]
    archive: Path
    document: dict[str, Any]  # the sidecar
    notes: tuple[str, ...]  # one line each
    understood: tuple[str, ...]


def carry_out(
    model: LoadedModel, recording: AudioFile, order: Order, folder: Path, report: Report, stop: threading.Event
) -> Result:
    """Write everything into `folder`: what `flowsep remix --parts` (or edit) writes, and what the page adds.

    `report` is told how far the work is. Stopped once `stop` is set; errors as `flowsep.remix_files.remix_file`.
    """
    from flowsep.audio import open_audio
    from flowsep.blocks import scan
    from flowsep.remix_files import remix_file

    def progress(stage: str, done: int, total: int) -> None:
        halt(stop)
        report(0.1 + 0.6 * done / total, f"Separating, {done} of {total}")

    halt(stop)
    report(0.02, "Reading the recording")
    facts = scan(recording)
    job = plan(recording.path, order, folder)
    halt(stop)
    report(0.1, "Separating")
    settings = FileSettings(order.options)
    document = remix_file(model, job, recording, order.verb, order.rest, settings, progress=progress, facts=facts)
    document = relocated(document, job)
    report(0.7, "Matching the loudness of the players")
    files = [recording, *(open_audio(path) for path in (*job.parts, job.output))]
    panels = draw_panels(files, facts, describe(order, document, job), folder, report, stop)
    archive = folder / f"{recording.path.stem}.flowsep.zip"
    write_archive(archive, [recording.path, *job.paths()])
    halt(stop)
    return Result(panels, archive, document, notes(model, document, facts.silent), order.understood)


def halt(stop: threading.Event) -> None:
    """Raise Stopped where it is set."""
    if stop.is_set():
        raise Stopped


def plan(path: Path, order: Order, folder: Path) -> MixJob:
    """The files to write, named as the command line names them."""
    name_of = partial(gains_in_words, order.verb, order.rest)
    [job] = plan_mixes([Source(path)], order.gains, name_of, Naming(folder), parts=True)
    refuse_outputs([job], overwrite=False)
    return replace(job, instruction=order.instruction)


def relocated(document: dict[str, Any], job: MixJob) -> dict[str, Any]:
    """The sidecar with names in the place of temporary paths, written again: `flowsep replay` looks beside it."""
    from flowsep.files import write_sidecar

    outputs = [{**output, "path": Path(output["path"]).name} for output in document["outputs"]]
    names = {"input": {**document["input"], "path": job.source.name}, "outputs": outputs, "sidecar": job.sidecar.name}
    document = {**document, **names}
    write_sidecar(job.sidecar, document)
    return document


def draw_panels(
    files: Sequence[AudioFile],
    facts: Facts,
    described: Sequence[tuple[str, str, str]],
    folder: Path,
    report: Report,
    stop: threading.Event,
) -> tuple[Panel, ...]:
    """Players and pictures of the recording, each sound, the rest and the remix; the pictures share one scale in dB.

    `facts` are the recording's, and `described` is what `describe` says of each file.
    """
    from flowsep.blocks import mixed_down
    from flowsep.plot import mel_decibels, separation_figure, write_figure
    from flowsep.web.loudness import write_players
    from vocoder.mel import MelConfig

    config, seconds = MelConfig(), facts.frames / files[0].sample_rate
    names = [f"{number}-{role}" for number, (role, _, _) in enumerate(described)]
    players = write_players(files, facts.frames, [folder / f"listen-{name}.flac" for name in names])
    halt(stop)
    levels = [
        mel_decibels(mixed_down(one.blocks(), facts.channel), one.sample_rate, facts.frames, config) for one in files
    ]
    top, panels = max(float(level.max()) for level in levels), []
    for (role, title, note), file, name, player, level in zip(described, files, names, players, levels, strict=True):
        halt(stop)
        report(0.75 + 0.2 * len(panels) / len(files), f"Drawing, {len(panels) + 1} of {len(files)}")
        picture = folder / f"picture-{name}.png"
        write_figure(picture, separation_figure({"": level}, seconds, config, top=top, size=PICTURE))
        panels.append(Panel(role, title, note, file.path, player.path, player.gain_db, picture))
    return tuple(panels)


def describe(order: Order, document: dict[str, Any], job: MixJob) -> list[tuple[str, str, str]]:
    """Role, title and note of every panel, in order."""
    parts = gains_of(document)["parts"]
    sounds = [("target", part["query"], target_note(part)) for part in parts]
    changes = [f"{text}: {in_short(gain)}" for text, gain in order.gains.items()]
    if order.rest != 0:
        changes.append(f"everything else: {in_short(order.rest)}")
    return [
        ("mixture", job.source.name, "as it was"),
        *sounds,
        ("residual", "Everything else", "all that was not described"),
        ("remix", "Your remix", "; ".join(changes)),
    ]


def target_note(part: dict[str, Any]) -> str:
    """What the model says of a sound."""
    if part["presence"] is None:
        return ""
    sure = part["presence"]
    word = "probably there" if sure >= 0.7 else "probably not there" if sure <= 0.3 else "perhaps there"
    return f"{word} (score {sure:.2f} of 1)"


def in_short(gain: float) -> str:
    """A gain for people."""
    return "removed" if gain == MUTE else "unchanged" if gain == 0 else f"{gain:+g} dB"


def notes(model: LoadedModel, document: dict[str, Any], silent: bool) -> tuple[str, ...]:
    """What a listener should know: silence, clipping, and descriptions that the model reads in part."""
    found = ["The recording is digital silence, and so is all that comes from it."] if silent else []
    for output in document["outputs"]:
        report, clipped = output["clipping"], output["clipping"]["clipped_samples"]
        if report["peak_dbfs"] > 0:
            done = f"{clipped} samples are clipped" if clipped else "players clip it"
            over = f"{output['path']} peaks at {report['peak_dbfs']:+.1f} dB above full scale"
            found.append(f"{over}: {done}. Turn the sounds down.")
    encoder = getattr(model.separator, "text", None)
    for query in (part["query"] for part in gains_of(document)["parts"]):
        if hasattr(encoder, "token_count") and encoder.token_count(query) > encoder.config.max_length:
            found.append(f"“{query[:60]}” is long: the model reads the beginning of it only.")
    return tuple(found)


def gains_of(document: dict[str, Any]) -> dict[str, Any]:
    """What a sidecar says of every sound, whatever the verb."""
    return document[document["request"]["verb"]]


def write_archive(path: Path, files: list[Path]) -> None:
    """A zip of the files by their names; sound does not shrink in one, so nothing is compressed but the JSON."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            kind = zipfile.ZIP_DEFLATED if file.suffix == ".json" else zipfile.ZIP_STORED
            archive.write(file, file.name, compress_type=kind)
