"""Teaching a model one's own sounds: folders without a list, one class alone, recordings to mix them with."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from flowsep.checkpoint import load_separator
from flowsep.cli import main
from flowsep.config import FlowLossConfig, load_config, save_config
from flowsep.data.dataset import DataNotice
from flowsep.data.manifest import class_of, read_background, read_manifest, templated
from flowsep.data.synth import SYNTH_KINDS
from flowsep.errors import InputError
from flowsep.training.recipes import training_data
from tests.tiny import MIXTURE, STAGE, tiny_separator

RATE = 16000
CONFIG = replace(
    MIXTURE,
    data=replace(MIXTURE.data, crop_seconds=0.5, target_absent=0.2, target_alone=0.1),
    flow_loss=FlowLossConfig(flow=0.0, mask=1.0),
    flow_stage=replace(STAGE, steps=2),
)


def hertz(audio) -> float:
    """The strongest frequency of a sound (T,)."""
    return float(np.abs(np.fft.rfft(audio)).argmax() * RATE / len(audio))


def write_tones(folder, frequency: float, *names: str):
    """One second of a sine for each name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, 0.5 * np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE), RATE)
    return folder


@pytest.fixture
def tram(tmp_path):
    """A folder of one class: tones of 1 kHz."""
    return write_tones(tmp_path / "mine", 1000, "our_tram/a.wav", "our_tram/b.wav")


@pytest.fixture
def street(tmp_path):
    """Recordings of nobody knows what: tones of 3 kHz."""
    return write_tones(tmp_path / "street", 3000, "monday/x.wav", "y.wav")


@pytest.mark.parametrize(
    ("stem", "label"),
    [
        ("dog_bark_01", "dog_bark"),
        ("dog_bark-take2", "dog_bark"),
        ("tram 3", "tram"),
        ("our_tram", "our_tram"),
        ("tram", "tram"),
        ("808", "808"),
    ],
)
def test_files_are_named_by_class_and_number(stem, label):
    assert class_of(stem) == label


def test_a_folder_of_named_files_is_a_manifest_also_beside_sub_folders(tmp_path):
    folder = write_tones(tmp_path, 500, "dog_bark_01.wav", "dog_bark_02.wav", "tram.wav", "rain/roof.wav")
    (folder / "notes.txt").write_text("not a sound")
    found = {clip.path.name: clip.label for clip in read_manifest(folder)}
    expected = {"dog_bark_01.wav": "dog_bark", "dog_bark_02.wav": "dog_bark", "tram.wav": "tram", "roof.wav": "rain"}
    assert found == expected
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="name the files by class and number"):
        read_manifest(tmp_path / "empty")


def test_only_a_manifest_says_what_a_background_holds(tmp_path, street):
    clips, labelled = read_background(street)
    assert not labelled and {clip.path.name for clip in clips} == {"x.wav", "y.wav"}
    (street / "manifest.csv").write_text("path,class\ny.wav,rain\n")
    clips, labelled = read_background(street)
    assert labelled and [clip.label for clip in clips] == ["rain"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio to use as background"):
        read_background(tmp_path / "empty")


def test_classes_of_which_only_the_name_is_known_are_worded_by_templates(tmp_path):
    folder = write_tones(tmp_path, 500, "our_tram/a.wav", "dog_bark/b.wav")
    clips, dataset = training_data(CONFIG, folder)
    captions = {clip.label: texts for clip, texts in zip(clips, dataset.captions, strict=True)}
    assert captions["our_tram"] == templated("our_tram") and "the sound of an our tram" in captions["our_tram"]
    assert len(captions["dog_bark"]) > 12 and "dog bark in the background" not in captions["dog_bark"]
    plain = replace(CONFIG, data=replace(CONFIG.data, phrasings=False))
    assert training_data(plain, folder)[1].captions == [("dog bark",), ("our tram",)]


def test_one_class_alone_is_mixed_with_synthesised_sounds_and_says_so(tram):
    with pytest.warns(DataNotice, match=r"one kind \(our_tram\).*synthesised ones; give recordings"):
        _, dataset = training_data(replace(CONFIG, data=replace(CONFIG.data, exclude=("rain",))), tram)
    items = [dataset[n] for n in range(80)]
    assert {item["text"] for item in items} <= set(templated("our_tram"))
    absent = [item for item in items if not item["target"].any()]
    alone = [item for item in items if not item["residual"].any()]
    assert 0.05 < len(absent) / 80 < 0.4 and 0 < len(alone) / 80 < 0.3
    assert all(item["residual"].any() for item in absent)
    assert all(hertz(item["target"]) == pytest.approx(1000, abs=5) for item in items if item["target"].any())
    rng = np.random.default_rng(0)
    families = {dataset.other(rng, {"our_tram"})[1] for _ in range(60)}
    assert families == {sound.family for kind, sound in SYNTH_KINDS.items() if kind != "rain"}


def test_recordings_of_the_background_are_the_other_sounds_and_never_asked_for(tram, street):
    with pytest.warns(DataNotice, match="the 2 recordings of --background"):
        _, dataset = training_data(CONFIG, tram, background=street)
    items = [dataset[n] for n in range(40)]
    assert all(hertz(item["residual"]) == pytest.approx(3000, abs=5) for item in items if item["residual"].any())
    assert {item["text"] for item in items} <= set(templated("our_tram"))


def test_the_background_has_its_share_of_the_other_sounds(tmp_path, street):
    folder = write_tones(tmp_path / "two", 1000, "our_tram/a.wav", "our_lift/b.wav")
    for share in (0.0, 0.3):
        config = replace(CONFIG, data=replace(CONFIG.data, background=share))
        _, dataset = training_data(config, folder, background=street)
        rng = np.random.default_rng(0)
        found = [dataset.other(rng, {"our_tram"})[1] == "background" for _ in range(200)]
        assert np.mean(found) == pytest.approx(share, abs=0.08)


def test_classes_of_a_labelled_background_stay_in_practice_beside_the_own_ones(tmp_path, tram):
    folder = write_tones(tmp_path / "old", 3000, *(f"{label}/{n}.wav" for label in ("rain", "bell") for n in range(5)))
    rows = [f"{label}/{n}.wav,{label}" for label in ("rain", "bell") for n in range(5)]
    (folder / "manifest.csv").write_text("path,class\n" + "\n".join(rows) + "\n")
    config = replace(CONFIG, data=replace(CONFIG.data, own_share=0.6, target_absent=0.0))
    _, dataset = training_data(config, tram, background=folder)
    asked = [dataset[n]["text"] in templated("our_tram") for n in range(300)]
    assert np.mean(asked) == pytest.approx(0.6, abs=0.08)
    assert dict(zip(dataset.labels, dataset.weights, strict=True)) == pytest.approx(
        {"bell": 0.2, "our_tram": 0.6, "rain": 0.2}
    )


def test_fine_tuning_keeps_vocoder_and_mask_of_the_model_and_tells_what_it_does(tmp_path, tram, street, capfd):
    start = tiny_separator(CONFIG)
    start.process = replace(start.process, mask_exponent=0.5)
    start.save_pretrained(tmp_path / "model")
    save_config(CONFIG, tmp_path / "tiny.yaml")
    command = ["train", "flow", str(tmp_path / "tiny"), "--from", str(tmp_path / "model"), "--data", str(tram), "-q"]
    capfd.readouterr()
    assert main([*command, "--background", str(street), "--run", str(tmp_path / "run")]) == 0
    out, err = capfd.readouterr()
    assert "all clips are of one kind (our_tram): the other sounds in its mixtures are the 2 recordings" in err
    tuned = load_separator(out.strip(), device="cpu")
    assert tuned.process.mask_exponent == 0.5 and tuned.vocoder is not None
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2


def test_going_on_with_the_settings_of_a_whole_run_names_the_short_one(tmp_path, capfd):
    arguments = ["train", "flow", "configs/small", "--data", str(tmp_path / "none"), "--run", str(tmp_path / "run")]
    assert main([*arguments, "--from", "small"]) == 3
    assert "small-finetune holds those for going on from a model" in capfd.readouterr().err
    assert main(arguments) == 3 and "note" not in capfd.readouterr().err


def test_the_short_run_is_the_shipped_models_with_smaller_steps():
    short, small = load_config("small-finetune"), load_config("small")
    assert (short.unet, short.text, short.flow, short.codec) == (small.unet, small.text, small.flow, small.codec)
    assert short.flow_stage.learning_rate < small.flow_stage.learning_rate and short.flow_stage.steps < 1000
