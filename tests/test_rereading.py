from dataclasses import replace

import pytest
import torch

from flowsep.text import TextEncoder, build_t5
from flowsep.training.rereading import pooled, reread
from flowsep.unet import build_unet, call_unet
from tests.tiny import MIXTURE, TEXT, tiny_separator

TEXTS = [f"{a} {b}" for a in ("a dog", "rain", "a siren", "someone", "the roof") for b in ("barking", "falling", "is")]


@pytest.fixture
def before():
    return tiny_separator()


class Turned(TextEncoder):
    """An encoder whose states are those of another one, turned by a matrix."""

    def __init__(self, encoder, matrix):
        super().__init__(encoder.model, encoder.tokenizer, encoder.config)
        self.matrix = matrix

    def states(self, ids, mask):
        state = super().states(ids, mask)
        return replace(state, hidden=state.hidden @ self.matrix)


def call(unet, encoder, text):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2 * 16, 16, 16, generator=generator)
    return call_unet(unet, torch.tensor(0.5), x, x[:, :16], encoder.run([text]))


def fresh_unet(like):
    unet = build_unet(MIXTURE.unet, 2, 16, TEXT.d_model)
    unet.load_state_dict(like.unet.state_dict())
    return unet.eval().requires_grad_(False)


def test_a_network_says_the_same_to_an_encoder_whose_states_are_mapped(before, monkeypatch):
    monkeypatch.setattr("flowsep.training.rereading.RIDGE", 1e-9)
    matrix = torch.randn(TEXT.d_model, TEXT.d_model, generator=torch.Generator().manual_seed(3)) / 4
    now = Turned(before.text, matrix)
    # More texts than the states have numbers, so that the map is determined.
    texts = [*TEXTS, *(f"{a} and {b}" for a in TEXTS for b in TEXTS[:4])]
    unet = fresh_unet(before)
    expected = call(unet, before.text, "a dog is falling")
    assert not torch.allclose(call(unet, now, "a dog is falling"), expected, atol=1e-3)
    assert reread(unet, before.text, now, texts) > 0.999
    assert torch.allclose(call(unet, now, "a dog is falling"), expected, atol=1e-3)


def test_the_same_encoder_needs_no_rereading_and_moves_no_weight(before):
    unet = fresh_unet(before)
    assert reread(unet, before.text, before.text, TEXTS) is None
    after, first = unet.state_dict(), before.unet.state_dict()
    assert all(torch.equal(after[name], first[name]) for name in first)


def test_the_share_that_is_explained_is_less_than_all_of_an_unrelated_encoder(before):
    torch.manual_seed(9)
    now = TextEncoder(build_t5(TEXT), before.text.tokenizer, TEXT).eval().requires_grad_(False)
    few = pooled(now, TEXTS)
    assert few.shape == (len(TEXTS), TEXT.d_model)
    assert few.dtype == torch.float64
    assert 0.0 < reread(fresh_unet(before), before.text, now, TEXTS) < 1.0
