"""Candidates: scores are their formulas, the best is kept, and it is what its seed gives alone."""

import math
from dataclasses import replace

import pytest
import torch

from flowsep.candidates import Candidates, by_consistency, by_presence, by_similarity, choose, consistency, scorer
from flowsep.errors import ModelError, UsageError
from flowsep.heard import Heard
from flowsep.longform import separate_audio
from flowsep.options import check_options
from flowsep.presence import PresenceConfig
from flowsep.protocol import SampleOptions
from tests.fakes import tone
from tests.tiny import MIXTURE, PAPER, tiny_separator

TEXT = "a dog barking"


@pytest.fixture(scope="module", params=[PAPER, MIXTURE], ids=["paper", "mixture"])
def separator(request):
    return tiny_separator(request.param)


def mixture(batch=1, samples=9000):
    return 0.2 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(7))


class Steady:
    """A text-audio encoder of two dimensions: how much of a sound is where `favourite(sound)` says, 0..1."""

    name, score_name, sample_rate = "steady-2d", "proxy", 16000

    def __init__(self, favourite):
        self.favourite, self.heard = favourite, []

    def text(self, texts):
        return torch.tensor([[1.0, 0.0]]).expand(len(texts), -1)

    def audio(self, audio):
        self.heard.append(tuple(audio.shape))
        likeness = torch.tensor([self.favourite(one) for one in audio])
        return torch.stack([likeness, (1 - likeness.square()).sqrt()], dim=1)


def candidates_of(mels, mixture, texts=(), mask=None, audio=None, rate=16000):
    """As the separator hands them over, whatever is asked for given at once."""
    return Candidates(mels, mixture, texts, lambda: mask, lambda: (audio, rate))


def test_consistency_is_the_mixture_over_what_the_parts_miss_in_db():
    three, four, five = (torch.full((1, 10, 4), value) for value in (3.0, 4.0, 5.0))
    assert consistency(three, four, five).item() > 100  # 3-4-5: powers add up exactly
    assert consistency(three, 0 * four, five).item() == pytest.approx(20 * math.log10(5 / 2))
    assert consistency(five, None, five).item() > 100
    assert consistency(three, None, five).item() > 100  # a residual of 4 would fit
    assert consistency(2 * five, None, five).item() == pytest.approx(0.0, abs=1e-5)


def test_the_best_candidate_of_each_item_is_kept_and_one_that_is_not_finite_never():
    off = torch.tensor([[1.0, 0.1, float("nan")], [0.2, 2.0, 0.5]])  # log of the target over the mixture
    target = off.reshape(6, 1, 1).expand(-1, 6, 4)
    by = scorer(SampleOptions(candidates=3), tiny_separator(MIXTURE))
    rows, choices = choose(by, candidates_of([target], torch.zeros(6, 6, 4)), [5, 6, 7])
    assert rows.tolist() == [1, 3]
    assert [choice.seed for choice in choices] == [6, 5]
    assert choices[0].seeds == (5, 6, 7) and choices[0].scores[2] == -200
    assert choices[0].scores[0] == pytest.approx(-20 * math.log10(math.e - 1), abs=1e-3)
    assert (choices[0].score, choices[0].encoder) == ("consistency", None)


def test_consistency_of_candidates_takes_the_residual_stream_where_there_is_one():
    three, four, five = (torch.full((1, 10, 4), value).log() for value in (3.0, 4.0, 5.0))
    assert by_consistency(candidates_of([three, four], five)).item() > 100
    assert by_consistency(candidates_of([three, three], five)).item() == pytest.approx(
        20 * math.log10(5 / 0.757), abs=0.1
    )


def test_presence_of_candidates_is_the_logistic_function_of_what_each_mask_lets_through():
    config = PresenceConfig(overall=0.1, peak=0.0, bias=0.5)
    mask = torch.tensor([0.1, 1.0, 0.5]).reshape(3, 1, 1).expand(-1, 60, 4)
    found = by_presence(candidates_of([], torch.zeros(3, 60, 4), mask=mask), config)
    expected = [1 / (1 + math.exp(-(0.5 + 0.1 * 20 * math.log10(gain)))) for gain in (0.1, 1.0, 0.5)]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_similarity_of_candidates_is_the_cosine_at_the_encoders_rate():
    encoder = Steady(lambda sound: sound.mean().clamp(0, 1))
    audio = torch.tensor([[0.2], [0.9]]).expand(-1, 8000)
    found = by_similarity(candidates_of([], None, [TEXT, TEXT], audio=audio, rate=8000), encoder)
    assert found.tolist() == pytest.approx([0.2, 0.9], abs=0.02) and encoder.heard == [(2, 16000)]


@pytest.mark.parametrize("render", ["mixture", "vocoder"])
def test_the_kept_candidate_is_what_its_seed_gives_alone(separator, render):
    sounds, texts = mixture(batch=2), [TEXT, "rain falling"]
    options = SampleOptions(steps=2, seed=3, candidates=3, render=render)
    found = separator.separate(sounds, texts, options)
    assert found.nfe == 6 and found.settings["candidates"] == 3 and len(found.choices) == 2
    for row, choice in enumerate(found.choices):
        assert choice.seeds == (3, 4, 5)
        assert choice.seed == choice.seeds[choice.scores.index(max(choice.scores))]
        alone = separator.separate(
            sounds[row : row + 1], texts[row : row + 1], replace(options, seed=choice.seed, candidates=1)
        )
        torch.testing.assert_close(found.target[row : row + 1], alone.target, atol=2e-5, rtol=0)
        assert alone.choices == [] and alone.nfe == 2


def test_candidates_differ_and_are_scored_apart_under_an_adaptive_solver(separator):
    options = SampleOptions(solver="bosh3", candidates=2, rtol=0.3, atol=0.3)
    found = separator.separate(mixture(), [TEXT], options)
    singles = [separator.separate(mixture(), [TEXT], replace(options, candidates=1, seed=seed)).nfe for seed in (0, 1)]
    assert found.nfe == sum(singles)
    assert len(set(found.choices[0].scores)) == 2


@pytest.mark.parametrize("score", ["consistency", "presence"])
def test_the_padding_of_a_short_recording_has_no_vote(score):
    separator, options = tiny_separator(MIXTURE), SampleOptions(candidates=2, candidate_score=score)
    separator.presence = PresenceConfig(overall=0.02, peak=0.0, bias=1.0)
    by, mels = scorer(options, separator), [torch.randn(2, 32, 64) for _ in range(2)]
    level = torch.ones(1, 1)
    heard = Heard(torch.zeros(1, 1600), torch.randn(1, 32, 64), 0 * level, level)  # 11 of the 32 frames are its own
    _, before = separator.choose(mels, heard, [TEXT], options, by)
    for mel in mels:
        mel[:, 11:] += torch.randn(2, 21, 64)
    _, after = separator.choose(mels, heard, [TEXT], options, by)
    assert after == before
    mels[0][:, :11] += 1
    assert separator.choose(mels, heard, [TEXT], options, by)[1] != before


@pytest.mark.parametrize("score", ["consistency", "presence", "proxy"])
def test_candidates_sampled_in_one_batch_are_those_sampled_one_by_one(separator, score):
    separator.presence = PresenceConfig(overall=0.1, peak=0.05, bias=2.0)
    separator.encoders["proxy"] = Steady(lambda sound: sound.abs().mean().clamp(0, 1))
    options = SampleOptions(steps=2, seed=1, candidates=3, candidate_score=score)
    found = separator.separate(mixture(), [TEXT], options)
    again = separator.separate(mixture(), [TEXT], options)
    assert torch.equal(found.target, again.target) and found.choices == again.choices
    singles = [separator.separate(mixture(), [TEXT], replace(options, seed=seed, candidates=1)) for seed in (1, 2, 3)]
    (choice,) = found.choices
    alone = singles[choice.seeds.index(choice.seed)]
    torch.testing.assert_close(found.target, alone.target, atol=2e-5, rtol=0)
    if score == "presence":
        assert [one.presence.item() for one in singles] == pytest.approx(choice.scores, abs=1e-3)
    if score == "proxy":
        assert [one.target.abs().mean().item() for one in singles] == pytest.approx(choice.scores, abs=1e-4)
        assert choice.encoder == "steady-2d"
    # In a batch with another recording the same candidate is kept.
    sounds = torch.cat([mixture(), 0.1 * torch.randn(1, 9000)])
    assert separator.separate(sounds, [TEXT, "rain falling"], options).choices[0].seed == choice.seed


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_the_encoder_decides_which_candidate_is_kept(wanted):
    separator, options = tiny_separator(MIXTURE), SampleOptions(candidates=3, candidate_score="clap:somewhere")
    plain = [separator.separate(mixture(), [TEXT], SampleOptions(seed=seed)).target for seed in range(3)]
    liked = Steady(lambda sound: float(torch.allclose(sound, plain[wanted][0], atol=1e-5)))
    separator.encoders["clap:somewhere"] = liked
    found = separator.separate(mixture(), [TEXT], options)
    assert found.choices[0].seed == wanted and liked.heard == [(3, 9000)]
    torch.testing.assert_close(found.target, plain[wanted], atol=2e-5, rtol=0)


def test_a_score_that_cannot_be_had_says_what_to_do_before_anything_is_sampled(monkeypatch, tmp_path):
    separator = tiny_separator(MIXTURE)
    monkeypatch.setattr(separator, "generate", lambda *_: pytest.fail("sampled"))
    for name, error, words in (
        ("presence", ModelError, "flowsep calibrate"),
        (f"proxy:{tmp_path}", ModelError, "flowsep train clap"),
        (f"clap:{tmp_path}", ModelError, "cannot be had"),
        ("loudness", UsageError, "consistency, presence, proxy, proxy:FOLDER, clap:FOLDER"),
        ("clap:", UsageError, "clap:FOLDER"),
    ):
        with pytest.raises(error, match=words):
            separator.separate(mixture(), [TEXT], SampleOptions(candidates=2, candidate_score=name))
    check_options(SampleOptions(candidates=2, candidate_score="proxy:runs/clap/clap"))


def test_each_window_and_query_of_a_long_recording_has_its_choice():
    separator = tiny_separator(MIXTURE)
    recording = tone(4.0, 16000, channels=2)
    options = SampleOptions(candidates=3, seed=1)
    found = separate_audio(separator, recording, 16000, [TEXT, "rain falling", "a siren"], options)
    for query, one in enumerate(found):
        assert one.windows == 2 and len(one.choices) == 2 and one.nfe == 2 * 3
        first = separator.separate(
            recording.mean(0, keepdim=True)[:, : separator.window],
            [[TEXT, "rain falling", "a siren"][query]],
            options,
            at=[0],
        )
        assert one.choices[0].seed == first.choices[0].seed


def test_queries_of_one_expanded_mixture_have_the_candidates_of_separate_ones(separator):
    options, texts = SampleOptions(candidates=2), [TEXT, "rain falling on a roof"]
    expanded = separator.separate(mixture().expand(2, -1), texts, options)
    repeated = separator.separate(mixture().repeat(2, 1), texts, options)
    torch.testing.assert_close(expanded.target, repeated.target)
    assert expanded.choices == repeated.choices
