"""Recordings of any length, rate and channels: exact in length, without seams, target + residual = recording."""

from itertools import pairwise

import pytest
import torch

from flowsep.audio import AudioWarning
from flowsep.errors import ModelError
from flowsep.longform import separate_audio
from flowsep.windows import Plan, window_starts
from tests.fakes import FakeSeparator, tone

SHAPES = [  # seconds, sample rate, channels, windows of 1 s with 10 % overlap
    (0.5, 16000, 1, 1),
    (1.0, 16000, 2, 1),
    (2.5, 16000, 1, 3),
    (2.7, 44100, 2, 3),
    (1.83337, 48000, 3, 2),
    (0.031, 44100, 1, 1),
    (1.2, 192000, 1, 2),
    (1.5, 8000, 1, 2),
    (0.6, 11025, 1, 1),
]


@pytest.mark.parametrize(("seconds", "rate", "channels", "windows"), SHAPES)
def test_a_mask_of_ones_gives_the_recording_back(seconds, rate, channels, windows):
    recording = tone(seconds, rate, channels)
    [found] = separate_audio(FakeSeparator(), recording, rate, ["everything"])
    assert found.target.shape == found.residual.shape == recording.shape
    torch.testing.assert_close(found.target, recording, rtol=0, atol=1e-5)
    assert (found.windows, found.nfe) == (windows, 2 * windows)


def test_one_sample_comes_back_as_one_sample():
    [found] = separate_audio(FakeSeparator(), torch.tensor([[0.5], [-0.25]]), 44100, ["a click"])
    torch.testing.assert_close(found.target, torch.tensor([[0.5], [-0.25]]), rtol=0, atol=1e-5)


def test_a_mask_of_zeros_gives_silence_and_leaves_the_recording():
    recording = tone(2.5, 44100, 2)
    [found] = separate_audio(FakeSeparator(gain=lambda text: 0.0), recording, 44100, ["nothing"])
    assert not found.target.any()
    assert torch.equal(found.residual, recording)


@pytest.mark.parametrize("masking", [True, False])
def test_a_constant_gain_leaves_no_seam(masking):
    recording = tone(3.3, 16000)
    [found] = separate_audio(FakeSeparator(gain=lambda text: 0.37, masking=masking), recording, 16000, ["a tone"])
    torch.testing.assert_close(found.target, 0.37 * recording, rtol=0, atol=1e-5)
    assert found.windows == 4


@pytest.mark.parametrize("masking", [True, False])
def test_target_and_residual_add_up_to_the_recording(masking):
    recording = tone(2.2, 44100, 2)
    [found] = separate_audio(FakeSeparator(gain=lambda text: 0.3, masking=masking), recording, 44100, ["a tone"])
    torch.testing.assert_close(found.target + found.residual, recording, rtol=0, atol=1e-7)
    assert torch.equal(found.residual, recording - found.target)


def test_a_rendered_waveform_goes_to_all_channels_at_the_rate_and_length_of_the_recording():
    recording = tone(1.7, 44100).expand(2, -1)
    [found] = separate_audio(FakeSeparator(masking=False), recording, 44100, ["a tone"])
    assert found.target.shape == recording.shape and torch.equal(found.target[0], found.target[1])
    low = torch.sin(2 * torch.pi * 300 * torch.arange(recording.shape[-1]) / 44100)[None]  # within 0-8 kHz
    [found] = separate_audio(FakeSeparator(masking=False), low, 44100, ["a tone"])
    torch.testing.assert_close(found.target[:, 4410:-4410], low[:, 4410:-4410], rtol=0, atol=1e-3)


def test_each_query_gets_its_own_part_whatever_their_number():
    texts = [f"{number}" for number in range(7)]
    separator = FakeSeparator(gain=lambda text: int(text) / 10)
    recording = tone(2.5, 16000)
    found = separate_audio(separator, recording, 16000, texts)
    for number, one in enumerate(found):
        torch.testing.assert_close(one.target, number / 10 * recording, rtol=0, atol=1e-5)
        assert one.nfe == 6
    assert [len(texts) for _, texts in separator.seen] == [4, 3] * 3


def test_a_recording_no_longer_than_the_window_is_passed_as_it_is():
    separator = FakeSeparator()
    separate_audio(separator, tone(0.777, 16000), 16000, ["a"])
    assert separator.seen == [(12432, ["a"])]


def test_windows_are_never_longer_than_the_separators_and_cover_everything():
    for length in (16001, 17600, 30400, 30401, 31000, 64321):
        starts = window_starts(length, 16000, 1600, 160)
        assert starts[0] == 0 and all(start % 160 == 0 for start in starts)
        assert length <= starts[-1] + 16000 < length + 160
        assert all(later - earlier <= 14400 for earlier, later in pairwise(starts))


@pytest.mark.parametrize("length", [16000, 16001, 30500, 33333, 64321])
def test_the_weights_of_all_windows_sum_to_one_and_vanish_outside_their_window(length):
    plan, positions = Plan.of(FakeSeparator(), length), torch.arange(length, dtype=torch.float64)
    starts, weights = plan.starts, torch.stack([plan.weights(k, positions) for k in range(len(plan.starts))])
    torch.testing.assert_close(weights.sum(0), torch.ones(length, dtype=torch.float64))
    for start, weight in zip(starts, weights, strict=True):
        assert not weight[positions < start].any() and not weight[positions >= start + 16000].any()


def test_progress_counts_every_window_and_what_it_raises_stops_the_work():
    seen: list[tuple[str, int, int]] = []
    separate_audio(FakeSeparator(), tone(2.5, 16000), 16000, ["a", "b"], progress=lambda *step: seen.append(step))
    assert seen == [("separate", 4, 6), ("separate", 6, 6)]  # of (window, query) pairs, four at a time

    def stop(stage: str, done: int, total: int) -> None:
        raise InterruptedError

    separator = FakeSeparator()
    with pytest.raises(InterruptedError):
        separate_audio(separator, tone(2.5, 16000), 16000, ["a"], progress=stop)
    assert len(separator.seen) == 1


def test_digital_silence_stays_silent_and_says_so():
    separator = FakeSeparator()
    with pytest.warns(AudioWarning, match="silence"):
        [found] = separate_audio(separator, torch.zeros(2, 1000), 44100, ["a"])
    assert found.target.shape == (2, 1000) and not found.target.any() and not found.residual.any()
    assert separator.seen == []


def test_output_that_is_not_finite_is_an_error_of_the_model():
    with pytest.raises(ModelError, match="NaN"):
        separate_audio(FakeSeparator(gain=lambda text: float("nan")), tone(0.5, 16000), 16000, ["a"])
