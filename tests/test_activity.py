"""When a sound is active: known on and off times, and each part of the rule."""

import pytest
import torch

from flowsep import find_segments
from flowsep.activity import SegmentRule, active_stretches, stretches
from flowsep.audio import AudioWarning
from flowsep.errors import UsageError
from tests.fakes import FakeSeparator, PatternSeparator, tone

ON = ((1.0, 2.5), (4.0, 4.6))  # seconds
EDGE = 0.05  # seconds; an STFT window is 64 ms


def on_off(text: str, frames: int, bands: int) -> torch.Tensor:
    """A mask of one while the sound is on, else zero."""
    mask = torch.zeros(frames, bands)
    for start, end in ON:
        mask[round(100 * start) : round(100 * end)] = 1.0
    return mask


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2)])
def test_segments_are_where_the_mask_is_open(rate, channels):
    separator = PatternSeparator(pattern=on_off, window=10 * 16000)
    [segments] = find_segments(separator, tone(6.0, rate, channels), rate, ["a dog"])
    assert [(one.start, one.end) for one in segments] == [pytest.approx(times, abs=EDGE) for times in ON]
    assert all(one.share_db == pytest.approx(0, abs=0.7) for one in segments)


def test_a_sound_that_is_always_or_never_there_has_one_segment_or_none():
    separator = FakeSeparator(gain=lambda text: 1.0 if text == "here" else 0.1)
    here, absent = find_segments(separator, tone(2.345, 44100), 44100, ["here", "absent"])
    assert [(one.start, one.end) for one in here] == [pytest.approx((0.0, 2.345), abs=1e-4)]
    assert absent == []  # 20 dB below the mixture
    [weak] = find_segments(separator, tone(2.345, 44100), 44100, ["absent"], SegmentRule(share_db=21))
    assert weak[0].share_db == pytest.approx(-20, abs=0.1)


def test_a_separator_without_masks_is_judged_by_its_waveform():
    separator = FakeSeparator(gain=lambda text: 0.5, masking=False)
    [[segment]] = find_segments(separator, tone(2.5, 16000), 16000, ["a dog"])
    assert (segment.start, segment.end) == (0.0, 2.5) and segment.share_db == pytest.approx(-6.02, abs=0.1)


def test_silence_has_no_segments():
    with pytest.warns(AudioWarning, match="silence"):
        assert find_segments(FakeSeparator(), torch.zeros(1, 16000), 16000, ["a", "b"]) == [[], []]


def energies(*levels_db: float) -> torch.Tensor:
    """Energies of as many half seconds at these levels."""
    return torch.tensor([10 ** (level / 10) for level in levels_db for _ in range(50)])


def test_the_targets_own_maximum_sets_a_threshold():
    target = energies(0, -40, -20)
    found = active_stretches(target, target, 1.5, SegmentRule())
    assert [one.start for one in found] == pytest.approx([0.0, 1.0], abs=0.03)
    assert len(active_stretches(target, target, 1.5, SegmentRule(range_db=45))) == 1


def test_the_mixture_sets_a_threshold():
    target, mixture = energies(-20, -20), energies(-20, 0)
    [found] = active_stretches(target, mixture, 1.0, SegmentRule())
    assert found.end == pytest.approx(0.5, abs=0.03)
    assert found.level_db == pytest.approx(-20, abs=0.01)


def test_gaps_are_closed_before_short_runs_are_dropped():
    active = [index in {10, 11, 12, 20, 21, 22, 60} for index in range(100)]
    assert stretches(active, merge_gap=0, min_duration=0) == [(10, 13), (20, 23), (60, 61)]
    assert stretches(active, merge_gap=8, min_duration=5) == [(10, 23)]
    assert stretches(active, merge_gap=7, min_duration=3) == [(10, 13), (20, 23)]


@pytest.mark.parametrize("name", ["share_db", "range_db", "min_duration", "merge_gap"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_rule_of_no_use_is_refused(name, value):
    with pytest.raises(UsageError, match=name.replace("_", " ")):
        SegmentRule(**{name: value})
