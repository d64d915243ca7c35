"""The seam metric: nothing where nothing jumps, the size of a jump where one was made; and the noise of windows."""

import json

import pytest
import soundfile
import torch

from flowsep.cli import main
from flowsep.evaluation.seams import jump, measure_seams, window_borders
from flowsep.flow.path import noise_along, seeded_noise
from flowsep.longform import separate_audio
from flowsep.protocol import SampleOptions
from flowsep.windows import Plan
from tests.fakes import FakeSeparator
from tests.tiny import PAPER, tiny_separator

RATE = 16000


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def test_a_jump_is_the_difference_of_the_means_on_both_sides():
    levels = torch.cat([torch.zeros(50, 2), torch.full((50, 2), 6.0)])
    found = jump(levels, 5)
    assert found[50 - 5] == 6.0 and found[:30].max() == 0 and found[-30:].max() == 0


def test_a_gain_that_jumps_at_the_borders_is_found_with_its_size_and_in_the_gain_it_stands_alone():
    wave, borders = noise(8.0), [2.0, 4.0, 6.0]
    stepped = wave.clone()
    stepped[2 * RATE : 4 * RATE] *= 0.5
    stepped[6 * RATE :] *= 0.5
    for seam in measure_seams(stepped, RATE, borders, wave):
        assert seam.level_at_borders == pytest.approx(6.02, abs=1.5) and seam.level_elsewhere < 0.5
        assert seam.spectrum_at_borders == pytest.approx(6.02, abs=1.5)
        assert seam.level_rank > 0.99 and seam.spectrum_rank > 0.99
    short, _ = measure_seams(stepped, RATE, borders)
    assert short.level_rank > 0.9


def test_what_has_no_seam_ranks_with_chance():
    seams = measure_seams(noise(40.0), RATE, [3.3 * k for k in range(1, 12)])
    assert all(0.2 < seam.level_rank < 0.8 and 0.2 < seam.spectrum_rank < 0.8 for seam in seams)


def test_without_a_border_there_is_nothing_to_measure():
    assert measure_seams(noise(1.0), RATE, []) == []


class Wavering(FakeSeparator):
    """Gives every window another gain: what joins have to hide."""

    def separate(self, mixture, texts, options=None):
        self.gain = lambda text: 0.9 if len(self.seen) % 2 else 0.3
        return super().separate(mixture, texts, options)


def hard_joins(plan: Plan, index: int, positions: torch.Tensor) -> torch.Tensor:
    """Weights that change over from one sample to the next."""
    middles = [RATE * border for border in window_borders(plan, RATE)]
    first, last = ([-1, *middles][index], [*middles, plan.length + 1][index])
    return ((positions >= first) & (positions < last)).double()


def test_fades_hide_a_gain_that_differs_between_windows_where_hard_joins_do_not(monkeypatch):
    wave = noise(20.0)
    borders = window_borders(Plan.of(FakeSeparator(), len(wave)), RATE)

    def seam():
        [found] = separate_audio(Wavering(), wave[None], RATE, ["a"], rows=1)
        return measure_seams(found.target[0], RATE, borders, wave)[0]

    faded = seam()
    monkeypatch.setattr(Plan, "weights", hard_joins)
    joined = seam()
    assert joined.level_at_borders > 1.5 * faded.level_at_borders and joined.level_rank > 0.95


def test_noise_depends_on_the_seed_and_the_place_alone():
    whole = noise_along((4, 900, 3), 7, 0)
    for first, count in ((0, 256), (100, 256), (255, 2), (300, 600), (512, 256)):
        assert torch.equal(noise_along((4, count, 3), 7, first), whole[:, first : first + count])
    assert torch.equal(whole[:, :256], seeded_noise((4, 256, 3), [7])[0])
    tiles = whole[:, :768].unflatten(1, (3, 256)).transpose(0, 1).flatten(1)
    assert (
        torch.corrcoef(torch.cat([tiles, noise_along((4, 256, 3), 8, 0).flatten()[None]])).fill_diagonal_(0).max() < 0.1
    )


def test_windows_of_a_recording_start_from_the_noise_of_their_place_in_any_batch():
    separator = tiny_separator(PAPER)
    seen = []
    kept = separator.generate
    separator.generate = lambda source, text, without, noise, *more: (
        seen.append(noise.clone()),
        kept(source, text, without, noise, *more),
    )[1]
    recording, options = noise(3.0)[None], SampleOptions(steps=1, seed=3)
    separate_audio(separator, recording, RATE, ["a dog"], options, rows=1)
    one_by_one = torch.cat(seen)
    seen.clear()
    [found] = separate_audio(separator, recording, RATE, ["a dog"], options, rows=4)
    assert len(seen) == 1 and torch.equal(seen[0], one_by_one)
    starts = Plan.of(separator, recording.shape[-1]).starts
    assert found.windows == len(starts) == len(one_by_one) == 3
    for start, drawn in zip(starts, one_by_one, strict=True):
        assert start % separator.noise_stride == 0
        assert torch.equal(drawn, noise_along(drawn.shape, 3, start // separator.noise_stride))


def test_the_benchmark_prints_the_seams_of_a_recording(tmp_path, separator, capfd):
    soundfile.write(tmp_path / "in.wav", noise(9.0).numpy(), RATE)
    assert main(["benchmark", "seams", str(tmp_path / "in.wav"), "--text", "a dog"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["windows"] == 10 and report["seams"][0]["level_at_borders"] < 0.01  # a constant gain
    soundfile.write(tmp_path / "short.wav", noise(0.5).numpy(), RATE)
    assert main(["benchmark", "seams", str(tmp_path / "short.wav"), "--text", "a dog"]) == 2
    assert "has no border" in capfd.readouterr().err
