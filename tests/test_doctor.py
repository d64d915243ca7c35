"""`flowsep doctor` names what is broken and never breaks itself."""

from __future__ import annotations

import json
import time

import pytest
import typer
from typer.testing import CliRunner

import flowsep.cli.doctor
from flowsep import doctor
from flowsep.doctor import Finding


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """Put a package of the given name and source first on sys.path."""

    def make(name: str, source: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    return make


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Pretend that distributions (name, version, requirements) are installed, ahead of the real ones."""

    def make(name: str, version: str, requirements: tuple[str, ...] = ()) -> None:
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        (info / "METADATA").write_text("\n".join(lines + [f"Requires-Dist: {line}" for line in requirements]) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return make


def run(*arguments: str):
    app = typer.Typer()
    app.command()(flowsep.cli.doctor.doctor)
    return CliRunner().invoke(app, list(arguments))


def test_a_broken_torchvision_is_named_with_its_remedy(fake_package):
    fake_package("torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    (finding,) = doctor.examine_troublemakers(["torchvision"])
    assert "torchvision::nms" in finding.problem
    assert "pip uninstall torchvision" in finding.problem


def test_a_package_that_kills_the_interpreter_is_named(fake_package):
    fake_package("torchcodec", "import os; os.abort()")
    (finding,) = doctor.examine_troublemakers(["torchcodec"])
    assert "pip uninstall torchcodec" in finding.problem


def test_a_working_or_absent_package_is_no_problem(fake_package):
    fake_package("torchaudio", "")
    findings = doctor.examine_troublemakers(["torchaudio", "surely_not_installed_package"])
    assert [(finding.name, finding.problem) for finding in findings] == [("torchaudio", None)]


def test_missing_and_outdated_dependencies_are_problems(installed):
    installed("flowsep-toolkit", "0.1.0", ("wellmade>=2,<3", "oldish>=2", "absentee>=1", 'tool>=1; extra == "dev"'))
    installed("wellmade", "2.5")
    installed("oldish", "1.9")
    found = {finding.name: finding for finding in doctor.examine_versions()}
    assert found["wellmade"] == Finding("versions", "wellmade", "2.5")
    assert "oldish 1.9 is outside >=2" in found["oldish"].problem
    assert "pip install 'absentee>=1'" in found["absentee"].problem
    assert "tool" not in found


def test_wav_and_flac_can_be_read_and_written():
    values = {finding.name: finding.value for finding in doctor.examine_codecs()}
    assert values["wav"] == values["flac"] == "reads and writes"
    assert set(doctor.CODECS) < set(values)


def test_shipped_models_are_listed_and_their_absence_is_a_problem(tmp_path):
    (tmp_path / "tiny").mkdir()
    assert doctor.examine_models(tmp_path)[0].problem
    (tmp_path / "tiny" / "model_index.json").write_text("{}")
    assert doctor.examine_models(tmp_path)[0] == Finding("models", "shipped", "tiny")


def test_an_unreachable_hub_is_reported_without_its_name(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def refuse(timeout: float) -> int:
        raise OSError("cannot resolve hub.example.org")

    finding = doctor.examine_hub(refuse)
    assert finding.value == "not reachable (OSError)"
    assert finding.problem is None
    assert doctor.examine_hub(lambda timeout: 200).value == "reachable"
    assert "503" in doctor.examine_hub(lambda timeout: 503).value


def test_a_hub_that_hangs_is_given_up(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(doctor, "HUB_TIMEOUT", 0.05)
    start = time.perf_counter()
    finding = doctor.examine_hub(lambda timeout: time.sleep(5) or 200)
    assert time.perf_counter() - start < 2
    assert "no answer" in finding.value


def test_the_hub_is_not_asked_when_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in doctor.examine_hub(lambda timeout: pytest.fail("the hub was asked")).value


def test_the_exit_status_tells_whether_there_are_problems(monkeypatch):
    fine, broken = Finding("versions", "a", "1"), Finding("versions", "b", "2", "b is broken; run: pip uninstall b")
    monkeypatch.setattr(doctor, "examine", lambda: [fine])
    assert run().exit_code == 0
    monkeypatch.setattr(doctor, "examine", lambda: [fine, broken])
    result = run()
    assert result.exit_code == 1
    assert "pip uninstall b" in result.stdout
    result = run("--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"] == [broken.problem]


def test_a_whole_examination_reports_every_section(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sections = [finding.section for finding in doctor.examine()]
    assert list(dict.fromkeys(sections)) == ["versions", "machine", "codecs", "models", "hub"]
