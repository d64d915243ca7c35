"""Every fast path gives what the plain one does, for whole separators: the measures are only another order of sums."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from flowsep.attention import KEPT, TextOnce
from flowsep.protocol import SampleOptions
from flowsep.text import TextState
from flowsep.unet import call_unet
from tests.tiny import DIFFUSION, MIXTURE, PAPER, tiny_separator
from vae import attention, products, winograd
from vae.winograd import WinogradConv2d
from vocoder.measures import PLAIN, Measures, measures, using

TEXTS = ["a dog barking", "rain", "a siren wails, someone is speaking and rain is falling"]  # masks of three lengths
SINGLE = [replace(PLAIN, **{field.name: True}) for field in fields(Measures)]
CASES = [
    (PAPER, SampleOptions(steps=3)),
    (PAPER, SampleOptions(steps=2, guidance=2.5)),
    (PAPER, SampleOptions(steps=3, guidance=2.5, guidance_interval=(0.2, 0.5), negative="rain on a roof")),
    (PAPER, SampleOptions(steps=2, solver="midpoint", render="mixture", candidates=2)),
    (MIXTURE, SampleOptions(steps=2, guidance=2.5)),
    (DIFFUSION, SampleOptions(steps=2, guidance=2.5)),
]


@pytest.fixture(autouse=True)
def small_shapes_count(monkeypatch):
    """The fast convolution at the sizes of the tiny models."""
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 1)
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(products, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(attention, "LEAST_PLACES", 1)


def run(separator, mixture, options, chosen):
    with using(chosen):
        return separator.separate(mixture, TEXTS[: len(mixture)], options)


@pytest.mark.parametrize(("config", "options"), CASES)
def test_all_measures_together_equal_the_plain_path(config, options):
    separator = tiny_separator(config)
    torch.manual_seed(1)
    for batch, samples in ((3, 7001), (1, 20480 if config is not DIFFUSION else 5000), (2, 333), (3, 7001)):
        mixture = 0.1 * torch.randn(batch, samples)
        expected, found = (run(separator, mixture, options, chosen) for chosen in (PLAIN, Measures()))
        assert found.target.shape == mixture.shape and found.nfe == expected.nfe
        torch.testing.assert_close(found.target, expected.target, rtol=0, atol=2e-5)


@pytest.mark.parametrize("chosen", SINGLE)
def test_each_measure_alone_equals_the_plain_path(chosen):
    separator, mixture, options = (
        tiny_separator(PAPER),
        0.1 * torch.randn(3, 5001),
        SampleOptions(steps=2, guidance=2.5),
    )
    expected, found = (run(separator, mixture, options, one).target for one in (PLAIN, chosen))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_the_switch_holds_within_its_context_and_all_measures_are_on_by_default():
    assert measures() == Measures() and all(vars(measures()).values()) and not any(vars(PLAIN).values())
    with pytest.raises(RuntimeError), using(PLAIN):
        assert measures() == PLAIN
        raise RuntimeError
    assert measures() == Measures()


def test_an_item_of_a_batch_is_what_it_is_alone():
    separator, options = tiny_separator(PAPER), SampleOptions(steps=2, guidance=2.5)
    mixture = 0.1 * torch.randn(3, 5001)
    batch = separator.separate(mixture, TEXTS, options).target
    for row in range(3):
        alone = separator.separate(mixture[row : row + 1], TEXTS[row : row + 1], options).target
        torch.testing.assert_close(batch[row : row + 1], alone, rtol=0, atol=2e-5)


def test_half_precision_stays_near_the_plain_one():
    separator, mixture = tiny_separator(PAPER), 0.1 * torch.randn(2, 5001)
    options = SampleOptions(steps=2)
    exact = run(separator, mixture, options, PLAIN).target
    separator.to(torch.bfloat16)
    errors = [(run(separator, mixture, options, one).target - exact).abs().mean() for one in (Measures(), PLAIN)]
    assert errors[0] < 2 * errors[1]


def text_state(seed: int) -> TextState:
    torch.manual_seed(seed)
    return TextState(torch.randn(1, 5, 16), torch.ones(1, 5))


@torch.no_grad()
def test_keys_and_values_of_a_text_are_computed_once_for_all_steps():
    unet = tiny_separator(PAPER).unet
    attentions = [module for module in unet.modules() if hasattr(module, "processor")]
    keeping = [module for module in attentions if isinstance(module.processor, TextOnce)]
    assert 0 < len(keeping) < len(attentions)  # those on a text, not those on the latent itself
    calls = []
    for module in keeping:
        module.to_k.register_forward_hook(lambda *_: calls.append(1))
    text, other = text_state(0), text_state(1)
    state, source = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 16, 16)
    outputs = [call_unet(unet, torch.tensor(t), state, source, text) for t in (0.0, 0.5)]
    assert len(calls) == len(keeping) and not torch.equal(*outputs)
    call_unet(unet, torch.tensor(0.0), state, source, other)  # as guidance does
    assert torch.equal(call_unet(unet, torch.tensor(0.0), state, source, text), outputs[0])
    assert len(calls) == 2 * len(keeping)
    assert all(len(module.processor.kept) <= KEPT for module in keeping)
    with using(PLAIN):
        plain = call_unet(unet, torch.tensor(0.0), state, source, text)
    torch.testing.assert_close(outputs[0], plain, rtol=0, atol=2e-5)


def test_training_computes_the_text_anew_and_its_weights_learn():
    unet = tiny_separator(PAPER).unet.requires_grad_(True)
    text = text_state(0)
    for _ in range(2):
        call_unet(unet, torch.tensor(0.5), torch.randn(1, 4, 16, 16), torch.randn(1, 4, 16, 16), text).sum().backward()
    keeping = [m for m in unet.modules() if isinstance(getattr(m, "processor", None), TextOnce)]
    assert all(module.to_k.weight.grad.abs().sum() > 0 and not module.processor.kept for module in keeping)


def test_a_model_is_saved_and_loaded_as_if_it_were_plain(tmp_path):
    separator = tiny_separator(PAPER)
    separator.save_pretrained(tmp_path / "model")
    loaded = type(separator).from_pretrained(tmp_path / "model", device="cpu")
    for part in (loaded.unet, loaded.codec):
        assert any(isinstance(module, WinogradConv2d) for module in part.modules())
    mixture = 0.1 * torch.randn(1, 3000)
    for chosen in (PLAIN, Measures()):
        expected, found = (run(one, mixture, SampleOptions(), chosen).target for one in (separator, loaded))
        assert torch.equal(found, expected)
