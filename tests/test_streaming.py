"""Streams: the same result from a file and from memory, in any schedule, in memory that does not grow."""

import tracemalloc

import psutil
import pytest
import soundfile
import torch

from flowsep.activity import SegmentRule, find_segments, segments_of
from flowsep.audio import Samples, open_audio, read_audio, resample
from flowsep.blocks import BLOCK, Sliding, resampled, scan
from flowsep.errors import DeviceError, InputError, UsageError
from flowsep.longform import separate_audio, separate_stream
from flowsep.remixing import remix, remix_stream
from flowsep.spans import EDGE, parse_spans, span_gain
from tests.fakes import FakeSeparator, PatternSeparator, random_pattern, tone
from tests.tiny import MIXTURE, tiny_separator


def targets(stream):
    return torch.cat([block.targets for block in stream], dim=-1)


def blocks_of(samples, *sizes):
    """The samples cut into blocks of these sizes, the last one as often as needed."""
    position, sizes = 0, list(sizes)
    while position < samples.shape[-1]:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        yield samples[..., position : position + size]
        position += size


# Blocks


@pytest.mark.parametrize("sizes", [(1, 2, 3, 7), (100,), (1000,)])
def test_a_sliding_view_gives_any_rising_stretch_with_zeros_around(sizes):
    samples = torch.arange(1.0, 501).expand(2, -1)
    padded = torch.nn.functional.pad(samples, (50, 200))
    view = Sliding(blocks_of(samples, *sizes))
    for first, last in ((-50, -10), (-50, 3), (0, 100), (0, 10), (90, 91), (90, 420), (419, 600), (600, 650)):
        assert torch.equal(view.span(first, last), padded[:, first + 50 : last + 50])
    masks = torch.rand(3, 40, 5)
    view = Sliding(iter(masks.split(7, dim=1)), dim=1)
    assert torch.equal(view.span(3, 20), masks[:, 3:20]) and torch.equal(view.span(30, 40), masks[:, 30:40])


@pytest.mark.parametrize(("rate", "to"), [(44100, 16000), (48000, 16000), (16000, 44100), (8000, 16000)])
def test_resampling_does_not_depend_on_the_blocks(rate, to):
    samples = tone(3.3, rate, 2)
    length = round(samples.shape[-1] * to / rate)
    whole = resample(samples, rate, to)
    parts = torch.cat(list(resampled(blocks_of(samples, 1, 999, 4096), rate, to, length)), -1)
    assert parts.shape == whole.shape
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_a_file_and_its_samples_are_the_same_recording(tmp_path):
    samples = tone(4.0, 44100, 2)
    soundfile.write(tmp_path / "a.wav", samples.T.numpy(), 44100, subtype="FLOAT")
    file = open_audio(tmp_path / "a.wav")
    assert samples.shape[-1] > 2 * BLOCK and torch.equal(torch.cat(list(file.blocks()), -1), samples)
    assert scan(file) == scan(Samples(samples, 44100))


@pytest.mark.parametrize("kind", [{"subtype": "PCM_24"}, {"format": "OGG", "subtype": "VORBIS"}])
def test_an_excerpt_is_that_part_of_the_file_to_the_sample(tmp_path, kind):
    path = tmp_path / "a.audio"
    soundfile.write(path, tone(4.0, 22050).T.numpy(), 22050, **{"format": "WAV", **kind})
    whole = read_audio(path).samples
    part = torch.cat(list(open_audio(path).excerpt(1.0, 3.5).blocks()), -1)
    assert torch.equal(part, whole[:, 22050 : round(3.5 * 22050)])
    assert torch.equal(torch.cat(list(open_audio(path).excerpt(3.0).blocks()), -1), whole[:, 3 * 22050 :])
    assert list(open_audio(path).excerpt(9.0).blocks()) == []


# One path


@pytest.mark.parametrize("masking", [True, False])
@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (16000, 1)])
def test_a_stream_of_a_file_equals_the_recording_in_memory(tmp_path, masking, rate, channels):
    samples = tone(30.0 if masking else 5.0, rate, channels)  # longer than a block of the rendering
    soundfile.write(tmp_path / "a.wav", samples.T.numpy(), rate, subtype="FLOAT")
    separator = FakeSeparator(gain=lambda text: 0.3 if text == "a" else 0.6, masking=masking)
    found = separate_audio(separator, samples, rate, ["a", "b"])
    stream = separate_stream(separator, open_audio(tmp_path / "a.wav"), ["a", "b"])
    starts = []
    for block in stream:
        starts.append(block.start)
        stretch = slice(block.start, block.start + block.mixture.shape[-1])
        assert torch.equal(block.mixture, samples[:, stretch])
        for query, one in enumerate(found):
            assert torch.equal(block.targets[query], one.target[:, stretch])
    assert len(starts) > 1 and stretch.stop == samples.shape[-1]
    assert stream.account.nfe == [one.nfe for one in found]


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_the_schedule_changes_no_result_beyond_rounding(rows):
    separator, recording = tiny_separator(MIXTURE), tone(9.0, 16000)
    [usual] = separate_audio(separator, recording, 16000, ["a dog"], rows=4)
    [other] = separate_audio(separator, recording, 16000, ["a dog"], rows=rows)
    torch.testing.assert_close(other.target, usual.target, rtol=0, atol=1e-5)
    assert usual.windows == other.windows == 4 and usual.nfe == other.nfe == 4


def test_remix_and_segments_of_a_stream_equal_those_in_memory(tmp_path):
    samples = tone(6.0, 44100, 2)
    soundfile.write(tmp_path / "a.wav", samples.T.numpy(), 44100, subtype="FLOAT")
    separator = PatternSeparator(pattern=random_pattern, window=10 * 16000)
    gains, file = {"a": -6.0, "b": 3.0}, open_audio(tmp_path / "a.wav")
    whole = remix(separator, samples, 44100, gains)
    stream = remix_stream(separator, file, gains)
    assert torch.equal(torch.cat([remixed for _, remixed in stream], -1), whole.audio)
    assert stream.levels_db() == whole.levels_db and stream.sum_error_db() == whole.sum_error_db < -130
    expected = find_segments(separator, samples, 44100, ["a", "b"])
    assert segments_of(separate_stream(separator, file, ["a", "b"]), SegmentRule()) == expected


def test_a_stream_needs_a_query_and_sound_samples(tmp_path):
    with pytest.raises(UsageError, match="no query"):
        separate_stream(FakeSeparator(), Samples(tone(1.0, 16000), 16000), [])
    broken = tone(6.0, 16000)
    broken[0, 80000] = float("nan")
    with pytest.raises(InputError, match=r"1 NaN or infinite sample, the first at 5\.000 s"):
        separate_audio(FakeSeparator(), broken, 16000, ["a"])


# Memory


class Hours:
    """A recording of a lasting tone that is computed while it is read."""

    sample_rate, channels, name = 4000, 1, "hours"

    def __init__(self, hours: float) -> None:
        self.count = round(hours * 3600 * self.sample_rate / BLOCK)

    def blocks(self):
        block = tone(BLOCK / self.sample_rate, self.sample_rate)
        return (block for _ in range(self.count))


def test_three_hours_take_no_more_memory_than_their_windows():
    separator, process = FakeSeparator(gain=lambda text: 0.5, window=163840), psutil.Process()
    for _ in separate_stream(separator, Hours(0.05), ["a"]):
        pass
    separator.seen.clear()
    before, peak, samples = process.memory_info().rss, 0, 0
    for block in separate_stream(separator, Hours(3.0), ["a"]):
        peak = max(peak, process.memory_info().rss - before)
        samples += block.mixture.shape[-1]
    assert samples == Hours(3.0).count * BLOCK and len(separator.seen) > 250
    assert peak < 200e6  # the mono signal alone would be 690 MB, its masks 280 MB


def test_python_holds_no_more_after_an_hour_than_after_a_minute():
    separator = FakeSeparator(window=163840)
    peaks = []
    for hours in (0.05, 0.2):
        tracemalloc.start()
        for _ in separate_stream(separator, Hours(hours), ["a"]):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        separator.seen.clear()
    assert peaks[1] < 1.5 * peaks[0] + 2e5


class Small(FakeSeparator):
    """Out of memory with more than `most` rows."""

    most = 2

    def separate(self, mixture, texts, options=None):
        if len(texts) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return super().separate(mixture, texts, options)


def test_out_of_memory_halves_the_rows_once_and_goes_on():
    recording = tone(6.0, 16000)
    stream = separate_stream(Small(gain=lambda text: 0.5), Samples(recording, 16000), ["a"])
    torch.testing.assert_close(targets(stream)[0], 0.5 * recording, rtol=0, atol=1e-5)
    assert stream.account.rows == 2 and stream.account.nfe == [2 * stream.account.windows]


def test_out_of_memory_again_says_which_flag_to_use():
    separator = Small()
    separator.most = 0
    for rows in (4, 1):
        with pytest.raises(DeviceError, match="--max-memory"):
            list(separate_stream(separator, Samples(tone(6.0, 16000), 16000), ["a"], rows=rows))


# Spans


def test_a_span_is_open_inside_and_closes_smoothly_outside():
    times = torch.arange(0, 5, 0.001, dtype=torch.float64)
    gain = span_gain(times, ((1.0, 2.0), (3.5, 4.0)))
    assert (gain[1000:2001] == 1).all() and (gain[3500:4001] == 1).all()
    assert not gain[: 1000 - 51].any() and not gain[2051:3449].any()
    assert gain.diff().abs().max() < 1.6 / (1000 * EDGE) and gain[975] == pytest.approx(0.5)


@pytest.mark.parametrize("masking", [True, False])
def test_outside_of_its_spans_a_target_is_silent_and_windows_are_not_asked_about(masking):
    second = 16000
    recording = tone(12.0, second)
    separator = FakeSeparator(gain=lambda text: 0.5, masking=masking)
    [found] = separate_audio(separator, recording, second, ["a"], spans=((7.2, 8.0),))
    inside = slice(round(7.25 * second), round(7.95 * second))
    torch.testing.assert_close(found.target[:, inside], 0.5 * recording[:, inside], rtol=0, atol=6e-3)
    assert found.target[:, : round(7.1 * second)].abs().max() < 1e-6
    assert found.target[:, round(8.1 * second) :].abs().max() < 1e-6
    assert found.windows == 14 and found.nfe == 2 * 3  # the first, which tells the kind, and two that are touched
    assert torch.equal(found.residual, recording - found.target)


def test_outside_of_the_spans_a_remix_is_the_recording_bit_for_bit():
    recording = tone(5.0, 16000)
    found = remix(FakeSeparator(gain=lambda text: 0.5), recording, 16000, {"a": -20.0}, spans=((1.0, 1.5),))
    assert torch.equal(found.audio[:, : round(0.9 * 16000)], recording[:, : round(0.9 * 16000)])
    assert torch.equal(found.audio[:, round(1.6 * 16000) :], recording[:, round(1.6 * 16000) :])
    assert not torch.allclose(found.audio[:, 17000:23000], recording[:, 17000:23000], atol=1e-2)


def test_spans_are_read_in_any_usual_writing():
    assert parse_spans(["3.2-4.1", " 0 - 1", "5:6.5"]) == ((3.2, 4.1), (0.0, 1.0), (5.0, 6.5))


@pytest.mark.parametrize("span", ["", "3", "4-3", "3-3", "a-b", "-1-2", "1-nan", "1-2-3", "1--2"])
def test_a_span_that_is_none_is_a_usage_error(span):
    with pytest.raises(UsageError, match=r"as 3\.2-4\.1"):
        parse_spans([span])


# Channels


def test_middle_and_side_are_masked_like_left_and_right():
    middle, side = tone(1.5, 44100)[0], 0.3 * tone(1.5, 44100, hertz=3000)[0]
    separator = PatternSeparator(pattern=random_pattern, window=32000)
    [stereo] = separate_audio(separator, torch.stack([middle + side, middle - side]), 44100, ["a"])
    [parts] = separate_audio(separator, torch.stack([middle, side]), 44100, ["a"])
    left, right = stereo.target
    torch.testing.assert_close((left + right) / 2, parts.target[0], rtol=0, atol=1e-5)
    torch.testing.assert_close((left - right) / 2, parts.target[1], rtol=0, atol=1e-5)


class Listening(FakeSeparator):
    """Remembers what it was given to hear."""

    def separate(self, mixture, texts, options=None):
        self.heard = mixture[0].clone()
        return super().separate(mixture, texts, options)


def test_the_model_hears_the_middle_and_of_pure_side_the_louder_channel():
    wave, separator = tone(0.9, 16000)[0], Listening()
    for channels, expected in (
        ([wave, wave], wave),
        ([wave, torch.zeros_like(wave)], wave / 2),
        ([0.9 * wave, -wave], -wave),
        ([wave, -wave, 0.05 * wave], wave),
    ):
        recording = torch.stack(channels)
        [found] = separate_audio(separator, recording, 16000, ["a"])
        torch.testing.assert_close(separator.heard, expected)
        torch.testing.assert_close(found.target, recording, rtol=0, atol=1e-5)
