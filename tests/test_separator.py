from dataclasses import replace

import pytest
import torch

from flowsep.errors import UsageError
from flowsep.flow.path import seeded_noise, start_of
from flowsep.heard import normalise
from flowsep.protocol import SampleOptions, TextSeparator
from tests.tiny import DIFFUSION, MIXTURE, PAPER, tiny_separator

TEXT = "a dog barking"


@pytest.fixture(scope="module", params=[PAPER, MIXTURE, DIFFUSION], ids=["paper", "mixture", "diffusion"])
def separator(request):
    return tiny_separator(request.param)


def mixture(batch=1, samples=9000):
    return 0.2 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(7))


def test_separator_is_a_text_separator(separator):
    assert isinstance(separator, TextSeparator)


@pytest.mark.parametrize("render", ["mixture", "vocoder"])
@pytest.mark.parametrize("samples", [1, 200, 9000, 20480])
def test_length_is_kept_and_target_plus_residual_is_the_mixture(separator, render, samples):
    sound = mixture(samples=samples)
    result = separator.separate(sound, [TEXT], SampleOptions(render=render))
    assert result.target.shape == result.residual.shape == (1, samples)
    assert torch.equal(result.residual, sound - result.target)
    assert torch.isfinite(result.target).all()


def test_same_seed_same_result_in_any_batch_and_other_seed_another(separator):
    sounds, texts = mixture(batch=3), [TEXT, "rain falling", "a siren"]
    options = SampleOptions(steps=2, seed=5)
    together = separator.separate(sounds, texts, options).target
    alone = separator.separate(sounds[1:2], texts[1:2], options).target
    torch.testing.assert_close(together[1:2], alone, atol=2e-5, rtol=0)
    other = separator.separate(sounds[1:2], texts[1:2], replace(options, seed=6)).target
    assert not torch.allclose(alone, other, atol=1e-4)


@pytest.mark.parametrize("render", ["mixture", "vocoder"])
def test_output_level_follows_the_input_level(separator, render):
    sound = mixture()
    options = SampleOptions(render=render)
    plain = separator.separate(sound, [TEXT], options).target
    quiet = separator.separate(sound / 100, [TEXT], options).target
    torch.testing.assert_close(100 * quiet, plain, atol=2e-3 * plain.abs().max().item(), rtol=0)


def test_normalisation_peaks_at_a_half_and_can_be_undone():
    sound = mixture() + 0.3
    normalised, mean, gain = normalise(sound)
    assert normalised.abs().max().item() == pytest.approx(0.5, abs=1e-6)
    torch.testing.assert_close(normalised / gain + mean, sound)


def test_network_calls_follow_solver_and_guidance():
    separator = tiny_separator(PAPER)
    counts = {}
    for solver in ("euler", "midpoint", "heun", "rk4", "dopri5"):
        counts[solver] = separator.separate(mixture(), [TEXT], SampleOptions(steps=3, solver=solver)).nfe
    assert {name: counts[name] for name in ("euler", "midpoint", "heun", "rk4")} == {
        "euler": 3, "midpoint": 6, "heun": 6, "rk4": 12
    }  # fmt: skip
    assert counts["dopri5"] > 6
    assert separator.separate(mixture(), [TEXT], SampleOptions(steps=3, guidance=2.0)).nfe == 6


def test_a_target_predicting_model_takes_its_last_step_with_euler():
    separator = tiny_separator(MIXTURE)
    result = separator.separate(mixture(), [TEXT], SampleOptions(steps=3, solver="heun"))
    assert result.nfe == 2 * 2 + 1 and torch.isfinite(result.target).all()


def test_guidance_and_text_change_the_result():
    separator = tiny_separator(PAPER)
    plain = separator.separate(mixture(), [TEXT]).target
    assert not torch.allclose(plain, separator.separate(mixture(), ["rain falling"]).target)
    assert not torch.allclose(plain, separator.separate(mixture(), [TEXT], SampleOptions(guidance=3.0)).target)


def test_one_euler_step_of_the_paper_is_noise_plus_velocity():
    separator = tiny_separator(PAPER)
    source = torch.randn(1, 4, 32, 16)
    text = separator.text.encode([TEXT])
    noise = seeded_noise((4, 32, 16), [0])
    options = separator.resolve(SampleOptions(steps=1))
    with torch.inference_mode():
        latent, nfe = separator.generate(source, text, None, noise, options)
        velocity = separator.velocity(source, text)(torch.tensor(0.0), start_of(source, noise, separator.flow))
    torch.testing.assert_close(latent, noise + velocity)
    assert nfe == 1


def test_mask_is_returned_on_ten_millisecond_frames():
    result = tiny_separator(MIXTURE).separate(mixture(samples=16000), [TEXT])
    assert result.mask.shape == (1, 101, 64)
    assert result.mask.min() >= 0 and result.mask.max() <= 1


def test_digital_silence_stays_silent(separator):
    result = separator.separate(torch.zeros(1, 8000), [TEXT], SampleOptions(render="mixture"))
    assert not result.target.any()
    spoken = separator.separate(torch.zeros(1, 8000), [TEXT], SampleOptions(render="vocoder"))
    assert spoken.target.abs().max() < 1e-6  # the gain that silence was normalised by is put back


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SampleOptions(steps=0), "steps must be at least 1"),
        (SampleOptions(solver="leapfrog"), "unknown solver 'leapfrog'; choose from (euler, midpoint|ddim, dpmpp2m)"),
        (SampleOptions(render="karaoke"), "unknown rendering 'karaoke'; choose from mixture, vocoder"),
    ],
)
def test_unusable_options_say_what_is_possible(separator, options, message):
    with pytest.raises(UsageError, match=message):
        separator.separate(mixture(), [TEXT], options)


def test_too_long_input_is_refused_not_cut(separator):
    with pytest.raises(UsageError, match=r"use flowsep.longform"):
        separator.separate(torch.zeros(1, separator.window + 1), [TEXT])


def test_states_of_a_query_are_computed_once():
    separator = tiny_separator(MIXTURE)
    calls = []
    separator.text.model.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        separator.separate(mixture(batch=2), [TEXT, TEXT])
    assert len(calls) == 1


@pytest.mark.parametrize("render", ["mixture", "vocoder"])
def test_queries_of_one_expanded_mixture_share_its_encoding_and_get_what_each_would_alone(separator, render):
    sound, texts, batches = mixture(), [TEXT, "rain falling", "a siren"], []
    options = SampleOptions(render=render)
    encode = separator.codec.encode
    separator.codec.encode = lambda mel: batches.append(len(mel)) or encode(mel)
    try:
        shared = separator.separate(sound.expand(3, -1), texts, options)
        repeated = separator.separate(sound.repeat(3, 1), texts, options)
    finally:
        del separator.codec.encode
    assert batches == [1, 3]
    assert shared.target.shape == shared.residual.shape == (3, 9000)
    torch.testing.assert_close(shared.target, repeated.target, atol=2e-5, rtol=0)
