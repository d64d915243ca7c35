"""Remixes: exact sums, 0 dB is nothing, removal is input minus target, any rate, length and channel count."""

import math

import pytest
import torch

from flowsep import remix, remove
from flowsep.audio import AudioWarning
from flowsep.errors import ModelError, UsageError
from flowsep.gains import MUTE
from flowsep.longform import separate_audio
from flowsep.protocol import SampleOptions
from tests.fakes import FakeSeparator, PatternSeparator, random_pattern, tone
from tests.tiny import MIXTURE, PAPER, tiny_separator

EXACT_DB = -130  # of the recording: rounding of float32
TEXTS = [f"sound {number}" for number in range(8)]
SHAPES = [(0.031, 44100, 1), (0.9, 8000, 2), (2.7, 44100, 2), (1.2, 192000, 1), (2.5, 48000, 3)]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_parts_and_rest_sum_to_the_recording(count):
    recording = tone(0.9, 44100, 2)
    separator = PatternSeparator(pattern=random_pattern)
    alone = [
        remix(separator, recording, 44100, {text: 0.0 if text == one else MUTE for text in TEXTS[:count]}, MUTE).audio
        for one in TEXTS[:count]
    ]
    rest = remix(separator, recording, 44100, dict.fromkeys(TEXTS[:count], MUTE))
    assert rest.sum_error_db < EXACT_DB
    error = sum(alone).double() + rest.audio - recording
    assert 10 * math.log10(error.square().sum() / recording.square().sum()) < EXACT_DB
    assert all(part.square().mean() > 0 for part in alone)


@pytest.mark.parametrize(("seconds", "rate", "channels"), SHAPES)
def test_zero_decibels_give_back_the_recording_bit_for_bit(seconds, rate, channels):
    recording = tone(seconds, rate, channels)
    separator = FakeSeparator(gain=lambda text: 0.1 * int(text[-1]))
    found = remix(separator, recording, rate, dict.fromkeys(TEXTS, 0.0))
    assert torch.equal(found.audio, recording)
    assert found.sum_error_db < EXACT_DB and len(found.levels_db) == 9


@pytest.mark.parametrize(("seconds", "rate", "channels"), SHAPES)
def test_removing_one_sound_is_the_recording_minus_the_target(seconds, rate, channels):
    recording = tone(seconds, rate, channels)
    separator = FakeSeparator(gain=lambda text: 0.3)
    [separated] = separate_audio(separator, recording, rate, ["a dog"])
    found = remove(separator, recording, rate, ["a dog"])
    assert torch.equal(found.audio, separated.residual)


@pytest.mark.parametrize(("config", "render"), [(MIXTURE, "mixture"), (MIXTURE, "vocoder"), (PAPER, "vocoder")])
def test_every_separator_gives_an_exact_partition(config, render):
    recording = tone(3.0, 44100, 2)
    gains = {"a dog barking": 0.0, "rain falling": 0.0, "a dog": 0.0}
    options = SampleOptions(render=render)
    separator = tiny_separator(config)
    found = remix(separator, recording, 44100, gains, options=options)
    assert torch.equal(found.audio, recording) and found.sum_error_db < EXACT_DB
    assert found.own_masks == (render == "mixture")
    quieter = remix(separator, recording, 44100, dict.fromkeys(gains, -6.0), -6.0, options)
    torch.testing.assert_close(quieter.audio, 10 ** (-6 / 20) * recording, rtol=0, atol=1e-7)


def test_a_gain_acts_on_its_own_sound_only():
    recording = tone(2.5, 16000)
    shares = {"dog": 0.5, "rain": 0.25}
    found = remix(FakeSeparator(gain=shares.get), recording, 16000, {"dog": -6.0, "rain": MUTE}, rest=3.0)
    factor = 0.5 * 10 ** (-6 / 20) + 0.25 * 10 ** (3 / 20)
    torch.testing.assert_close(found.audio, factor * recording, rtol=0, atol=1e-5)
    level = 10 * math.log10(recording.double().square().mean())
    wanted = [level - 20 * math.log10(2), level - 20 * math.log10(4), level - 20 * math.log10(4)]
    assert found.levels_db == pytest.approx(wanted, abs=0.02)


def test_two_wordings_of_one_sound_are_not_removed_twice():
    recording = tone(0.9, 16000)
    found = remove(FakeSeparator(gain=lambda text: 0.9), recording, 16000, ["a dog", "the dog"])
    assert found.audio.abs().max() < 1e-5  # not -0.8 times the recording
    torch.testing.assert_close(
        remix(FakeSeparator(gain=lambda text: 0.9), recording, 16000, {"a dog": 0.0, "the dog": MUTE}).audio,
        0.5 * recording,
        rtol=0,
        atol=1e-5,
    )


def test_a_rendering_without_masks_is_turned_into_one_of_the_same_level():
    recording = tone(2.5, 44100, 2, hertz=3000.0)
    found = remove(FakeSeparator(gain=lambda text: 0.25, masking=False), recording, 44100, ["a tone"])
    torch.testing.assert_close(found.audio, 0.75 * recording, rtol=0, atol=2e-3)
    assert not found.own_masks


def test_digital_silence_stays_silent_and_says_so():
    separator = FakeSeparator()
    with pytest.warns(AudioWarning, match="silence"):
        found = remix(separator, torch.zeros(2, 1000), 44100, {"a dog": 6.0})
    assert found.audio.shape == (2, 1000) and not found.audio.any()
    assert not separator.seen and found.sum_error_db == -200


def test_masks_that_are_not_finite_are_an_error_of_the_model():
    with pytest.raises(ModelError, match="NaN"):
        remove(FakeSeparator(gain=lambda text: float("nan")), tone(0.5, 16000), 16000, ["a"])


@pytest.mark.parametrize(
    ("gains", "rest", "words"),
    [
        ({}, 0.0, "no gain"),
        ({" ": 0.0}, 0.0, "is empty"),
        ({"a dog": float("nan")}, 0.0, "beyond"),
        ({"a dog": float("inf")}, 0.0, "beyond"),
        ({"a dog": 60.5}, 0.0, "beyond"),
        ({"a dog": 0.0}, -61.0, "--rest"),
    ],
)
def test_gains_that_are_none_are_refused_before_the_model_is_asked(gains, rest, words):
    separator = FakeSeparator()
    with pytest.raises(UsageError, match=words):
        remix(separator, tone(0.5, 16000), 16000, gains, rest)
    assert not separator.seen
