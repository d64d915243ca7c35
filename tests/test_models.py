"""`flowsep models` tells the truth about sizes and about what is ready."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from flowsep.checkpoint import find_model, load_separator
from flowsep.cli import main
from flowsep.config import load_config
from flowsep.convert.masks import SYSTEMS
from flowsep.errors import ModelError
from flowsep.masks.config import MaskConfig
from flowsep.masks.lassnet import LassNet, LassNetConfig
from flowsep.masks.resunet import ResUNet30
from flowsep.models import PUBLISHED, TRAINABLE, known_models
from flowsep.unet import build_unet
from tests.official_files import official_manifest
from tests.tiny import MIXTURE, tiny_separator
from tests.tiny_masks import parameter_count, tiny_masker
from vae.model import build_codec
from vocoder.model import Vocoder


def test_listed_parameters_are_those_of_the_networks():
    listed = {entry.name: entry for entry in PUBLISHED + TRAINABLE}
    with torch.device("meta"):
        for system in SYSTEMS.values():
            network = LassNet if isinstance(system.network, LassNetConfig) else ResUNet30
            entry = listed[system.name]
            assert entry.parameters == parameter_count([network(system.network)])
            assert entry.sample_rate == system.network.sample_rate
        for entry in TRAINABLE:
            config = load_config(entry.name)
            if config.method == "diffusion":
                assert entry.parameters == parameters_of_chain(config)
                continue
            assert config.mask != MaskConfig()
            built = config.mask.build(config.vocoder.mel.sample_rate, config.text.d_model)
            assert entry.parameters == parameter_count([built])
    official = official_manifest()
    used = [
        math.prod(shape)
        for name, (shape, _) in official.items()
        if name.startswith(("model.diffusion_model.", "first_stage_model.")) and not name.endswith(".filter")
        if not name.startswith("first_stage_model.loss.")
    ]
    assert listed["flowsep (official)"].parameters == sum(used)


def parameters_of_chain(config) -> int:
    """UNet and vocoder; patches have none."""
    channels = build_codec(config.codec).latent_channels
    unet = build_unet(config.unet, config.process.stream_count, channels, config.text.d_model)
    return sum(weight.numel() for part in (unet, Vocoder(config.vocoder)) for weight in part.parameters())


def test_folders_are_described_without_loading_them(tmp_path):
    tiny_masker("clap").save_pretrained(tmp_path / "a")
    tiny_masker("clips").save_pretrained(tmp_path / "b")
    tiny_separator(MIXTURE).save_pretrained(tmp_path / "c")
    found = {entry.name: entry for entry in known_models([tmp_path])}
    clap = found[str(tmp_path / "a")]
    assert clap.parameters == parameter_count([tiny_masker("clap").network])
    assert (clap.sample_rate, clap.needs) == (32000, "nothing")
    assert found[str(tmp_path / "b")].needs == "nothing"
    assert found[str(tmp_path / "c")].system == "FlowSep" and found[str(tmp_path / "c")].sample_rate == 16000
    (tmp_path / "a" / "tokenizer" / "tokenizer.json").unlink()
    (tmp_path / "a" / "tokenizer" / "tokenizer_config.json").unlink()
    (tmp_path / "a" / "tokenizer").rmdir()
    assert known_models([tmp_path / "a"])[-len(PUBLISHED + TRAINABLE) - 1].needs == (
        "the tokenizer of x/y from the hub, once"
    )


def test_models_command_lists_every_separator(tmp_path, capsys):
    assert main(["models", "--json"]) == 0
    names = [entry["name"] for entry in json.loads(capsys.readouterr().out)]
    assert {
        "audiosep",
        "dcase2024-task9",
        "uss",
        "lassnet",
        "small-audiosep",
        "small-lassnet",
        "small-diffusion",
    } <= set(names)
    assert main(["models"]) == 0
    assert "25.6 M" in capsys.readouterr().out
    assert main(["models", str(tmp_path)]) == 4
    assert "holds none" in capsys.readouterr().err


def test_a_mask_separator_is_exported_in_half_precision_and_has_no_sampler_to_set(tmp_path, capsys):
    separator = tiny_masker("t5")
    separator.save_pretrained(tmp_path / "m")
    assert main(["export", str(tmp_path / "m"), str(tmp_path / "out")]) == 0
    loaded = load_separator(tmp_path / "out", "cpu")
    weights = load_file(tmp_path / "out" / "network" / "model.safetensors")
    assert weights["enter.weight"].dtype == torch.float16 and loaded.dtype == torch.float32
    mixture = 0.1 * torch.randn(1, 4000)
    expected, found = (one.separate(mixture, ["rain"]).target for one in (separator, loaded))
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert main(["export", str(tmp_path / "m"), str(tmp_path / "two"), "--steps", "4"]) == 2
    capsys.readouterr()
    assert main(["benchmark", "latency", "--model", str(tmp_path / "m"), "--ladder", "-q"]) == 2
    assert "leave --ladder out" in capsys.readouterr().err


def test_a_listed_model_that_is_not_here_says_how_to_get_it():
    with pytest.raises(ModelError, match="small-audiosep is not bundled; it needs: flowsep train mask small-audiosep"):
        find_model("small-audiosep")
