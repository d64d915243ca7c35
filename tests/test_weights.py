"""Networks are filled from their file in the precision wanted, without a second copy and without random weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vocoder import weights
from vocoder.weights import load_network, stream


def network() -> nn.Module:
    """Two layers and a buffer."""
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))


@pytest.fixture
def file(tmp_path):
    """The weights of a trained network."""
    torch.manual_seed(0)
    path = tmp_path / "unet" / "weights.safetensors"
    path.parent.mkdir()
    save_file({name: value + 1 for name, value in network().state_dict().items()}, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_has_the_files_weights_in_the_precision_wanted(file, dtype):
    loaded = load_network(network, file, dtype)
    stored = dict(stream(file))
    for name, value in loaded.state_dict().items():
        expected = stored[name].to(dtype) if stored[name].is_floating_point() else stored[name]
        assert value.dtype == expected.dtype and torch.equal(value, expected)
    assert not loaded.training and not any(value.requires_grad for value in loaded.parameters())
    assert loaded(torch.ones(1, 4, dtype=dtype)).isfinite().all()


def test_nothing_is_initialised_at_random(file, monkeypatch):
    before = torch.get_rng_state()
    load_network(network, file, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_is_read_in_parts_and_each_tensor_once(file, monkeypatch):
    whole = dict(stream(file))
    monkeypatch.setattr(weights, "PART", 40)
    parts = list(stream(file))
    assert [name for name, _ in parts] == list(whole)
    assert all(torch.equal(value, whole[name]) for name, value in parts)


def test_missing_tensors_are_named_and_other_shapes_refused(file):
    stored = {name: value.clone() for name, value in stream(file)}
    del stored["2.weight"], stored["1.running_mean"]
    save_file(stored, file)
    with pytest.raises(OSError, match=r"unet lacks 2 tensors, the first is 1\.running_mean; get the model again"):
        load_network(network, file, torch.float32)
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_network(lambda: nn.Sequential(nn.Linear(5, 6)), file, torch.float32)


def test_tied_tensors_come_from_the_one_that_is_stored(tmp_path):
    save_file({"0.weight": torch.ones(3, 3), "0.bias": torch.zeros(3)}, tmp_path / "a.safetensors")
    tied = {"1.weight": "0.weight", "1.bias": "0.bias"}
    loaded = load_network(
        lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), tmp_path / "a.safetensors", torch.float32, tied
    )
    assert loaded[1].weight.data_ptr() == loaded[0].weight.data_ptr()
