"""What published separators hear clips with: Cnn14 and CLAP's audio branch, from their checkpoints to conditions."""

from __future__ import annotations

import re

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowsep.checkpoint import load_separator
from flowsep.convert import mask_names as names
from flowsep.convert.listeners import MISSING, clap_audio_sizes
from flowsep.errors import ModelError
from flowsep.masks.cnn14 import Cnn14
from flowsep.masks.listening import listener_of
from flowsep.masks.resunet import ResUNetConfig
from tests.fakes import tone
from tests.test_convert_masks import convert, lightning_file, with_tokenizer
from tests.tiny_masks import CLAP_AUDIO, CNN14, RESUNET, tiny_clap_audio, tiny_cnn14

BASE = {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2], "num_attention_heads": [4, 8, 16, 32]}


def uss_file(condition: int) -> dict[str, Tensor]:
    """A USS-like file that is conditioned on so many numbers, with the tagger under PANNs' names."""
    state = lightning_file(ResUNetConfig(**{**vars(RESUNET), "condition_size": condition}), text=False)
    state |= {names.cnn14_name(name): value for name, value in tiny_cnn14().state_dict().items()}
    state["query_net.base.logmel_extractor.melW"] = torch.zeros(513, 64)
    state["query_net.base.spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(513, 1, 4)
    return state


def panns(state: dict[str, Tensor], audio: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and embeddings of audio (B, T), from the tensors of a checkpoint and the paper's description."""

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (state[f"query_net.base.{name}.{one}"] for one in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    mels = [
        librosa.feature.melspectrogram(
            y=one.numpy(), sr=32000, n_fft=1024, hop_length=320, n_mels=64, fmin=50, fmax=14000, pad_mode="reflect"
        )
        for one in audio
    ]
    x = torch.from_numpy(np.stack([librosa.power_to_db(mel, amin=1e-10, top_db=None) for mel in mels]))
    x = norm(x[..., None], "bn0").permute(0, 3, 2, 1)
    for block in (1, 2, 3):
        for layer in (1, 2):
            x = F.conv2d(x, state[f"query_net.base.conv_block{block}.conv{layer}.weight"], padding=1)
            x = norm(x, f"conv_block{block}.bn{layer}").clamp(min=0)
        x = F.avg_pool2d(x, (2, 2) if block < 3 else (1, 1))
    x = x.mean(3)
    x = x.max(2).values + x.mean(2)
    linear = {
        part: (state[f"query_net.base.{part}.weight"], state[f"query_net.base.{part}.bias"])
        for part in ("fc1", "fc_audioset")
    }
    embedding = F.linear(x, *linear["fc1"]).clamp(min=0)
    return F.linear(embedding, *linear["fc_audioset"]).sigmoid(), embedding


def laion(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of transformers' audio branch under LAION's names, query, key and value as one."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        name = re.sub(r"^audio_projection\.linear(\d)", lambda found: f"audio_projection.{2 * int(found[1]) - 2}", name)
        name = name.replace("audio_model.audio_encoder", "audio_branch").replace("batch_norm.", "bn0.")
        name = name.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        name = name.replace("attention.self", "attn").replace("attention.output.dense", "attn.proj")
        name = name.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2")
        name = f"query_encoder.model.{name}"
        part = re.sub(r"attn\.(query|key|value)\.", "attn.qkv.", name)
        state[part] = torch.cat([state[part], value]) if part in state else value
    return state


# --- Cnn14


def test_the_published_cnn14_has_the_published_parameters():
    with torch.device("meta"):
        assert sum(weight.numel() for weight in Cnn14().parameters()) == 80_753_615


@pytest.mark.parametrize(("condition", "number"), [(CNN14.classes, 0), (CNN14.embedding, 1)])
def test_a_uss_file_hears_as_its_tagger_does(condition, number, tmp_path):
    """Its probabilities where the separator is conditioned on classes, its embedding where on that."""
    state, audio = uss_file(condition), torch.cat([tone(2.0, 32000), tone(2.0, 32000, hertz=5000)])
    separator = load_separator(convert(tmp_path, state, "uss"), "cpu")
    found = listener_of(separator, "uss").embed(audio)
    torch.testing.assert_close(found, panns(state, audio)[number], atol=2e-4, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 0.01


def test_a_tagger_that_is_not_whole_or_fits_no_condition_is_left_out_and_said_to_be(tmp_path):
    said: list[str] = []
    model = convert(tmp_path, uss_file(5), "uss", report=said.append)
    assert MISSING in said and not (model / "audio_encoder").exists()
    state = uss_file(CNN14.classes)
    del state["query_net.base.conv_block2.bn1.running_mean"]
    with pytest.raises(ModelError, match=r"missing: query_net\.base\.conv_block2\.bn1\.running_mean"):
        convert(tmp_path, state, "uss", overwrite=True)


# --- CLAP


def test_an_audiosep_file_hears_as_its_clap_does(tmp_path):
    original = tiny_clap_audio()
    state = lightning_file() | laion(original)
    state["query_encoder.model.audio_branch.layers.0.blocks.1.attn_mask"] = torch.zeros(2)
    state["query_encoder.model.audio_branch.tscam_conv.weight"] = torch.zeros(2)
    folder = with_tokenizer(convert(tmp_path, state))
    listener = listener_of(load_separator(folder, "cpu"), "audiosep")
    assert (listener.sample_rate, listener.seconds, listener.unit) == (48000, 10.0, True)
    audio = torch.cat([tone(10.0, 48000), tone(10.0, 48000, hertz=5000)])
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50, frequency_max=14000)
    features = extractor(list(audio.numpy()), sampling_rate=48000, return_tensors="pt")["input_features"]
    with torch.inference_mode():
        expected = F.normalize(original(features).audio_embeds, dim=-1)
    torch.testing.assert_close(listener.embed(audio), expected)
    assert (expected[0] - expected[1]).abs().max() > 0.01


def test_an_audiosep_file_without_the_audio_branch_is_converted_all_the_same(tmp_path):
    said: list[str] = []
    model = convert(tmp_path, lightning_file(), report=said.append)
    assert MISSING in said and not (model / "audio_encoder").exists()
    fusing = lightning_file() | laion(tiny_clap_audio())
    fusing["query_encoder.model.audio_branch.patch_embed.mel_conv2d.weight"] = torch.zeros(2)
    assert not (convert(tmp_path, fusing, overwrite=True) / "audio_encoder").exists()


@pytest.mark.parametrize("sizes", [CLAP_AUDIO, {**BASE, "hidden_size": 1024}])
def test_the_sizes_of_clap_are_read_from_its_tensors(sizes):
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection

    with torch.device("meta"):
        model = ClapAudioModelWithProjection(ClapAudioConfig(**sizes))
    found = clap_audio_sizes({name: tuple(value.shape) for name, value in laion(model).items()})
    assert {name: found[name] for name in sizes if name != "spec_size"} == {
        name: value for name, value in sizes.items() if name != "spec_size"
    }
    with torch.device("meta"):
        again = ClapAudioModelWithProjection(ClapAudioConfig(**found))
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (model, again)]
    assert shapes[0] == shapes[1]
