"""The noising process and the samplers, against formulas."""

import pytest
import torch

from flowsep.config import load_config
from flowsep.diffusion import PREDICTIONS, SOLVER_NAMES
from flowsep.diffusion.process import (
    DiffusionConfig,
    as_noise,
    as_target,
    noise_levels,
    noised,
    time_of,
    timestep_of,
    training_goal,
)
from flowsep.diffusion.samplers import SCHEDULERS, STOCHASTIC, make_scheduler, sample, set_steps
from flowsep.flow.grids import uniform
from flowsep.flow.guidance import Counted

CONFIG = DiffusionConfig()
DETERMINISTIC = [name for name in SOLVER_NAMES if name not in STOCHASTIC]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def closed_form(config):
    """a^2 of every timestep in float64."""
    power = 2 if config.schedule == "scaled_linear" else 1
    ends = (config.beta_start ** (1 / power), config.beta_end ** (1 / power))
    betas = torch.linspace(*ends, config.timesteps, dtype=torch.float64) ** power
    return (1 - betas).cumprod(0)


@pytest.mark.parametrize("config", [CONFIG, DiffusionConfig(schedule="linear", beta_end=0.02, timesteps=400)])
def test_levels_are_the_closed_form_of_the_schedule(config):
    a, s = noise_levels(config)
    kept = closed_form(config).float()
    torch.testing.assert_close(a**2, kept, rtol=2e-4, atol=0)  # float32 products of a thousand factors
    torch.testing.assert_close(s**2, 1 - kept, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(a**2 + s**2, torch.ones_like(a))


def test_the_default_schedule_is_audioldms_bit_for_bit():
    from diffusers import DDIMScheduler

    published = DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    assert torch.equal(noise_levels(CONFIG)[0], published.alphas_cumprod.sqrt())
    for solver in SCHEDULERS:
        assert torch.equal(make_scheduler(solver, CONFIG).betas, published.betas)
    a, s = (level[-1].item() for level in noise_levels(CONFIG))
    assert s / a == pytest.approx(83, abs=1)  # the figure that the docstrings name


def test_time_runs_from_noise_to_target_and_back_to_the_same_timestep():
    n = torch.arange(CONFIG.timesteps)
    t = time_of(n, CONFIG)
    assert torch.equal(timestep_of(t, CONFIG), n)
    assert t[-1] == 0 and t[0].item() == pytest.approx(0.999) and (t.diff() < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 4, 10, 25, 50, 100, 200])
@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_steps_are_those_of_the_flows_uniform_grid(solver, steps):
    scheduler = make_scheduler(solver, CONFIG)
    set_steps(scheduler, steps)
    torch.testing.assert_close(time_of(scheduler.timesteps, CONFIG), uniform(steps)[:-1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_any_number_of_steps_up_to_the_timesteps_is_that_number(solver):
    scheduler = make_scheduler(solver, CONFIG)
    for steps in [*range(1, 130), 333, 600, 667, 999, 1000]:
        set_steps(scheduler, steps)
        assert len(scheduler.sigmas) == steps + 1 and scheduler.sigmas[-1] == 0
        assert len(scheduler.timesteps.unique()) == len(scheduler.timesteps) == steps
        assert scheduler.timesteps.min() >= 0 and scheduler.timesteps.max() == 999


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_means_the_same_target_and_noise(prediction):
    target, noise = normal(64, 3, seed=1), normal(64, 3, seed=2)
    n = torch.arange(64) * 15
    a, s = (level[n] for level in noise_levels(CONFIG))
    x = noised(target, noise, a, s)
    torch.testing.assert_close(x, a[:, None] * target + s[:, None] * noise)
    output = training_goal(target, noise, a, s, prediction)
    found = as_target(output, x, a, s, prediction)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-4)
    torch.testing.assert_close(as_noise(found, x, a, s), noise, rtol=0, atol=2e-5)


def test_the_three_predictions_are_related_by_a_rotation():
    target, noise = normal(5, seed=1), normal(5, seed=2)
    a, s = (level[500] for level in noise_levels(CONFIG))
    x, v = noised(target, noise, a, s), training_goal(target, noise, a, s, "v")
    torch.testing.assert_close(a * x - s * v, target)
    torch.testing.assert_close(s * x + a * v, noise)


def towards(estimate, prediction, config=CONFIG):
    """The velocity of a network whose output says, in terms of `prediction`, that the target is estimate(x, a, s)."""
    levels = noise_levels(config)

    def velocity(t, x):
        a, s = (level[timestep_of(t, config)] for level in levels)
        target = estimate(x, a, s)
        output = training_goal(target, as_noise(target, x, a, s), a, s, prediction)
        return (as_target(output, x, a, s, prediction) - x) / (1 - t)

    return velocity


@pytest.mark.parametrize("steps", [1, 2, 7, 61])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_a_network_that_knows_the_one_target_reaches_it_in_any_number_of_steps(solver, prediction, steps):
    target = normal(2, 4, 3, 5, seed=3)  # its posterior mean is the target, whatever the state
    counted = Counted(towards(lambda x, a, s: target, prediction))
    found = sample(counted, normal(2, 4, 3, 5), steps, solver, CONFIG, generators(2))
    torch.testing.assert_close(found, target, rtol=0, atol=1e-4)
    assert counted.calls == steps


MEAN, SPREAD = 0.5, 0.3  # of normally distributed targets


def gaussian_mean(x, a, s):
    """E[x0 | x] where the targets are N(MEAN, SPREAD^2)."""
    return MEAN + a * SPREAD**2 / (a**2 * SPREAD**2 + s**2) * (x - a * MEAN)


def gaussian_error(solver, steps):
    """Root mean square distance from where the probability-flow equation leads: it keeps the standard score of x."""
    noise = normal(1, 2000)
    a, s = (level[-1] for level in noise_levels(CONFIG))
    score = (noise - a * MEAN) / (a**2 * SPREAD**2 + s**2).sqrt()
    found = sample(towards(gaussian_mean, "eps"), noise, steps, solver, CONFIG)
    return (found - (MEAN + SPREAD * score)).square().mean().sqrt().item()


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_deterministic_samplers_converge_to_the_probability_flow(solver):
    errors = [gaussian_error(solver, steps) for steps in (10, 40, 160)]
    assert errors[0] > 2 * errors[1] > 2**2 * errors[2] and errors[2] < 0.025


def test_second_order_samplers_are_ahead_of_ddim_at_equal_calls():
    # All take their last step, down to no noise, by the first order; it is most of the error that is left.
    ddim = gaussian_error("ddim", 160)
    assert gaussian_error("dpmpp2m", 160) < 0.7 * ddim and gaussian_error("unipc", 160) < 0.7 * ddim


def test_ancestral_samples_are_distributed_like_the_targets():
    found = sample(towards(gaussian_mean, "eps"), normal(4, 5000), 1000, "euler_ancestral", CONFIG, generators(4))
    assert found.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert found.std().item() == pytest.approx(SPREAD, rel=0.05)


def test_ddim_is_diffusers_ddim_where_the_steps_divide_the_timesteps():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False,
        timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(20)
    a, s = noise_levels(CONFIG)
    x = noise = normal(2, 50)
    for n in scheduler.timesteps:
        estimate = gaussian_mean(x, a[n], s[n])
        x = scheduler.step(as_noise(estimate, x, a[n], s[n]), n, x).prev_sample
    found = sample(towards(gaussian_mean, "eps"), noise, 20, "ddim", CONFIG)
    torch.testing.assert_close(found, x, rtol=0, atol=2e-5)


def test_new_noise_is_the_items_own():
    noise = normal(3, 40)
    velocity = towards(gaussian_mean, "eps")
    together = sample(velocity, noise, 5, "euler_ancestral", CONFIG, generators(3))
    alone = sample(velocity, noise[1:2], 5, "euler_ancestral", CONFIG, generators(3)[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-6)
    other = sample(velocity, noise[1:2], 5, "euler_ancestral", CONFIG, generators(1))
    assert not torch.allclose(alone, other, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prediction": "noise"}, "unknown diffusion.prediction 'noise'; choose from eps, v, x0"),
        ({"schedule": "cosine"}, "choose from scaled_linear, linear"),
        ({"streams": "three"}, "unknown diffusion.streams"),
        ({"beta_start": 0.1}, "must rise"),
        ({"timesteps": 0}, "at least 1"),
    ],
)
def test_unusable_settings_say_what_is_possible(values, message):
    with pytest.raises(ValueError, match=message):
        DiffusionConfig(**values)


def test_the_committed_configurations_differ_in_the_method_alone():
    diffusion, flow, small = (load_config(name) for name in ("small-diffusion", "small-flow", "small"))
    for block in ("codec", "text", "unet", "vocoder", "data", "text_stage", "seed"):
        assert getattr(diffusion, block) == getattr(flow, block) == getattr(small, block)
    assert diffusion.unet_stage == flow.unet_stage
    assert (diffusion.method, flow.method) == ("diffusion", "flow")
    assert (diffusion.process.streams, diffusion.process.mask_exponent) == (flow.process.streams, 1.0)
    assert (diffusion.process.prediction, flow.process.predict, flow.process.start) == ("x0", "target", "noise")
    for name in ("mel", "quiet", "mask", "snr", "condition_dropout"):
        assert getattr(diffusion.unet_loss, name) == getattr(flow.unet_loss, name)
    assert diffusion.unet_loss.diffusion == flow.unet_loss.flow and flow.unet_loss.start_share == 0
    official = load_config("diffusionsep")
    assert official.unet == load_config("flowsep").unet and official.codec == load_config("flowsep").codec
    assert official.process == CONFIG and official.sampling.steps == 200
