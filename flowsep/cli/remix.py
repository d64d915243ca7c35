"""`flowsep remix`: described sounds turned up, down or away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowsep.cli import options as flags
from flowsep.cli.separate import Batch
from flowsep.gains import MixSettings, check_gains, in_words, parse_decibels, parse_gains
from flowsep.naming import MixJob, plan_mixes, refuse_outputs

if TYPE_CHECKING:
    from flowsep.audio import Audio
    from flowsep.longform import Progress


def remix(
    context: typer.Context,
    mix: flags.Mixes,
    gain: Annotated[
        list[str], typer.Option(metavar="TEXT=DB", help='"dog barking=-12", "speech=+3" or "hum=mute". Repeat it.')
    ],
    rest: Annotated[str, typer.Option(metavar="DB", help="Gain of all else in dB, or mute.")] = "0",
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
    """Turn described sounds up, down or away.

    For each MIX it writes {name}.remix-{gains}.wav and a JSON file with every setting. The described sounds and the
    rest add up to the input exactly, so gains of 0 dB change nothing. Outputs keep the rate, channels and length of
    the input. Paths go to stdout, all else to stderr.
    """
    gains, others = parse_gains(gain), parse_decibels(rest, "--rest")
    check_gains(gains, others)
    flags.check_run(device, dtype, format, clip)
    options = flags.checked_options(model, steps, solver, guidance, seed, render, rtol, atol)
    names = [*gains.items(), *([("rest", others)] if others != 0 else [])]
    name = " ".join(["remix", *(f"{text} {in_words(value)}" for text, value in names)])
    batch = MixBatch(model, device, dtype, options, format, overwrite, as_json, quiet, verbose=bool(context.obj))
    batch.settings = MixSettings("remix", gains, others, clip)
    batch.run_all(mix, name, output)


@dataclass
class MixBatch(Batch):
    """Several files remixed or relieved of sounds with the same gains."""

    settings: MixSettings = field(default_factory=lambda: MixSettings("remix", {}))

    def run_all(self, sources: Sequence[Path], name: str, folder: Path) -> None:
        """Plan {stem}.{name} for every source, refuse what cannot be written, then process them."""
        jobs = plan_mixes(sources, list(self.settings.gains), name, folder, self.format)
        refuse_outputs(jobs, self.overwrite)
        self.run(jobs)

    def work(self, job: MixJob, audio: Audio, progress: Progress) -> list[dict[str, Any]]:
        """Remix one file."""
        from flowsep.remix_files import remix_file

        settings = (self.settings, self.options, self.format, self.overwrite)
        return [remix_file(self.loaded, job, audio, *settings, progress)]
