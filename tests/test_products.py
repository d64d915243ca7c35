"""The forms that need no re-ordering, no fresh memory and no float32 scores equal the layers that they stand for."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from torch import nn

from flowsep.attention import seen
from flowsep.gated import keep_gated
from vae import attention, products
from vae.attention import ByProducts, block_attention, blocked_attention
from vae.model import CodecConfig, MelVAE
from vae.products import PointwiseConv2d, by_columns, use_products
from vocoder.measures import PLAIN, Measures, using


def same(layer: nn.Module, x: torch.Tensor, tolerance: float = 1e-5) -> torch.Tensor:
    """The result of all measures, which must be that of none."""
    with torch.inference_mode():
        found = layer(x)
        with using(PLAIN):
            torch.testing.assert_close(found, layer(x), rtol=0, atol=tolerance)
    return found


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_pointwise_convolution_equals_the_plain_one_in_every_order_in_memory(batch, bias):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(5, 7, 1, bias=bias))
    expected = network.state_dict()
    use_products(network)
    assert type(network[0]) is PointwiseConv2d and network.state_dict().keys() == expected.keys()
    x = torch.randn(batch, 5, 6, 3)
    assert same(network, x).is_contiguous()
    assert same(network, x.to(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)
    same(network, x.transpose(2, 3))
    same(network, x[:, :, ::2])


def test_convolutions_of_other_kinds_stay():
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1, groups=2))
    use_products(network)
    assert all(type(layer) is nn.Conv2d for layer in network)


@pytest.mark.parametrize("shape", [(1, 4, 8, 2), (3, 4, 5, 3), (2, 1, 1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_few_places_by_columns_equal_the_plain_convolution(shape, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(shape[1], 6, 3, padding=1, bias=bias)
    x = torch.randn(shape)
    with torch.inference_mode():
        found = by_columns(x, plain.weight, plain.bias)
        torch.testing.assert_close(found, plain(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(by_columns(x.transpose(2, 3), plain.weight, plain.bias), plain(x.transpose(2, 3)))
    assert found.is_contiguous()


def test_columns_are_for_few_places_many_weights_and_inference(monkeypatch):
    monkeypatch.setattr(products, "LEAST_WEIGHTS", 9)
    weight = torch.randn(1, 1, 3, 3)
    with torch.no_grad():
        assert products.few_places(torch.ones(1, 1, 8, 16), weight)
        assert not products.few_places(torch.ones(2, 1, 8, 16), weight)
        assert not products.few_places(torch.ones(1, 1, 8, 16).bfloat16(), weight)
        with using(Measures(products=False)):
            assert not products.few_places(torch.ones(1, 1, 8, 16), weight)
    assert not products.few_places(torch.ones(1, 1, 8, 16), weight)
    monkeypatch.undo()
    with torch.no_grad():
        assert not products.few_places(torch.ones(1, 1, 8, 16), weight)


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 9, 4), (3, 4)])
def test_a_gated_layer_equals_the_plain_one_whatever_was_there_before(shape):
    torch.manual_seed(0)
    network = nn.Sequential(GEGLU(4, 6), nn.Linear(6, 4))
    keep_gated(network)
    for _ in range(2):
        same(nn.Sequential(network, network), torch.randn(shape))
    x = torch.randn(shape, requires_grad=True)
    network(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("places", [1, 7, 64])
def test_blocked_attention_is_attention_in_blocks_of_any_size(places, monkeypatch):
    monkeypatch.setattr(attention, "SCORES", 4 * places)  # four rows at once
    torch.manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 3, places, 8)
    expected = nn.functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(blocked_attention(queries, keys, values), expected, rtol=0, atol=1e-5)
    half = blocked_attention(*(x.bfloat16() for x in (queries, keys, values)))
    assert half.dtype == torch.bfloat16 and (half.float() - expected).abs().max() < 0.03


@pytest.mark.parametrize("four", [False, True])
def test_an_attention_layer_in_half_precision_is_as_near_to_full_precision_as_the_plain_one(four, monkeypatch):
    monkeypatch.setattr(attention, "LEAST_PLACES", 32)
    torch.manual_seed(0)
    groups = 4 if four else None
    layer = Attention(
        16, heads=2, dim_head=8, norm_num_groups=groups, residual_connection=four, rescale_output_factor=2
    )
    block_attention(layer)
    assert type(layer.processor) is ByProducts
    x = torch.randn(2, 16, 8, 8) if four else torch.randn(2, 64, 16)
    with torch.inference_mode():
        exact = layer(x)
        layer.bfloat16()
        found = layer(x.bfloat16())
        with using(PLAIN):
            plain = layer(x.bfloat16())
    errors = [(one.float() - exact).abs().mean() for one in (found, plain)]
    assert found.shape == x.shape and not torch.equal(found, plain) and errors[0] < 2 * errors[1]


def test_the_vae_in_half_precision_has_its_channels_last_and_its_errors_stay():
    torch.manual_seed(0)
    codec = MelVAE.build(CodecConfig(channels=(8, 16), layers=1, latent_channels=4, groups=4)).eval()
    orders = []
    encoder, decoder = codec.autoencoder.encoder, codec.autoencoder.decoder
    for block in (encoder.down_blocks[0], decoder.mid_block):
        block.resnets[0].conv2.register_forward_hook(
            lambda layer, inputs, made: orders.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
    mel = torch.randn(2, 16, 8)
    with torch.inference_mode():
        exact = codec.decode(codec.encode(mel))
        codec.bfloat16()
        orders.clear()
        found = codec.decode(codec.encode(mel.bfloat16()))
        with using(PLAIN):
            plain = codec.decode(codec.encode(mel.bfloat16()))
    errors = [(one.float() - exact).abs().mean() for one in (found, plain)]
    assert orders[:3] == [True, True, False] and errors[0] < 2 * errors[1]


def test_as_many_tokens_are_kept_as_any_item_of_the_batch_sees():
    mask = torch.tensor([[[0.0, 0, -1e4, -1e4, -1e4]], [[0.0, -1e4, 0, -1e4, -1e4]]])
    assert seen(mask) == 3 and seen(mask[:1]) == 2 and seen(torch.zeros(1, 1, 5)) == 5
