"""DiffusionSep through the whole chain: sampling options, the folder, training, and the command line."""

import json
from dataclasses import replace

import pytest
import soundfile
import torch

from flowsep.checkpoint import load_separator, solver_names
from flowsep.cli import main
from flowsep.config import DiffusionLossConfig, load_config, save_config
from flowsep.diffusion import PREDICTIONS, SOLVER_NAMES, process
from flowsep.diffusion.process import DiffusionConfig
from flowsep.diffusion.separator import DiffusionSep
from flowsep.errors import ModelError, UsageError
from flowsep.flow import SOLVER_NAMES as FLOW_SOLVERS
from flowsep.flow.guidance import Trajectory
from flowsep.protocol import SampleOptions
from flowsep.separator import FlowSep
from flowsep.training.objectives import DiffusionObjective, FlowObjective
from flowsep.training.recipes import train_diffusion, train_flow, train_text
from tests.fakes import tone
from tests.test_training import losses_of, weights_of
from tests.tiny import DIFFUSION, MIXTURE, PAPER, STAGE, tiny_separator, write_clips

TEXT = "a dog barking"
CONFIG = replace(DIFFUSION, data=replace(DIFFUSION.data, phrasings=False))
ON_A_VAE = replace(
    PAPER,
    method="diffusion",
    diffusion=DiffusionConfig(prediction="v"),
    sampling=replace(PAPER.sampling, steps=3, solver="ddim"),
)  # one stream, vocoder rendering


@pytest.fixture(scope="module", params=[DIFFUSION, ON_A_VAE], ids=["patches", "vae"])
def separator(request):
    return tiny_separator(request.param)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def text(clips, tmp_path_factory):
    return train_text(CONFIG, clips, tmp_path_factory.mktemp("text"), quiet=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "diffusion"
    tiny_separator(DIFFUSION).save_pretrained(folder)
    return folder


def mixture(batch=1, samples=9000):
    return 0.2 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_same_seed_same_result_in_any_batch(separator, solver):
    sounds, texts = mixture(batch=3), [TEXT, "rain falling", "a siren"]
    options = SampleOptions(steps=3, solver=solver, seed=5, guidance=1.5, negative="someone speaking")
    together = separator.separate(sounds, texts, options).target
    alone = separator.separate(sounds[1:2], texts[1:2], options).target
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=3e-5)
    assert torch.equal(alone, separator.separate(sounds[1:2], texts[1:2], options).target)
    other = separator.separate(sounds[1:2], texts[1:2], replace(options, seed=6)).target
    assert not torch.allclose(alone, other, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_a_step_is_one_call_and_guidance_other_than_1_doubles_them(separator, solver):
    rows = []  # of each call of the network: guidance asks for both in one, which counts as two
    hook = separator.unet.register_forward_hook(lambda _, inputs, output: rows.append(len(output[0])))
    try:
        plain = separator.separate(mixture(), [TEXT], SampleOptions(steps=4, solver=solver))
        assert plain.nfe == sum(rows) == 4
        guided = separator.separate(mixture(), [TEXT], SampleOptions(steps=4, solver=solver, guidance=2.0))
        assert guided.nfe == sum(rows) - 4 == 8
    finally:
        hook.remove()
    assert not torch.allclose(plain.target, guided.target, atol=1e-6)


def test_guidance_is_that_of_the_noise(separator):
    source = torch.randn(1, separator.codec.latent_channels, 8, 16)
    x = torch.randn(1, source.shape[1] * separator.process.stream_count, 8, 16)
    t = torch.tensor(0.25)
    n = process.timestep_of(t, separator.process)
    a, s = (level[n] for level in process.noise_levels(separator.process))
    outputs, velocities = [], []
    with torch.inference_mode():
        for query in (TEXT, "rain falling"):
            state = separator.text.encode([query])
            output = separator.network(source, state)(n, x)
            outputs.append(process.as_target(output, x, a, s, separator.process.prediction))
            velocities.append(separator.velocity(source, state)(t, x))
    noises = [process.as_noise(target, x, a, s) for target in outputs]
    guided = torch.lerp(velocities[1], velocities[0], 3.0)
    expected = torch.lerp(noises[1], noises[0], 3.0)
    torch.testing.assert_close(process.as_noise(x + (1 - t) * guided, x, a, s), expected, rtol=0, atol=1e-4)


def test_a_negative_query_and_an_interval_act_and_cost_what_they_do_in_a_flow(separator):
    options = SampleOptions(steps=10, guidance=2.0)
    plain, away = (separator.separate(mixture(), [TEXT], o) for o in (options, replace(options, negative="rain")))
    within = separator.separate(mixture(), [TEXT], replace(options, guidance_interval=(0.2, 0.5)))
    assert (plain.nfe, away.nfe, within.nfe) == (20, 20, 14)
    assert not torch.allclose(plain.target, away.target, atol=1e-6)
    assert not torch.allclose(plain.target, within.target, atol=1e-6)


def test_a_watch_sees_the_estimates_and_can_end_the_sampling(separator):
    seen, options = Trajectory(), SampleOptions(steps=4)
    found = separator.separate(mixture(), [TEXT], options, watch=seen)
    assert torch.equal(found.target, separator.separate(mixture(), [TEXT], options).target)
    assert seen.times == pytest.approx([0, 0.25, 0.5, 0.75]) and found.nfe == 4
    ended = separator.separate(mixture(), [TEXT], options, watch=lambda t, x, v: True)
    one = separator.separate(mixture(), [TEXT], SampleOptions(steps=1))
    assert ended.nfe == 1
    torch.testing.assert_close(ended.target, one.target, rtol=0, atol=1e-5)


def test_candidates_are_what_their_seeds_give_alone():
    separator = tiny_separator(DIFFUSION)
    options = SampleOptions(steps=2, solver="euler_ancestral", candidates=3, seed=4)
    found = separator.separate(mixture(batch=2), [TEXT, "rain"], options)
    kept = found.choices[1].seed
    alone = separator.separate(mixture(batch=2)[1:], ["rain"], replace(options, candidates=1, seed=kept))
    torch.testing.assert_close(found.target[1:], alone.target, rtol=0, atol=3e-5)


def test_half_precision_keeps_the_timestep_whole():
    separator = tiny_separator(DIFFUSION).to(torch.bfloat16)
    seen = []
    hook = separator.unet.time_proj.register_forward_pre_hook(lambda _, given: seen.append(int(given[0][0])))
    separator.separate(mixture(), [TEXT], SampleOptions(steps=5))
    hook.remove()
    assert seen == [999, 799, 599, 399, 199]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SampleOptions(solver="euler"), "unknown solver 'euler'; choose from ddim, dpmpp2m, unipc, euler_ancestral$"),
        (SampleOptions(steps=1001), "at most 1000"),
        (SampleOptions(grid="sway:-1"), "evenly spaced; leave --grid sway:-1 out"),
        (SampleOptions(steps=0), "at least 1"),
    ],
)
def test_what_a_diffusion_cannot_do_is_said(separator, options, message):
    with pytest.raises(UsageError, match=message):
        separator.separate(mixture(), [TEXT], options)


def test_resolved_options_stay_as_they_are(separator):
    resolved = separator.resolve(SampleOptions(guidance=2.0))
    assert separator.resolve(resolved) == resolved and (resolved.steps, resolved.grid) == (3, "uniform")


def test_a_folder_says_what_it_holds(model, tmp_path):
    index = json.loads((model / "model_index.json").read_text())
    scheduler = json.loads((model / "scheduler" / "scheduler_config.json").read_text())
    assert index["_class_name"] == "DiffusionSep" and scheduler["diffusion"]["prediction"] == "eps"
    assert isinstance(load_separator(model, "cpu"), DiffusionSep)
    with pytest.raises(ModelError, match="holds a DiffusionSep, not a FlowSep"):
        FlowSep.from_pretrained(model, "cpu")
    assert solver_names(model) == SOLVER_NAMES
    tiny_separator(MIXTURE).save_pretrained(tmp_path / "flow")
    assert solver_names(tmp_path / "flow") == FLOW_SOLVERS
    assert solver_names("not/here") == (*FLOW_SOLVERS, *SOLVER_NAMES)
    (model.parent / "odd").mkdir(exist_ok=True)
    (model.parent / "odd" / "model_index.json").write_text(json.dumps({**index, "_class_name": "WaveSep"}))
    with pytest.raises(ModelError, match="a WaveSep, which this version does not know"):
        load_separator(model.parent / "odd", "cpu")


def objective_of(config):
    built = tiny_separator(config)
    return DiffusionObjective(built.unet, built.text, built.codec, config)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_vanishes_for_the_truth(monkeypatch, prediction):
    """Where the target is the mixture, a network can know it: its input says what the noise is."""
    config = replace(
        CONFIG,
        diffusion=DiffusionConfig(prediction=prediction),
        diffusion_loss=DiffusionLossConfig(mel=1.0, mask=1.0, snr=1.0),
    )
    levels = process.noise_levels(config.diffusion)

    def knowing(unet, n, x, source, text):
        assert n.dtype == torch.long and n.min() >= 0 and n.max() < 1000
        a, s = (level[n] for level in levels)
        return process.training_goal(source, process.as_noise(source, x, a, s), a, s, prediction)

    objective = objective_of(config)
    audio = 0.1 * torch.randn(4, 10240, generator=torch.Generator().manual_seed(1))
    batch = {"mixture": audio, "target": audio, "text": [TEXT] * 4}
    untrained, _ = objective(batch)
    monkeypatch.setattr("flowsep.training.objectives.call_unet", knowing)
    total, parts = objective(batch)
    assert parts["diffusion"] < 1e-6 and parts["mel"] < 1e-2 and parts["mask"] < 1e-2
    assert parts["snr"] < -2.9 and total < -2.8 < untrained


def test_objectives_and_separators_refuse_a_configuration_of_another_method():
    built = tiny_separator(DIFFUSION)
    with pytest.raises(ValueError, match="trains the method flow, not diffusion"):
        FlowObjective(built.unet, built.text, built.codec, DIFFUSION)
    with pytest.raises(ValueError, match="FlowSep is not of method diffusion"):
        FlowSep.of_parts(DIFFUSION, built.unet, built.codec, built.text, None)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(clips, text, tmp_path):
    whole = train_diffusion(CONFIG, clips, tmp_path / "whole", text=text, quiet=True)
    train_diffusion(CONFIG, clips, tmp_path / "parts", text=text, max_minutes=0, quiet=True)
    resumed = train_diffusion(CONFIG, clips, tmp_path / "parts", text=text, quiet=True)
    expected, found = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    separator = load_separator(whole, "cpu")
    assert isinstance(separator, DiffusionSep) and separator.process == CONFIG.diffusion
    assert torch.isfinite(separator.separate(0.1 * torch.randn(1, 8000), ["low hum"]).target).all()
    flow = replace(CONFIG, method="flow", sampling=MIXTURE.sampling, flow_stage=STAGE)
    with pytest.raises(UsageError, match="was begun with method diffusion, not flow"):
        train_flow(flow, clips, tmp_path / "parts", text=text, quiet=True)
    with pytest.warns(UserWarning, match="is a DiffusionSep: its UNet is only where method flow starts"):
        train_flow(
            replace(flow, flow_stage=replace(STAGE, steps=1)), clips, tmp_path / "other", start=whole, quiet=True
        )


def test_training_lowers_the_loss(clips, text, tmp_path):
    stage = replace(STAGE, steps=60, batch_size=4, learning_rate=3e-3, checkpoint_steps=60)
    train_diffusion(replace(CONFIG, diffusion_stage=stage), clips, tmp_path / "run", text=text, quiet=True)
    losses = list(losses_of(tmp_path / "run").values())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_each_train_command_wants_its_own_method(clips, text, tmp_path, capfd):
    save_config(CONFIG, tmp_path / "tiny.yaml")
    arguments = [str(tmp_path / "tiny.yaml"), "--data", str(clips), "--text", str(text), "--run", str(tmp_path / "r")]
    assert main(["train", "flow", *arguments, "-q"]) == 2
    err = capfd.readouterr().err
    assert "has method: diffusion; use flowsep train diffusion" in err and err.count("\n") == 1
    assert main(["train", "diffusion", *arguments, "diffusion_stage.steps=1", "-q"]) == 0
    assert (tmp_path / "r" / "model" / "model_index.json").is_file()
    assert load_config(tmp_path / "r" / "config.yaml").method == "diffusion"


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "mix.wav"
    soundfile.write(path, tone(2.0, 16000).T.numpy(), 16000)
    return str(path)


def test_the_command_line_speaks_the_same_words(recording, model, tmp_path, capfd):
    arguments = ["separate", recording, "--text", "a dog", "--model", str(model), "--device", "cpu", "--json", "-q"]
    arguments += ["--solver", "dpmpp2m", "--steps", "4", "--guidance", "2", "--negative", "rain", "--seed", "3"]
    assert main([*arguments, "--residual", "-o", str(tmp_path)]) == 0
    params = json.loads(capfd.readouterr().out)["params"]
    expected = {"solver": "dpmpp2m", "steps": 4, "guidance": 2.0, "negative": "rain", "seed": 3, "render": "mixture"}
    assert expected.items() <= params.items() and params["nfe"] == 8 * params["windows"]


@pytest.mark.parametrize("command", ["separate", "remove", "segments"])
@pytest.mark.parametrize("solver", ["euler", "magic"])
def test_an_unknown_solver_exits_with_2_and_one_line_that_lists_this_models(recording, model, capfd, command, solver):
    assert main([command, recording, "--text", "a dog", "--model", str(model), "--solver", solver]) == 2
    out, err = capfd.readouterr()
    expected = f"flowsep: error: unknown solver '{solver}'; choose from ddim, dpmpp2m, unipc, euler_ancestral\n"
    assert out == "" and err == expected


def test_unknown_methods_and_solvers_of_another_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="unknown method 'gan'; choose from flow, diffusion"):
        load_config("small", ["method=gan"])
    with pytest.raises(UsageError, match=r"unknown sampling.solver 'euler' for method diffusion; choose from ddim"):
        load_config("small", ["method=diffusion"])
    with pytest.raises(UsageError, match="predicton"):
        load_config("small-diffusion", ["diffusion.predicton=v"])


def test_a_configuration_can_build_on_another(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: small-diffusion\nname: mine\ndiffusion:\n  prediction: v\n")
    mine, base = load_config(tmp_path / "mine.yaml"), load_config("small-diffusion")
    assert mine == replace(base, name="mine", diffusion=replace(base.diffusion, prediction="v"))
    (tmp_path / "again.yaml").write_text("base: mine.yaml\nseed: 3\n")
    assert load_config(tmp_path / "again.yaml") == replace(mine, seed=3)
    (tmp_path / "loop.yaml").write_text("base: loop.yaml\n")
    with pytest.raises(UsageError, match="is its own base"):
        load_config(tmp_path / "loop.yaml")
    (tmp_path / "lost.yaml").write_text("base: nothing\n")
    with pytest.raises(UsageError, match="unknown configuration 'nothing'"):
        load_config(tmp_path / "lost.yaml")
