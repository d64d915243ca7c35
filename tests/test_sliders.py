"""The interactive figure of the notebooks: a moved slider separates anew, and without widgets nothing is lost."""

from __future__ import annotations

import base64
import builtins
import io
import re
from dataclasses import dataclass

import pytest
import soundfile
import torch

from flowsep import SampleOptions, explore
from flowsep.protocol import Separation
from tests.fakes import FakeSeparator, tone

RATE = 22050


@dataclass
class SettingsSeparator(FakeSeparator):
    """A target whose level tells the settings apart."""

    def separate(self, mixture, texts, options=None) -> Separation:
        """As `FakeSeparator`, with a gain that each setting moves."""
        level = 0.01 * options.steps + 0.1 * options.guidance + 0.001 * options.seed
        self.gain = lambda text: level
        found = super().separate(mixture, texts, options)
        found.nfe = options.steps
        return found


@pytest.fixture
def audio():
    return tone(0.9, RATE)


def level(explorer) -> float:
    return float((explorer.found.target * explorer.audio).sum() / explorer.audio.square().sum())


def test_moving_a_slider_separates_draws_and_plays_anew(audio):
    pytest.importorskip("ipywidgets")
    explorer = explore(SettingsSeparator(), audio, RATE, "a dog", SampleOptions(steps=3))
    assert level(explorer) == pytest.approx(0.13, abs=1e-3)
    assert set(explorer.sliders) == {"steps", "guidance", "seed"} and explorer.sliders["steps"].value == 3
    _, _, _, picture, *rows = explorer.box.children
    players = {row.children[0].value: row.children[1] for row in rows}
    assert set(players) == {"mixture", "target", "residual"}
    for name, value, wanted in (("steps", 8, 0.18), ("guidance", 2.0, 0.28), ("seed", 5, 0.285)):
        before = picture.value, players["target"].value, players["mixture"].value
        explorer.sliders[name].value = value
        assert level(explorer) == pytest.approx(wanted, abs=1e-3) and getattr(explorer.options, name) == value
        assert picture.value != before[0] and players["mixture"].value == before[2]
        heard, rate = soundfile.read(io.BytesIO(players["target"].value), dtype="float32")
        assert rate == RATE and players["target"].value != before[1]
        torch.testing.assert_close(torch.from_numpy(heard)[None], explorer.found.target, rtol=0, atol=2**-14)
    assert explorer.found.nfe == 8


def test_pages_without_a_kernel_show_the_same_picture_and_players(audio):
    pytest.importorskip("ipywidgets")
    explorer = explore(SettingsSeparator(), audio, RATE, "a dog")
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and bundle["text/html"] == explorer.html()
    explorer.sliders["seed"].value = 3
    assert "seed 3" in explorer._repr_mimebundle_()["text/plain"]


def test_without_ipywidgets_a_picture_with_players_stands_still(audio, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "ipywidgets":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    explorer = explore(SettingsSeparator(), audio, RATE, "a dog", SampleOptions(steps=3, seed=2))
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"} and explorer.sliders == {}
    assert bundle["text/plain"] == "'a dog': 3 step(s), guidance 1, seed 2; 3 network call(s)"
    found = [
        base64.b64decode(text) for text in re.findall(r'src="data:[a-z]+/[a-z]+;base64,([^"]+)"', bundle["text/html"])
    ]
    assert len(found) == 4 and found[0].startswith(b"\x89PNG")
    mixture, target, residual = (soundfile.read(io.BytesIO(sound))[0] for sound in found[1:])
    assert abs(mixture - target - residual).max() < 2**-13  # rounded to 16 bits
    assert "<script" not in bundle["text/html"]


def test_a_mask_separator_has_nothing_to_move(audio):
    from tests.tiny_masks import tiny_masker

    explorer = explore(tiny_masker("t5"), audio, RATE, "a dog")
    assert explorer.sliders == {} and set(explorer._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert explorer.found.nfe == 1


def test_a_real_model_begins_with_its_own_settings(audio):
    from tests.tiny import tiny_separator

    separator = tiny_separator()
    explorer = explore(separator, audio, RATE, "a dog")
    assert explorer.options.steps == separator.defaults.steps == explorer.found.nfe
