import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from flowsep.checkpoint import load_separator
from flowsep.cli import main
from flowsep.config import FlowLossConfig, StageConfig
from flowsep.data.manifest import read_manifest
from flowsep.errors import InputError, ModelError, UsageError
from flowsep.training.loop import Trainer, learning_rate_share
from flowsep.training.objectives import FlowObjective, FrontEnd, rendering_losses
from flowsep.training.recipes import (
    class_wordings,
    own_text_encoder,
    train_flow,
    train_text,
    train_vae,
    train_vocoder,
    training_data,
)
from tests.tiny import MIXTURE, PAPER, STAGE, tiny_separator, write_clips
from vae.model import load_codec
from vocoder.mel import log_mel, stft

DATA = replace(MIXTURE.data, phrasings=False)
CONFIG = replace(MIXTURE, data=DATA, flow_loss=FlowLossConfig(flow=0.1, mel=0.2, mask=1.0, snr=1.0, start_share=0.5))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def text(clips, tmp_path_factory):
    return train_text(CONFIG, clips, tmp_path_factory.mktemp("text"), quiet=True)


def weights_of(folder):
    return {f"{part}.{k}": v for part in ("unet", "text_encoder") for k, v in load_part(folder / part).items()}


def load_part(folder):
    return load_file(next(folder.glob("*.safetensors")))


def losses_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_that_was_interrupted_and_resumed_equals_one_that_was_not(clips, text, tmp_path, optimiser):
    stage = replace(STAGE, optimiser=optimiser)
    config = replace(CONFIG, flow_stage=stage)
    whole = train_flow(config, clips, tmp_path / "whole", text=text, quiet=True)
    train_flow(config, clips, tmp_path / "parts", text=text, max_minutes=0, quiet=True)  # stops after its first step
    more = replace(CONFIG, flow_stage=replace(stage, workers=2))  # the number of processes changes no item
    resumed = train_flow(more, clips, tmp_path / "parts", text=text, quiet=True)
    expected, found = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    assert list(losses_of(tmp_path / "whole")) == list(range(1, 7))


def test_a_trained_model_folder_separates(clips, text, tmp_path):
    separator = load_separator(train_flow(CONFIG, clips, tmp_path / "run", text=text, quiet=True), device="cpu")
    result = separator.separate(0.1 * torch.randn(1, 8000), ["low hum"])
    assert torch.isfinite(result.target).all() and result.mask is not None
    assert (tmp_path / "run" / "config.yaml").is_file() and list((tmp_path / "run" / "tensorboard").iterdir())


def test_training_lowers_the_loss(clips, text, tmp_path):
    config = replace(CONFIG, flow_stage=replace(STAGE, steps=60, batch_size=4, learning_rate=3e-3, checkpoint_steps=60))
    train_flow(config, clips, tmp_path / "run", text=text, quiet=True)
    losses = list(losses_of(tmp_path / "run").values())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_vae_learns_and_stores_its_scale(clips, text, tmp_path):
    config = replace(PAPER, data=DATA, vae_stage=replace(STAGE, steps=40, batch_size=4, learning_rate=3e-3))
    folder = train_vae(config, clips, tmp_path / "run", quiet=True)
    losses = list(losses_of(tmp_path / "run").values())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    codec = load_codec(folder)
    with torch.no_grad():  # 1 / std of clean targets' latents, up to the draw of the targets
        _, dataset = training_data(config, clips)
        targets = torch.stack([dataset[n]["target"] for n in range(64)])
        mels = log_mel(targets, config.vocoder.mel)[:, :64]
        assert codec.scaling_factor == pytest.approx(1 / codec.posterior(mels)[0].std().item(), rel=0.2)
    model = train_flow(
        replace(config, flow_stage=replace(STAGE, steps=1)),
        clips,
        tmp_path / "flow",
        codec=folder,
        text=text,
        quiet=True,
    )
    assert load_separator(model, device="cpu").codec.scaling_factor == pytest.approx(codec.scaling_factor)


def test_stages_that_do_not_fit_say_what_to_do(clips, tmp_path):
    with pytest.raises(UsageError, match="nothing to train"):
        train_vae(MIXTURE, clips, tmp_path / "run")
    with pytest.raises(UsageError, match="train it first"):
        train_flow(PAPER, clips, tmp_path / "run")
    with pytest.raises(UsageError, match="train the text encoder first"):
        train_flow(CONFIG, clips, tmp_path / "run")
    with pytest.raises(InputError, match="lacks text_encoder/"):
        train_flow(CONFIG, clips, tmp_path / "run", text=clips)
    with pytest.raises(UsageError, match="needs no training"):
        train_text(replace(CONFIG, text=replace(CONFIG.text, hub="some/encoder")), clips, tmp_path / "run")
    with pytest.raises(InputError, match="caption column"):
        train_text(CONFIG, clips, tmp_path / "run", captions_csv=tmp_path / "none.csv")


def test_the_text_encoder_learns_which_wordings_mean_the_same(clips, tmp_path):
    stage = replace(STAGE, steps=150, batch_size=32, learning_rate=3e-3, checkpoint_steps=150)
    config = replace(CONFIG, text=replace(CONFIG.text, vocab_size=200), text_stage=stage)
    captions = tmp_path / "captions.csv"
    captions.write_text("caption\na motor hums while rain falls\n")
    folder = train_text(config, clips, tmp_path / "run", captions_csv=captions, quiet=True)
    encoder = own_text_encoder(config, folder)
    same, other = (encoder.encode([q]).pooled() for q in ("rain", "siren"))
    asked = encoder.encode(["sound of rain"]).pooled()
    closeness = torch.nn.functional.cosine_similarity
    assert closeness(asked, same) > closeness(asked, other) + 0.3
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train/correct"] > 0.6 > rows[0]["train/correct"]


def test_the_text_stage_hands_on_what_will_ship(text):
    stored = load_part(text / "text_encoder")
    assert all(value.dtype == torch.float16 for value in stored.values())
    assert own_text_encoder(CONFIG, text).encode(["rain"]).hidden.dtype == torch.float32


def test_a_checkpoint_of_another_configuration_is_refused(clips, text, tmp_path):
    train_flow(CONFIG, clips, tmp_path / "run", text=text, quiet=True, max_minutes=0)
    wider = replace(CONFIG, unet=replace(CONFIG.unet, channels=(16, 48)))
    with pytest.raises(ModelError, match="does not fit this configuration"):
        train_flow(wider, clips, tmp_path / "run", text=text, quiet=True)


def test_a_checkpoint_of_another_optimiser_is_refused(clips, text, tmp_path):
    train_flow(CONFIG, clips, tmp_path / "run", text=text, max_minutes=0, quiet=True)
    muon = replace(CONFIG, flow_stage=replace(STAGE, optimiser="muon"))
    with pytest.raises(ModelError, match="another optimiser"):
        train_flow(muon, clips, tmp_path / "run", text=text, quiet=True)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_weight_decay_that_is_changed_holds_after_resuming(clips, text, tmp_path, optimiser):
    stage = replace(STAGE, optimiser=optimiser, steps=1)
    train_flow(replace(CONFIG, flow_stage=stage), clips, tmp_path / "run", text=text, quiet=True)
    separator = tiny_separator(CONFIG)
    objective = FlowObjective(separator.unet.requires_grad_(True), separator.text, separator.codec, CONFIG)
    resumed = Trainer(objective, replace(stage, weight_decay=0.5), tmp_path / "run", seed=0)
    assert resumed.step == 1
    assert {group["weight_decay"] for group in resumed.optimiser.param_groups} == {0.5}


def test_the_scale_of_half_precision_gradients_is_resumed(clips, text, tmp_path):
    train_flow(replace(CONFIG, flow_stage=replace(STAGE, steps=1)), clips, tmp_path / "run", text=text, quiet=True)
    separator = tiny_separator(CONFIG)
    objective = FlowObjective(separator.unet.requires_grad_(True), separator.text, separator.codec, CONFIG)
    trainer = Trainer(objective, STAGE, tmp_path / "run", seed=0)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)  # as on a GPU in fp16
    trainer.step = 2
    trainer.save()
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert trainer.resume(tmp_path / "run" / "checkpoints" / "step-2") == 2
    assert trainer.accelerator.scaler.get_scale() == 8.0


def test_excluded_classes_reach_no_mixture_and_no_wording(clips, tmp_path):
    data = replace(DATA, exclude=("hiss", "rain"), synthetic=0.5, stand_ins=0.1, phrasings=True)
    left_out = replace(CONFIG, data=data)
    used, dataset = training_data(left_out, clips)
    assert {clip.label for clip in used} == {"low_hum", "high_whistle", "clicks"}
    assert "rain" not in dataset.synthetic and "siren" in dataset.synthetic
    assert "rain" not in dataset.missing and {"siren", "cat_meow"} <= set(dataset.missing)
    wordings, _ = class_wordings(left_out, clips)
    assert not {"hiss", "rain"} & wordings.keys() and {"siren", "low_hum", "dog_bark"} <= wordings.keys()
    assert class_wordings(replace(CONFIG, data=replace(data, exclude=())), clips)[0].keys() >= {"hiss", "rain"}
    short = replace(left_out, text=replace(CONFIG.text, vocab_size=200), text_stage=replace(STAGE, steps=1))
    train_text(short, clips, tmp_path / "run", quiet=True)  # the wordings held out name classes that it knows
    with pytest.raises(UsageError, match="the class dog_brak of"):
        training_data(replace(CONFIG, data=replace(data, exclude=("dog_brak",))), clips)


def test_stand_ins_replace_recordings_that_may_not_be_used(clips, tmp_path):
    rows = [f"{clip.path},{clip.label},0" for clip in read_manifest(clips)]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["path,class,nc", *rows, f"{read_manifest(clips)[0].path},cat_meow,1"]) + "\n")
    free = replace(CONFIG, data=replace(DATA, stand_ins=0.1))
    bound = replace(CONFIG, data=replace(DATA, stand_ins=0.1, commercial_only=False))
    missing, missing_less = (training_data(config, manifest)[1].missing for config in (free, bound))
    assert set(missing) - set(missing_less) == {"cat_meow"} and "frog" in missing_less


def test_clips_that_may_not_be_used_are_counted(clips, tmp_path):
    rows = [f"{clip.path},{clip.label},1" for clip in read_manifest(clips)]
    (tmp_path / "all.csv").write_text("\n".join(["path,class,nc", *rows]))
    with pytest.raises(InputError, match="12 are in the split, 0 of them commercial"):
        training_data(CONFIG, tmp_path / "all.csv")


def test_every_synthesised_kind_has_its_family_in_the_text_stage(clips):
    families = class_wordings(replace(CONFIG, data=replace(DATA, phrasings=True)), clips)[1]
    dataset = training_data(replace(CONFIG, data=replace(DATA, stand_ins=0.5)), clips)[1]
    assert families["church_bells"] == dataset.family_of("church_bells") == "bell"


def test_learning_rate_warms_up_stays_and_falls():
    stage = StageConfig(steps=100, warmup=10, decay_share=0.5, final_learning_rate=0.1)
    assert learning_rate_share(0, stage) == pytest.approx(0.1)
    assert learning_rate_share(9, stage) == learning_rate_share(50, stage) == 1.0
    assert learning_rate_share(75, stage) == pytest.approx(0.55)
    assert learning_rate_share(100, stage) == pytest.approx(0.1)
    assert learning_rate_share(10**6, StageConfig()) == 1.0


def test_rendering_losses_vanish_for_the_truth_and_see_a_wrong_mask():
    target, other = torch.randn(2, 513, 16, dtype=torch.complex64), torch.zeros(2, 513, 16, dtype=torch.complex64)
    separator = tiny_separator(MIXTURE)
    mels = [separator.log_mel(torch.nn.functional.pad(s, (0, 1))) for s in (target, other)]
    true = rendering_losses(mels, mels, mels[0], target + other, target, separator.bin_weights, 1.0, 0.1)
    swapped = rendering_losses(mels[::-1], mels, mels[0], target + other, target, separator.bin_weights, 1.0, 0.1)
    assert true["mel"] == 0 and true["mask"] == 0 and true["snr"] == pytest.approx(-3.0, abs=0.01)
    assert swapped["mel"] > 5 and swapped["mask"] > 0.9 and swapped["snr"] == pytest.approx(0.0, abs=0.01)


def test_the_mel_loss_weighs_quiet_cells_as_configured():
    spectrum = torch.zeros(1, 513, 16, dtype=torch.complex64)
    loud, silent = torch.zeros(1, 16, 64), torch.full((1, 16, 64), -11.5)
    for mixture_mel, quiet, weight in ((silent, 0.1, 0.1), (silent, 1.0, 1.0), (loud, 0.1, 1.0)):
        bands = tiny_separator(MIXTURE).bin_weights
        found = rendering_losses([loud], [loud + 2], mixture_mel, spectrum, spectrum, bands, 1.0, quiet)
        assert found["mel"] == pytest.approx(2 * weight)


def test_the_front_end_hears_what_the_separator_hears_and_silence_has_finite_slopes():
    separator = tiny_separator(MIXTURE)
    front_end = FrontEnd(separator.mel, 1)
    audio = 0.1 * torch.randn(2, 1600)
    ours = front_end.log_mel(front_end.spectrum(audio))
    torch.testing.assert_close(ours, separator.log_mel(stft(audio, separator.mel)))
    silence = torch.zeros(1, 1600, requires_grad=True)
    front_end.log_mel(front_end.spectrum(silence)).sum().backward()
    assert torch.isfinite(silence.grad).all()


def test_dropped_captions_are_the_empty_one_and_differ_per_item():
    separator = tiny_separator(MIXTURE)
    config = replace(MIXTURE, flow_loss=FlowLossConfig(condition_dropout=0.5, start_share=0.5))
    objective = FlowObjective(separator.unet, separator.text, separator.codec, config)
    torch.manual_seed(0)
    state = objective.text_state(["a dog barking"] * 64)
    empty = separator.text.encode([""])
    dropped = (state.mask.sum(1) == empty.mask.sum()).float().mean().item()
    assert dropped == pytest.approx(0.5, abs=0.2)
    assert (objective.draw_times(1000) == 0).float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_official_condition_dropout_attends_all_fifty_positions():
    separator = tiny_separator(PAPER)
    padded = replace(PAPER, text=replace(PAPER.text, pad_to_max=True), flow_loss=FlowLossConfig(condition_dropout=1.0))
    separator.text.config = padded.text
    objective = FlowObjective(separator.unet, separator.text, separator.codec, padded)
    state = objective.text_state(["a dog barking", "rain"])
    assert state.mask.shape == (2, 50) and state.mask.min() == 1


def test_vocoder_learns_and_joins_the_exported_model(clips, text, tmp_path):
    stage = replace(STAGE, steps=12, batch_size=2, learning_rate=2e-3, warmup=1)
    config = replace(CONFIG, vocoder_stage=stage)
    vocoder = train_vocoder(config, clips, tmp_path / "vocoder", quiet=True)
    losses = list(losses_of(tmp_path / "vocoder").values())
    assert losses[-1] < 0.9 * losses[0]
    model = train_flow(
        replace(config, flow_stage=replace(STAGE, steps=1)), clips, tmp_path / "flow", text=text, quiet=True
    )
    out = tmp_path / "exported"
    arguments = ["export", str(model), str(out), "--vocoder", str(vocoder), "--steps", "3", "--mask-exponent", "2"]
    assert main(arguments) == 0
    assert main(arguments) == 3  # nothing is overwritten unasked
    assert main([*arguments[:2], str(tmp_path / "none"), "--mask-exponent", "0"]) == 2
    exported = load_separator(out, device="cpu")
    assert (exported.sampling.steps, exported.flow.mask_exponent, exported.vocoder is not None) == (3, 2.0, True)
    files = list(out.rglob("*.safetensors"))
    assert all(value.dtype == torch.float16 for file in files for value in load_file(file).values())


def test_precision_may_differ_between_stages_and_mels_stay_float32_under_it(clips, text, tmp_path):
    half = replace(CONFIG, flow_stage=replace(STAGE, steps=2, precision="bf16"))
    train_flow(half, clips, tmp_path / "half", text=text, quiet=True)
    train_flow(CONFIG, clips, tmp_path / "full", text=text, quiet=True, max_minutes=0)
    separator = tiny_separator(MIXTURE)
    objective = FlowObjective(separator.unet, separator.text, separator.codec, CONFIG)
    seen = []
    original = objective.front_end.log_mel
    objective.front_end.log_mel = lambda spectrum: seen.append(original(spectrum)) or seen[-1]
    audio = 0.1 * torch.randn(2, 10240)
    batch = {"mixture": audio, "target": audio / 2, "residual": audio / 2, "text": ["hiss", "low hum"]}
    with torch.autocast("cpu", torch.bfloat16):
        objective(batch)
    assert seen and all(mel.dtype == torch.float32 for mel in seen)


def test_media_shows_items_in_which_both_parts_sound(clips, text, tmp_path):
    config = replace(CONFIG, data=replace(DATA, target_alone=0.4, target_absent=0.4))
    config = replace(config, flow_stage=replace(STAGE, media_steps=3))
    train_flow(config, clips, tmp_path / "run", text=text, quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    values = [row["media/si_sdri"] for row in rows if "media/si_sdri" in row]
    assert len(values) == 2 and all(abs(value) < 60 for value in values)


def test_vae_media_can_be_seen_and_heard(clips, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(PAPER, data=DATA, vae_stage=replace(STAGE, steps=1, media_steps=1))
    train_vae(config, clips, tmp_path / "run", quiet=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert "0/mel_and_decoded" in events.Tags()["images"]
    assert {"0/mixture", "0/decoded"} <= set(events.Tags()["audio"])


def test_training_can_go_on_from_a_model(clips, text, tmp_path):
    first = train_flow(CONFIG, clips, tmp_path / "first", text=text, quiet=True)
    still = replace(CONFIG, flow_stage=replace(STAGE, steps=1, learning_rate=0.0))
    second = train_flow(still, clips, tmp_path / "second", start=first, quiet=True)
    expected, found = weights_of(first), weights_of(second)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    wider = replace(CONFIG, unet=replace(CONFIG.unet, channels=(16, 48)))
    with pytest.raises(ModelError, match="does not fit this configuration"):
        train_flow(wider, clips, tmp_path / "third", start=first, quiet=True)


def test_a_network_trained_on_with_another_text_encoder_first_learns_to_read_it(clips, text, tmp_path):
    first = train_flow(CONFIG, clips, tmp_path / "first", text=text, quiet=True)
    still = replace(CONFIG, flow_stage=replace(STAGE, steps=1, learning_rate=0.0))
    other = train_text(replace(CONFIG, seed=5), clips, tmp_path / "text", tokenizer=text / "tokenizer", quiet=True)
    second = train_flow(still, clips, tmp_path / "second", text=other, start=first, quiet=True)
    expected, found = load_part(first / "unet"), load_part(second / "unet")
    moved = {name for name in expected if not torch.equal(expected[name], found[name])}
    assert "class_embedding.weight" in moved
    assert all(name == "class_embedding.weight" or "attn2.to_" in name for name in moved)
    assert torch.equal(
        load_part(second / "text_encoder")["shared.weight"], load_part(other / "text_encoder")["shared.weight"]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_two_processes_do_not_train_in_one_folder(clips, tmp_path):
    (tmp_path / "run").mkdir()
    code = "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX)"
    code += "; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "run" / ".lock"], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(UsageError, match=r"another process trains in .*run; wait for it, or use another --run"):
            train_text(CONFIG, clips, tmp_path / "run", quiet=True)
        other.kill()
    train_text(CONFIG, clips, tmp_path / "run", quiet=True)


def test_a_damaged_checkpoint_says_what_to_do(clips, text, tmp_path):
    train_flow(CONFIG, clips, tmp_path / "run", text=text, quiet=True, max_minutes=0)
    (tmp_path / "run" / "checkpoints" / "step-1" / "ema.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is damaged; delete it"):
        train_flow(CONFIG, clips, tmp_path / "run", text=text, quiet=True)


def test_saving_never_replaces_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="left alone"):
        tiny_separator(MIXTURE).save_pretrained(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"
