"""`flowsep benchmark latency` and `flowsep benchmark steps`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Measure latency stage by stage, or quality against steps.", no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Measure latency stage by stage, or quality against steps."""


@app.command()
def latency(
    config: Annotated[str, typer.Option("--config", help="flowsep, small or a YAML file; random weights.")] = "flowsep",
    model: Annotated[str | None, typer.Option("--model", help="A model to load instead of --config.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Length of the mixture.", min=0.1)] = 10.24,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Solver steps (Euler); the model's default.", min=1)
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1)] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1)] = 5,
    device: Annotated[str, typer.Option("--device")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report as JSON here.")] = None,
) -> None:
    """Seconds, GFLOP and GFLOP/s of each stage, beside the machine's own matrix-product rate in the same run."""
    from flowsep.errors import UsageError

    if dtype not in ("float32", "bfloat16", "float16"):
        raise UsageError(f"unknown dtype {dtype!r}; choose float32, bfloat16 or float16")
    import torch

    from flowsep.atomic import refuse_unwritable
    from flowsep.benchmark.latency import benchmark_latency, random_separator, table
    from flowsep.checkpoint import load_separator, pick_device, write_json
    from flowsep.config import load_config

    if output is not None:
        refuse_unwritable(output.parent)
    precision = getattr(torch, dtype)
    if model is not None:
        separator = load_separator(model, device, precision)
    else:
        separator = random_separator(load_config(config), pick_device(device), precision)
    report = benchmark_latency(separator, model or config, seconds, steps or separator.defaults.steps, batch, repeats)
    if output is not None:
        write_json(output, report)
    typer.echo(table(report))


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
    from flowsep.benchmark.steps_options import Study, parse_models, parse_solvers, parse_steps
    from flowsep.cli.separate import check_device, silence_libraries
    from flowsep.evaluation.recipe import read_recipe
    from flowsep.options import check_options
    from flowsep.protocol import SampleOptions

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
