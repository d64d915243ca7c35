"""Every component against golden arrays of the official code, by the functions of `flowsep convert --self-test`."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from flowsep.convert.selftest import CHECKS, Parity, build_official_unet
from flowsep.convert.synthetic import synthetic_weight
from tests.official_files import REFERENCE
from vocoder.measures import PLAIN, using

CHECKED_WEIGHTS = [
    ("model.diffusion_model.time_embed.0.weight", (512, 128), "2785d92e50e31d30"),
    ("model.diffusion_model.input_blocks.4.1.norm.weight", (256,), "267f37e674a217dd"),
    ("model.diffusion_model.out.2.bias", (16,), "6fcd21b845832435"),
    ("model_ema.diffusion_modelout2weight", (16, 128, 3, 3), "85ecf96be46add4c"),
    ("first_stage_model.encoder.conv_in.weight", (128, 1, 3, 3), "6c4f782b8eb0a24b"),
    ("first_stage_model.vocoder.ups.0.0.weight", (512, 256, 16), "40f8069f1908df30"),
    ("first_stage_model.vocoder.resblocks.0.convs1.0.weight", (256, 256, 3), "84433c542060fce5"),
    ("first_stage_model.vocoder.resblocks.0.activations.0.act.alpha", (256,), "d645a904e93f7b7b"),
    ("cond_stage_models.0.model.encoder.block.0.layer.0.SelfAttention.q.weight", (1024, 1024), "27aee2ff752525f6"),
]


@pytest.mark.parametrize(("name", "shape", "digest"), CHECKED_WEIGHTS)
def test_synthetic_weights_follow_the_rule(name: str, shape: tuple[int, ...], digest: str):
    value = synthetic_weight(name, shape)
    assert value.dtype == np.float32
    assert hashlib.sha256(value.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("component", CHECKS)
def test_component_gives_the_official_numbers(component: str):
    with using(PLAIN):
        found = CHECKS[component](REFERENCE)
    assert found
    missed = [f"{parity.name}: {parity.error:.2e} > {parity.limit:.0e}" for parity in found if not parity.passed]
    assert not missed


@pytest.mark.parametrize("component", ["vae", "unet"])
def test_fast_paths_stay_within_twice_the_limit(component: str):
    found = CHECKS[component](REFERENCE)  # those that docs/performance.md names are on unless switched off
    missed = [f"{parity.name}: {parity.error:.2e}" for parity in found if not parity.error <= 2 * parity.limit]
    assert not missed


def test_parity_covers_every_golden_file():
    names = " ".join(CHECKS)
    files = {file.stem: file.stem.split("_")[0] for file in REFERENCE.glob("*.npz")}
    # flow_loss.npz is read by the unet check, whose weights it shares.
    assert {stem for stem, word in files.items() if word not in names} == {"flow_loss"}


def test_nan_is_no_parity():
    assert not Parity("broken", float("nan"), 1.0).passed


def test_official_unet_has_heads_32_channels_wide_and_the_two_group_norm_epsilons():
    with torch.device("meta"):
        unet = build_official_unet()
    widths = {module.inner_dim // module.heads for _, module in unet.named_modules() if hasattr(module, "heads")}
    assert widths == {32}
    heads = [module.heads for name, module in unet.named_modules() if name.endswith("attn1")]
    assert set(heads) == {8, 12, 20}
    norms = {name: module.eps for name, module in unet.named_modules() if isinstance(module, nn.GroupNorm)}
    assert {eps for name, eps in norms.items() if ".attentions." in name} == {1e-6}
    assert {eps for name, eps in norms.items() if ".attentions." not in name} == {1e-5}
