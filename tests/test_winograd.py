"""The fast 3 x 3 convolution equals the direct one, for every shape, and stands back where it must."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from vae import winograd
from vae.winograd import WinogradConv2d, use_winograd
from vocoder.measures import PLAIN, using


@pytest.fixture(autouse=True)
def small_shapes_count(monkeypatch):
    """Shapes that a test can afford."""
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 1)
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)


def convolution(inputs: int = 5, outputs: int = 7, bias: bool = True) -> WinogradConv2d:
    """A replaced convolution with the same weights each time."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias))
    use_winograd(network)
    assert type(network[0]) is WinogradConv2d
    return network[0]


def both(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the fast path gives, and what the direct one does in float64."""
    with torch.no_grad():
        found = layer(x.to(layer.weight.dtype))
        expected = nn.functional.conv2d(
            x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double(), padding=1
        )
    return found, expected


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (5, 7), (16, 16), (33, 6), (3, 64)])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_size_equals_the_direct_convolution(size, batch):
    layer, x = convolution(), torch.randn(batch, 5, *size)
    found, expected = both(layer, x)
    assert found.shape == expected.shape and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_an_item_does_not_depend_on_its_batch_nor_on_the_order_in_memory():
    layer, x = convolution(16, 16), torch.randn(3, 16, 24, 16)
    with torch.no_grad():
        whole = layer(x)
        assert torch.equal(whole[1:2], layer(x[1:2]))
        assert torch.equal(whole, layer(x.to(memory_format=torch.channels_last)))
        assert torch.equal(whole, layer(x.transpose(2, 3).contiguous().transpose(2, 3)))


def test_several_blocks_of_tiles_change_nothing(monkeypatch):
    layer, x = convolution(), torch.randn(1, 5, 40, 12)
    with torch.no_grad():
        whole = layer(x)
        monkeypatch.setattr(winograd, "TILES_AT_ONCE", 7)
        torch.testing.assert_close(layer(x), whole, rtol=0, atol=1e-6)


def test_without_a_bias():
    found, expected = both(convolution(bias=False), torch.randn(1, 5, 9, 9))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_half_precision_takes_the_direct_convolution():
    layer, x = convolution(64, 64).bfloat16(), torch.randn(1, 64, 32, 16).bfloat16()
    with torch.no_grad():
        found = layer(x)
        with using(PLAIN):
            assert torch.equal(found, layer(x))


def test_the_points_of_the_large_tile_lose_less_than_the_usual_ones(monkeypatch):
    layer, x = convolution(128, 8), torch.randn(1, 128, 64, 16)

    def error() -> float:
        winograd.matrices.cache_clear()
        winograd.products.cache_clear()
        layer.kept = None
        found, expected = both(layer, x)
        return (found.double() - expected).square().mean().sqrt().item()

    chosen = error()
    monkeypatch.setattr(winograd, "POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    usual = error()
    monkeypatch.undo()
    winograd.matrices.cache_clear()
    winograd.products.cache_clear()
    assert chosen < 0.7 * usual


def test_weights_that_change_are_transformed_again():
    layer, x = convolution(), torch.randn(1, 5, 8, 8)
    both(layer, x)
    with torch.no_grad():
        layer.weight.mul_(-2.0)
    found, expected = both(layer, x)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})
    found, expected = both(layer, x)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    found, expected = both(layer.double(), x.double())
    assert torch.equal(found, expected)  # a precision without a fast path


def test_training_and_the_switch_take_the_direct_convolution():
    layer, x = convolution(), torch.randn(1, 5, 8, 8)
    direct = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    assert torch.equal(layer(x), direct)
    layer(x).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    with torch.no_grad(), using(PLAIN):
        assert torch.equal(layer(x), direct)
    with torch.no_grad():
        assert not torch.equal(layer(x), direct)


def test_only_usual_convolutions_are_replaced_and_names_stay():
    network = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)),
    )
    names, first = list(network.state_dict()), network[0].weight
    use_winograd(network)
    use_winograd(network)
    kinds = [type(module) is WinogradConv2d for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert kinds == [True, False, False, False, False, True]
    assert list(network.state_dict()) == names and network[0].weight is first


def test_the_memory_between_the_products_serves_every_shape_mode_and_thread():
    layer, others = convolution(), torch.randn(4, 5, 12, 8)
    inputs = [torch.randn(1, 5, 40, 40), *others[:, None], torch.randn(2, 5, 44, 40)]
    with torch.inference_mode():
        first = [layer(x) for x in inputs]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        second = [layer(x) for x in inputs]
        third = list(pool.map(layer, inputs * 5))  # grad mode is each thread's own: these are in training
        fourth = list(pool.map(torch.no_grad()(layer), inputs * 5))
    for x, *found in zip(inputs * 5, third, fourth, first * 5, second * 5, strict=True):
        expected = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
        assert all(torch.allclose(one, expected, rtol=0, atol=1e-5) for one in found)
