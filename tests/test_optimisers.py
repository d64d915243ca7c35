import pytest
import torch
from torch import nn

from flowsep.config import StageConfig
from flowsep.training.optimisers import build_optimiser


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(2, 4, 3)
        self.inner = nn.Conv2d(4, 6, 3)
        self.norm = nn.GroupNorm(2, 6)


def with_gradients(kind, scale=1.0, clip=None):
    """A network after a backward pass that leaves fixed gradients, its weights before, and its optimiser."""
    network = Network()
    optimiser = build_optimiser(network, kind, 0.01, 0.0)
    generator = torch.Generator().manual_seed(1)
    loss = sum((scale * torch.randn(p.shape, generator=generator) * p).sum() for p in network.parameters())
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip)
    return network, {name: p.detach().clone() for name, p in network.named_parameters()}, optimiser


def stepped(kind, scale=1.0):
    """By how much each parameter moved, and the optimiser, after one step."""
    network, before, optimiser = with_gradients(kind, scale)
    optimiser.step()
    optimiser.zero_grad()
    assert all(p.grad is None for p in network.parameters())
    return {name: p.detach() - before[name] for name, p in network.named_parameters()}, optimiser


def test_muon_orthogonalises_the_steps_of_inner_kernels_and_leaves_the_rest_to_adamw():
    muon, _ = stepped("muon")
    adamw, _ = stepped("adamw")
    assert all(torch.equal(muon[name], adamw[name]) for name in muon if name != "inner.weight")
    kernel = muon["inner.weight"].flatten(1)
    # The step is learning rate x 0.2 x sqrt(the longer side) x a matrix whose singular values are all near 1.
    values = torch.linalg.svdvals(kernel) / (0.01 * 0.2 * max(kernel.shape) ** 0.5)
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.linalg.svdvals(adamw["inner.weight"].flatten(1)).min() / (0.01 * 0.2 * max(kernel.shape) ** 0.5) > 1.5


def test_what_clips_the_gradients_clips_those_that_muon_sees():
    network, _, optimiser = with_gradients("muon", clip=1e-3)
    [matrix] = optimiser.matrices
    assert matrix.grad.data_ptr() == network.inner.weight.grad.data_ptr()
    assert 0 < matrix.grad.norm() < 1e-3


def test_a_learning_rate_that_is_set_holds_for_both_parts_also_after_loading():
    _, optimiser = stepped("muon")
    optimiser.load_state_dict(stepped("muon")[1].state_dict())
    for group in optimiser.param_groups:
        group["lr"] = 0.5
    assert [group["lr"] for part in optimiser.parts for group in part.param_groups] == [0.5, 0.5]


def test_the_optimiser_goes_on_from_its_saved_state():
    _, first = stepped("muon")
    _, second = stepped("muon", scale=3.0)
    second.load_state_dict(first.state_dict())
    expected, found = (one.parts[0].state_dict()["state"][0]["momentum_buffer"] for one in (first, second))
    assert torch.equal(expected, found)


def test_scaled_gradients_of_half_precision_are_scaled_back_once_for_both():
    plain, _ = stepped("muon")
    network, before, optimiser = with_gradients("muon", scale=1024.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))  # makes the scale, which is made with the first loss
    scaler.unscale_(optimiser)
    nn.utils.clip_grad_norm_(network.parameters(), 1e9)
    scaler.step(optimiser)
    scaler.update()
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.detach() - before[name], plain[name], rtol=1e-3, atol=1e-6)


def test_an_unknown_optimiser_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="adamw, muon"):
        StageConfig(optimiser="sgd")
