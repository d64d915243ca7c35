"""`flowsep evaluate PROTOCOL --data DIR --model ...`, and the short evaluation of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowsep.cli.options import Sampling, spread
from flowsep.references import parse_references, refuse_unused

if TYPE_CHECKING:
    from flowsep.separator import LatentSeparator

Seed = Annotated[int | None, typer.Option("--mix-seed", min=0, help="Draw other mixtures; --seed is the model's.")]
Count = Annotated[int | None, typer.Option(min=1, help="Mixtures to draw. [default: the protocol's]")]
Split = Annotated[str | None, typer.Option(help="Protocol own: of the manifest. [default: test, or all]")]


@dataclass(frozen=True)
class Mixtures:
    """Which mixtures are made."""

    data: Annotated[Path | None, typer.Option("--data", help="Folder of the clips or of the benchmark.")] = None
    recipe: Annotated[Path | None, typer.Option("--recipe", help="CSV of fixed mixtures.")] = None
    count: Count = None
    mix_seed: Seed = None
    split: Split = None


@dataclass(frozen=True)
class Scoring:
    """What is scored, by what, and where it goes."""

    model: Annotated[
        str | None,
        typer.Option("--model", help="Name, folder or hub id; several: a,b,mixture,oracle. [default: small]"),
    ] = None
    estimates: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]DIR", help="Another tool's files, named by id. Repeat it.")
    ] = None
    reference: Annotated[
        list[str] | None,
        typer.Option("--reference", metavar="TEXT=CLIP", help="What a query means, by example, to models that hear."),
    ] = None
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODER",
            help="proxy, proxy:FOLDER or clap:FOLDER: also its scores and Frechet distance, under its name.",
        ),
    ] = None
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the results; without a protocol, a JSON file.")
    ] = None
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many mixtures.")] = None
    by: Annotated[str | None, typer.Option("--by", help="Also a table by class or snr.")] = None
    compare: Annotated[bool, typer.Option("--compare", help="One table of the folders named: no new work.")] = False
    oracle: Annotated[
        bool,
        typer.Option(
            "--oracle",
            help="Of a recipe: what each rendering could reach (with --model, through its codec and vocoder), "
            "and what needs no learning.",
        ),
    ] = False
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="Of a recipe: also 1, 2, 4 and 10 steps, the vocoder rendering, "
            "the time for 10 s and the size of the weights.",
        ),
    ] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin the results anew.")] = False
    device: Annotated[str, typer.Option("--device")] = "auto"
    json_out: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False


What = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PROTOCOL]", help="own, mixtures, dcase2024-task9, audiosep-*, flowsep-*, hsm-*."),
]


def run(mixtures: Mixtures, scoring: Scoring, sampling: Sampling, what: What = None) -> None:
    """Score models, or another tool's files, on mixtures: a published protocol, your clips, or a list.

    Without a protocol, --recipe gives the short report of a list: SI-SDR improvement for the right query, the
    interferer's, an unseen wording's and an absent sound's.
    """
    from flowsep.errors import UsageError
    from flowsep.options import check_choice

    check_choice("grouping", scoring.by, ("class", "snr"))
    if scoring.compare:
        from flowsep.evaluation.leaderboard import compare

        if mixtures != Mixtures() or scoring.model or scoring.estimates or scoring.output:
            raise UsageError("--compare measures nothing; give it folders of results, --by and --json alone")
        show(compare([Path(folder) for folder in what or []]), scoring)
        return
    if what and len(what) > 1:
        raise UsageError(f"one protocol at a time, not {' and '.join(what)}; to compare folders add --compare")
    if mixtures.data is None:
        raise UsageError("--data is missing; give the folder of the clips or of the benchmark")
    if what:
        score_protocol(what[0], mixtures, scoring, sampling)
    else:
        score_recipe(mixtures, scoring, sampling)


evaluate = spread(run)


def score_protocol(name: str, mixtures: Mixtures, scoring: Scoring, sampling: Sampling) -> None:
    """Score what is not yet in the folder of the results, and write and print the table of all that is."""
    from flowsep.errors import PartialFailure, UsageError
    from flowsep.evaluation.encoders import load_encoder
    from flowsep.evaluation.leaderboard import summarise, table_lines
    from flowsep.evaluation.results import SUMMARY, TABLE, Results, write_text
    from flowsep.evaluation.score import score_systems
    from flowsep.evaluation.systems import systems_of

    if scoring.oracle:
        raise UsageError("--oracle is for a recipe without a protocol; here it is --model oracle")
    if scoring.complete:
        raise UsageError("--complete is for a recipe without a protocol; leave it out")
    models = [] if scoring.model is None and scoring.estimates else (scoring.model or "small").split(",")
    options = checked(sampling, models)
    items = read_protocol(name, mixtures)
    texts = list(dict.fromkeys(item.text for item in items.items))
    references = parse_references(scoring.reference or [], texts)
    refuse_unused(references, texts)
    systems = systems_of(models, scoring.estimates or [], options, scoring.device, references)
    encoder = None if scoring.encoder is None else load_encoder(scoring.encoder)
    results = Results.open(items, systems, scoring.output, encoder, scoring.overwrite)
    failed = score_systems(items, systems, results, scoring.limit, encoder, scoring.quiet)
    summary = summarise(results, [item.id for item in items.items[: scoring.limit]], failed)
    if scoring.output is not None:
        import json

        write_text(scoring.output / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        write_text(scoring.output / TABLE, "\n".join(table_lines(summary)) + "\n")
    show(summary, scoring)
    if failed:
        first, reason = next(iter(failed.items()))
        text = f"{len(failed)} of {len(items.items[: scoring.limit])} mixtures could not be scored, the first {first}"
        raise PartialFailure(f"{text}: {reason}")


def read_protocol(name: str, mixtures: Mixtures) -> Any:
    """The items that the words ask for; data is not None."""
    from flowsep.evaluation.protocols import read_items
    from flowsep.evaluation.protocols.drawn import SEED, Draw

    seed = SEED if mixtures.mix_seed is None else mixtures.mix_seed
    draw = Draw(seed, mixtures.count, mixtures.recipe, mixtures.split)
    return read_items(name, mixtures.data, draw)


def checked(sampling: Sampling, models: list[str]) -> Any:
    """The options, which one of the models at least has to understand."""
    from flowsep.checkpoint import solver_names
    from flowsep.options import check_options

    options = sampling.options()
    known = dict.fromkeys(solver for model in models or ["small"] for solver in solver_names(model))
    check_options(options, tuple(known))
    return options


def show(summary: dict[str, Any], scoring: Scoring) -> None:
    """Print a summary as JSON or as tables."""
    import json

    from flowsep.evaluation.leaderboard import by_lines, table_lines

    if scoring.json_out:
        typer.echo(json.dumps(summary, ensure_ascii=False))
        return
    lines = table_lines(summary)
    if scoring.by is not None:
        lines += ["", *by_lines(summary, scoring.by)]
    typer.echo("\n".join(lines))


def score_recipe(mixtures: Mixtures, scoring: Scoring, sampling: Sampling) -> None:
    """The short report of a recipe: of one model, of several, or of the oracles."""
    import json

    from flowsep.atomic import refuse_existing, refuse_unwritable
    from flowsep.checkpoint import load_separator, write_json
    from flowsep.errors import UsageError
    from flowsep.evaluation.complete import complete_lines, complete_report
    from flowsep.evaluation.oracle import oracle_lines, oracle_recipe
    from flowsep.evaluation.recipe import read_recipe
    from flowsep.evaluation.run import evaluate_recipe, summary_lines
    from flowsep.evaluation.systems import MIXTURE, ORACLE

    recipe, data, model, output = mixtures.recipe, mixtures.data, scoring.model or "small", scoring.output
    if recipe is None:
        raise UsageError("nothing to measure on; name a protocol, or give a list of mixtures by --recipe")
    about = {
        "estimates": scoring.estimates,
        "reference": scoring.reference,
        "encoder": scoring.encoder,
        "by": scoring.by,
    }
    about |= {"count": mixtures.count, "mix-seed": mixtures.mix_seed, "split": mixtures.split}
    for word, value in about.items():
        if value is not None:
            raise UsageError(f"--{word} needs a protocol; write: flowsep evaluate own --recipe {recipe}")
    options = checked(sampling, [model])
    if output is not None:
        refuse_existing(output, scoring.overwrite)
        refuse_unwritable(output.parent)
    rows = read_recipe(recipe)[: scoring.limit]
    several = "," in model or model in (MIXTURE, ORACLE)
    if scoring.complete and (several or scoring.oracle):
        raise UsageError("--complete is of one model; name one, without --oracle")
    if several:
        from flowsep.evaluation.compare import evaluate_systems, leaderboard_lines

        report = evaluate_systems(model.split(","), rows, data, options, recipe.name, scoring.device, scoring.quiet)
        lines = leaderboard_lines(report)
    elif scoring.oracle:
        report = oracle_recipe(rows, data, recipe.name, parts_of(scoring.model, scoring.device))
        lines = oracle_lines(report)
    else:
        separator = load_separator(model, scoring.device)
        extra = complete_report(separator, rows, data, options, model, scoring.quiet) if scoring.complete else None
        report = evaluate_recipe(separator, rows, data, options, model, recipe.name, scoring.quiet)
        lines = summary_lines(report)
        if extra is not None:
            report["complete"] = extra
            lines += complete_lines(extra)
    if output is not None:
        write_json(output, report)
    typer.echo(json.dumps(without_items(report)) if scoring.json_out else "\n".join(lines))


def parts_of(model: str | None, device: str) -> LatentSeparator | None:
    """The model whose codec and vocoder `--oracle` is to measure too, if one was named."""
    from flowsep.checkpoint import load_separator
    from flowsep.errors import UsageError
    from flowsep.separator import LatentSeparator

    if model is None:
        return None
    separator = load_separator(model, device)
    if not isinstance(separator, LatentSeparator):
        raise UsageError(f"{model} has no codec and no vocoder that --oracle could measure; leave --model out")
    return separator


def without_items(report: dict[str, Any]) -> dict[str, Any]:
    """A report, or one of several systems, without its figures of single mixtures."""
    if "systems" in report:
        report = {**report, "systems": {name: without_items(one) for name, one in report["systems"].items()}}
    return {key: value for key, value in report.items() if key != "items"}
