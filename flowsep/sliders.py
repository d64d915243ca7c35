"""A figure for notebooks: sliders for steps, guidance and seed, log-mels and players; without widgets it stands still.

What a page without a kernel or without ipywidgets shows is the same picture with the same players, as HTML.
"""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

from torch import Tensor

from flowsep.longform import LongSeparation, separate_audio
from flowsep.masks.separator import MaskSeparator
from flowsep.plot import plot_separation
from flowsep.protocol import SampleOptions, TextSeparator

MOST_STEPS, MOST_GUIDANCE, MOST_SEED = 32, 4.0, 20  # ends of the sliders
DOTS = 70  # per inch of the picture: a notebook stays small


def explore(
    separator: TextSeparator, audio: Tensor, sample_rate: int, text: str, options: SampleOptions | None = None
) -> Explorer:
    """The separation of audio (C, T) at `sample_rate` Hz by one query, as the last value of a notebook's cell.

    It begins with `options` (the model's own if not given). With ipywidgets (extra `notebook`) it has sliders for
    steps, guidance and seed, and each move separates anew; without, and for a mask separator, which has none of these,
    it is a picture with players. Errors as `separate_audio`.
    """
    return Explorer(separator, audio, sample_rate, text, options or SampleOptions())


class Explorer:
    """The present separation (`found`, under `options`), and its widgets (`box`, None where there are no sliders)."""

    def __init__(
        self, separator: TextSeparator, audio: Tensor, sample_rate: int, text: str, options: SampleOptions
    ) -> None:
        self.separator, self.audio, self.sample_rate, self.text = separator, audio, sample_rate, text
        self.options = replace(options, steps=options.steps or separator.defaults.steps)
        self.found, self.picture = self.separate()
        self.box, self.sliders = self.build_widgets()

    def separate(self) -> tuple[LongSeparation, bytes]:
        """What the present options give, and its picture as PNG."""
        [found] = separate_audio(self.separator, self.audio, self.sample_rate, [self.text], self.options)
        figure = plot_separation(self.audio, found.target, self.sample_rate, f"“{self.text}”: {self.settings(found)}")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=DOTS)
        return found, picture.getvalue()

    def settings(self, found: LongSeparation) -> str:
        """The settings in words, with what they cost."""
        chosen = f"{self.options.steps} step(s), guidance {self.options.guidance:g}, seed {self.options.seed}"
        return f"{chosen}; {found.nfe} network call(s)"

    def sounds(self) -> dict[str, bytes]:
        """Mixture, target and residual as flac files."""
        parts = {"mixture": self.audio, "target": self.found.target, "residual": self.found.residual}
        return {name: as_flac(part, self.sample_rate) for name, part in parts.items()}

    def build_widgets(self) -> tuple[Any, dict[str, Any]]:
        """The box to show and its sliders by name; (None, {}) without ipywidgets and for mask separators."""
        try:
            import ipywidgets
        except ImportError:
            return None, {}
        if isinstance(self.separator, MaskSeparator):
            return None, {}  # it has no settings to move
        calm = {"continuous_update": False}  # only when the hand lets go
        given = self.options
        sliders = {
            "steps": ipywidgets.IntSlider(given.steps, 1, max(MOST_STEPS, given.steps), description="steps", **calm),
            "guidance": ipywidgets.FloatSlider(
                given.guidance,
                min=0.0,
                max=max(MOST_GUIDANCE, given.guidance),
                step=0.25,
                description="guidance",
                **calm,
            ),
            "seed": ipywidgets.IntSlider(given.seed, 0, max(MOST_SEED, given.seed), description="seed", **calm),
        }
        picture = ipywidgets.Image(value=self.picture, format="png")
        players = {
            name: ipywidgets.Audio(value=sound, format="flac", autoplay=False, loop=False)
            for name, sound in self.sounds().items()
        }

        def moved(_: Any) -> None:
            self.options = replace(self.options, **{name: slider.value for name, slider in sliders.items()})
            self.found, self.picture = self.separate()
            picture.value = self.picture
            for name, sound in self.sounds().items():
                players[name].value = sound

        for slider in sliders.values():
            slider.observe(moved, names="value")
        rows = [ipywidgets.HBox([ipywidgets.Label(name), player]) for name, player in players.items()]
        return ipywidgets.VBox([*sliders.values(), picture, *rows]), sliders

    def html(self) -> str:
        """Picture and players without any script, for pages that have no kernel."""
        shown = f'<img src="{data_url("image/png", self.picture)}" alt="{self.settings(self.found)}">'
        players = [
            f'<p>{name}<br><audio controls src="{data_url("audio/flac", sound)}"></audio></p>'
            for name, sound in self.sounds().items()
        ]
        return "\n".join([shown, *players])

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """For the notebook: the widgets where they can be had; what cannot show them takes the HTML beside them."""
        widgets = {} if self.box is None else self.box._repr_mimebundle_(**kwargs)
        return {**widgets, "text/html": self.html(), "text/plain": f"{self.text!r}: {self.settings(self.found)}"}


def as_flac(audio: Tensor, sample_rate: int) -> bytes:
    """Audio (C, T) as a flac file of 16 bits; what is above full scale is clipped."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, audio.clamp(-1, 1).T.numpy(), sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def data_url(kind: str, content: bytes) -> str:
    """The content itself as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
