"""`flowsep train recipe`: stages in order, skipped when done, resumed when killed, refused when settings changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from flowsep.checkpoint import load_separator
from flowsep.cli import main
from flowsep.config import FlowLossConfig, load_recipe, save_config
from flowsep.data.manifest import read_manifest
from flowsep.errors import InputError, UsageError
from flowsep.evaluation.recipe import draw_recipe, write_recipe
from flowsep.text import train_tokenizer
from flowsep.training import chain
from flowsep.training.chain import Sources, train_recipe
from tests.test_cli import failure
from tests.tiny import MIXTURE, STAGE, write_clips

SHORT = replace(STAGE, steps=2, checkpoint_steps=2)
CONFIG = replace(
    MIXTURE,
    text=replace(MIXTURE.text, vocab_size=200),
    data=replace(MIXTURE.data, phrasings=False, crop_seconds=0.32),
    flow_loss=FlowLossConfig(mask=1.0),
    text_stage=SHORT,
    flow_stage=SHORT,
    vocoder_stage=SHORT,
)
RECIPE = """
recipe:
  - {stage: text, tokenizer: TOKENIZER, captions: more.csv}
  - {stage: flow}
  - {stage: flow, name: flow-more, start: flow, overrides: [flow_stage.learning_rate=5e-4]}
  - {stage: vocoder, overrides: [data.crop_seconds=0.48]}
  - {stage: vocoder, name: vocoder-more, start: vocoder, overrides: [data.crop_seconds=0.48, vocoder_loss.mel=3]}
  - {stage: export, mask_exponent: 0.5}
  - {stage: calibrate}
"""


CALIBRATED_FIRST = "  - {stage: calibrate}\n  - {stage: export}"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A configuration with a recipe, and its sources."""
    folder = tmp_path_factory.mktemp("material")
    data = write_clips(folder / "clips")
    rows = [f"{label}/{n}.wav,{label}" for label in ("low_hum", "high_whistle", "hiss", "clicks") for n in range(3)]
    (data / "manifest.csv").write_text("path,class\n" + "\n".join(rows) + "\n")
    (data / "more.csv").write_text("caption\na motor hums\n")
    write_recipe(folder / "mixtures.csv", draw_recipe(read_manifest(data), data, 10, seed=0, length_s=2.0))
    words = [f"a {text} sound" for text in ("low hum", "high whistle", "hiss", "clicks", "bell", "siren")]
    train_tokenizer(words, 200).save_pretrained(folder / "words" / "tokenizer")
    save_config(CONFIG, folder / "tiny.yaml")
    recipe = RECIPE.replace("TOKENIZER", str(folder / "words"))
    (folder / "tiny.yaml").write_text((folder / "tiny.yaml").read_text() + recipe)
    return folder / "tiny.yaml", Sources(data, mixtures=folder / "mixtures.csv")


@pytest.fixture(scope="module")
def whole(material, tmp_path_factory):
    """An uninterrupted run, and what it said."""
    said = []
    model = train_recipe(material[0], (), material[1], tmp_path_factory.mktemp("whole"), quiet=True, say=said.append)
    return model, said


def contents(model):
    return {file.relative_to(model).as_posix(): file.read_bytes() for file in chain.weight_files(model)}


class Killed(BaseException):
    """As a signal: no handler of errors sees it."""


def test_a_run_killed_in_and_after_every_stage_equals_one_that_was_not(material, whole, tmp_path, monkeypatch):
    killed, real = [], chain.write_marker

    def kill_once_before_it_is_done(folder, settings, files):
        if files is not None and folder.name not in killed:
            killed.append(folder.name)
            raise Killed
        real(folder, settings, files)

    monkeypatch.setattr(chain, "write_marker", kill_once_before_it_is_done)
    said, model = [], None
    for _ in range(20):
        try:
            model = train_recipe(material[0], (), material[1], tmp_path, max_minutes=0, quiet=True, say=said.append)
        except Killed:
            continue
        if model is not None:
            break
    assert killed == ["text", "flow", "flow-more", "vocoder", "vocoder-more", "export", "calibrate"]
    assert contents(model) == contents(whole[0])
    assert any("[2/7] flow: stopped at step 1; the same command goes on here" in line for line in said)
    assert any("[6/7] export: no time left" in line for line in said)


def test_every_stage_is_announced_and_hashes_and_figures_come_last(whole):
    model, said = whole
    assert [line for line in said if line.startswith("[")] == [
        "[1/7] text: 2 steps",
        "[2/7] flow: 2 steps",
        "[3/7] flow-more: 2 steps",
        "[4/7] vocoder: 2 steps",
        "[5/7] vocoder-more: 2 steps",
        "[6/7] export: begins",
        "[7/7] calibrate: begins",
    ]
    assert f"{chain.sha256(model / 'unet' / 'diffusion_pytorch_model.safetensors')}  unet/" in "\n".join(said)
    assert any(line.startswith("SI-SDR improvement") for line in said)
    separator = load_separator(model, device="cpu")
    assert separator.process.mask_exponent == 0.5 and separator.vocoder is not None and separator.presence is not None
    weights = (model / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert weights < 0.6 * (model.parent / "flow-more/model/unet/diffusion_pytorch_model.safetensors").stat().st_size
    assert contents(model.parent / "flow/model") != contents(model.parent / "flow-more/model")
    first, more = (
        load_file(model.parent / name / "vocoder" / "diffusion_pytorch_model.safetensors")
        for name in ("vocoder", "vocoder-more")
    )
    moved = max((more[name] - first[name]).abs().max().item() for name in first)
    assert 0 < moved < 0.01  # two small steps from where the stage before it ended


def test_what_is_done_is_not_done_again(material, whole, monkeypatch):
    for name in ("train_text", "train_unet", "train_vocoder", "export_model", "calibrate_folder", "evaluate_recipe"):
        monkeypatch.setattr(chain, name, None)  # calling it fails
    said = []
    again = train_recipe(material[0], ["flow_stage.workers=2"], material[1], whole[0].parent, say=said.append)
    assert again == whole[0] and [line.partition(": ")[2] for line in said[:7]] == ["done before"] * 7
    assert said[7:] == whole[1][7:]


@pytest.mark.parametrize(
    ("override", "words"),
    [  # the stage is the first that the setting decides
        ("flow_stage.learning_rate=2e-3", r"stage flow .*flow_stage.learning_rate was 0.001 and is 0.002"),
        ("seed=1", "stage text .*seed was 0 and is 1"),
        ("vocoder_stage.steps=3", "stage vocoder .*vocoder_stage.steps was 2 and is 3"),
        ("data.exclude=[hiss]", "stage text .*data.exclude was"),
        ("data.exclude_clips=doubtful", "stage text .*data.exclude_clips changed"),
    ],
)
def test_a_changed_setting_is_named_and_refused(material, whole, override, words):
    with pytest.raises(UsageError, match=words) as caught:
        train_recipe(material[0], [override], material[1], whole[0].parent, quiet=True, say=lambda line: None)
    assert "use a new --run, or delete" in str(caught.value)


def test_what_a_list_of_clips_says_decides_and_not_where_it_lies(material, tmp_path):
    def settings(listing):
        override = f"data.exclude_clips={listing}"
        return chain.Chain(material[0], [override], material[1], tmp_path / "run", print).settings

    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    for listing in (one, other):
        listing.write_text("path,class\nhiss/1.wav,hiss\n")
    before = settings(one)
    assert settings(other) == before
    one.write_text("path,class\nhiss/2.wav,hiss\n")
    changes = [chain.differences(*pair) for pair in zip(before, settings(one), strict=True)]
    assert changes[0] == ["data.exclude_clips changed"] and all(changes)  # stages after it know by its hash


def test_changed_clips_and_changed_weights_are_refused(material, whole, tmp_path):
    path, sources = material
    (tmp_path / "other.csv").write_text("caption\na motor hums loudly\n")
    with pytest.raises(UsageError, match="captions changed"):
        train_recipe(path, (), replace(sources, captions=tmp_path / "other.csv"), whole[0].parent, say=lambda _: None)
    with pytest.raises(UsageError, match="clips changed"):
        clips = write_clips(tmp_path / "clips", seconds=1.0)
        for name in ("more.csv", "manifest.csv"):
            (clips / name).write_bytes((sources.data / name).read_bytes())
        train_recipe(path, (), replace(sources, data=clips), whole[0].parent, say=lambda _: None)
    marker = whole[0].parent / "vocoder" / "stage.json"
    before = marker.read_text()
    files = {name: "0" * 64 for name in json.loads(before)["files"]}
    marker.write_text(json.dumps(json.loads(before) | {"files": files}))
    try:
        with pytest.raises(UsageError, match="is not what the stage vocoder wrote; delete"):
            train_recipe(path, (), sources, whole[0].parent, say=lambda _: None)
    finally:
        marker.write_text(before)


def test_missing_material_and_bad_recipes_say_what_to_do_before_any_work(material, tmp_path, capfd):
    path, sources = material
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="has no recipe; add"):
        train_recipe("small-flow", (), sources, run)
    with pytest.raises(UsageError, match="give its folder with --teacher"):
        train_recipe("configs/small", (), sources, run)
    with pytest.raises(InputError, match=r"reads .*audiocaps_train\.csv, which is not there; give --captions"):
        train_recipe("small", (), replace(sources, teacher=tmp_path), run)
    text = path.read_text()
    for old, new, words in (
        ("start: flow,", "start: vocoder,", "'vocoder', which is no earlier stage of its kind"),
        ("start: vocoder,", "start: flow,", "'flow', which is no earlier stage of its kind"),
        ("name: flow-more", "name: flow", "two stages alike"),
        ("  - {stage: export, mask_exponent: 0.5}\n", "", "needs a stage export, after"),
        (
            "  - {stage: export, mask_exponent: 0.5}\n  - {stage: calibrate}",
            CALIBRATED_FIRST,
            "put the stage calibrate last",
        ),
        ("{stage: calibrate}", "{stage: polish}", "unknown stage 'polish'"),
        ("{stage: calibrate}", "{stage: calibrate, sped: 3}", "sped"),
    ):
        (tmp_path / "bad.yaml").write_text(text.replace(old, new))
        code, line = failure(
            capfd, ["train", "recipe", tmp_path / "bad.yaml", "--data", sources.data, "--run", run, "-q"]
        )
        assert code == 2 and words in line
    few, unlisted = tmp_path / "few.csv", tmp_path / "unlisted"
    few.write_text("\n".join(sources.mixtures.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(InputError, match="1 mixtures, too few to calibrate with"):
        train_recipe(path, (), replace(sources, mixtures=few), run)
    shutil.copytree(sources.data, unlisted, ignore=shutil.ignore_patterns("manifest.csv"))
    with pytest.raises(InputError, match=r"has no manifest\.csv, by which calibration"):
        train_recipe(path, (), replace(sources, data=unlisted), run)
    assert not run.exists()


def test_the_command_prints_the_model_and_says_what_it_leaves_out(material, tmp_path, capfd, monkeypatch):
    path, sources = material
    text = path.read_text()
    (tmp_path / "two.yaml").write_text(
        text[: text.index("  - {stage: flow,")] + "  - {stage: export}\n  - {stage: calibrate}\n"
    )
    command = ["train", "recipe", str(tmp_path / "two.yaml"), "flow_stage.steps=1", "--data", str(sources.data), "-q"]
    assert main([*command, "--run", str(tmp_path / "run")]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == str(tmp_path / "run" / "model")
    assert "calibrate: left out" in err and "no figures" in err


def test_teacher_captions_and_tokenizer_reach_the_text_stage_and_its_marker(material, tmp_path, monkeypatch):
    path, sources = material
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "taught.yaml").write_text(path.read_text().replace("{stage: text,", "{stage: text, teacher: true,"))
    seen = []
    monkeypatch.setattr(chain, "train_text", lambda *given: seen.append(given))
    said = []
    taught = replace(sources, teacher=tmp_path / "teacher", data=sources.data / "manifest.csv")
    assert train_recipe(tmp_path / "taught.yaml", (), taught, tmp_path / "run", say=said.append) is None
    captions, tokenizer, teacher = seen[0][3:6]
    assert (captions, tokenizer, teacher) == (
        sources.data / "more.csv",
        path.parent / "words/tokenizer",
        taught.teacher,
    )
    marker = json.loads((tmp_path / "run" / "text" / "stage.json").read_text())
    assert marker["files"] is None and len(marker["settings"]["teacher"]) == 64
    assert said == ["[1/7] text: 2 steps", "[1/7] text: stopped at step 0; the same command goes on here"]


def test_the_shipped_models_recipe_can_be_read():
    stages = load_recipe("small")
    assert [stage.stage for stage in stages] == ["text", "flow", "vocoder", "vocoder", "export", "calibrate"]
