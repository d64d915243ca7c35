"""`flowsep benchmark latency|precision|training|solvers|steps|seams|show`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowsep.cli.options import check_device, spread
from flowsep.errors import UsageError
from flowsep.options import DTYPES, check_choice, check_options, parse_steps
from flowsep.protocol import RENDERINGS, SampleOptions

if TYPE_CHECKING:
    import torch

    from flowsep.separator import LatentSeparator

app = typer.Typer(help="Measure latency, precision, and quality against steps.", no_args_is_help=True)

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")

Config = Annotated[str, typer.Option("--config", help="flowsep, small or a YAML file; random weights.")]
Model = Annotated[str | None, typer.Option("--model", help="A model to load instead of --config.")]
Seconds = Annotated[float | None, typer.Option(help="Length of the mixture. [default: the window]", min=0.1)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing report.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


@app.callback()
def benchmark() -> None:
    """Measure latency, precision, and quality against steps."""


@dataclass(frozen=True)
class LatencyOptions:
    """What `benchmark latency` measures, and how."""

    config: Config = "flowsep"
    model: Model = None
    seconds: Seconds = None
    steps: Annotated[
        str | None, typer.Option(help="Solver steps; with --matrix a list such as 1,2,4. [default: the model's]")
    ] = None
    batch: Annotated[int, typer.Option(help="Clips at once, each with its own query.", min=1)] = 1
    repeats: Annotated[int, typer.Option(help="Calls that count, after two that do not.", min=1)] = 20
    render: Annotated[str | None, typer.Option(help="mixture or vocoder. [default: the model's]")] = None
    device: Device = "auto"
    dtype: Annotated[str, typer.Option(help=", ".join(DTYPES))] = "float32"
    compiled: Annotated[bool, typer.Option("--compile", help="Compile UNet, VAE and vocoder.")] = False
    compile_mode: Annotated[
        str, typer.Option(help="How to compile the UNet: default, reduce-overhead (CUDA graphs) or max-autotune.")
    ] = "default"
    matrix: Annotated[bool, typer.Option("--matrix", help="Steps x {flow, diffusion}: Table III of the paper.")] = False
    ladder: Annotated[
        bool, typer.Option("--ladder", help="One fast measure after the other, in turns with the plain path.")
    ] = False
    guidance: Annotated[float, typer.Option(help="Of --ladder.")] = 1.0
    plain: Annotated[bool, typer.Option("--plain", help="Without the fast measures (docs/performance.md).")] = False
    budget: Annotated[
        float | None,
        typer.Option(help="Seconds per row: --matrix extrapolates longer ones [60], --ladder stops repeating [40]."),
    ] = None
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A.json B.json", help="Only compare two reports.")
    ] = None
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report as JSON; --matrix goes on with it.")
    ] = None
    overwrite: Overwrite = False
    quiet: Quiet = False

    @property
    def row_budget(self) -> float:
        """Seconds per row."""
        return (40.0 if self.ladder else 60.0) if self.budget is None else self.budget

    def check(self) -> tuple[int, ...]:
        """The numbers of steps; UsageError for what does not exist or go together, InputError for the output."""
        check(self.dtype, self.compile_mode, self.render, self.device, self.row_budget)
        counts = () if self.steps is None else parse_steps(self.steps)
        if len(counts) > 1 and not self.matrix:
            raise UsageError("several --steps need --matrix")
        if self.ladder and (self.matrix or self.compiled or self.plain or self.dtype != "float32"):
            raise UsageError("--ladder goes through precisions and measures by itself; leave the others out")
        if self.matrix and self.model is not None:
            raise UsageError("--matrix builds its models from --config; leave --model out")
        check_output(self.output, self.overwrite or self.matrix)
        return counts


@app.command()
@spread
def latency(asked: LatencyOptions) -> None:
    """Seconds, memory, operations and bytes of each stage and end to end, against the machine's own ceilings."""
    if asked.compare is not None:
        return print_comparison(*asked.compare)
    counts = asked.check()

    from flowsep.benchmark.ladder import ladder_lines, measure_ladder
    from flowsep.benchmark.latency import Workload, benchmark_latency
    from flowsep.benchmark.matrix import STEPS, families_of, matrix_lines, run_matrix
    from flowsep.benchmark.report import latency_lines, write_report
    from flowsep.separator import LatentSeparator
    from vocoder.measures import PLAIN, use_measures

    if asked.plain:
        use_measures(PLAIN)

    note, budget, name = notes(asked.quiet), asked.row_budget, asked.model or asked.config
    mode = asked.compile_mode if asked.compiled else None
    work = Workload(asked.seconds, counts[0] if counts else None, asked.batch, asked.render, asked.repeats, mode)
    place = pick(asked.device, asked.dtype)
    build = Builder(*place)
    if asked.matrix:
        if asked.overwrite and asked.output is not None:
            asked.output.unlink(missing_ok=True)
        families = families_of(asked.config)
        report = run_matrix(families, build, *place, counts or STEPS, work, budget, asked.output, note)
        return typer.echo("\n".join(matrix_lines(report)))
    separator, load_seconds = build(asked.config, asked.model)
    if asked.ladder:
        if not isinstance(separator, LatentSeparator):
            raise UsageError(f"the fast measures are FlowSep's; leave --ladder out for {asked.model}")
        report, lines = measure_ladder(separator, name, work, budget, asked.guidance, note), ladder_lines
    else:
        report, lines = benchmark_latency(separator, name, work, load_seconds, note), latency_lines
    if asked.output is not None:
        write_report(asked.output, report, asked.overwrite)
    typer.echo("\n".join(lines(report)))


def notes(quiet: bool) -> Callable[[str], None]:
    """What prints progress on stderr, or nothing."""
    return lambda line: None if quiet else typer.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)


def check(dtype: str, compile_mode: str, render: str | None, device: str, budget: float) -> None:
    """UsageError for what does not exist, before torch is imported."""
    check_choice("dtype", dtype, DTYPES)
    check_choice("compile mode", compile_mode, COMPILE_MODES)
    check_choice("rendering", render, RENDERINGS)
    check_device(device)
    if not budget > 0:
        raise UsageError(f"--budget must be above 0 seconds, not {budget:g}")


def check_output(output: Path | None, replace: bool) -> None:
    """InputError where the report could not be written in the end."""
    from flowsep.atomic import refuse_existing, refuse_unwritable

    if output is not None:
        refuse_existing(output, replace)
        refuse_unwritable(output.parent)


def pick(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """Device and precision by name; DeviceError for a device that is not there."""
    import torch

    from flowsep.checkpoint import pick_device

    return pick_device(device), getattr(torch, dtype)


class Builder:
    """Separators to measure, on one device in one precision, with the seconds that it took to have them."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def __call__(self, config: str, model: str | None = None) -> tuple[LatentSeparator, float]:
        """The model of a folder or name where one is given, otherwise the configuration with random weights."""
        from flowsep.benchmark.models import random_separator
        from flowsep.benchmark.timing import synchronise
        from flowsep.checkpoint import load_separator
        from flowsep.config import load_config

        started = time.perf_counter()
        if model is not None:
            separator = load_separator(model, str(self.device), self.dtype)
        else:
            separator = random_separator(load_config(config), self.device, self.dtype)
        synchronise(self.device)
        return separator, time.perf_counter() - started


def print_comparison(first: Path, second: Path) -> None:
    """Ratios of the rows that two reports share."""
    from flowsep.benchmark.report import compare_lines, read_report

    typer.echo("\n".join(compare_lines(read_report(first), read_report(second))))


@app.command()
def solvers(
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture.")] = False,
) -> None:
    """Draw every solver's error against network calls on an equation with a known solution; print the slopes."""
    check_output(output, overwrite)
    from flowsep.benchmark.order import THEORY, plot_orders

    slopes = plot_orders(output, overwrite)
    typer.echo("\n".join(f"{name}\torder {THEORY[name]}\tslope {value:.2f}" for name, value in slopes.items()))


@app.command()
def precision(
    config: Config = "flowsep",
    model: Model = None,
    variants: Annotated[
        str, typer.Option(help="What to compare with float32: precisions, with or without +compile.")
    ] = "bfloat16,float32+compile,bfloat16+compile",
    seconds: Seconds = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps. [default: the model's]", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Clips at once.", min=1)] = 1,
    device: Device = "auto",
    compile_mode: Annotated[str, typer.Option(help=f"{', '.join(COMPILE_MODES)}: of the UNet.")] = "default",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report as JSON.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Error of half precision and of compiled paths against float32, stage by stage and end to end."""
    check("float32", compile_mode, None, device, 1.0)
    check_output(output, overwrite)
    from flowsep.benchmark.latency import Workload
    from flowsep.benchmark.precision import compare_precision, parse_variants, precision_lines
    from flowsep.benchmark.report import write_report

    wanted = parse_variants(variants)
    chosen, _ = pick(device, "float32")
    work = Workload(seconds, steps, batch)
    report = compare_precision(
        lambda dtype: Builder(chosen, dtype)(config, model)[0],
        model or config,
        wanted,
        work,
        compile_mode,
        notes(quiet),
    )
    if output is not None:
        write_report(output, report, overwrite)
    typer.echo("\n".join(precision_lines(report)))


@app.command()
def training(
    config: Annotated[str, typer.Option("--config", help="flowsep, diffusionsep or a YAML file.")] = "flowsep",
    batch: Annotated[int | None, typer.Option(help="Items of a step. [default: the configuration's]", min=1)] = None,
    repeats: Annotated[int, typer.Option(help="Steps that count, each way, after one that does not.", min=1)] = 3,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report as JSON.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Seconds of a training step when latents and text states are made at every step, and when they are kept."""
    check_output(output, overwrite)
    from flowsep.benchmark.report import write_report
    from flowsep.benchmark.training import time_training, training_lines
    from flowsep.config import load_config

    report = time_training(load_config(config), config, batch, repeats, notes(quiet))
    if output is not None:
        write_report(output, report, overwrite)
    typer.echo("\n".join(training_lines(report)))


@app.command()
def show(
    report: Annotated[
        Path, typer.Argument(help="JSON of latency, its --matrix or --ladder, of precision or of training.")
    ],
) -> None:
    """Print the tables of a report again."""
    from flowsep.benchmark.ladder import ladder_lines
    from flowsep.benchmark.matrix import matrix_lines
    from flowsep.benchmark.precision import precision_lines
    from flowsep.benchmark.report import latency_lines, read_report
    from flowsep.benchmark.training import training_lines

    lines = {"latency": latency_lines, "latency-matrix": matrix_lines, "latency-ladder": ladder_lines}
    lines |= {"precision": precision_lines, "training": training_lines}
    found = read_report(report, tuple(lines))
    typer.echo("\n".join(lines[found["kind"]](found)))


@app.command()
def steps(
    models: Annotated[str, typer.Option("--models", help="Names or folders: small,mine=runs/mine/model.")],
    recipe: Annotated[Path, typer.Option("--recipe", help="CSV of fixed mixtures (flowsep recipe draws one).")],
    data: Annotated[Path, typer.Option("--data", help="Folder that the recipe's clip paths start from.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the report; resumes there.")],
    counts: Annotated[str, typer.Option("--steps", help="Step counts.")] = "1,2,4,10,25,50,100,200",
    solvers: Annotated[
        str | None, typer.Option("--solvers", help="Such as euler,ddim; each model takes its own. [default: its own]")
    ] = None,
    guidance: Annotated[float, typer.Option("--guidance")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first so many mixtures.", min=1)] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Quality, network calls and seconds of models at several step counts, over the same mixtures.

    Writes steps.json, steps.md and two plots into DIR, and prints the table. The same command again goes on where it
    was interrupted; more steps, solvers, models or mixtures are added to what is there.
    """
    from flowsep.atomic import refuse_unwritable
    from flowsep.benchmark.steps_options import Study, parse_models, parse_solvers
    from flowsep.cli.batch import silence_libraries
    from flowsep.evaluation.recipe import read_recipe

    check_device(device)
    check_options(SampleOptions(guidance=guidance))
    named = parse_models(models)
    study = Study(named, parse_steps(counts), parse_solvers(solvers, list(named)), seed, guidance, device)
    refuse_unwritable(output)
    rows = read_recipe(recipe)[:limit]
    from flowsep.benchmark.steps import run_study
    from flowsep.benchmark.steps_report import table, write_results

    silence_libraries(quiet)
    report = run_study(study, rows, recipe, data, output, quiet)
    write_results(report, output)
    typer.echo(table(report))


@app.command()
def seams(
    mix: Annotated[Path, typer.Argument(metavar="MIX", readable=False, help="A recording of several windows.")],
    text: Annotated[str, typer.Option("--text", help="What to separate, in words.")],
    model: Annotated[str, typer.Option("--model", help="Name, folder or hub id of a model.")] = "small",
    device: Annotated[str, typer.Option("--device")] = "auto",
) -> None:
    """How far the gain jumps where windows were joined, against elsewhere, as JSON.

    Jumps are in dB over 50 ms and over 0.5 s; a rank is the share of other places that jump less: 0.5 is chance, and
    what cannot be heard as a seam.
    """
    import json

    from flowsep.checkpoint import load_separator
    from flowsep.evaluation.seams import seams_of_recording
    from flowsep.media import open_media

    recording = open_media(mix)
    report = seams_of_recording(load_separator(model, device), recording, text)
    typer.echo(json.dumps({"recording": str(mix), "model": model, **report}, indent=2))
