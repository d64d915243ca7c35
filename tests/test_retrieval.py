"""Retrieval, figures of an encoder in evaluate, and the inception score, by fakes and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import torch

from flowsep.data.manifest import read_manifest
from flowsep.errors import InputError, UsageError
from flowsep.evaluation import encoded
from flowsep.evaluation.compare import Untouched, evaluate_systems, leaderboard_lines
from flowsep.evaluation.encoded import EncoderFigures
from flowsep.evaluation.recipe import MixtureRow
from flowsep.evaluation.retrieval import recall, retrieval, retrieval_lines
from flowsep.evaluation.run import evaluate_recipe, summary_lines
from flowsep.evaluation.semantic import frechet_distance, inception, inception_score, own_ranks
from flowsep.protocol import SampleOptions

HERTZ = {"low": 200, "middle": 800, "high": 3200}


class Pitch:
    """Texts and sounds by their pitch: one dimension for each word of HERTZ."""

    name, score_name, sample_rate = "pitch-3d", "proxy", 16000

    def text(self, texts):
        rows = [[float(word in text) for word in HERTZ] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows) + 1e-3, dim=-1)

    def audio(self, audio):
        spectrum = torch.fft.rfft(audio).abs()
        bins = [round(hertz * audio.shape[-1] / self.sample_rate) for hertz in HERTZ.values()]
        return torch.nn.functional.normalize(spectrum[:, bins] + 1e-3, dim=-1)

    def frames(self, audio):
        return self.audio(audio.unfold(0, 4000, 4000))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for label, hertz in HERTZ.items():
        (folder / label).mkdir()
        for number in range(2):
            tone = np.sin(2 * np.pi * hertz * np.arange(16000) / 16000 + number)
            soundfile.write(folder / label / f"{number}.wav", 0.5 * tone, 16000)
    return folder


def row(target, other):
    return MixtureRow(f"{target}-{other}", f"{target}/0.wav", f"{other}/0.wav", 0, 0, 0.0, target, target, other, 1.0)


# --- retrieval


def test_ranks_count_the_clips_that_are_nearer():
    sounds = torch.eye(3)
    texts = torch.tensor([[1.0, 0.9, 0.0], [1.0, 0.9, 0.0], [0.1, 0.2, 0.0]])
    assert own_ranks(texts, sounds, [0, 1, 2]).tolist() == [0, 1, 2]


def test_recall_counts_every_class_the_same():
    ranks = torch.tensor([[0, 1, 4], [0, 0, 4]])  # two pools; class 0 has two wordings, class 1 one
    assert recall(ranks, [0, 0, 1], 1)["mean"] == pytest.approx((0.75 + 0.0) / 2)
    assert recall(ranks, [0, 0, 1], 5)["mean"] == 1.0


def test_retrieval_finds_what_the_encoder_knows_and_tells_wordings_apart(clips):
    right = {label: (f"a {label} tone",) for label in HERTZ}
    wrong = {"low": ("a high tone",), "high": ("a low tone", "low")}
    report = retrieval(Pitch(), read_manifest(clips), {"training": right, "held-out": wrong}, draws=3)
    assert report["wordings"]["training"]["R@1"]["mean"] == 1.0 and report["wordings"]["training"]["texts"] == 3
    assert report["wordings"]["held-out"]["R@1"]["mean"] == 0.0
    assert report["encoder"] == {"score": "proxy", "name": "pitch-3d"} and report["classes"] == 3
    lines = retrieval_lines(report)
    assert "proxy [pitch-3d]" in lines[0] and "100.0 %" in lines[4] and lines[-1].startswith("| chance | | 33.3 %")


def test_retrieval_needs_classes_and_wordings(clips):
    manifest = read_manifest(clips)
    with pytest.raises(InputError, match="two classes"):
        retrieval(Pitch(), manifest[:2], {"training": {"high": ("x",)}})
    with pytest.raises(InputError, match="held-out"):
        retrieval(Pitch(), manifest, {"held-out": {"dog": ("x",)}})


# --- evaluate


def test_evaluate_has_the_figures_of_the_encoder_that_ships_under_its_name(clips, monkeypatch):
    monkeypatch.setattr(encoded, "shipped_encoder", Pitch)
    rows = [row("low", "high"), row("high", "middle")]
    report = evaluate_recipe(Untouched(), rows, clips, SampleOptions(), "fake", "recipe.csv")
    assert report["text_score"]["mean"] == pytest.approx(1 / math.sqrt(2), abs=0.01)  # half of what sounds
    assert report["audio_score"]["mean"] == pytest.approx(1 / math.sqrt(2), abs=0.01)
    sounds = [soundfile.read(clips / one / "0.wav", dtype="float32")[0] for one in ("low", "high")]
    targets = torch.cat([Pitch().frames(torch.from_numpy(sound)) for sound in sounds])
    estimates = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 1]] * 4 + [[0.0, 1, 1]] * 4), dim=-1)
    assert report["frechet"]["mean"] == pytest.approx(frechet_distance(estimates, targets), abs=0.02)
    lines = "\n".join(summary_lines(report))
    assert "proxy, text to sound [pitch-3d]" in lines and "proxy Frechet distance [pitch-3d]" in lines
    assert "CLAPScore" not in lines and "FAD" not in lines
    table = leaderboard_lines(evaluate_systems(["mixture", "oracle"], rows, clips, SampleOptions(), "recipe.csv"))
    assert "| proxy_A, sound to target [pitch-3d] |" in table[2] and "| 0.71 |" in "\n".join(table)


def test_evaluate_says_nothing_of_an_encoder_where_none_ships(clips, monkeypatch):
    monkeypatch.setattr(encoded, "shipped_encoder", lambda: None)
    report = evaluate_recipe(Untouched(), [row("low", "high")], clips, SampleOptions(), "fake", "recipe.csv")
    assert "text_score" not in report and "encoder" not in report and "[" in summary_lines(report)[2]
    assert EncoderFigures().whole() == {}


# --- inception score


def test_inception_score_is_one_for_equal_tags_and_the_number_of_classes_for_sure_and_even_ones():
    assert inception_score(torch.randn(1, 7).expand(20, -1), splits=1)[0] == pytest.approx(1.0)
    sure = 100 * torch.eye(4).repeat(5, 1)
    assert inception_score(sure, splits=1)[0] == pytest.approx(4.0)
    half = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).log()  # exp(ln 2 - H(0.75))
    expected = math.exp(math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert inception_score(half, splits=1) == pytest.approx((expected, 0.0))


def test_inception_score_is_the_mean_and_deviation_of_the_shuffled_splits():
    logits = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    order = np.random.RandomState(2020).permutation(23)
    p = np.exp(logits.double().log_softmax(-1).numpy())[order]
    scores = []
    for part in (p[0:5], p[5:11], p[11:17], p[17:23]):
        scores.append(np.exp((part * np.log(part / part.mean(0))).sum(1).mean()))
    assert inception_score(logits, splits=4) == pytest.approx((np.mean(scores), np.std(scores)))
    with pytest.raises(UsageError, match="fewer splits"):
        inception_score(logits, splits=24)


class Loudness:
    """A tagger of two classes: loud and quiet."""

    name, sample_rate = "loudness", 8000

    def logits(self, audio):
        assert audio.shape[-1] == 800
        loud = audio.abs().amax(-1) > 0.5
        return 100 * torch.stack([loud, ~loud], dim=1).float()


def test_any_tagger_gives_an_inception_score_under_its_name():
    tone = torch.sin(torch.arange(1600) / 5)
    score = inception(Loudness(), [tone, 0.1 * tone, 0.2 * tone, 0.9 * tone], 16000, splits=1)
    assert score.mean == pytest.approx(2.0) and str(score).startswith("inception score [loudness]")
    with pytest.raises(InputError, match="needs sounds"):
        inception(Loudness(), [], 16000)
