"""What an audit of clips finds, and that training leaves out what a list names."""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from flowsep.cli import main
from flowsep.config import load_config
from flowsep.data.dataset import DataNotice
from flowsep.data.doubtful import list_file, read_list
from flowsep.data.manifest import PHRASINGS, read_manifest, read_phrasings, select
from flowsep.errors import InputError
from flowsep.evaluation import encoders
from flowsep.evaluation.audit import audit, audit_lines, correlation, sounding_seconds
from flowsep.training.recipes import class_wordings, taught, training_data
from tests.test_cli import failure
from tests.tiny import MIXTURE, write_clips

EDGES = {"low": (200, 500), "middle": (900, 1500), "high": (3000, 5000)}  # Hz
WORDINGS = {"low": ("a low noise",), "middle": ("a middle noise",), "high": ("a high noise",), "tall": ("a high one",)}
MEANS = torch.tensor([[1.0, 0.2, 0.0], [0.1, 1.0, 0.1], [0.0, 0.1, 1.0]])  # of each word of EDGES, in its bands


class Bands:
    """Texts and sounds by how much of each band of EDGES they hold."""

    name, score_name, sample_rate = "bands-3d", "proxy", 16000

    def text(self, texts):
        words = torch.tensor([[float(word in text.split()) for word in EDGES] for text in texts])
        return torch.nn.functional.normalize(words @ MEANS + 1e-3, dim=-1)

    def audio(self, audio):
        power = torch.fft.rfft(audio).abs().square()
        hertz = torch.fft.rfftfreq(audio.shape[-1], 1 / self.sample_rate)
        bands = [power[:, (hertz >= low) & (hertz < high)].sum(1) for low, high in EDGES.values()]
        return torch.nn.functional.normalize(torch.stack(bands, dim=1), dim=-1)


def noise(band, seed, count=16000):
    """Gaussian noise (T,) in one band, peak 0.5: no two seeds are alike."""
    low, high = EDGES[band]
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / 16000)
    audio = np.fft.irfft(spectrum * ((hertz >= low) & (hertz < high)), count)
    return 0.5 * audio / np.abs(audio).max()


def burst(seconds):
    time = np.arange(16000) / 16000
    return 0.5 * np.sin(2 * np.pi * 300 * time) * ((time >= 0.2) & (time < 0.2 + seconds))


def bad_clips():
    """path -> audio, class, split, and what is wrong with it; the first two are the other copies."""
    return {
        "high/0.wav": (noise("high", 20), "high", "train", "copy"),
        "low/0.wav": (noise("low", 0), "low", "train", "copy"),
        "tall/0.wav": (np.pad(-0.3 * noise("high", 20), (700, 0)), "tall", "train", "copy"),
        "low/again.wav": (0.9 * noise("low", 0)[400:], "low", "test", "copy"),
        "low/mute.wav": (1e-3 * noise("low", 50), "low", "train", "mute"),
        "low/click.wav": (burst(0.05), "low", "train", "sparse"),
        "high/loud.wav": (np.clip(3 * noise("high", 51), -0.5, 0.5), "high", "train", "clipped"),
        "low/wrong.wav": (noise("high", 52), "low", "train", "label"),
        "low/wrong_test.wav": (noise("middle", 53), "low", "test", "hint"),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a manifest: nine sound clips per band, and all that can be wrong."""
    folder = tmp_path_factory.mktemp("audited")
    clips = {path: row[:3] for path, row in bad_clips().items()}
    for number, band in enumerate(EDGES):
        for take in range(1, 9):
            path = f"{band}/{take}.wav"
            clips[path] = noise(band, 10 * number + take), band, "train" if take < 5 else "test"
    clips["middle/twin.wav"] = noise("middle", 11), "middle", "train"  # a copy in its own class and split is no fault
    for path, (audio, _, _) in clips.items():
        (folder / path).parent.mkdir(exist_ok=True)
        soundfile.write(folder / path, audio, 16000, subtype="FLOAT")
    (folder / "low" / "broken.wav").write_bytes(b"no sound")
    rows = [f"{path},{label},{split}" for path, (_, label, split) in clips.items()]
    (folder / "manifest.csv").write_text("path,class,split\n" + "\n".join([*rows, "low/broken.wav,low,train"]) + "\n")
    return folder


def expected():
    return {(path, row[3]) for path, row in bad_clips().items()} | {("low/broken.wav", "unreadable")}


def test_an_audit_finds_every_bad_clip_and_no_other(data):
    report = audit(read_manifest(data), Bands(), WORDINGS, learned=True, rank=1)
    found = {(one.clip.path.relative_to(data).as_posix(), one.kind): one for one in report.findings}
    assert found.keys() == expected() and len(report.findings) == len(found)
    assert found["low/mute.wav", "mute"].value == pytest.approx(-66.0, abs=0.1)  # dBFS of 0.0005
    assert found["low/click.wav", "sparse"].value == pytest.approx(0.06)  # three frames
    assert found["tall/0.wav", "copy"].value == pytest.approx(1.0, abs=0.02)
    assert "0.wav (high, train)" in found["tall/0.wav", "copy"].reason
    assert "0.wav (low, train)" in found["low/again.wav", "copy"].reason
    assert re.search("sounds like (high, tall|tall, high), middle;", found["low/wrong.wav", "label"].reason)
    assert report.unjudged == 0


def test_labels_are_doubted_from_the_rank_on_and_only_where_the_encoder_knows_the_class(data):
    clips = [clip for clip in read_manifest(data) if "wrong" in clip.path.name or clip.label == "middle"]
    hints = audit(clips, Bands(), WORDINGS, rank=2).findings  # to the other one middle alone is nearer
    assert [(one.clip.path.name, one.kind, one.value) for one in hints] == [("wrong.wav", "hint", 3.0)]
    report = audit(clips, Bands(), WORDINGS, learned=True, rank=1)
    assert [(one.clip.path.name, one.kind) for one in report.findings] == [("wrong.wav", "label")]
    assert report.unjudged == 1 and "1  not judged" in "\n".join(audit_lines(report, data, 5))
    marked = [replace(clip, non_commercial=True) for clip in clips]  # which `flowsep train clap` leaves out
    assert audit(marked, Bands(), WORDINGS, learned=True, rank=1).unjudged == len(clips)
    with pytest.raises(InputError, match="needs clips"):
        audit([], Bands(), WORDINGS)


def test_measures_are_those_of_their_formulas():
    sound = noise("low", 1)
    assert correlation(sound, -0.2 * np.roll(np.pad(sound, 300), 200)) == pytest.approx(1.0)
    assert correlation(sound, sound[:8000]) == pytest.approx(np.linalg.norm(sound[:8000]) / np.linalg.norm(sound))
    assert correlation(sound, noise("low", 2)) < 0.3
    steps = np.repeat([1.0, 0.011, 0.009], 1600)  # 0, -39 and -41 dB, 0.1 s each
    assert sounding_seconds(steps) == pytest.approx(0.2)


def test_the_command_prints_counts_and_writes_every_finding(data, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(encoders, "load_encoder", lambda *_: Bands())
    output = tmp_path / "list.csv"
    assert main(["audit", str(data), "-o", str(output), "--learned", "--worst", "1", "--quiet"]) == 0
    printed = capfd.readouterr().out
    assert "35 clips of 4 classes; labels by proxy [bands-3d]" in printed
    assert "     4  copy:" in printed and "copy, 1 of 4:" in printed and "  low/mute.wav [low, train] mute" in printed
    rows = list(csv.DictReader(output.open()))
    assert list(rows[0]) == ["path", "class", "split", "reason", "value"]
    assert {row["path"] for row in rows} == {path for path, _ in expected()}
    (muted,) = (row for row in rows if row["path"] == "low/mute.wav")
    assert (
        muted["class"] == "low" and muted["split"] == "train" and float(muted["value"]) == pytest.approx(-66, abs=0.1)
    )
    assert "exists; add --overwrite" in failure(capfd, ["audit", data, "-o", output])[1]
    assert failure(capfd, ["audit", data, "--split", "other"])[0] == 3
    assert main(["audit", str(data), "--split", "test", "--quiet"]) == 0
    assert "14 clips of 3 classes" in capfd.readouterr().out


# --- what is done about it


@pytest.fixture
def clips(tmp_path):
    """Tiny clips with a manifest; the third of each class is of the test split."""
    folder = write_clips(tmp_path / "clips", seconds=0.5)
    rows = [
        f"{label}/{number}.wav,{label},{'test' if number == 2 else 'train'},{label} number {number}"
        for label in ("low_hum", "high_whistle", "hiss", "clicks")
        for number in range(3)
    ]
    (folder / "manifest.csv").write_text("path,class,split,caption_candidates\n" + "\n".join(rows) + "\n")
    return folder


def leaving_out(name):
    return replace(MIXTURE, data=replace(MIXTURE.data, phrasings=False, exclude_clips=str(name)))


def test_training_never_meets_a_listed_clip_and_tests_keep_theirs(clips, tmp_path):
    listing = tmp_path / "list.csv"
    rows = [
        "hiss/1.wav,hiss,train,a tap",
        "hiss/2.wav,hiss,test,a tap",
        "clicks/0.wav,low_hum,train,of another class",
        "iss/0.wav,hiss,train,of another folder",
    ]
    listing.write_text("path,class,split,reason\n" + "\n".join(rows) + "\n")
    left_out = leaving_out(listing)
    kept, dataset = training_data(left_out, clips)
    names = {clip.path.relative_to(clips).as_posix() for clip in kept}
    everything = {f"{label}/{n}.wav" for label in ("low_hum", "high_whistle", "hiss", "clicks") for n in range(2)}
    assert names == everything - {"hiss/1.wav"} and len(dataset.audio) == 7
    assert len(select(taught(read_manifest(clips), left_out), "test", False)) == 4
    wordings, _ = class_wordings(left_out, clips)
    assert wordings["hiss"] == ["hiss number 0"]


def test_a_list_that_fits_nothing_is_told_of_and_one_that_cannot_be_read_refused(clips, tmp_path):
    listing = tmp_path / "list.csv"
    listing.write_text("path,class\nelsewhere/1.wav,hiss\n")
    with pytest.warns(DataNotice, match="names none of the clips"):
        assert len(training_data(leaving_out(listing), clips)[0]) == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the project's list goes with every data set
        assert len(training_data(leaving_out("doubtful"), clips)[0]) == 8
    listing.write_text("path,reason\nhiss/1.wav,none\n")
    with pytest.raises(InputError, match="needs the columns path and class; it has path, reason"):
        training_data(leaving_out(listing), clips)
    with pytest.raises(InputError, match="no list of clips at"):
        training_data(leaving_out(tmp_path / "none.csv"), clips)


def test_the_project_has_a_list_with_a_reason_for_every_clip():
    assert load_config("small").data.exclude_clips == load_config("small-clap").data.exclude_clips == "doubtful"
    path = list_file("doubtful")
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert len(read_list(path)) == len({row["path"] for row in rows}) == len(rows)
    assert {row["class"] for row in rows} <= read_phrasings(PHRASINGS).keys()
    assert {row["split"] for row in rows} <= {"train", "valid", "test"} and "train" in {row["split"] for row in rows}
    assert all(len(row["reason"]) > 40 and row["path"].split("/")[2] == row["class"] for row in rows)
