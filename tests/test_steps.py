"""The step-count study: its metrics by formula, what it measures and keeps, and what it refuses."""

import json
from dataclasses import replace
from itertools import count

import librosa
import numpy as np
import pytest
import torch

from flowsep.benchmark import steps
from flowsep.benchmark.machine import describe_machine
from flowsep.benchmark.steps import aggregate, run_study
from flowsep.benchmark.steps_options import Study, parse_models, parse_solvers
from flowsep.benchmark.steps_report import PLOTS, STYLES, table, write_results
from flowsep.cli import main
from flowsep.errors import InputError, UsageError
from flowsep.evaluation.recipe import MixtureRow, read_recipe, write_recipe
from flowsep.evaluation.spectral import log_mel_l1, log_spectral_distance
from flowsep.options import parse_steps
from flowsep.separator import LatentSeparator
from tests.tiny import DIFFUSION, MIXTURE, tiny_separator, write_clips


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_log_spectral_distance_is_ssr_evals():
    estimate, reference = noise(2, 1, 16000).unbind()
    found, wanted = (
        np.abs(librosa.stft(x[0].double().numpy(), n_fft=743, hop_length=160, dtype=np.complex128))
        for x in (estimate, reference)
    )
    log = np.log10(wanted**2 / (found + 1e-12) ** 2 + 1e-12)
    expected = np.mean(np.sqrt(np.mean(log**2, axis=0)))
    assert log_spectral_distance(estimate, reference, 16000).item() == pytest.approx(expected, rel=1e-9)
    assert log_spectral_distance(reference, reference, 16000).item() == pytest.approx(0, abs=1e-6)
    assert log_spectral_distance(reference / 10, reference, 16000).item() == pytest.approx(2, abs=1e-6)


def test_log_spectral_distance_can_leave_out_digital_silence():
    reference = noise(3, 16000)
    reference[:, 8000:] = 0
    estimate = reference / 10
    expected = log_spectral_distance(estimate[:, :8000], reference[:, :8000], 16000)
    found = log_spectral_distance(estimate, reference, 16000, skip_silence=True)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    assert (log_spectral_distance(estimate, reference, 16000) > 1.5 * expected).all()
    assert log_spectral_distance(estimate, torch.zeros(3, 16000), 16000, skip_silence=True).isnan().all()


def test_log_mel_distance_is_one_for_a_factor_of_e():
    reference = noise(2, 8000)
    found = log_mel_l1(reference * np.e, reference)
    torch.testing.assert_close(found, torch.ones(2), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("data"), seconds=1.0)


@pytest.fixture(scope="module")
def recipe(data):
    rows = [
        MixtureRow("a", "low_hum/0.wav", "hiss/0.wav", 0.0, 0.1, 3.0, "the low hum", "low_hum", "hiss", 1.2),
        MixtureRow("b", "clicks/1.wav", "hiss/1.wav", 0.1, 0.0, -2.0, "clicks", "clicks", "hiss", 1.2),
        MixtureRow("c", "hiss/2.wav", "low_hum/2.wav", 0.2, 0.0, 0.0, "hiss", "hiss", "low_hum", 1.2),
    ]
    write_recipe(data / "recipe.csv", rows)
    return data / "recipe.csv"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for config in (MIXTURE, DIFFUSION):
        tiny_separator(config).save_pretrained(folder / config.name)
    return folder


def study(models, **changes):
    names = {str(models / "tiny-mixture"): None, str(models / "tiny-diffusion"): None}
    return Study(**{"models": names, "steps": (1, 3), "device": "cpu", **changes})


@pytest.fixture
def calls(monkeypatch):
    """The options of every separation that is made, warm-up included."""
    seen = []
    original = LatentSeparator.separate

    def separate(self, mixture, texts, options=None, watch=None):
        seen.append(options)
        return original(self, mixture, texts, options, watch)

    monkeypatch.setattr(LatentSeparator, "separate", separate)
    return seen


def test_a_study_measures_every_setting_once_on_the_same_mixtures(models, recipe, data, tmp_path, monkeypatch, calls):
    rendered = []
    original = steps.render_row
    monkeypatch.setattr(steps, "render_row", lambda row, root: rendered.append(row.id) or original(row, root))
    rows = read_recipe(recipe)[:2]
    report = run_study(study(models, solvers=("euler", "heun", "ddim")), rows, recipe, data, tmp_path)
    assert rendered == ["a", "b"] and len(report["rows"]) == 3 * 2 * 2
    assert len(calls) == len(report["rows"]) + 2  # one to warm up each model
    nfe = {(row["model"], row["solver"], row["steps"]): row["nfe"] for row in report["rows"]}
    assert nfe == {
        ("tiny-mixture", "euler", 1): 1, ("tiny-mixture", "euler", 3): 3,
        ("tiny-mixture", "heun", 1): 1, ("tiny-mixture", "heun", 3): 5,  # the last step is Euler's
        ("tiny-diffusion", "ddim", 1): 1, ("tiny-diffusion", "ddim", 3): 3,
    }  # fmt: skip
    for cell in report["aggregates"]:
        same = [r for r in report["rows"] if all(r[k] == cell[k] for k in ("model", "solver", "steps"))]
        assert cell["mixtures"] == len(same) == 2
        assert cell["si_sdri"]["mean"] == pytest.approx(np.mean([row["si_sdri"] for row in same]))
        assert cell["si_sdri"]["low"] <= cell["si_sdri"]["mean"] <= cell["si_sdri"]["high"]
        assert cell["seconds"]["mean"] >= cell["sampler_seconds"]["mean"] > 0
    assert report["mixture"]["si_sdri"]["mean"] == 0 and report["mixture"]["log_mel_distance"]["mean"] > 0
    saved = json.loads((tmp_path / "steps.json").read_text())
    assert saved == json.loads(json.dumps(report))
    assert {"cpu", "git", "date", "versions"} <= saved["sessions"][0].keys()
    about = saved["models"]["tiny-diffusion"]
    assert about["class"] == "DiffusionSep" and len(about["hash"]) == 64
    assert str(models) not in (tmp_path / "steps.json").read_text()  # no path of this machine


def test_the_figures_are_those_of_one_separation(models, recipe, data, tmp_path):
    from flowsep.checkpoint import load_separator
    from flowsep.evaluation.run import evaluate_row
    from flowsep.protocol import SampleOptions

    rows = read_recipe(recipe)[:1]
    report = run_study(study(models, steps=(2,), seed=3), rows, recipe, data, tmp_path)
    for name, row in zip(("tiny-mixture", "tiny-diffusion"), report["rows"], strict=True):
        options = SampleOptions(steps=2, seed=3, render="mixture")
        item = evaluate_row(load_separator(models / name, "cpu"), rows[0], data, {}, options, {})
        assert row["si_sdri"] == pytest.approx(item["si_sdri"], abs=1e-4) and row["model"] == name


def test_an_interrupted_study_goes_on_and_grows(models, recipe, data, tmp_path, monkeypatch, calls):
    rows, asked = read_recipe(recipe), count()
    original = steps.qualities

    def interrupted(estimate, item):
        if next(asked) == 4:
            raise KeyboardInterrupt
        return original(estimate, item)

    monkeypatch.setattr(steps, "qualities", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(study(models), rows[:2], recipe, data, tmp_path)
    monkeypatch.setattr(steps, "qualities", original)
    begun = json.loads((tmp_path / "steps.json").read_text())
    assert len(begun["rows"]) == 4
    done = len(calls)
    report = run_study(study(models), rows[:2], recipe, data, tmp_path)
    assert report["rows"][:4] == begun["rows"] and len(report["rows"]) == 8 and len(report["sessions"]) == 2
    assert len(calls) - done == 4 + 1
    done = len(calls)
    assert run_study(study(models), rows[:2], recipe, data, tmp_path)["rows"] == report["rows"] and len(calls) == done
    more = run_study(study(models, steps=(1, 2, 3)), rows, recipe, data, tmp_path)
    assert len(more["rows"]) == 2 * 3 * 3 and {cell["mixtures"] for cell in more["aggregates"]} == {3}


def test_only_settings_that_have_all_mixtures_are_averaged():
    figures = {name: 1.0 for name in steps.FIGURES}
    rows = [{"model": "m", "solver": "euler", "steps": 1, "id": one, "nfe": 1, **figures} for one in "ab"]
    rows.append({**rows[0], "steps": 2})
    assert [(cell["steps"], cell["mixtures"]) for cell in aggregate(rows, ["a", "b"])] == [(1, 2)]
    assert [(cell["steps"], cell["mixtures"]) for cell in aggregate(rows, ["a"])] == [(1, 1), (2, 1)]


def test_a_folder_of_another_study_is_left_alone(models, recipe, data, tmp_path):
    rows = read_recipe(recipe)[:1]
    run_study(study(models, steps=(1,)), rows, recipe, data, tmp_path)
    before = (tmp_path / "steps.json").read_bytes()
    with pytest.raises(InputError, match=r"of another study \(settings\); choose another folder with -o"):
        run_study(study(models, steps=(1,), seed=1), rows, recipe, data, tmp_path)
    other = tmp_path / "tiny-mixture"
    tiny_separator(replace(MIXTURE), seed=1).save_pretrained(other)
    with pytest.raises(InputError, match="model tiny-mixture"):
        run_study(Study({str(other): None}, (1,), device="cpu"), rows, recipe, data, tmp_path)
    assert (tmp_path / "steps.json").read_bytes() == before
    (tmp_path / "steps.json").write_text("[]")
    with pytest.raises(InputError, match="is not a report of this command"):
        run_study(study(models, steps=(1,)), rows, recipe, data, tmp_path)


def test_equal_names_need_labels(models, recipe, data, tmp_path):
    again = tmp_path / "again"
    tiny_separator(MIXTURE, seed=1).save_pretrained(again)
    names = {str(models / "tiny-mixture"): None, str(again): None}
    rows = read_recipe(recipe)[:1]
    with pytest.raises(UsageError, match="two models are called 'tiny-mixture'; name them"):
        run_study(Study(names, (1,), device="cpu"), rows, recipe, data, tmp_path / "out")
    labelled = {**names, str(again): "other"}
    report = run_study(Study(labelled, (1,), device="cpu"), rows, recipe, data, tmp_path / "out")
    assert [row["model"] for row in report["rows"]] == ["tiny-mixture", "other"]


def test_table_and_plots_come_from_the_report(models, recipe, data, tmp_path):
    report = run_study(study(models), read_recipe(recipe)[:2], recipe, data, tmp_path)
    write_results(report, tmp_path)
    text = (tmp_path / "steps.md").read_text()
    assert text == table(report) + "\n" and "2 mixtures of recipe.csv" in text and " - |" in text  # no presence
    cell = report["aggregates"][0]
    start = f"| {cell['model']} | {cell['solver']} | {cell['steps']} | {cell['nfe']} | {cell['si_sdri']['mean']:.2f} ["
    assert start in text and "| the mixture itself | | | 0 | 0.00 [0.00, 0.00]" in text
    judged = {**report, "aggregates": [{**cell, "presence": {"mean": 0.731}}]}
    assert " | 0.73 | " in table(judged)
    for name in PLOTS.values():
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len({(style["marker"], str(style["linestyle"])) for style in STYLES}) == len(STYLES)


def test_presence_is_averaged_where_every_mixture_has_one():
    row = {"model": "m", "solver": "euler", "steps": 1, "nfe": 1, "seconds": 1.0, "sampler_seconds": 0.5}
    row |= {"si_sdri": 1.0, "log_mel_distance": 1.0, "log_spectral_distance": 1.0}
    rows = [{**row, "id": one, "presence": score} for one, score in (("a", 0.2), ("b", 0.6))]
    assert aggregate(rows, ["a", "b"])[0]["presence"]["mean"] == pytest.approx(0.4)
    assert aggregate([rows[0], {**rows[1], "presence": None}], ["a", "b"])[0]["presence"] is None


def test_lists_of_steps_models_and_solvers_are_read(models):
    assert parse_steps("10,1,2,2") == (1, 2, 10)
    assert parse_models("small, mine=runs/a=b/model") == {"small": None, "runs/a=b/model": "mine"}
    both = [str(models / "tiny-mixture"), str(models / "tiny-diffusion")]
    assert parse_solvers("ddim,euler,ddim", both) == ("ddim", "euler")
    assert parse_solvers(None, both) == ()


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"--steps": "0,2"}, 2, "steps are whole numbers from 1 on, such as 10 or 1,2,4; not '0,2'"),
        ({"--steps": "1,two"}, 2, "steps are whole numbers from 1 on, such as 10 or 1,2,4; not '1,two'"),
        ({"--steps": "2000"}, 2, "steps must be at most 1000"),
        ({"--solvers": "magic"}, 2, "unknown solver 'magic'; choose from euler, midpoint, heun, rk4, ab2, ddim"),
        ({"--solvers": "euler"}, 2, "knows none of the solvers euler; it has ddim"),
        ({"--solvers": "dopri5,ddim"}, 2, "dopri5 chooses its own steps"),
        ({"--models": "no-such-model"}, 4, "unknown model 'no-such-model'"),
        ({"--models": "=x"}, 2, "cannot read the models"),
        ({"--recipe": "none.csv"}, 3, "no recipe at none.csv"),
        ({"--guidance": "nan"}, 2, "guidance must be a number"),
        ({"--device": "abacus"}, 2, "unknown device"),
        ({"-o": "FILE/report"}, 3, "is not a folder; choose another folder with -o"),
    ],
)
def test_bad_input_is_one_line(models, recipe, data, tmp_path, capfd, changes, code, words):
    (tmp_path / "file").write_text("")
    names = f"{models / 'tiny-mixture'},{models / 'tiny-diffusion'}"
    options = {"--models": names, "--recipe": recipe, "--data": data, "-o": tmp_path / "out", "--device": "cpu"}
    options |= {flag: value.replace("FILE", str(tmp_path / "file")) for flag, value in changes.items()}
    assert main(["benchmark", "steps", "-q", *(str(part) for pair in options.items() for part in pair)]) == code
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err, err
    assert not (tmp_path / "out").exists()


def test_the_command_prints_its_table(models, recipe, data, tmp_path, capfd):
    command = ["benchmark", "steps", "--models", str(models / "tiny-diffusion"), "--steps", "1,2", "--limit", "1"]
    command += ["--recipe", str(recipe), "--data", str(data), "--device", "cpu", "-q", "-o", str(tmp_path / "out")]
    assert main([*command, "--solvers", "unipc,euler_ancestral"]) == 0
    out = capfd.readouterr().out
    assert "| tiny-diffusion | unipc | 2 | 2 |" in out and "| tiny-diffusion | euler_ancestral | 1 | 1 |" in out
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"steps.json", "steps.md", *PLOTS.values()}


def test_a_machine_is_described_without_names_of_people_or_paths():
    found = describe_machine()
    assert {"cpu", "logical_cores", "threads", "memory_gib", "gpus", "versions", "git", "date"} <= found.keys()
    assert found["versions"]["torch"] == torch.__version__
