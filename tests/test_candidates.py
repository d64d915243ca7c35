"""Candidates: the score is its formula, the best is kept, and it is what its seed gives alone."""

import math
from dataclasses import replace

import pytest
import torch

from flowsep.candidates import SCORES, choose, consistency
from flowsep.longform import separate_audio
from flowsep.protocol import CANDIDATE_SCORES, SampleOptions
from tests.fakes import tone
from tests.tiny import MIXTURE, PAPER, tiny_separator

TEXT = "a dog barking"


@pytest.fixture(scope="module", params=[PAPER, MIXTURE], ids=["paper", "mixture"])
def separator(request):
    return tiny_separator(request.param)


def mixture(batch=1, samples=9000):
    return 0.2 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(7))


def test_the_light_list_of_scores_is_the_list_of_scores():
    assert tuple(SCORES) == CANDIDATE_SCORES


def test_consistency_is_the_mixture_over_what_the_parts_miss_in_db():
    three, four, five = (torch.full((1, 10, 4), value) for value in (3.0, 4.0, 5.0))
    assert consistency(three, four, five).item() > 100  # 3-4-5: powers add up exactly
    assert consistency(three, 0 * four, five).item() == pytest.approx(20 * math.log10(5 / 2))
    assert consistency(five, None, five).item() > 100
    assert consistency(three, None, five).item() > 100  # a residual of 4 would fit
    assert consistency(2 * five, None, five).item() == pytest.approx(0.0, abs=1e-5)


def test_the_best_candidate_of_each_item_is_kept_and_one_that_is_not_finite_never():
    mixture = torch.zeros(2, 6, 4)
    off = torch.tensor([[1.0, 0.1, float("nan")], [0.2, 2.0, 0.5]])  # log of the target over the mixture
    target = off.reshape(6, 1, 1).expand(-1, 6, 4)
    rows, choices = choose("consistency", [target], mixture, [5, 6, 7])
    assert rows.tolist() == [1, 3]
    assert [choice.seed for choice in choices] == [6, 5]
    assert choices[0].seeds == (5, 6, 7) and choices[0].scores[2] == -200
    assert choices[0].scores[0] == pytest.approx(-20 * math.log10(math.e - 1), abs=1e-3)


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


def test_the_padding_of_a_short_recording_has_no_vote():
    separator, options = tiny_separator(MIXTURE), SampleOptions(candidates=2)
    source, mels = torch.randn(1, 32, 64), [torch.randn(2, 32, 64) for _ in range(2)]
    _, before = separator.choose(mels, source, 1600, [0, 1], options)  # 11 of the 32 frames are the recording's
    for mel in mels:
        mel[:, 11:] += torch.randn(2, 21, 64)
    _, after = separator.choose(mels, source, 1600, [0, 1], options)
    assert after == before
    mels[0][:, :11] += 1
    assert separator.choose(mels, source, 1600, [0, 1], options)[1] != before


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
