"""The `flowsep` command itself: how soon it answers, what it imports, that every command in its help is there."""

from __future__ import annotations

import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from flowsep.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["separate", "--help"], ["separate", "x.wav", "--text", ""], ["nope"]]
)
def test_help_and_usage_errors_answer_in_half_a_second(arguments):
    def seconds() -> float:
        """Of the processor, which other work on the machine does not lengthen as it does the clock's."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "flowsep", *arguments], cwd=ROOT, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_anything_heavy(name):
    program = (
        "import sys; from flowsep.cli import main; "
        f"main(['{name}', '--help']); "
        "heavy = {'torch', 'transformers', 'diffusers', 'librosa', 'matplotlib', 'soundfile'} & set(sys.modules); "
        "sys.exit(str(heavy or ''))"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (found.stderr.strip(), "Usage: flowsep" in found.stdout) == ("", True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_help_exists(name):
    module, attribute = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, typer.Typer) or callable(command)


def test_torch_is_told_to_ask_for_huge_pages_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    main(["--version"])
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    main(["--version"])
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


def test_version_and_bare_command(capfd):
    assert main(["--version"]) == 0
    assert capfd.readouterr().out.startswith("flowsep ")
    assert main([]) == 0
    out = capfd.readouterr().out
    assert all(name in out for name in COMMANDS)
