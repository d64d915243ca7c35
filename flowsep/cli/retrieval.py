"""`flowsep retrieval --data DIR [--encoder proxy]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WORDINGS = {"training": "train", "held-out": "held_out"}  # name in the table -> split of the phrasings


def retrieval(
    data: Annotated[Path, typer.Option("--data", help="Manifest CSV, or a folder of clips named by class.")],
    encoder: Annotated[
        str, typer.Option(metavar="ENCODER", help="proxy (the shipped one), proxy:FOLDER or clap:FOLDER.")
    ] = "proxy",
    split: Annotated[str, typer.Option(help="Of the manifest's clips.")] = "test",
    draws: Annotated[int, typer.Option(min=1, help="Pools of one clip per class.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the pools.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write every figure as JSON here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that file.")] = False,
    json_out: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Measure how often a text-audio encoder finds the clip that a wording describes: R@1, R@5, R@10.

    Asked with the wordings of flowsep/data/phrasings.csv, those for training and those kept out of it.
    """
    from flowsep.cli.options import check_device

    check_device(device)
    import json

    from flowsep.atomic import refuse_existing, refuse_unwritable
    from flowsep.checkpoint import pick_device, write_json
    from flowsep.data.manifest import PHRASINGS, read_manifest, read_phrasings
    from flowsep.errors import InputError
    from flowsep.evaluation.encoders import load_encoder
    from flowsep.evaluation.retrieval import retrieval as measure
    from flowsep.evaluation.retrieval import retrieval_lines
    from flowsep.options import check_encoder

    check_encoder(encoder)  # before anything is loaded
    if output is not None:
        refuse_existing(output, overwrite)
        refuse_unwritable(output.parent)
    wordings = {name: read_phrasings(PHRASINGS, part) for name, part in WORDINGS.items()}
    clips = [clip for clip in read_manifest(data) if clip.split == split and clip.label in wordings["held-out"]]
    if not clips:
        raise InputError(f"{data} has no clips in its {split} split whose classes have wordings; give another --split")
    report = measure(load_encoder(encoder, str(pick_device(device))), clips, wordings, draws, seed, quiet)
    if output is not None:
        write_json(output, report)
    typer.echo(json.dumps(report) if json_out else "\n".join(retrieval_lines(report)))
