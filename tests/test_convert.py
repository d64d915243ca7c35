"""Official checkpoints become model folders: names, variants, faults; at a thousandth of the official size."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowsep.checkpoint import load_separator
from flowsep.cli import main
from flowsep.config import ModelConfig
from flowsep.convert import names, selftest
from flowsep.convert.official import convert_official
from flowsep.convert.official_mode import separate_officially
from flowsep.convert.synthetic import with_synthetic_weights
from flowsep.errors import InputError, ModelError, UsageError
from flowsep.separator import FlowSep
from flowsep.text import build_t5, train_tokenizer
from flowsep.unet import build_unet
from tests.official_files import TINY, official_manifest, synthetic_state, tiny_manifest
from vae.model import MelVAE
from vocoder.model import build_generator


def tiny_unet() -> nn.Module:
    return build_unet(TINY.unet, TINY.flow.stream_count, TINY.codec.latent_channels, TINY.text.d_model)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return synthetic_state(tiny_manifest(), TINY)


@pytest.fixture
def converted(state: dict[str, Tensor], tmp_path: Path) -> Path:
    return convert(tmp_path, {"state_dict": state})


def convert(folder: Path, content: object, name: str = "v2_100k.ckpt", **options) -> Path:
    """Save `content` as torch does and convert it with the tiny configuration."""
    torch.save(content, folder / name)
    return convert_official(folder / name, folder / "model", config=TINY, **{"report": lambda line: None, **options})


def weights(model: Path) -> dict[str, Tensor]:
    """All tensors of a model folder as component/name."""
    files = sorted(model.glob("*/*.safetensors"))
    return {f"{file.parent.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def assert_same_weights(found: dict[str, Tensor], expected: dict[str, Tensor]):
    assert set(found) == set(expected)
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []


def with_tokenizer(model: Path) -> Path:
    """Put a tokenizer into the folder, where the hub's is named."""
    train_tokenizer(["a dog barks", "rain falls on a roof"], vocab_size=60).save_pretrained(model / "tokenizer")
    return model


# --- names


def test_name_rules_are_one_to_one_with_the_official_manifest():
    manifest, config = official_manifest(), ModelConfig()
    with torch.device("meta"):
        unet = build_unet(config.unet, config.flow.stream_count, config.codec.latent_channels, config.text.d_model)
        parts: list[tuple[nn.Module, Callable[[str], str]]] = [
            (unet, names.unet_name),
            (unet, lambda name: names.unet_name(name, ema=True)),
            (MelVAE.build(config.codec).autoencoder, names.vae_name),
            (build_generator(config.vocoder), names.vocoder_name),
            (build_t5(config.text), names.text_name),
        ]
    renamed = [rule(name) for module, rule in parts for name in module.state_dict()]
    assert len(renamed) == len(set(renamed)) == 2 * 1104 + 204 + 558 + 220
    left = set(manifest) - set(renamed) - {names.SCALE}
    assert set(renamed) <= set(manifest)
    assert all(names.is_ignored(name, ema_used=True) for name in left)
    shapes = {rule(name): tuple(tensor.shape) for module, rule in parts for name, tensor in module.state_dict().items()}
    differing = {name for name, shape in shapes.items() if manifest[name][0] != shape}
    assert len(differing) == 8  # the VAE's attention: 1x1 convolutions in one, linear layers in the other
    assert all(manifest[name][0] == (*shapes[name], 1, 1) for name in differing)


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        ("time_embedding.linear_2.bias", "time_embed.2.bias"),
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("down_blocks.0.resnets.1.conv1.weight", "input_blocks.2.0.in_layers.2.weight"),
        ("down_blocks.1.downsamplers.0.conv.weight", "input_blocks.6.0.op.weight"),
        ("down_blocks.3.attentions.2.proj_in.weight", "input_blocks.11.1.proj_in.weight"),
        ("down_blocks.3.attentions.3.norm.weight", "input_blocks.11.2.norm.weight"),
        ("mid_block.resnets.1.norm2.bias", "middle_block.3.out_layers.0.bias"),
        ("mid_block.attentions.1.norm.bias", "middle_block.2.norm.bias"),
        ("up_blocks.0.attentions.5.norm.bias", "output_blocks.2.2.norm.bias"),
        ("up_blocks.2.upsamplers.0.conv.bias", "output_blocks.8.3.conv.bias"),
        ("up_blocks.3.resnets.0.conv_shortcut.bias", "output_blocks.9.0.skip_connection.bias"),
        ("conv_norm_out.weight", "out.0.weight"),
        ("conv_out.weight", "out.2.weight"),
    ],
)
def test_unet_names_follow_the_reference(ours: str, official: str):
    assert names.unet_name(ours) == f"model.diffusion_model.{official}"
    assert names.unet_name(ours, ema=True) == f"model_ema.diffusion_model{official.replace('.', '')}"


# --- what is written


def test_components_hold_the_official_numbers_under_our_names(converted: Path):
    parts: list[tuple[str, Callable[[], nn.Module], Callable[[str], str]]] = [
        ("unet", tiny_unet, lambda name: names.unet_name(name, ema=True)),
        ("vae", lambda: MelVAE.build(TINY.codec).autoencoder, names.vae_name),
        ("vocoder", lambda: build_generator(TINY.vocoder), names.vocoder_name),
        ("text_encoder", lambda: build_t5(TINY.text), names.text_name),
    ]
    expected = {}
    for folder, build, rule in parts:
        module = with_synthetic_weights(build, rule)
        expected |= {f"{folder}/{name}": tensor for name, tensor in module.state_dict().items()}
    del expected["text_encoder/encoder.embed_tokens.weight"]  # tied
    assert_same_weights(weights(converted), expected)


def test_scale_factor_goes_to_the_vae(converted: Path):
    assert load_separator(with_tokenizer(converted), "cpu").codec.scaling_factor == 0.75


def test_wrapper_optimizer_and_format_change_nothing(converted: Path, state: dict[str, Tensor], tmp_path: Path):
    expected = weights(converted)
    lightning = {"state_dict": state, "optimizer_states": [{"state": {0: torch.ones(3)}}], "epoch": 1, "loops": {}}
    for index, content in enumerate((state, lightning)):
        (tmp_path / str(index)).mkdir()
        assert_same_weights(weights(convert(tmp_path / str(index), content)), expected)
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "all.safetensors")
    model = convert_official(tmp_path / "all.safetensors", tmp_path / "2", config=TINY, report=lambda line: None)
    assert_same_weights(weights(model), expected)


def test_ema_alone_is_enough_and_raw_weights_are_the_fallback(
    converted: Path, state: dict[str, Tensor], tmp_path: Path
):
    for kind, prefix in (("ema", names.UNET), ("raw", names.EMA)):
        (tmp_path / kind).mkdir()
        said: list[str] = []
        kept = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
        found = weights(convert(tmp_path / kind, kept, report=said.append))
        assert any(kind.lower() in line.lower() for line in said if "UNet weights" in line)
        same = torch.equal(found["unet/conv_in.weight"], weights(converted)["unet/conv_in.weight"])
        assert same == (kind == "ema")
    assert torch.equal(found["unet/conv_in.weight"], state["model.diffusion_model.input_blocks.0.0.weight"])


def normed_vocoder() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State of a BigVGAN with weight norm, and of the same one without, by the package's own functions."""
    import contextlib
    import io

    from bigvgan import BigVGAN
    from bigvgan.env import AttrDict

    with contextlib.redirect_stdout(io.StringIO()):
        generator = BigVGAN(AttrDict(TINY.vocoder.hyperparameters()))
        for name, parameter in generator.named_parameters():
            if name.endswith("weight_g"):
                parameter.data *= 1.5
        normed = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        generator.remove_weight_norm()
    return normed, generator.state_dict()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("place", ["file", "bare file", "checkpoint"])
def test_vocoder_may_have_weight_norm_and_a_file_of_its_own(place: str, state: dict[str, Tensor], tmp_path: Path):
    normed, plain = normed_vocoder()
    assert any(name.endswith("weight_g") for name in normed)
    options = {}
    content = {name: tensor for name, tensor in state.items() if not name.startswith(names.VOCODER)}
    if place == "checkpoint":
        content |= {f"{names.VOCODER}{name}": tensor for name, tensor in normed.items()}
    else:
        torch.save({"generator": normed} if place == "file" else normed, tmp_path / "g_01000000")
        options["vocoder"] = tmp_path / "g_01000000"
    found = weights(convert(tmp_path, content, **options))
    expected = {f"vocoder/{name}": tensor for name, tensor in plain.items()}
    assert_same_weights({name: tensor for name, tensor in found.items() if name.startswith("vocoder/")}, expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_vocoder_file_wins_over_the_checkpoint(state: dict[str, Tensor], tmp_path: Path):
    normed, plain = normed_vocoder()
    torch.save({"generator": normed}, tmp_path / "g")
    found = weights(convert(tmp_path, state, vocoder=tmp_path / "g"))
    assert torch.equal(found["vocoder/conv_pre.weight"], plain["conv_pre.weight"])


def test_missing_text_encoder_names_the_hub_model(state: dict[str, Tensor], tmp_path: Path):
    said: list[str] = []
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(names.TEXT)}
    model = convert(tmp_path, kept, report=said.append)
    assert not (model / "text_encoder").exists()
    assert any("google/flan-t5-large" in line for line in said)
    assert "google/flan-t5-large" in (model / "model_index.json").read_text()


@pytest.mark.parametrize("absent", ["shared", "encoder.embed_tokens"])
def test_either_name_of_the_tied_embedding_is_enough(absent: str, converted: Path, state: dict[str, Tensor], tmp_path):
    (tmp_path / "again").mkdir()
    kept = {name: tensor for name, tensor in state.items() if name != names.text_name(f"{absent}.weight")}
    assert_same_weights(weights(convert(tmp_path / "again", kept)), weights(converted))


def test_half_precision_is_written_as_float32(state: dict[str, Tensor], tmp_path: Path):
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    found = weights(convert(tmp_path, half))
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    name = names.unet_name("conv_out.bias", ema=True)
    assert torch.equal(found["unet/conv_out.bias"], state[name].half().float())


# --- faults


def test_faulty_tensors_are_listed_by_name_and_nothing_is_written(state: dict[str, Tensor], tmp_path: Path):
    broken = dict(state)
    del broken["first_stage_model.encoder.conv_in.bias"]
    broken["first_stage_model.quant_conv.bias"] = torch.zeros(3)
    broken["first_stage_model.surprise"] = torch.zeros(1)
    with pytest.raises(ModelError) as caught:
        convert(tmp_path, broken)
    message = str(caught.value)
    assert re.search(r"missing: first_stage_model\.encoder\.conv_in\.bias \[8\]", message)
    assert re.search(r"misshapen: first_stage_model\.quant_conv\.bias \[3\] instead of \[16\]", message)
    assert re.search(r"extra: first_stage_model\.surprise", message)
    assert [path.name for path in tmp_path.iterdir()] == ["v2_100k.ckpt"]


def test_checkpoint_of_another_model_is_refused_in_a_readable_message(tmp_path: Path):
    with pytest.raises(ModelError, match=r"and \d+ more") as caught:
        convert(tmp_path, {"first_stage_model.vocoder.x": torch.zeros(1), "scale_factor": torch.tensor(1.0)})
    assert len(str(caught.value)) < 5000
    with pytest.raises(ModelError, match="holds no tensors"):
        convert(tmp_path, {"epoch": 3})


def test_missing_vocoder_says_which_option_gives_one(state: dict[str, Tensor], tmp_path: Path):
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(names.VOCODER)}
    with pytest.raises(ModelError, match="--vocoder"):
        convert(tmp_path, kept)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_scale_factor_is_refused(value: float, state: dict[str, Tensor], tmp_path: Path):
    with pytest.raises(ModelError, match="scale_factor"):
        convert(tmp_path, state | {"scale_factor": torch.tensor(value)})


def test_existing_output_is_kept_unless_asked_and_only_models_are_replaced(state: dict[str, Tensor], tmp_path: Path):
    model = convert(tmp_path, state)
    (model / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="--overwrite"):
        convert(tmp_path, state)
    assert (model / "mine.txt").exists()
    convert(tmp_path, state, overwrite=True)
    assert not (model / "mine.txt").exists()
    (model / "model_index.json").unlink()
    with pytest.raises(InputError, match="not a model folder"):
        convert(tmp_path, state, overwrite=True)
    assert (model / "unet").is_dir()


def test_interrupted_conversion_leaves_the_old_folder_and_no_other(state: dict[str, Tensor], tmp_path: Path):
    before = weights(convert(tmp_path, state))

    def interrupt(line: str) -> None:
        if line.startswith("vae:"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path, state, overwrite=True, report=interrupt)
    assert_same_weights(weights(tmp_path / "model"), before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "v2_100k.ckpt"]


# --- what it computes


def tiny_noise(*seeds: int) -> list[Tensor]:
    return [torch.randn(1, 8, 256, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds]


def test_converted_model_round_trips_and_separates_at_the_level_of_its_input(converted: Path, tmp_path: Path):
    separator = load_separator(with_tokenizer(converted), "cpu")
    separator.save_pretrained(tmp_path / "again")
    assert_same_weights(weights(tmp_path / "again"), weights(converted))
    mixture = 0.1 * torch.randn(1, 20000, generator=torch.Generator().manual_seed(0)) + 0.02
    found = separator.separate(mixture, ["a dog barks"])
    assert found.target.shape == mixture.shape
    assert torch.allclose(found.target + found.residual, mixture, atol=1e-6)


def test_official_mode_follows_its_noises_steps_and_text(converted: Path):
    separator = load_separator(with_tokenizer(converted), "cpu")
    audio = 0.3 * torch.randn(2, 44100, generator=torch.Generator().manual_seed(1))

    def run(text: str = "a dog barks", steps: int = 2, seeds: tuple[int, int] = (0, 1)) -> Tensor:
        return separate_officially(separator, audio, 44100, text, steps, *tiny_noise(*seeds)).latent

    assert torch.equal(run(), run())
    for other in (run(text="rain falls"), run(steps=3), run(seeds=(0, 2)), run(seeds=(3, 1))):
        assert not torch.allclose(run(), other, atol=1e-4)


def test_official_mode_gives_the_official_length_and_ignores_the_second_channel(converted: Path):
    separator = load_separator(with_tokenizer(converted), "cpu")
    audio = torch.randn(2, 16000, generator=torch.Generator().manual_seed(1))
    found = separate_officially(separator, audio, 16000, "rain", 1, *tiny_noise(0, 1))
    mono = separate_officially(separator, audio[:1], 16000, "rain", 1, *tiny_noise(0, 1))
    assert found.audio.shape == (1, 163872)
    assert torch.equal(found.audio, mono.audio)


def test_model_without_vae_has_no_official_mode(converted: Path):
    separator: FlowSep = load_separator(with_tokenizer(converted), "cpu")
    separator.vocoder = None
    with pytest.raises(UsageError, match="official mode"):
        separate_officially(separator, torch.zeros(1, 16000), 16000, "rain", 1, *tiny_noise(0, 1))


# --- the command


def test_self_test_command_prints_every_comparison_and_fails_on_a_missed_limit(monkeypatch, capsys):
    good, bad = selftest.Parity("good part", 1e-6, 2e-5), selftest.Parity("bad part", 3e-5, 2e-5)
    monkeypatch.setattr(selftest, "CHECKS", {"one": lambda folder: [good]})
    assert main(["convert", "--self-test"]) == 0
    monkeypatch.setattr(selftest, "CHECKS", {"one": lambda folder: [good], "two": lambda folder: [bad]})
    assert main(["convert", "--self-test"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"good part +1\.00e-06 +2e-05 +pass", printed)
    assert re.search(r"bad part +3\.00e-05 +2e-05 +MISSED", printed)
    assert "1 limits missed" in printed


def test_self_test_without_the_golden_arrays_says_what_it_needs(tmp_path: Path, capsys):
    assert main(["convert", "--self-test", "--reference", str(tmp_path)]) == 3
    assert "tests/reference" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["convert"], 2, "convert official CHECKPOINT OUT"),
        (["convert", "official"], 2, "checkpoint"),
        (["convert", "official", "nowhere.ckpt", "out"], 4, "no checkpoint file at nowhere.ckpt"),
    ],
)
def test_convert_command_says_what_is_wrong(arguments: list[str], code: int, message: str, capsys):
    assert main(arguments) == code
    assert message in capsys.readouterr().err
