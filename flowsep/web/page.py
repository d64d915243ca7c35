"""The page itself: components of gradio, and what happens when somebody touches one. No audio code of its own."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from flowsep.errors import FlowSepError, InputError
from flowsep.files import LoadedModel
from flowsep.masks.separator import MaskSeparator
from flowsep.protocol import SampleOptions
from flowsep.web.examples import Example
from flowsep.web.local import keep_local
from flowsep.web.markup import notice, result_html
from flowsep.web.orders import (
    LOUDEST,
    MOST_STEPS,
    REMOVED,
    Limits,
    checked_recording,
    order_of_sentence,
    order_of_sounds,
    sampling,
    without_folder,
)
from flowsep.web.results import Stopped, carry_out
from flowsep.web.sessions import Sessions

SOUNDS, SENTENCE = "sounds", "sentence"
INTRODUCTION = (
    "<h1>Take a sound out of a recording</h1>"
    "<p>Say which sound in a few words, and hear it alone, the rest without it, and your own remix.</p>"
)
CANCELLED = "Cancelled; nothing is running now."
WAITING = 32  # people in the queue; the next one is told to come back
UPLOADS = (600, 6 * 3600)  # seconds: how often gradio looks at uploads, and at which age they go, page open or not


@dataclass(frozen=True)
class Page:
    """All that the answers need to know."""

    model: LoadedModel
    sessions: Sessions
    limits: Limits
    examples: Sequence[Example]

    def look(self, path: str | None, request: gr.Request) -> str:
        """What is to be said of a recording as soon as it is there."""
        if path is None:
            return ""
        with self.sessions.lock:
            self.sessions.of(request.session_hash).uploads.add(Path(path))
        try:
            recording, seconds = checked_recording(Path(path), self.limits)
        except Exception as error:
            return notice("error", spoken(error, Path(path)))
        channels = {1: "mono", 2: "stereo"}.get(recording.channels, f"{recording.channels} channels")
        facts = f"{seconds:.1f} seconds, {channels}, {recording.sample_rate / 1000:g} kHz"
        return notice("info", f"{recording.path.name}: {facts}")

    def run(
        self,
        path: str | None,
        mode: str,
        sentence: str,
        rest: float,
        steps: float | None,
        seed: float | None,
        *rows: Any,
        request: gr.Request,
        progress: gr.Progress,
    ) -> tuple[str, Any]:
        """Carry out what the page says; a line about it and the result, which stays as it was where there is none."""
        count = len(rows) // 2
        try:
            options = sampling(steps, seed, self.model.separator.defaults or SampleOptions())
            if mode == SENTENCE:
                order = order_of_sentence(sentence, options, self.limits)
            else:
                order = order_of_sounds(rows[:count], rows[count:], rest, options, self.limits)
            if path is None:
                raise InputError("There is no recording yet; upload a file, record one, or take an example")
            with self.sessions.run(request.session_hash) as (folder, stop), self.sessions.slots:
                taken = self.sessions.take(request.session_hash, Path(path), folder)
                recording, seconds = checked_recording(taken, self.limits)
                result = carry_out(self.model, recording, order, folder, progress, stop)
        except Stopped:
            return notice("info", CANCELLED), gr.skip()
        except Exception as error:
            return notice("error", spoken(error, None if path is None else Path(path))), gr.skip()
        return notice("done", f"{seconds:.1f} seconds of sound; the result is below."), result_html(result)

    def cancel(self, request: gr.Request) -> str:
        """Stop the run of this page."""
        self.sessions.cancel(request.session_hash)
        return notice("info", CANCELLED)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.sessions.close(request.session_hash)


def spoken(error: Exception, path: Path | None) -> str:
    """One line for the page; what nobody foresaw goes to the terminal with its traceback."""
    from flowsep.cli import explain

    if not isinstance(error, FlowSepError):
        traceback.print_exception(error, file=sys.stderr)
    line, _ = explain(error)
    line = without_folder(line, path) if path is not None else line
    return line.replace(" (run again with -v for the traceback)", "; the terminal that runs the page has the details")


def build(page: Page) -> gr.Blocks:
    """The page as gradio has it; `flowsep.web.server` serves it."""
    with gr.Blocks(title="FlowSep", analytics_enabled=False, delete_cache=UPLOADS) as blocks:
        gr.HTML(INTRODUCTION, elem_classes="top")
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320, scale=4):
                recording, about, buttons = recording_column(page)
            with gr.Column(min_width=320, scale=5):
                controls = wishes_column(page)
                with gr.Row():
                    run = gr.Button("Separate", variant="primary", elem_id="run", scale=3, min_width=160)
                    cancel = gr.Button("Cancel", elem_id="cancel", scale=1, min_width=100)
                status = gr.HTML(elem_id="status")
        result = gr.HTML(elem_id="result")

        def work(request: gr.Request, progress: gr.Progress = gr.Progress(), *values: Any) -> tuple[str, Any]:  # noqa: B008
            return page.run(*values, request=request, progress=progress)

        recording.change(page.look, recording, about, queue=False, show_progress="hidden")
        inputs = [recording, *controls.inputs()]
        starts = [run.click, *(text.submit for text in controls.texts)]
        running = gr.on(starts, work, inputs, [status, result], show_progress_on=[status])
        cancel.click(page.cancel, None, status, cancels=[running], queue=False, show_progress="hidden")
        for button, example in zip(buttons, page.examples, strict=True):
            button.click(
                lambda example=example: controls.filled(example), None, [recording, *controls.fillable()], queue=False
            )
        blocks.unload(page.leave)
    keep_local(blocks)
    blocks.queue(max_size=WAITING, default_concurrency_limit=page.sessions.jobs, api_open=False)
    return blocks


def recording_column(page: Page) -> tuple[gr.Audio, gr.HTML, list[gr.Button]]:
    """The recording, what is said of it, and the examples."""
    gr.HTML("<h2>1. A recording</h2>", elem_classes="step")
    recording = gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label="Recording",
        elem_id="recording",
        buttons=[],
        editable=False,
    )
    about = gr.HTML(elem_id="about")
    limits = page.limits
    gr.HTML(
        f'<p class="small">Up to {limits.minutes:g} minutes and {limits.megabytes:g} MB: wav, flac, ogg, opus, mp3. '
        "Or try one of these:</p>"
    )
    with gr.Row():
        buttons = [gr.Button(example.title, size="sm", min_width=120) for example in page.examples]
    return recording, about, buttons


@dataclass(frozen=True)
class Controls:
    """What the right column holds."""

    mode: gr.Textbox
    sentence: gr.Textbox
    rest: gr.Slider
    steps: gr.Slider
    seed: gr.Number
    rows: list[gr.Row]
    texts: list[gr.Textbox]
    gains: list[gr.Slider]
    shown: gr.State  # how many rows can be seen
    add: gr.Button

    def inputs(self) -> list[Any]:
        """In the order in which `Page.run` takes them."""
        return [self.mode, self.sentence, self.rest, self.steps, self.seed, *self.texts, *self.gains]

    def fillable(self) -> list[Any]:
        """What an example sets, beside the recording."""
        return [self.sentence, self.rest, *self.row_outputs(), *self.texts, *self.gains]

    def row_outputs(self) -> list[Any]:
        """What `seen` is for."""
        return [self.shown, self.add, *self.rows]

    def seen(self, count: int) -> list[Any]:
        """`count` rows, at most all, and the button for another one where there is one."""
        most = len(self.rows)
        count = min(count, most)
        return [
            count,
            gr.update(interactive=count < most),
            *(gr.update(visible=index < count) for index in range(most)),
        ]

    def filled(self, example: Example) -> list[Any]:
        """The values of an example, the recording first."""
        empty = len(self.rows) - 1
        texts, gains = [example.sound, *[""] * empty], [example.gain, *[REMOVED] * empty]
        return [str(example.path), example.sentence, 0, *self.seen(1), *texts, *gains]


def wishes_column(page: Page) -> Controls:
    """Sounds with sliders or one sentence, and the advanced drawer."""
    gr.HTML("<h2>2. What to do with it</h2>", elem_classes="step")
    mode = gr.Textbox(SOUNDS, visible=False)
    with gr.Tabs():
        with gr.Tab("Sounds", id=SOUNDS) as sounds_tab:
            gr.HTML(f'<p class="small">{REMOVED:g} dB removes a sound, 0 leaves it as it is.</p>')
            rows, texts, gains = sound_rows(page)
            shown = gr.State(1)
            add = gr.Button(f"Add a sound (up to {len(rows)})", size="sm", elem_id="add")
            rest = gr.Slider(REMOVED, LOUDEST, 0, step=1, label="Everything else: change in dB", elem_id="rest")
        with gr.Tab("One sentence", id=SENTENCE) as sentence_tab:
            sentence = gr.Textbox(
                label="What to do",
                placeholder="remove the dog, turn the rain down by 6 dB and keep the speech",
                info="English. Remove, keep only, turn up or down by dB, slightly, by half. "
                "What was understood is shown with the result.",
                lines=2,
                max_length=1000,
                elem_id="sentence",
            )
    for tab, value in ((sounds_tab, SOUNDS), (sentence_tab, SENTENCE)):
        tab.select(None, None, mode, js=f"() => '{value}'")
    sampled = not isinstance(page.model.separator, MaskSeparator)  # a mask separator has no steps and no seed
    with gr.Accordion("Advanced", open=False, elem_id="advanced", visible=sampled), gr.Row():
        usual = page.model.separator.defaults.steps or 1
        steps = gr.Slider(1, max(MOST_STEPS, usual), usual, step=1, label="Steps", info="More take longer.")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, info="Another seed, another try.")
    controls = Controls(mode, sentence, rest, steps, seed, rows, texts, gains, shown, add)
    add.click(
        lambda count: controls.seen(count + 1), shown, controls.row_outputs(), queue=False, show_progress="hidden"
    )
    return controls


def sound_rows(page: Page) -> tuple[list[gr.Row], list[gr.Textbox], list[gr.Slider]]:
    """As many descriptions with sliders as are allowed, of which the first is seen."""
    rows, texts, gains = [], [], []
    for index in range(page.limits.sounds):
        with gr.Row(visible=index == 0, equal_height=True) as row:
            number = f"{index + 1}" if index else ""
            texts.append(
                gr.Textbox(
                    label=f"Sound {number}".strip(),
                    placeholder="a dog barking",
                    max_length=1000,
                    scale=3,
                    min_width=180,
                    elem_id=f"sound-{index}",
                )
            )
            gains.append(
                gr.Slider(
                    REMOVED,
                    LOUDEST,
                    REMOVED,
                    step=1,
                    label="Change in dB",
                    scale=4,
                    min_width=220,
                    elem_id=f"gain-{index}",
                )
            )
        rows.append(row)
    return rows, texts, gains


def asset(name: str) -> str:
    """The text of a file beside this one."""
    return files("flowsep.web").joinpath(name).read_text(encoding="utf-8")
