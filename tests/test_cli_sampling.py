"""Sampling flags of the command line: the words of SampleOptions, all in the sidecar, refused before a model loads."""

import json

import pytest
import soundfile

from flowsep.cli import main
from tests.fakes import tone
from tests.tiny import PAPER, tiny_separator


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
        assert choice["seed"] == choice["seeds"][choice["scores"].index(max(choice["scores"]))]


def test_a_long_negative_query_is_said_to_be_cut(tmp_path, recording, capfd):
    tiny_separator(PAPER).save_pretrained(tmp_path / "model")
    arguments = ["separate", recording, "--text", "a dog", "--model", str(tmp_path / "model"), "--device", "cpu"]
    capfd.readouterr()
    words = " ".join(["rain"] * 60)
    assert main([*arguments, "--negative", words, "--guidance", "2", "-q", "-o", str(tmp_path)]) == 0
    assert "is cut to the model's 50" in capfd.readouterr().err
