"""Readers of the published benchmarks, each on a tiny folder in exactly its layout."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flowsep.errors import InputError, UsageError
from flowsep.evaluation.loudness import loudness
from flowsep.evaluation.protocols import PROTOCOLS, read_items
from flowsep.evaluation.protocols.drawn import Draw
from flowsep.evaluation.protocols.item import Item, Mixed, ReadyMade, check_items, unusable
from flowsep.evaluation.recipe import MixtureRow, write_recipe
from tests import layouts
from tests.layouts import sound, wav
from tests.tiny import write_clips

AUDIOSEP = ("audiocaps", "clotho", "esc50", "music", "vggsound", "audioset")
PLAIN = Draw()


def test_dcase_is_mixed_by_its_rule(tmp_path):
    found = read_items("dcase2024-task9", layouts.dcase(tmp_path / "a b é"), PLAIN)
    assert found.protocol.sample_rate == 16000 and found.protocol.figures[0] == "sdr"
    assert [(item.id, item.text, item.snr_db) for item in found.items[:2]] == [
        ("0000", "Rain is falling, heavily", 3.0),
        ("0001", "A dog barks", -15.0),
    ]
    for item in found.items:
        waves = item.source.render(16000)
        noise = waves.mixture - waves.target
        ratio = 10 * np.log10(np.mean(waves.target**2) / np.mean(noise**2))
        assert ratio == pytest.approx(item.snr_db, abs=1e-3)
        assert np.abs(waves.mixture).max() <= 1.0
    loud = found.items[1].source.render(16000)  # the noise at +15 dB peaks above 1: all is brought to 0.9
    assert np.abs(loud.mixture).max() == pytest.approx(0.9, abs=1e-5)
    quiet = found.items[0].source.render(16000)
    np.testing.assert_array_equal(quiet.target, sound(0))  # nothing is rescaled where nothing clips


@pytest.mark.parametrize("name", AUDIOSEP)
def test_audiosep_sets_are_read_as_they_are(tmp_path, name):
    found = read_items(f"audiosep-{name}", layouts.audiosep(tmp_path / "evaluation", name), PLAIN)
    assert len(found.items) == 4 and found.protocol.sample_rate == 32000
    assert [item.text for item in found.items[:2]] == ["violin", "tuba, loud"]
    for number, item in enumerate(found.items):
        waves = item.source.render(32000)
        np.testing.assert_allclose(waves.target, layouts.tone(number, 0.5, 32000), atol=1e-7)
        assert np.abs(waves.mixture - waves.target).max() == pytest.approx(0.1, abs=1e-6)
    classes = {"music": "violin", "esc50": "violin", "vggsound": "violin", "audioset": "violin", "audiocaps": "a label"}
    assert found.items[0].target_class == classes.get(name, "")
    averages = {"music": "class_mean", "audioset": "class_median"}
    assert found.protocol.average == averages.get(name, "mean")


@pytest.mark.parametrize("name", layouts.DRAWN)
def test_drawn_protocols_pair_clips_of_different_classes(tmp_path, name):
    data = layouts.DRAWN[name](tmp_path / "data é")
    draw = Draw(count=2)
    found = read_items(name, data, draw)
    assert found == read_items(name, data, draw)
    assert found.digest != read_items(name, data, replace(draw, seed=1)).digest
    assert len(found.items) == 2 and "not the authors' list" in found.protocol.mixtures
    for item in found.items:
        source = item.source
        assert source.target != source.other and (not item.target_class or item.target_class != item.other_class)
        waves = item.source.render(16000)
        assert len(waves.mixture) == source.length_s * 16000 and unusable(waves) is None
        if source.lufs is None:
            ratio = np.sum(waves.target**2) / np.sum((waves.mixture - waves.target) ** 2)
            assert 10 * np.log10(ratio) == pytest.approx(source.snr_db, abs=1e-3)
    with pytest.raises(InputError, match=r"mixtures need \d+ clips"):
        read_items(name, data, PLAIN)  # as many as published


def test_published_numbers_are_the_defaults():
    counts = {name: PROTOCOLS[name].read.args[0] for name in layouts.DRAWN}
    assert {name: rule.count for name, rule in counts.items()} == {
        "flowsep-vggsound": 2000,
        "flowsep-esc50": 2000,
        "flowsep-audiocaps": 928,
        "hsm-3sets": 1000,
        "hsm-audiocaps": 500,
        "hsm-clotho": 500,
        "hsm-fsd50k": 500,
        "hsm-music": 500,
    }
    assert counts["flowsep-vggsound"].others == 10 and counts["flowsep-vggsound"].lufs == (-35, -25)
    assert counts["flowsep-esc50"].snr_db == (0, 0) and counts["hsm-music"].snr_db == (-5, 5)
    assert all(counts[name].snr_db == (-15, 15) for name in ("flowsep-audiocaps", "hsm-3sets", "hsm-clotho"))


def test_vggsound_is_drawn_at_loudnesses_and_without_the_clips_that_are_gone(tmp_path):
    found = read_items("flowsep-vggsound", layouts.vggsound(tmp_path), Draw(count=20))
    levels = [level for item in found.items for level in item.source.lufs]
    assert all(-35 <= level <= -25 for level in levels) and max(levels) - min(levels) > 3
    assert len({item.source.target for item in found.items}) == 2  # ten interferers each
    assert not any("gone" in path.name or "train" in path.name for item in found.items for path in item.source.paths())
    for item in found.items[:3]:
        waves = item.source.render(16000)
        assert loudness(waves.target, 16000) == pytest.approx(item.source.lufs[0], abs=0.01)
        assert loudness(waves.mixture - waves.target, 16000) == pytest.approx(item.source.lufs[1], abs=0.01)


def test_labels_in_common_are_not_mixed(tmp_path):
    found = read_items("hsm-fsd50k", layouts.fsd50k(tmp_path), Draw(count=3))
    pairs = {frozenset(path.stem for path in item.source.paths()) for item in found.items}
    assert frozenset({"37199", "9"}) not in pairs  # both are guitars
    assert {item.text for item in found.items} == {"Electric guitar, Guitar, Music", "Bark, Dog", "Guitar, Music"}


def test_own_clips_are_drawn_from_folders_and_from_the_test_split_of_a_manifest(tmp_path):
    data = write_clips(tmp_path / "my clips é")
    found = read_items("own", data, Draw(count=5))
    assert len(found.items) == 5 and found.items == read_items("own", data, Draw(count=5)).items
    rows = [f"{label}/{n}.wav,{label},{'test' if n else 'train'}" for label in ("hiss", "clicks") for n in range(3)]
    (data / "manifest.csv").write_text("path,class,split\n" + "\n".join(rows) + "\n")
    found = read_items("own", data, Draw(count=5))
    assert not any(path.stem == "0" for item in found.items for path in item.source.paths())
    with pytest.raises(InputError, match="no clips in its valid split; it has test, train"):
        read_items("own", data, Draw(split="valid"))


def test_a_recipe_is_one_of_the_protocols(tmp_path):
    data = write_clips(tmp_path)
    row = MixtureRow("t0", "low_hum/0.wav", "hiss/0.wav", 0.5, 0.0, 3.0, "the hum", "low_hum", "hiss", 2.0)
    write_recipe(tmp_path / "r.csv", [row])
    (item,) = read_items("own", data, Draw(recipe=tmp_path / "r.csv")).items
    assert (item.id, item.text, item.target_class, item.snr_db) == ("t0", "the hum", "low_hum", 3.0)
    assert len(item.source.render(16000).mixture) == 32000
    with pytest.raises(UsageError, match="leave --count and --split out"):
        read_items("own", data, Draw(recipe=tmp_path / "r.csv", count=3))


def test_the_same_data_elsewhere_are_the_same_and_other_files_are_not(tmp_path):
    first = read_items("dcase2024-task9", layouts.dcase(tmp_path / "a"), PLAIN)
    assert read_items("dcase2024-task9", layouts.dcase(tmp_path / "b"), PLAIN).digest == first.digest
    wav(tmp_path / "b" / "lass_validation" / "dog 1.wav", sound(1, 1.1))
    assert read_items("dcase2024-task9", tmp_path / "b", PLAIN).digest != first.digest


def shorten(path: Path, keep: int) -> None:
    rows = path.read_text().splitlines()
    path.write_text("\n".join(rows[:keep]) + "\n")


def spoil_column(data: Path) -> None:
    path = data / "lass_synthetic_validation.csv"
    path.write_text(path.read_text().replace("noise,snr", "noise,level"))


def spoil_row(data: Path) -> None:
    with (data / "lass_synthetic_validation.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["a", "b"])


def spoil_number(data: Path) -> None:
    path = data / "lass_synthetic_validation.csv"
    path.write_text(path.read_text().replace(",-15,", ",loud,"))


SPOILT = {
    "no CSV": (lambda d: (d / "lass_synthetic_validation.csv").unlink(), "validation.csv is missing; get the valid"),
    "header only": (lambda d: shorten(d / "lass_synthetic_validation.csv", 1), "lists no mixtures; get the validation"),
    "nothing": (lambda d: (d / "lass_synthetic_validation.csv").write_text(""), "lists no mixtures"),
    "not text": (lambda d: (d / "lass_synthetic_validation.csv").write_bytes(b"\xff\xfe\x00a"), "not a CSV in UTF-8"),
    "column": (spoil_column, "lacks the column snr; it has source, noise, level, caption"),
    "row": (spoil_row, "row 5: 2 cells instead of 4"),
    "number": (spoil_number, "row 3: the snr 'loud' is no whole number"),
    "clip": (
        lambda d: (d / "lass_validation" / "dog 1.wav").unlink(),
        r"1 of 2 files are missing, the first .*dog 1\.wav; get the validation set of DCASE 2024 Task 9",
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_missing_is_named_with_where_to_get_it(tmp_path, how):
    data = layouts.dcase(tmp_path)
    spoil, message = SPOILT[how]
    spoil(data)
    with pytest.raises(InputError, match=message) as found:
        read_items("dcase2024-task9", data, PLAIN)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "own"])
def test_every_protocol_says_what_an_empty_folder_lacks(tmp_path, name):
    with pytest.raises(InputError, match=r"(is missing|has no folders of sound).*; get "):
        read_items(name, tmp_path, PLAIN)
    with pytest.raises(InputError, match="is not a folder; get "):
        read_items(name, tmp_path / "no", PLAIN)


def test_words_that_mean_nothing_to_a_protocol_are_refused(tmp_path):
    for name, draw, message in (
        ("flowsepp", PLAIN, "unknown protocol 'flowsepp'; choose from own, mixtures, dcase2024-task9"),
        ("dcase2024-task9", Draw(count=3), "are fixed; leave --count out"),
        ("hsm-music", Draw(split="test"), "for the protocol own"),
    ):
        with pytest.raises(UsageError, match=message):
            read_items(name, tmp_path, draw)


def test_items_need_names_that_are_files_names_and_queries(tmp_path):
    path = wav(tmp_path / "a.wav", sound(0))
    item = Item("a", "rain", ReadyMade(path, path))
    for items, message in (
        ([item, item], "'a' is there twice"),
        ([replace(item, id="../a")], "cannot be a file's name"),
        ([replace(item, id="")], "cannot be a file's name"),
        ([replace(item, text="  ")], "has no query"),
    ):
        with pytest.raises(InputError, match=message):
            check_items(items, "it")


def test_clips_shorter_than_the_mixture_are_continued_and_longer_ones_cut(tmp_path):
    short, long = wav(tmp_path / "s.wav", sound(0, 0.2)), wav(tmp_path / "l.wav", sound(1, 3.0))
    waves = Mixed(short, long, snr_db=0.0, length_s=1.0).render(16000)
    assert len(waves.mixture) == 16000 and not waves.target[3200:].any()
    with pytest.raises(InputError, match=r"s\.wav has 3200 samples, l\.wav has 48000 samples"):
        Mixed(short, long, snr_db=0.0).render(16000)


def test_silence_nan_and_lone_targets_are_told(tmp_path):
    loud, silent = wav(tmp_path / "l.wav", sound(0)), wav(tmp_path / "s.wav", np.zeros(16000, np.float32))
    assert unusable(Mixed(silent, loud, snr_db=0.0).render(16000)) == "the target is silent"
    assert unusable(Mixed(loud, silent, snr_db=0.0).render(16000)) == "the mixture is the target alone"
    assert unusable(Mixed(loud, silent, lufs=(-30.0, -30.0)).render(16000)) == "the mixture is the target alone"
    broken = sound(0)
    broken[5] = np.nan
    wav(tmp_path / "n.wav", broken)
    with pytest.raises(InputError, match="NaN"):
        Mixed(loud, tmp_path / "n.wav", snr_db=0.0).render(16000)


def test_files_of_another_rate_or_in_stereo_are_brought_to_the_protocols(tmp_path):
    stereo = np.stack([sound(0, 1.0, 44100)] * 2, axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44100, subtype="FLOAT")
    waves = ReadyMade(tmp_path / "a.wav", tmp_path / "a.wav").render(32000)
    assert waves.mixture.shape == (32000,) and waves.mixture.dtype == np.float32
