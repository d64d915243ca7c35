"""Published mask separators become model folders: names, variants, faults, round trips; with synthetic weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowsep.checkpoint import load_separator
from flowsep.cli import main
from flowsep.convert import mask_names as names
from flowsep.convert.masks import SYSTEMS, build_bert, build_clap, convert_masker
from flowsep.convert.synthetic import synthetic_mask_weight, with_synthetic_weights
from flowsep.errors import InputError, ModelError, UsageError
from flowsep.masks.lassnet import LassNet, LassNetConfig
from flowsep.masks.resunet import ResUNet30, ResUNetConfig
from tests.official_files import REFERENCE
from tests.tiny_masks import (
    BERT,
    BERT_TOKENS,
    CLAP,
    LABELS,
    LASSNET,
    RESUNET,
    ROBERTA_TOKENS,
    tiny_masker,
    tokenizer,
)


def official(build, rule) -> dict[str, Tensor]:
    """Synthetic tensors of a module under their official names."""
    shapes = {rule(name): tuple(value.shape) for name, value in build().state_dict().items()}
    return {name: torch.from_numpy(synthetic_mask_weight(name, shape)) for name, shape in shapes.items()}


def lightning_file(config: ResUNetConfig = RESUNET, text: bool = True) -> dict[str, Tensor]:
    """The state dict of an AudioSep-like file, with all that a loader has to accept and leave out."""
    state = official(lambda: ResUNet30(config), lambda name: names.SEPARATOR + names.resunet_name(name))
    for level, width in enumerate(reversed(config.widths), start=1):
        state |= {f"ss_model.base.decoder_block{level}.bn2.{part}": torch.zeros(width) for part in ("weight", "bias")}
        state[f"ss_model.base.decoder_block{level}.bn2.num_batches_tracked"] = torch.tensor(0)
        state[f"ss_model.film.decoder_block{level}->beta2.weight"] = torch.zeros(width, config.condition_size)
    state["ss_model.base.stft.conv_real.weight"] = torch.zeros(3, 1, 4)
    state["ss_model.base.istft.ola_window"] = torch.zeros(4)
    if text:
        clap = official(lambda: build_clap(CLAP), names.clap_text_name)
        state |= {name: value for name, value in clap.items() if not name.endswith("_ids")}
        state[f"{names.CLAP_TEXT}embeddings.position_ids"] = torch.arange(64)[None]
        state[f"{names.CLAP}audio_branch.bn0.weight"] = torch.zeros(2)
        state[f"{names.CLAP}logit_scale_a"] = torch.tensor(1.0)
    return state


def lassnet_file() -> dict[str, Tensor]:
    """The state dict of a LASS-Net-like file, with DataParallel's prefix."""
    state = official(lambda: LassNet(LASSNET), names.lassnet_name)
    state |= official(lambda: build_bert(BERT), names.bert_name)
    state |= official(lambda: nn.Linear(12, 12), lambda name: names.LASSNET_LINEAR + name)
    state[f"{names.LASSNET_TEXT}pooler.dense.weight"] = torch.zeros(12, 12)
    return {f"module.{name}": value for name, value in state.items()}


def convert(folder: Path, state: dict[str, Tensor], system: str = "audiosep", **options) -> Path:
    """Save a file as its authors did and convert it at tiny size."""
    lassnet = system == "lassnet"
    torch.save({"model": state} if lassnet else {"state_dict": state, "epoch": 3}, folder / "published.ckpt")
    sizes = {"network": LASSNET if lassnet else RESUNET, "text": BERT if lassnet else CLAP}
    quiet = {"report": lambda line: None}
    return convert_masker(system, folder / "published.ckpt", folder / "model", **{**sizes, **quiet, **options})


def with_tokenizer(model: Path, special: tuple[str, ...] = ROBERTA_TOKENS) -> Path:
    """Put a tokenizer into the folder, where the hub's is named."""
    tokenizer(special).save_pretrained(model / "tokenizer")
    return model


def assert_synthetic(module: nn.Module, build, rule):
    expected = with_synthetic_weights(build, rule, synthetic_mask_weight).state_dict()
    found = module.state_dict()
    assert set(found) == set(expected)
    wrong = [name for name, value in expected.items() if not torch.equal(found[name], value) and "_ids" not in name]
    assert wrong == []


# --- names


@pytest.mark.parametrize(
    ("file", "build", "rule"),
    [
        ("resunet30_32k", ResUNet30, names.resunet_name),
        ("lassnet", LassNet, names.lassnet_name),
    ],
)
def test_name_rules_are_one_to_one_with_the_published_manifest(file, build, rule):
    manifest = json.loads((REFERENCE / "audiosep" / f"{file}_state_dict.json").read_text())
    with torch.device("meta"):
        ours = {rule(name): list(value.shape) for name, value in build().state_dict().items()}
    needed = {name: shape for name, shape in manifest.items() if not names.is_known(names.SEPARATOR + name)}
    assert ours == needed
    assert len(manifest) - len(ours) == (5 + 6 * 7 if file == "resunet30_32k" else 0)


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        (
            "text_model.encoder.layer.0.attention.self.query.weight",
            "text_branch.encoder.layer.0.attention.self.query.weight",
        ),
        ("text_model.pooler.dense.bias", "text_branch.pooler.dense.bias"),
        ("text_projection.linear1.weight", "text_projection.0.weight"),
        ("text_projection.linear2.bias", "text_projection.2.bias"),
    ],
)
def test_clap_names_are_those_of_laion(ours, published):
    assert names.clap_text_name(ours) == f"query_encoder.model.{published}"


# --- what is written


def test_an_audiosep_file_becomes_a_separator_with_its_numbers(tmp_path):
    separator = load_separator(with_tokenizer(convert(tmp_path, lightning_file())), "cpu")
    assert_synthetic(separator.network, lambda: ResUNet30(RESUNET), lambda n: names.SEPARATOR + names.resunet_name(n))
    assert_synthetic(separator.text.model, lambda: build_clap(CLAP), names.clap_text_name)
    assert separator.text.model.config.layer_norm_eps == 1e-5
    assert separator.text.model.text_model.embeddings.position_ids.tolist() == [list(range(64))]
    assert (separator.sample_rate, separator.window, separator.name) == (32000, 320000, "audiosep")
    found = separator.separate(0.1 * torch.randn(1, 8000), ["a dog barking"])
    assert torch.isfinite(found.target).all() and found.target.abs().max() > 0


def test_a_lassnet_file_becomes_a_separator_with_its_numbers(tmp_path):
    separator = load_separator(with_tokenizer(convert(tmp_path, lassnet_file(), "lassnet"), BERT_TOKENS), "cpu")
    assert_synthetic(separator.network, lambda: LassNet(LASSNET), names.lassnet_name)
    assert_synthetic(separator.text.model, lambda: build_bert(BERT), names.bert_name)
    assert_synthetic(separator.text.projection, lambda: nn.Linear(12, 12), lambda n: names.LASSNET_LINEAR + n)
    assert torch.isfinite(separator.separate(0.1 * torch.randn(1, 8000), ["rain"]).target).all()


def test_uss_takes_its_condition_size_from_the_file_and_its_classes_from_a_list(tmp_path):
    state = lightning_file(ResUNetConfig(**{**vars(RESUNET), "condition_size": 4}), text=False)
    state["query_net.base.fc1.weight"] = torch.zeros(2, 2)
    labels = tmp_path / "labels.csv"
    labels.write_text("index,mid,display_name\n" + "".join(f'{n},/m/{n},"{name}"\n' for n, name in enumerate(LABELS)))
    separator = load_separator(convert(tmp_path, state, "uss", labels=labels), "cpu")
    found = separator.separate(0.1 * torch.randn(1, 8000), ["dog"]).target
    assert torch.isfinite(found).all()
    by_example = load_separator(convert(tmp_path, state, "uss", overwrite=True), "cpu")
    with pytest.raises(UsageError, match="asked by example"):
        by_example.separate(torch.zeros(1, 8000), ["dog"])
    labels.write_text("index,mid,display_name\n0,/m/0,Speech\n")
    with pytest.raises(InputError, match="names 1 classes, the checkpoint is conditioned on 4"):
        convert(tmp_path, state, "uss", labels=labels, overwrite=True)
    labels.write_text("index,name\n0,Speech\n")
    with pytest.raises(InputError, match=r"class_labels_indices\.csv"):
        convert(tmp_path, state, "uss", labels=labels, overwrite=True)


def test_a_file_without_clap_names_the_hub_and_says_that_this_is_not_verified(tmp_path):
    said = []
    model = convert(tmp_path, lightning_file(text=False), report=said.append)
    query = json.loads((model / "model_index.json").read_text())["_query"]
    assert query["hub"] == "laion/larger_clap_general" and not (model / "text_encoder").exists()
    assert any("not been verified" in line for line in said)


def test_safetensors_files_are_read_too(tmp_path):
    save_file(lightning_file(), tmp_path / "file.safetensors")
    quiet = {"network": RESUNET, "text": CLAP, "report": lambda line: None}
    first = convert_masker("audiosep", tmp_path / "file.safetensors", tmp_path / "a", **quiet)
    second = convert(tmp_path, lightning_file())
    files = [path.relative_to(first) for path in first.rglob("*.safetensors")]
    assert len(files) == 2
    for file in files:
        one, other = load_file(first / file), load_file(second / file)
        assert all(torch.equal(one[name], other[name]) for name in one | other)


# --- faults


def test_faulty_tensors_are_listed_by_name_and_nothing_is_written(tmp_path):
    state = lightning_file()
    del state["ss_model.base.encoder_block2.conv_block1.conv1.weight"]
    state["ss_model.film.decoder_block1->beta1.weight"] = torch.zeros(8, 13)
    state["ss_model.base.encoder_block9.conv1.weight"] = torch.zeros(1)
    with pytest.raises(ModelError) as error:
        convert(tmp_path, state)
    message = str(error.value)
    assert "missing: ss_model.base.encoder_block2.conv_block1.conv1.weight [8, 4, 3, 3]" in message
    assert "misshapen: ss_model.film.decoder_block1->beta1.weight [8, 13] instead of [8, 12]" in message
    assert "extra: ss_model.base.encoder_block9.conv1.weight" in message
    assert not (tmp_path / "model").exists()


def test_an_adaptor_of_uss_is_not_passed_over(tmp_path):
    state = lightning_file(text=False) | {"query_net.fc1.weight": torch.zeros(2, 2)}
    with pytest.raises(ModelError, match=r"extra: query_net\.fc1\.weight"):
        convert(tmp_path, state, "uss")


def test_a_file_of_another_system_is_refused(tmp_path):
    with pytest.raises(ModelError, match="missing: UNet"):
        convert(tmp_path, lightning_file(), "lassnet")
    with pytest.raises(ModelError, match="no USS checkpoint"):
        convert(tmp_path, lassnet_file(), "uss")


def test_existing_output_is_kept_unless_asked(tmp_path):
    convert(tmp_path, lightning_file())
    with pytest.raises(InputError, match="add --overwrite"):
        convert(tmp_path, lightning_file())


# --- model folders


@pytest.mark.parametrize(
    ("kind", "network"),
    [("clap", "resunet"), ("bert", "lassnet"), ("t5", "resunet"), ("classes", "resunet"), ("clips", "resunet")],
)
def test_a_model_folder_round_trips_bit_for_bit(kind, network, tmp_path):
    separator = tiny_masker(kind, network)
    separator.save_pretrained(tmp_path / "one", training={"steps": 3})
    loaded = load_separator(tmp_path / "one", "cpu")
    loaded.save_pretrained(tmp_path / "two", training={"steps": 3})
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file()
    )
    for file in files:
        if file.name == "tokenizer_config.json":  # the library notes in it where it was loaded from
            continue
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    condition, mixture = torch.rand(separator.text.size), 0.1 * torch.randn(1, 5000)
    for one in (separator, loaded):
        one.remember("it", condition)
    assert torch.equal(separator.separate(mixture, ["it"]).target, loaded.separate(mixture, ["it"]).target)
    if kind in ("clap", "bert", "t5"):
        texts = ["a dog barking"]
        assert torch.equal(separator.separate(mixture, texts).target, loaded.separate(mixture, texts).target)
    assert (loaded.name, loaded.window, loaded.origin) == (separator.name, separator.window, separator.origin)


def test_a_damaged_folder_says_what_is_missing(tmp_path):
    tiny_masker().save_pretrained(tmp_path / "m")
    weights = tmp_path / "m" / "network" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["leave.bias"]
    save_file(tensors, weights)
    with pytest.raises(ModelError, match=r"network lacks 1 tensors, the first is leave\.bias"):
        load_separator(tmp_path / "m", "cpu")
    weights.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_separator(tmp_path / "m", "cpu")


def test_a_tokenizer_that_cannot_be_had_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = convert(tmp_path, lightning_file())
    monkeypatch.setattr("flowsep.masks.folder.tokenizer_of", lambda folder, config: raise_missing())
    with pytest.raises(ModelError, match="put them into the model folder as text_encoder/ and tokenizer/"):
        load_separator(model, "cpu")


def raise_missing():
    raise OSError("offline")


# --- the command


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_a_command_that_refuses_what_is_no_checkpoint(system, tmp_path, capsys):
    (tmp_path / "x.ckpt").write_text("hello")
    assert main(["convert", system, str(tmp_path / "x.ckpt"), str(tmp_path / "out")]) == 4
    assert "neither a torch checkpoint nor safetensors" in capsys.readouterr().err


def test_published_sizes_are_those_of_the_systems():
    assert SYSTEMS["lassnet"].network == LassNetConfig() and SYSTEMS["dcase"].network.sample_rate == 16000
    assert SYSTEMS["audiosep"].network.condition_size == 512 and SYSTEMS["uss"].network.n_fft == 2048
