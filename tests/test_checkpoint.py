import json

import pytest
import torch

from flowsep.checkpoint import find_model, list_models, load_separator, pick_device
from flowsep.errors import DeviceError, ModelError
from tests.tiny import DIFFUSION, MIXTURE, PAPER, tiny_separator


@pytest.mark.parametrize("config", [PAPER, MIXTURE, DIFFUSION], ids=["paper", "mixture", "diffusion"])
def test_a_model_folder_round_trips_bit_for_bit(config, tmp_path):
    separator = tiny_separator(config)
    separator.save_pretrained(tmp_path / "model")
    loaded = type(separator).from_pretrained(tmp_path / "model", device="cpu")
    before, after = separator.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (loaded.process, loaded.sampling, loaded.mel, loaded.name) == (
        separator.process, separator.sampling, separator.mel, separator.name
    )  # fmt: skip
    sound = 0.1 * torch.randn(1, 5000)
    one, two = (s.separate(sound, ["a siren"]).target for s in (separator, loaded))
    # Equal weights at other addresses may take another kernel: the last bit of the output is not promised.
    torch.testing.assert_close(one, two, atol=1e-6, rtol=0)
    loaded.save_pretrained(tmp_path / "again")
    for file in sorted((tmp_path / "model").rglob("*.safetensors")):
        again = tmp_path / "again" / file.relative_to(tmp_path / "model")
        assert file.read_bytes() == again.read_bytes()


def test_folder_is_laid_out_like_a_diffusers_pipeline(tmp_path):
    tiny_separator(PAPER).save_pretrained(tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "FlowSep"
    for component in ("unet", "vae", "vocoder", "text_encoder"):
        assert component in index
        assert (tmp_path / "model" / component / "config.json").is_file()
        assert list((tmp_path / "model" / component).glob("*.safetensors"))
    assert (tmp_path / "model" / "tokenizer" / "tokenizer.json").is_file()


def test_half_precision_weights_load_as_float32_unless_asked(tmp_path):
    tiny_separator(MIXTURE).to(torch.float16).save_pretrained(tmp_path / "half")
    loaded = load_separator(tmp_path / "half", device="cpu")
    assert loaded.dtype == torch.float32
    assert load_separator(tmp_path / "half", device="cpu", dtype=torch.bfloat16).dtype == torch.bfloat16
    assert loaded.separate(0.1 * torch.randn(1, 3000), ["rain"]).target.dtype == torch.float32


def test_bfloat16_stays_near_float32(tmp_path):
    separator = tiny_separator(MIXTURE)
    sound = 0.1 * torch.randn(1, 8000)
    full = separator.separate(sound, ["rain"]).mask
    half = separator.to(torch.bfloat16).separate(sound, ["rain"]).mask
    assert (full - half).abs().mean() < 0.02


def test_unknown_names_and_incomplete_folders_are_model_errors(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="unknown model 'smal'; give one of"):
        find_model("smal")
    with pytest.raises(ModelError, match=r"no model_index.json"):
        find_model(tmp_path)
    tiny_separator(MIXTURE).save_pretrained(tmp_path / "model")
    weights = next((tmp_path / "model" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read"):
        load_separator(tmp_path / "model", device="cpu")
    (tmp_path / "model" / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ModelError, match=r"lacks scheduler/scheduler_config.json"):
        load_separator(tmp_path / "model", device="cpu")


def test_devices_that_are_not_there_are_device_errors():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match="cannot use the device 'cuda:77'"):
        pick_device("cuda:77")
    with pytest.raises(DeviceError, match="cannot use the device 'abacus'"):
        pick_device("abacus")


def test_the_small_model_ships():
    assert "small" in list_models()
