"""The figure of a separation, judged by its artists: what is drawn where, in which units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowsep import find_segments, plot_separation
from flowsep.activity import SegmentRule
from flowsep.cli import main
from flowsep.errors import InputError
from flowsep.plot import DYNAMIC_RANGE, HZ_TICKS
from tests.fakes import FakeSeparator, tone

RATE = 22050
SECONDS = 6.0
ON = ((1.0, 2.5), (4.0, 4.6))


@pytest.fixture(scope="module")
def sounds() -> tuple[torch.Tensor, torch.Tensor]:
    """Mixture and target (2, T): a tone of 1 kHz that is on twice, in a noise 20 dB below it."""
    times = torch.arange(round(SECONDS * RATE)) / RATE
    gate = sum(((times >= start) & (times < end)).float() for start, end in ON)
    target = (0.3 * gate * torch.sin(2 * torch.pi * 1000 * times)).expand(2, -1)
    noise = 0.02 * torch.randn(2, len(times), generator=torch.Generator().manual_seed(0))
    return target + noise, target


@pytest.fixture(scope="module")
def figure(sounds):
    return plot_separation(*sounds, RATE, title="a tone")


def axes_by_title(figure):
    return {axis.get_title(loc="left"): axis for axis in figure.axes}


def test_three_panels_share_seconds_and_one_scale_in_decibels(figure):
    axes = axes_by_title(figure)
    panels = [axes[name] for name in ("mixture", "target", "residual")]
    images = [axis.images[0] for axis in panels]
    assert len({image.get_clim() for image in images}) == 1
    low, high = images[0].get_clim()
    assert high - low == DYNAMIC_RANGE and high == max(float(image.get_array().max()) for image in images)
    for axis, image in zip(panels, images, strict=True):
        assert image.get_extent()[:2] == [0, SECONDS] == list(axis.get_xlim())
        assert image.get_array().shape == (64, round(SECONDS * 100) + 1)
        assert axis.get_ylabel() == "frequency (Hz)"
    assert panels[-1].get_xlabel() == "time (s)"
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_title(loc="left") == ""] == ["mel band level (dB)"]


def test_ticks_stand_at_their_frequencies_on_a_mel_spaced_axis(figure):
    axis = axes_by_title(figure)["target"]
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"{hz}" for hz in HZ_TICKS]
    positions = dict(zip(HZ_TICKS, axis.get_yticks(), strict=True))
    while_on = axis.images[0].get_array()[:, 150:200].mean(axis=1)
    assert int(while_on.argmax()) == pytest.approx(positions[1000], abs=0.6)  # the tone lies at its tick
    assert positions[500] - positions[250] < positions[4000] - positions[2000]  # linear below 1 kHz, octaves above
    assert positions[4000] - positions[2000] == pytest.approx(positions[2000] - positions[1000], rel=0.05)


def bars(figure):
    [strip] = [axis for axis in figure.axes if axis.get_title(loc="left").startswith("target ") and not axis.images]
    boxes = [path.get_extents() for collection in strip.collections for path in collection.get_paths()]
    return strip, [(box.x0, box.x1) for box in boxes]


def test_the_strip_marks_when_the_target_is_active_as_segments_finds_it(figure, sounds):
    strip, marked = bars(figure)
    assert marked == [pytest.approx(times, abs=0.05) for times in ON]
    assert strip.get_title(loc="left") == "target active"
    panel = axes_by_title(figure)["target"]
    assert strip.get_xlim() == panel.get_xlim()
    mixture, _ = sounds
    [found] = find_segments(FakeSeparator(), mixture, RATE, ["all of it"])
    assert bars(plot_separation(mixture, mixture, RATE))[1] == [pytest.approx((one.start, one.end)) for one in found]


def test_the_rule_decides_and_a_target_that_is_not_there_is_said_to_be_never_active(sounds):
    mixture, target = sounds
    assert bars(plot_separation(mixture, target, RATE, rule=SegmentRule(min_duration=1.0)))[1] == [
        pytest.approx(ON[0], abs=0.05)
    ]
    strip, marked = bars(plot_separation(mixture, torch.zeros_like(target), RATE))
    assert marked == [] and strip.get_title(loc="left") == "target never active"


def test_the_picture_reads_in_grey(figure):
    for axis in (axes_by_title(figure)[name] for name in ("mixture", "target", "residual")):
        red, green, blue, _ = axis.images[0].get_cmap()(np.linspace(0, 1, 64)).T
        grey = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2  # relative luminance
        assert (np.diff(grey) > 0).all() and grey[0] < 0.01 and grey[-1] > 0.9
    strip, _ = bars(figure)
    colours = {tuple(collection.get_facecolor()[0]) for collection in strip.collections}
    assert colours == {(0, 0, 0, 1)} and strip.get_facecolor() == (1, 1, 1, 1)


def test_an_excerpt_keeps_the_seconds_of_its_recording(tmp_path, mixture, separator, monkeypatch):
    drawn = []
    original = __import__("flowsep.plot", fromlist=["separation_figure"]).separation_figure
    monkeypatch.setattr("flowsep.plot.separation_figure", lambda *a, **k: drawn.append(original(*a, **k)) or drawn[-1])
    arguments = ["separate", str(mixture), "--text", "a dog", "--start", "0.5", "--end", "2", "--plot", "-q"]
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    assert axes_by_title(drawn[0])["target"].images[0].get_extent()[:2] == [0.5, 2.0]
    assert bars(drawn[0])[1] == [pytest.approx((0.5, 2.0))]
    assert next(tmp_path.glob("*.png")).stat().st_size > 10_000


def test_what_cannot_be_drawn_says_why():
    with pytest.raises(InputError, match=r"\(1, 16000\) and target \(1, 8000\) differ in shape"):
        plot_separation(tone(1, 16000), tone(0.5, 16000), 16000)
    with pytest.raises(InputError, match="must be"):
        plot_separation(torch.zeros(16000), torch.zeros(16000), 16000)
    for bad in (0, 1):
        with pytest.raises(InputError, match="NaN"):
            plot_separation(*[torch.full((1, 16000), torch.nan) if n == bad else tone(1, 16000) for n in (0, 1)], 16000)
