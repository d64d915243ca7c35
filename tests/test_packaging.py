"""What setup.cfg and constraints.txt promise agrees with the tree, so that a wheel is complete."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    pairs = (line.split("==") for line in lines((ROOT / "constraints.txt").read_text(encoding="utf-8")))
    return {name: Version(version) for name, version in pairs}


def test_every_package_folder_is_listed(setup):
    folders = {path.parent for top in ("flowsep", "vae", "vocoder") for path in (ROOT / top).rglob("*.py")}
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders} | {"flowsep.configs"}
    assert set(lines(setup["options"]["packages"])) == found
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_shipped_models_hold_only_files_that_the_wheel_takes(setup):
    patterns = lines(setup["options.package_data"]["flowsep"])
    taken = {path for pattern in patterns for path in (ROOT / "flowsep").glob(pattern)}
    models = {path for path in (ROOT / "flowsep" / "pretrained").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert models <= taken
    assert {path.suffix for path in (ROOT / "configs").iterdir()} == {".yaml"}
    assert all((ROOT / top / "py.typed").exists() for top in ("flowsep", "vae", "vocoder"))


def test_what_lies_beside_the_code_is_in_the_wheel(setup):
    patterns = lines(setup["options.package_data"]["flowsep"])
    taken = {path for pattern in patterns for path in (ROOT / "flowsep").glob(pattern)}
    beside = {path for path in (ROOT / "flowsep").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert beside <= taken


def test_tested_versions_lie_in_the_ranges_asked_for(setup, pins):
    wanted = lines(setup["options"]["install_requires"]) + lines(setup["options.extras_require"]["dev"])
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_tested_versions_can_be_had_from_any_index(pins):
    assert [name for name, version in pins.items() if version.local] == []
