"""Replay: the same samples from the sidecar alone, and a clear word where that cannot be."""

import json
import shutil

import pytest
import soundfile

from flowsep.cli import main
from tests.fakes import tone
from tests.test_cli import failure
from tests.tiny import MIXTURE, tiny_separator

VERBS = {
    "separate": ["--text", "a dog", "--text", "rain falling", "--residual", "--plot", "--seed", "5", "--steps", "2"],
    "remove": ["--text", "a dog", "--text", "rain falling", "--span", "0.5-2", "--start", "0.25"],
    "remix": ["--gain", "a dog=-6", "--gain", "rain=mute", "--rest", "2", "--clip", "scale", "--format", "flac"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_separator(MIXTURE).save_pretrained(folder)
    return folder


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, tone(3.0, 22050, 2).T.numpy(), 22050, subtype="PCM_16")
    return path


def made(verb, recording, model, out, *more):
    """The sidecars of a run of the verb."""
    arguments = [verb, recording, *VERBS[verb], "--model", model, "--device", "cpu", "-o", out, "-q", *more]
    assert main([str(argument) for argument in arguments]) == 0
    return sorted(out.glob("*.json"))


@pytest.mark.parametrize("verb", VERBS)
def test_a_replay_gives_the_samples_of_the_first_run_bit_for_bit(tmp_path, recording, model, capfd, verb):
    sidecars = made(verb, recording, model, tmp_path / "out")
    capfd.readouterr()
    assert len(sidecars) == (2 if verb == "separate" else 1)
    for sidecar in sidecars:
        assert main(["replay", str(sidecar), "-o", str(tmp_path / "again"), "-q", "--json"]) == 0
        out, err = capfd.readouterr()
        assert err == "flowsep: identical, bit for bit\n" or (verb == "remix" and err.count("\n") <= 2)
        for one in json.loads(out):
            first = tmp_path / "out" / one["path"].split("/")[-1]
            assert one["identical"]
            assert soundfile.read(one["path"])[0].tobytes() == soundfile.read(first)[0].tobytes()
    written = {path.name for path in (tmp_path / "again").iterdir()}
    assert written == {path.name for path in (tmp_path / "out").iterdir()}
    renewed = json.loads((tmp_path / "again" / sidecars[0].name).read_text())["request"]
    assert renewed == json.loads(sidecars[0].read_text())["request"]


def test_a_recording_of_several_windows_is_replayed_with_the_same_number_at_once(tmp_path, model, capfd):
    soundfile.write(tmp_path / "in.wav", tone(5.0, 16000).T.numpy(), 16000)
    [first, _] = made("separate", tmp_path / "in.wav", model, tmp_path / "out", "--max-memory", "8GB")
    document = json.loads(first.read_text())
    assert document["params"]["windows"] == 3 and document["params"]["rows"] > 4
    assert main(["replay", str(first), "-o", str(tmp_path / "again"), "-q"]) == 0


def test_a_replay_that_differs_says_so_and_exits_with_1(tmp_path, recording, model, capfd):
    [sidecar] = made("remove", recording, model, tmp_path / "out")
    document = json.loads(sidecar.read_text())
    document["outputs"][0]["samples_sha256"] = "0" * 64
    sidecar.write_text(json.dumps(document))
    capfd.readouterr()
    assert main(["replay", str(sidecar), "-o", str(tmp_path / "again"), "-q"]) == 1
    assert "DIFFER" in capfd.readouterr().err


def test_the_input_may_have_moved_beside_its_sidecar_but_not_changed(tmp_path, recording, model, capfd):
    [sidecar] = made("remove", recording, model, tmp_path / "out")
    shutil.move(recording, tmp_path / "out" / recording.name)
    arguments = ["replay", sidecar, "-o", tmp_path / "again", "-q"]
    assert main([str(argument) for argument in arguments]) == 0
    capfd.readouterr()
    soundfile.write(tmp_path / "out" / recording.name, tone(3.0, 22050).T.numpy(), 22050)
    code, line = failure(capfd, [*arguments, "--overwrite"])
    assert code == 3 and "no longer the input" in line
    (tmp_path / "out" / recording.name).unlink()
    code, line = failure(capfd, [*arguments, "--overwrite"])
    assert code == 3 and "is not there" in line


def test_another_model_is_refused_and_existing_outputs_are_kept(tmp_path, recording, model, capfd):
    [sidecar] = made("remove", recording, model, tmp_path / "out")
    tiny_separator(MIXTURE, seed=1).save_pretrained(tmp_path / "other")
    capfd.readouterr()
    code, line = failure(capfd, ["replay", sidecar, "-o", tmp_path / "a", "-q", "--model", tmp_path / "other"])
    assert code == 4 and "other weights" in line
    code, line = failure(capfd, ["replay", sidecar, "-o", tmp_path / "out", "-q"])
    assert code == 3 and "--overwrite" in line


@pytest.mark.parametrize("content", ["", "{}", "[1, 2]", "not json", '{"request": {"verb": "separate"}}', None])
def test_what_is_no_sidecar_is_an_input_error(tmp_path, capfd, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    code, line = failure(capfd, ["replay", path])
    assert code == 3 and "give" in line


def test_another_version_is_told(tmp_path, recording, model, capfd):
    [sidecar] = made("remove", recording, model, tmp_path / "out")
    document = json.loads(sidecar.read_text())
    document["versions"]["torch"] = "1.0"
    sidecar.write_text(json.dumps(document))
    capfd.readouterr()
    main(["replay", str(sidecar), "-o", str(tmp_path / "again"), "-q"])
    assert "warning: the bits may differ: torch 1.0 -> " in capfd.readouterr().err
