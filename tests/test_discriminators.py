"""The vocoder's adversary."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from flowsep.checkpoint import load_vocoder
from flowsep.config import VocoderLossConfig
from flowsep.errors import ModelError
from flowsep.training.objectives import VocoderObjective
from flowsep.training.recipes import copy_weights, train_vocoder, trained_vocoder
from tests.tiny import MIXTURE, STAGE, tiny_separator, write_clips
from vocoder.discriminators import (
    DiscriminatorConfig,
    Discriminators,
    PeriodDiscriminator,
    ResolutionDiscriminator,
    adversarial_losses,
)
from vocoder.model import Vocoder

SMALL = DiscriminatorConfig(width=0.1, periods=(2, 5), resolutions=(256,))


def gradients(module):
    return [parameter.grad for parameter in module.parameters()]


def test_a_period_folds_the_waveform_so_that_only_samples_a_period_apart_meet():
    torch.manual_seed(0)
    judge, audio = PeriodDiscriminator(5, 0.1), torch.randn(1, 500)
    changed = audio.clone()
    changed[0, 2::5] += 1.0  # one column
    difference = (judge(audio)[1][0] - judge(changed)[1][0]).abs().amax((0, 1, 2))
    assert difference[2] > 0 and difference[[0, 1, 3, 4]].max() == 0


@pytest.mark.parametrize("length", [1600, 1601])
def test_scores_and_features_have_a_batch_each(length):
    audio = torch.randn(3, length)
    for judge in (PeriodDiscriminator(3, 0.1), ResolutionDiscriminator(256, 0.5)):
        score, features = judge(audio)
        assert score.shape[0] == 3 and score.ndim == 2 and len(features) == 6
        torch.testing.assert_close(judge(audio[1:2])[0], score[1:2], atol=1e-5, rtol=1e-4)


def test_each_side_of_the_adversary_gets_only_its_own_gradient():
    torch.manual_seed(0)
    judges, audio = Discriminators(SMALL), torch.randn(2, 2000)
    made = torch.randn(2, 2000, requires_grad=True)
    own, fooled, features = adversarial_losses(judges, made, audio)
    own.backward()
    assert made.grad is None and all(gradient is not None for gradient in gradients(judges))
    judges.zero_grad(set_to_none=True)
    _, fooled, features = adversarial_losses(judges, made, audio)
    (fooled + features).backward()
    assert made.grad.abs().max() > 0 and not any(gradient is not None for gradient in gradients(judges))


def test_losses_are_the_least_squares_of_the_scores():
    torch.manual_seed(0)
    judges, audio, made = Discriminators(SMALL), torch.randn(2, 2000), torch.randn(2, 2000)
    own, fooled, features = adversarial_losses(judges, made, audio)
    real, fake = judges(audio), judges(made)
    expected = sum(((1 - r) ** 2).mean() + (f**2).mean() for (r, _), (f, _) in zip(real, fake, strict=True))
    torch.testing.assert_close(own, expected)
    torch.testing.assert_close(fooled, sum(((1 - f) ** 2).mean() for f, _ in fake))
    apart = [(a - b).abs().mean() for (_, r), (_, f) in zip(real, fake, strict=True) for a, b in zip(r, f, strict=True)]
    torch.testing.assert_close(features, 2 * sum(apart))
    assert adversarial_losses(judges, audio, audio)[2] == 0


def test_discriminators_learn_to_tell_a_tone_from_noise():
    torch.manual_seed(0)
    judges, steps = Discriminators(SMALL), torch.arange(2000) / 16000
    optimiser = torch.optim.Adam(judges.parameters(), 3e-3)
    for _ in range(25):
        tone = torch.sin(2 * torch.pi * (400 + 400 * torch.rand(4, 1)) * steps)
        own, _, _ = adversarial_losses(judges, 0.7 * torch.randn(4, 2000), tone)
        optimiser.zero_grad()
        own.backward()
        optimiser.step()
    assert own < 0.5 * len(judges.members)  # 1 for each where nothing is told apart, 0.5 for the best constant


def test_the_adversary_is_part_of_the_vocoders_loss_only_where_it_has_a_weight():
    torch.manual_seed(0)
    vocoder = Vocoder(MIXTURE.vocoder)
    batch = {key: 0.1 * torch.randn(2, 4096) for key in ("target", "mixture")}
    alone, parts = VocoderObjective(vocoder, MIXTURE)(batch)
    assert set(parts) == {"mel", "magnitude", "convergence"}
    weighted = replace(MIXTURE, vocoder_loss=VocoderLossConfig(adversarial=0.1, discriminators=SMALL))
    total, parts = VocoderObjective(vocoder, weighted)(batch)
    extra = parts["discriminators"] + 0.1 * (parts["fooled"] + parts["features"])
    torch.testing.assert_close(total, alone + extra, atol=1e-3, rtol=1e-4)


def test_a_vocoder_goes_on_from_a_model_with_an_adversary_and_resumes_exactly(tmp_path):
    clips = write_clips(tmp_path / "clips")
    stage = replace(STAGE, steps=4, batch_size=2, warmup=1, learning_rate=1e-4)
    loss = VocoderLossConfig(adversarial=0.1, discriminators=SMALL)
    config = replace(MIXTURE, vocoder_stage=stage, vocoder_loss=loss)
    tiny_separator().save_pretrained(tmp_path / "model")
    whole = train_vocoder(config, clips, tmp_path / "whole", tmp_path / "model", quiet=True)
    halfway = replace(config, vocoder_stage=replace(stage, steps=2))
    train_vocoder(halfway, clips, tmp_path / "parts", tmp_path / "model", quiet=True)
    parts = train_vocoder(config, clips, tmp_path / "parts", tmp_path / "model", quiet=True)
    one, two = (load_file(next(folder.glob("*.safetensors"))) for folder in (whole, parts))
    first = tiny_separator().vocoder.generator.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    moved = max((one[name] - first[name]).abs().max().item() for name in one)
    assert 0 < moved < 0.01  # four small steps from where the model was


def test_a_model_without_a_fitting_vocoder_is_refused(tmp_path):
    tiny_separator().save_pretrained(tmp_path / "model")
    wide = replace(MIXTURE.vocoder, upsample_initial_channel=2 * MIXTURE.vocoder.upsample_initial_channel)
    with pytest.raises(ModelError, match="does not fit"):
        copy_weights(Vocoder(wide), trained_vocoder(tmp_path / "model"), "it")
    silent = tiny_separator()
    silent.vocoder = None
    silent.save_pretrained(tmp_path / "silent")
    with pytest.raises(ModelError, match="no vocoder"):
        trained_vocoder(tmp_path / "silent")


@pytest.mark.parametrize("damage", ["{}", '{"mel": 3}', "[]", "not json"])
def test_a_folder_without_a_readable_vocoder_says_what_to_give(tmp_path, damage):
    (tmp_path / "config.json").write_text(damage)
    for read in (trained_vocoder, load_vocoder):
        with pytest.raises(ModelError, match="holds no vocoder that can be read; give what"):
            read(tmp_path)
