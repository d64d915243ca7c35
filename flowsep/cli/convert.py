"""`flowsep convert`: official checkpoints to model folders, and the self-test of what they then compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flowsep.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@app.callback()
def convert(
    context: typer.Context,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Compare every component with golden arrays of the official code.")
    ] = False,
    reference: Annotated[
        Path | None, typer.Option(help="Folder of the golden arrays; tests/reference of a clone if not given.")
    ] = None,
) -> None:
    """Turn an official checkpoint into a model folder."""
    if context.invoked_subcommand is not None:
        if self_test or reference is not None:
            raise UsageError("--self-test and --reference go without a sub-command; write flowsep convert --self-test")
        return
    if not self_test:
        raise UsageError("say what to convert: flowsep convert official CHECKPOINT OUT, or flowsep convert --self-test")
    raise typer.Exit(run_self_test(reference))


def run_self_test(reference: Path | None) -> int:
    """Print a line per comparison; 0 if all are within their limits, else 1."""
    from flowsep.convert.selftest import reference_folder, self_test

    folder = reference_folder(reference)
    print(f"{'component':<28} {'max abs error':>14} {'limit':>9}")
    missed = 0
    for parity in self_test(folder):
        missed += not parity.passed
        verdict = "pass" if parity.passed else "MISSED"
        print(f"{parity.name:<28} {parity.error:>14.2e} {parity.limit:>9.0e}  {verdict}", flush=True)
    print(f"{missed} limits missed" if missed else "all within their limits")
    return 1 if missed else 0


@app.command()
def official(
    checkpoint: Annotated[Path, typer.Argument(help="FlowSep's file, for example v2_100k.ckpt, or safetensors.")],
    out: Annotated[Path, typer.Argument(help="Model folder to write.")],
    vocoder: Annotated[
        Path | None, typer.Option(help="BigVGAN file (g_01000000) to use in place of the checkpoint's own.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model folder that is there.")] = False,
) -> None:
    """Turn FlowSep's published checkpoint into a model folder; nothing in the file is executed."""
    from flowsep.convert.official import convert_official

    print(convert_official(checkpoint, out, vocoder, lambda line: print(line, file=sys.stderr), overwrite))


MaskCheckpoint = Annotated[Path, typer.Argument(help="The published file, torch or safetensors.")]
Out = Annotated[Path, typer.Argument(help="Model folder to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model folder that is there.")]


@app.command()
def audiosep(checkpoint: MaskCheckpoint, out: Out, overwrite: Overwrite = False) -> None:
    """Turn AudioSep's checkpoint (audiosep_base_4M_steps.ckpt) into a model folder."""
    run_masks("audiosep", checkpoint, out, overwrite)


@app.command()
def dcase(checkpoint: MaskCheckpoint, out: Out, overwrite: Overwrite = False) -> None:
    """Turn the DCASE 2024 Task 9 baseline's checkpoint into a model folder."""
    run_masks("dcase", checkpoint, out, overwrite)


@app.command()
def uss(
    checkpoint: MaskCheckpoint,
    out: Out,
    labels: Annotated[
        Path | None, typer.Option(help="AudioSet's class_labels_indices.csv: then classes are asked for by name.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a checkpoint of Universal Source Separation into a model folder."""
    run_masks("uss", checkpoint, out, overwrite, labels)


@app.command()
def lassnet(checkpoint: MaskCheckpoint, out: Out, overwrite: Overwrite = False) -> None:
    """Turn LASS-Net's checkpoint (LASSNet.pt) into a model folder."""
    run_masks("lassnet", checkpoint, out, overwrite)


def run_masks(system: str, checkpoint: Path, out: Path, overwrite: bool, labels: Path | None = None) -> None:
    """Convert a mask separator and print where it is; what is found goes to stderr."""
    from flowsep.convert.masks import convert_masker

    print(convert_masker(system, checkpoint, out, lambda line: print(line, file=sys.stderr), overwrite, labels))
