"""The page over a mask separator, which has neither steps nor seed."""

from __future__ import annotations

import pytest
import soundfile

from flowsep.files import LoadedModel
from flowsep.web.orders import Limits, order_of_sounds, sampling
from flowsep.web.sessions import Sessions
from tests.fakes import FakeSeparator, tone
from tests.test_web import carried_out
from tests.tiny_masks import tiny_masker

LIMITS = Limits()


def test_a_mask_separator_serves_the_page_without_steps_and_seed(tmp_path):
    gradio = pytest.importorskip("gradio")
    from flowsep.web.page import Page, build

    masker = LoadedModel(tiny_masker("t5"), "tiny")
    drawers = {}
    sessions = Sessions()
    for loaded in (masker, LoadedModel(FakeSeparator(), "fake")):
        page = build(Page(loaded, sessions, LIMITS, []))
        [drawers[loaded.id]] = [one for one in page.blocks.values() if isinstance(one, gradio.Accordion)]
    assert (drawers["tiny"].visible, drawers["fake"].visible) == (False, True)
    sessions.close_all()
    soundfile.write(tmp_path / "in.wav", tone(0.7, 22050, 2).T.numpy(), 22050, subtype="PCM_16")
    order = order_of_sounds(["a dog"], [-6.0], 0, sampling(1, 0, masker.separator.defaults), LIMITS)
    result, _ = carried_out(masker, tmp_path / "in.wav", order, tmp_path / "out")
    assert result.archive.is_file() and result.document["params"]["nfe"] == 1
