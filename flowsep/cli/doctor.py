"""`flowsep doctor`: what this installation is made of and what is wrong with it."""

from __future__ import annotations

import dataclasses
import json as json_format
from itertools import groupby
from typing import Annotated

import typer


def doctor(json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Print versions, devices, memory, codecs, models and the hub; end with status 1 if something must be mended."""
    from flowsep.doctor import examine, problems

    findings = examine()
    wrong = problems(findings)
    if json:
        report = {"findings": [dataclasses.asdict(finding) for finding in findings], "problems": wrong}
        typer.echo(json_format.dumps(report, indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for section, group in groupby(findings, key=lambda finding: finding.section):
            typer.echo(section)
            for finding in group:
                typer.echo(f"  {finding.name:{width}}  {finding.value}{'  <- problem' if finding.problem else ''}")
        typer.echo("")
        typer.echo(f"{len(wrong)} problem(s):" if wrong else "No problems found.")
        for problem in wrong:
            typer.echo(f"  {problem}")
    if wrong:
        raise typer.Exit(1)
