"""`flowsep remove`: recordings without the described sounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowsep.cli import options as flags
from flowsep.cli.remix import MixBatch
from flowsep.gains import MUTE, MixSettings, refuse_twice, tidied


def remove(
    context: typer.Context,
    mix: flags.Mixes,
    text: Annotated[list[str], typer.Option(help="What to remove, in words. Repeat it for several sounds.")],
    steps: flags.Steps = None,
    solver: flags.Solver = None,
    guidance: flags.Guidance = 1.0,
    seed: flags.Seed = 0,
    rtol: flags.Rtol = 1e-3,
    atol: flags.Atol = 1e-3,
    model: flags.Model = "small",
    render: flags.Render = None,
    device: flags.Device = "auto",
    dtype: flags.Dtype = None,
    output: flags.Output = Path("."),
    format: flags.Format = "wav",
    clip: flags.Clip = "warn",
    as_json: flags.AsJson = False,
    overwrite: flags.Overwrite = False,
    quiet: flags.Quiet = False,
) -> None:
    """Write recordings without the described sounds.

    For each MIX it writes {name}.without-{texts}.wav and a JSON file with every setting. For one text that is the
    residual of separate. Outputs keep the rate, channels and length of the input. Paths go to stdout, all else to
    stderr.
    """
    texts = [tidied(one, "--text") for one in text]
    refuse_twice(texts, "--text")
    flags.check_run(device, dtype, format, clip)
    options = flags.checked_options(model, steps, solver, guidance, seed, render, rtol, atol)
    batch = MixBatch(model, device, dtype, options, format, overwrite, as_json, quiet, verbose=bool(context.obj))
    batch.settings = MixSettings("remove", dict.fromkeys(texts, MUTE), clip=clip)
    batch.run_all(mix, " and ".join(["without " + texts[0], *texts[1:]]), output)
