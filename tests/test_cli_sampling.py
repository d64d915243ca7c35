"""Sampling flags of the command line: the words of SampleOptions, all in the sidecar, refused before a model loads."""

import json

import pytest
import soundfile
import torch

from flowsep.cli import main
from flowsep.presence import PresenceConfig
from flowsep.proxy.config import ProxyConfig
from flowsep.proxy.encoder import ProxyEncoder
from flowsep.proxy.network import ProxyNetwork
from tests.fakes import tone
from tests.tiny import MIXTURE, PAPER, TEXT, tiny_separator


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "mix.wav"
    soundfile.write(path, tone(2.0, 16000).T.numpy(), 16000)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grid", "cosine"], "cannot read the grid 'cosine'; write uniform, shift:S, sway:S"),
        (["--grid", "0,0.5"], "must start at 0 and end at 1"),
        (["--grid", "0,0.7,0.3,1"], "must rise"),
        (["--grid", "shift:zero"], "needs a number"),
        (["--grid", "0,0.1,0.5,1", "--steps", "10"], "makes 3 steps, but 10 were asked for"),
        (["--grid", "sway:-1", "--solver", "adaptive_heun"], "leave --grid out"),
        (["--negative", "rain"], "guidance 1 is none; add --guidance 2"),
        (["--negative", "  ", "--guidance", "2"], "--negative is empty"),
        (["--negative", "x" * 2000, "--guidance", "2"], "--negative has a text of 2000 characters"),
        (["--guidance-interval", "0.2,0.9"], "guidance 1 is none"),
        (["--guidance-interval", "0.2", "--guidance", "2"], "write two times, as 0.2,0.9"),
        (["--guidance-interval", "0.9,0.2", "--guidance", "2"], "must rise within 0 to 1"),
        (["--candidates", "0"], "--candidates"),
        (["--candidates", "2", "--candidate-score", "clap"], "choose from consistency"),
        (["--candidates", "2", "--candidate-score", "proxy:"], "write proxy:FOLDER"),
        (["--atol", "nan"], "atol must be above 0"),
    ],
)
def test_a_bad_sampling_flag_exits_with_2_and_one_line_before_a_model_is_loaded(recording, capfd, arguments, words):
    code = main(["separate", recording, "--text", "a dog", "--model", "no-such-model", *arguments])
    out, err = capfd.readouterr()
    assert code == 2 and out == ""
    assert err.startswith("flowsep: error: ") and err.count("\n") == 1 and words in err, err


def test_every_sampling_flag_reaches_the_model_and_the_sidecar(tmp_path, recording, capfd):
    tiny_separator(PAPER).save_pretrained(tmp_path / "model")
    arguments = ["separate", recording, "--text", "a dog", "--model", str(tmp_path / "model"), "--device", "cpu"]
    arguments += ["--solver", "ab2", "--grid", "0,0.1,0.5,1", "--guidance", "2", "--guidance-interval", "0.05,0.9"]
    arguments += ["--negative", " rain   falling ", "--candidates", "2", "--seed", "4", "--rtol", "0.1", "-q", "--json"]
    capfd.readouterr()
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    document = json.loads(capfd.readouterr().out)
    params = document["params"]
    expected = {"solver": "ab2", "grid": "0,0.1,0.5,1", "steps": 3, "guidance": 2.0, "negative": "rain falling"}
    expected |= {"guidance_interval": [0.05, 0.9], "candidates": 2, "candidate_score": "consistency", "seed": 4}
    assert (expected | {"rtol": 0.1, "atol": 1e-3}).items() <= params.items()
    windows = params["windows"]
    assert windows == 2 and params["nfe"] == windows * 2 * (1 + 2 + 2)  # guidance at 0.1 and 0.5, not at 0
    assert len(document["candidates"]) == windows
    for choice in document["candidates"]:
        assert choice["seeds"] == [4, 5] and choice["score"] == "consistency"
        assert choice["scores"][choice["seeds"].index(choice["seed"])] == max(choice["scores"])


def test_the_sidecar_says_what_candidates_were_chosen_by_and_a_replay_chooses_alike(tmp_path, recording, capfd):
    separator = tiny_separator(MIXTURE)
    separator.presence = PresenceConfig(overall=0.1, peak=0.05, bias=2.0)
    separator.save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    network = ProxyNetwork(ProxyConfig(channels=(4,), blocks=(1,), hidden=8, heads=2, size=4), 64, TEXT.d_model)
    ProxyEncoder(network, separator.text, separator.mel, "random-4d").save_pretrained(tmp_path / "proxy")
    arguments = ["separate", recording, "--text", "rain", "--model", str(tmp_path / "model"), "--device", "cpu", "-q"]
    arguments += ["--candidates", "3", "--candidate-score"]
    for score, name, encoder in (
        ("presence", "presence", None),
        (f"proxy:{tmp_path / 'proxy'}", "proxy", "random-4d"),
    ):
        capfd.readouterr()
        assert main([*arguments, score, "-o", str(tmp_path / name), "--json"]) == 0
        document = json.loads(capfd.readouterr().out)
        assert document["params"]["candidate_score"] == score
        (choice,) = document["candidates"]
        assert (choice["score"], choice["encoder"], choice["seeds"]) == (name, encoder, [0, 1, 2])
        assert choice["scores"][choice["seeds"].index(choice["seed"])] == max(choice["scores"])  # rounded: ties
        assert len(choice["scores"]) == 3
        assert main(["replay", document["sidecar"], "-o", str(tmp_path / f"{name}-again")]) == 0
        again = next((tmp_path / f"{name}-again").glob("*.json"))
        assert json.loads(again.read_text())["candidates"] == document["candidates"]


def test_a_model_without_the_score_ends_with_4_and_one_line(tmp_path, recording, capfd):
    tiny_separator(MIXTURE).save_pretrained(tmp_path / "model")
    arguments = ["separate", recording, "--text", "rain", "--model", str(tmp_path / "model"), "--device", "cpu", "-q"]
    arguments += ["-o", str(tmp_path / "out"), "--candidates", "2", "--candidate-score"]
    for score, words in (("presence", "fit one (flowsep calibrate)"), ("proxy:nowhere", "flowsep train clap")):
        capfd.readouterr()
        assert main([*arguments, score]) == 4
        err = capfd.readouterr().err
        assert words in err and err.count("\n") == 1, err


def test_a_long_negative_query_is_said_to_be_cut(tmp_path, recording, capfd):
    tiny_separator(PAPER).save_pretrained(tmp_path / "model")
    arguments = ["separate", recording, "--text", "a dog", "--model", str(tmp_path / "model"), "--device", "cpu"]
    capfd.readouterr()
    words = " ".join(["rain"] * 60)
    assert main([*arguments, "--negative", words, "--guidance", "2", "-q", "-o", str(tmp_path)]) == 0
    assert "is cut to the model's 50" in capfd.readouterr().err
