"""`flowsep audit DATA [-o LIST.csv]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def audit(
    data: Annotated[Path, typer.Argument(help="Manifest CSV, or a folder of clips named by class.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write every finding as CSV here.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split of the manifest. [default: all]")] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many findings of each kind are printed.")] = 25,
    encoder: Annotated[
        str, typer.Option(metavar="ENCODER", help="proxy (the shipped one), proxy:FOLDER or clap:FOLDER.")
    ] = "proxy",
    rank: Annotated[int, typer.Option(min=1, help="A label is doubted if so many classes are nearer.")] = 20,
    learned: Annotated[
        bool, typer.Option("--learned", help="The encoder was trained on the train split of DATA: it should know it.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Find clips not to be trusted: unreadable, mute, clipped, copies across classes or splits, doubtful labels.

    What is found is to be listened to, not to be believed. A list of clips to leave out goes to data.exclude_clips.
    """
    from flowsep.cli.options import check_device

    check_device(device)
    from flowsep.atomic import refuse_existing, refuse_unwritable
    from flowsep.checkpoint import pick_device
    from flowsep.data.manifest import PHRASINGS, read_manifest, read_phrasings, templated
    from flowsep.errors import InputError
    from flowsep.evaluation.audit import audit as look
    from flowsep.evaluation.audit import audit_lines, write_findings
    from flowsep.evaluation.encoders import load_encoder
    from flowsep.options import check_encoder

    check_encoder(encoder)  # before anything is loaded
    if output is not None:
        refuse_existing(output, overwrite)
        refuse_unwritable(output.parent)
    clips = [clip for clip in read_manifest(data) if split in (None, clip.split)]
    if not clips:
        raise InputError(f"{data} has no clips in its {split} split")
    wordings = {clip.label: templated(clip.label) for clip in clips} | read_phrasings(PHRASINGS)
    report = look(clips, load_encoder(encoder, str(pick_device(device))), wordings, learned, rank, quiet)
    root = data if data.is_dir() else data.parent
    if output is not None:
        write_findings(output, report, root, overwrite)
    typer.echo("\n".join(audit_lines(report, root, worst)))
