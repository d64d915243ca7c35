"""The step matrix: resumes, measures what fits the budget, says what it extrapolated; and the command around it."""

import json
from dataclasses import replace

import pytest
import torch

from flowsep.benchmark import ceilings, matrix
from flowsep.benchmark.latency import NETWORK, Workload
from flowsep.benchmark.matrix import families_of, matrix_lines, run_matrix
from flowsep.benchmark.models import random_separator
from flowsep.cli import main
from flowsep.config import save_config
from flowsep.errors import UsageError
from tests.tiny import DIFFUSION, MIXTURE, PAPER, tiny_separator

CPU = torch.device("cpu")
WORK = Workload(seconds=0.64, repeats=3)


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
    """Ceilings of a size that takes no time."""
    monkeypatch.setattr(ceilings, "SMALL_MATRIX", 128)
    monkeypatch.setattr(ceilings, "SMALL_COPY_MIB", 1)


def build(config):
    """A tiny model, whatever the configuration is called."""
    separator = tiny_separator(MIXTURE)
    separator.vocoder = None  # the slowest part, and not used
    return separator, 0.1


def run(path=None, steps=(1, 2), budget=60.0, work=WORK, build=build, families=None):
    families = families or {"flow": "tiny"}
    return run_matrix(families, build, CPU, torch.float32, steps, work, budget, path)


def test_rows_that_fit_the_budget_are_measured_and_the_others_say_that_they_were_not(monkeypatch):
    report = run(steps=(1, 3, 100000), budget=20.0)
    short, longer, far = report["rows"]
    assert short["measured"] and longer["measured"] and longer["nfe"] == 3 and longer["repeats"] == 3
    assert not far["measured"] and far["repeats"] == 0 and "samples" not in far
    rows = {row["name"]: row for row in report["models"]["flow"]["rows"]}
    assert far["sampler_s"] == pytest.approx(100000 * rows[NETWORK]["median"])
    rest = rows["end to end"]["median"] - rows["sampler"]["median"]
    assert far["median"] == pytest.approx(rest + far["sampler_s"])
    text = "\n".join(matrix_lines(report))
    assert text.count("EXTRAPOLATED") == 2  # the row and the note that explains it


def test_the_published_seconds_stand_beside_the_rows_of_table_iii():
    report = run(families={"flow": "tiny", "diffusion": "tiny-twin"}, steps=(10, 50), budget=1e-3)
    lines = matrix_lines(report)
    assert next(line for line in lines if "0.58 + 0.12 s" in line).startswith("| flow")
    assert next(line for line in lines if "4.9 + 0.12 s" in line).startswith("| diffusion")
    assert sum("0.12 s" in line for line in lines) == 2


def test_a_diffusion_is_built_and_measured_like_a_flow():
    separator = random_separator(DIFFUSION, CPU, torch.float32)
    separator.vocoder = None
    report = run(build=lambda config: (separator, 0.1), families={"diffusion": "tiny"}, steps=(1, 3))
    assert report["models"]["diffusion"]["settings"]["class"] == "DiffusionSep"
    assert [row["nfe"] for row in report["rows"]] == [1, 3] and report["rows"][1]["measured"]


def test_an_interrupted_matrix_goes_on_where_it_stopped(tmp_path, monkeypatch):
    path = tmp_path / "matrix.json"
    first = run(path, steps=(1,))
    assert json.loads(path.read_text())["rows"] == first["rows"]
    second = run(path, steps=(1, 2))
    assert second["rows"][0] == first["rows"][0] and [row["steps"] for row in second["rows"]] == [1, 2]

    def nothing(config):
        raise AssertionError("all rows are there")

    assert run(path, steps=(1, 2), build=nothing)["rows"] == second["rows"]


def test_rows_of_other_settings_are_not_mixed(tmp_path):
    path = tmp_path / "matrix.json"
    run(path, steps=(1,))
    with pytest.raises(UsageError, match=r"begun with another repeats \(3, now 4\).*another -o"):
        run(path, steps=(1,), work=replace(WORK, repeats=4))


def test_the_diffusion_twin_runs_beside_the_flow_where_it_exists(monkeypatch, tmp_path):
    assert families_of("flowsep") == {"flow": "flowsep", "diffusion": "diffusionsep"}
    assert families_of("small-diffusion") == {"diffusion": "small-diffusion"}
    save_config(PAPER, tmp_path / "mine.yaml")
    assert list(families_of(str(tmp_path / "mine.yaml"))) == ["flow"]
    monkeypatch.setitem(matrix.TWINS, "flowsep", "not-there")
    assert families_of("flowsep") == {"flow": "flowsep"}


@pytest.fixture
def config(tmp_path):
    """A tiny configuration as a file."""
    save_config(PAPER, tmp_path / "tiny.yaml")
    return str(tmp_path / "tiny.yaml")


def latency(*options):
    return main(["benchmark", "latency", *map(str, options)])


def test_the_command_prints_tables_and_writes_its_report(tmp_path, config, capsys):
    out = tmp_path / "a.json"
    assert latency("--config", config, "--repeats", 1, "-q", "-o", out) == 0
    assert "end to end" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["settings"]["steps"] == 2 and report["load_s"] > 0
    assert latency("--config", config, "--repeats", 1, "-o", out) == 3
    assert "exists; add --overwrite" in capsys.readouterr().err
    assert main(["benchmark", "show", str(out)]) == 0
    assert "time / floor" in capsys.readouterr().out
    assert latency("--compare", out, out) == 0
    assert "1.000" in capsys.readouterr().out
    assert latency("--compare", out, tmp_path / "none.json") == 3


def test_the_command_runs_the_matrix(tmp_path, config, capsys):
    out = tmp_path / "m.json"
    assert latency("--config", config, "--matrix", "--steps", "2,1", "--repeats", 3, "-o", out, "--seconds", 0.64) == 0
    text = capsys.readouterr()
    assert "has no twin" in text.out and "flow, 2 steps" in text.err
    assert [row["steps"] for row in json.loads(out.read_text())["rows"]] == [1, 2]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--steps", "0"], 2, "steps are whole numbers from 1 on, such as 10 or 1,2,4; not '0'"),
        (["--steps", "ten"], 2, "whole numbers"),
        (["--steps", "1,2"], 2, "need --matrix"),
        (["--config", "nothing"], 2, "unknown configuration 'nothing'"),
        (["--config", "nothing", "--matrix"], 2, "unknown configuration 'nothing'"),
        (["--model", "nothing"], 4, "unknown model 'nothing'"),
        (["--model", "small", "--matrix"], 2, "leave --model out"),
        (["--dtype", "float8"], 2, "choose from float32, bfloat16, float16"),
        (["--compile", "--compile-mode", "fast"], 2, "unknown compile mode 'fast'"),
        (["--render", "mask"], 2, "unknown rendering"),
        (["--device", "tpu"], 2, "unknown device"),
        (["--device", "cuda:7"], 5, "cannot use the device 'cuda:7'"),
        (["--repeats", "0"], 2, "repeats"),
        (["--matrix", "--budget", "0"], 2, "--budget must be above 0"),
    ],
)
def test_bad_input_gets_one_line(options, code, message, capsys):
    assert latency(*options) == code
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_report_in_the_place_of_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert latency("-o", tmp_path / "file" / "report.json") == 3
    assert "is not a folder" in capsys.readouterr().err
