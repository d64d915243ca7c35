"""`flowsep edit` and `--fail-if-absent` on the command line: what is written, what is said, what is refused."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

import pytest
import torch

from flowsep.audio import read_audio
from flowsep.cli import main
from flowsep.errors import UsageError
from flowsep.instructions import parse_instruction
from flowsep.presence import PresenceConfig
from flowsep.protocol import Separation
from tests.conftest import install
from tests.fakes import FakeSeparator
from tests.test_cli import failure

SENTENCE = "Remove the dog, turn the rain down by 6 dB and keep the speech"


@dataclass
class ScoredSeparator(FakeSeparator):
    """A dog is there with a probability of 0.9, all else with one of 0.2."""

    presence: PresenceConfig | None = None

    def separate(self, mixture, texts, options=None) -> Separation:
        """As `FakeSeparator`, with scores where there is a calibration."""
        found = super().separate(mixture, texts, options)
        if self.presence is not None:
            found.presence = torch.tensor([0.9 if "dog" in text else 0.2 for text in texts])
        return found


@pytest.fixture
def scored(monkeypatch) -> ScoredSeparator:
    """A calibrated separator for every command of the test."""
    fake = ScoredSeparator(gain=lambda text: 0.5, presence=PresenceConfig(0.0, 0.0, 0.0))
    install(fake, monkeypatch)
    return fake


def test_an_edit_is_announced_written_and_remembered(tmp_path, mixture, separator, capfd):
    assert main(["edit", str(mixture), SENTENCE, "-o", str(tmp_path), "--json"]) == 0
    out, err = capfd.readouterr()
    first, *_ = err.splitlines()
    assert first == "flowsep: understood: remove 'dog'; gain 'rain' (-6 dB); keep 'speech'; the rest: unchanged"
    document = json.loads(out)
    assert document["instruction"]["text"] == SENTENCE and document["instruction"]["rest_db"] == 0
    assert document["instruction"]["edits"] == [
        {"action": "remove", "text": "dog", "gain_db": None},
        {"action": "gain", "text": "rain", "gain_db": -6.0},
        {"action": "keep", "text": "speech", "gain_db": 0.0},
    ]
    path = tmp_path / "mix.v2.edit-dog-mute-rain-minus-6-speech-0.wav"
    assert document["outputs"][0]["path"] == str(path) and document["outputs"][0]["role"] == "edit"
    wanted = (0.25 * 10 ** (-6 / 20) + 0.25) * read_audio(mixture).samples  # parts: 0.5, 0.25 and 0.25
    torch.testing.assert_close(read_audio(path).samples, wanted, rtol=0, atol=1e-5)


def test_an_edit_is_the_remix_with_its_gains_bit_for_bit(tmp_path, mixture, separator, capfd):
    sentence = "Isolate the dog and make it 3 dB louder"
    assert main(["edit", str(mixture), sentence, "-o", str(tmp_path), "--json", "-q"]) == 0
    edited = json.loads(capfd.readouterr().out)
    assert main(["remix", str(mixture), "--gain", "dog=3", "--rest", "mute", "-o", str(tmp_path), "--json", "-q"]) == 0
    remixed = json.loads(capfd.readouterr().out)
    assert edited["outputs"][0]["samples_sha256"] == remixed["outputs"][0]["samples_sha256"]


def test_everything_by_one_gain_is_that_gain(tmp_path, mixture, separator, capfd):
    assert main(["edit", str(mixture), "make everything half as loud", "-o", str(tmp_path), "--json", "-q"]) == 0
    path = json.loads(capfd.readouterr().out)["outputs"][0]["path"]
    torch.testing.assert_close(read_audio(path).samples, 0.5 * read_audio(mixture).samples, rtol=0, atol=1e-6)


def test_an_edit_that_was_done_is_kept_and_can_be_replayed(tmp_path, mixture, separator, capfd):
    arguments = ["edit", str(mixture), SENTENCE, "-o", str(tmp_path / "out")]
    assert main([*arguments, "-q"]) == 0
    calls = len(separator.seen)
    assert main(arguments) == 0 and len(separator.seen) == calls
    capfd.readouterr()
    sidecar = next((tmp_path / "out").glob("*.json"))
    assert main(["replay", str(sidecar), "-o", str(tmp_path / "again"), "-q"]) == 0
    assert "identical" in capfd.readouterr().err
    again = json.loads((tmp_path / "again" / sidecar.name).read_text())
    assert again["instruction"] == json.loads(sidecar.read_text())["instruction"]


def test_the_sentence_holds_for_every_file_of_a_manifest(tmp_path, mixture, separator, capfd):
    (tmp_path / "list.csv").write_text(f"path,gains\n{mixture.name},a cat=-3\n")
    assert main(["edit", "--manifest", str(tmp_path / "list.csv"), "mute the dog", "-o", str(tmp_path), "-q"]) == 0
    assert (tmp_path / "mix.v2.edit-dog-mute.wav").is_file()


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("", "instruction is empty"),
        ("make it sound better", "did not understand"),
        ("remove the dog and paint the cat blue", "did not understand 'paint the cat blue'"),
        ("remove the dog and make coffee", "did not understand"),
        ("turn it down", "stands for"),
        ("remove the dog and make the dog louder", "also keeps or changes it"),
        ("remove everything", "nothing would be left"),
        ("leave the dog as it is", "no change"),
        ("the dog", "nothing is said to be done"),
        ("raise the dog by 70 dB", "beyond +-60 dB"),
        ("turn the dog up by -3 dB", "did not understand"),
        ("remove the rest and double the rest, keep the dog", "two things about the rest"),
        ("x " * 600, "characters"),
        ("a, " * 300, "parts in one sentence"),
        ("add some reverb to the dog", "did not understand"),
        ("remove the dog after 10 seconds", "did not understand"),
        ("remove the dog instead of the cat", "did not understand"),
        ("狗 é", "did not understand"),
    ],
)
def test_what_is_not_understood_exits_with_2_and_one_line_before_any_work(mixture, separator, capfd, sentence, words):
    code, line = failure(capfd, ["edit", mixture, sentence])
    assert code == 2 and words in line and not separator.seen


def test_junk_of_any_kind_is_refused_soon():
    began = time.process_time()
    for junk in ("turn " * 190, "remove " + "a b " * 240, "the dog, " * 58, "down by " * 120, '"' * 999, "0.5x " * 190):
        with pytest.raises(UsageError):
            parse_instruction(junk)
    assert time.process_time() - began < 20


def test_odd_names_stand_in_quotes():
    found = parse_instruction('remove "a dog, and Up" and turn “Engine starting up” down 2 dB')
    assert found.gains() == {"a dog, and Up": float("-inf"), "Engine starting up": -2.0}


# --fail-if-absent

VERBS = {
    "separate": ["--text", "a cat"],
    "remove": ["--text", "a cat"],
    "remix": ["--gain", "a cat=-3"],
    "edit": ["remove the cat"],
    "segments": ["--text", "a cat"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_an_absent_sound_exits_with_7_and_the_outputs_are_written(tmp_path, mixture, scored, capfd, verb):
    out = tmp_path / "out" / "x.json" if verb == "segments" else tmp_path / "out"
    arguments = [verb, str(mixture), *VERBS[verb], "-o", str(out), "-q", "--overwrite"]
    assert main([*arguments, "--fail-if-absent"]) == 7
    printed, err = capfd.readouterr()
    assert "cat' in" in err and "(0.20)" in err and "below 0.5" in err and err.count("\n") == 1
    assert all(os.path.exists(path) for path in printed.split()) and printed
    for threshold in (["--fail-if-absent", "0.1"], ["--fail-if-absent=0.2"], []):
        assert main([*arguments, *threshold]) == 0


def test_a_sound_that_is_there_does_not_fail(tmp_path, mixture, scored, capfd):
    assert main(["edit", "--fail-if-absent", str(mixture), "mute the dog", "-o", str(tmp_path), "-q"]) == 0
    assert main(["edit", str(mixture), "turn everything up", "-o", str(tmp_path), "-q", "--fail-if-absent"]) == 0


def test_outputs_that_were_done_before_are_judged_too(tmp_path, mixture, scored, capfd):
    arguments = ["separate", str(mixture), "--text", "a cat", "-o", str(tmp_path), "-q"]
    assert main(arguments) == 0
    calls = len(scored.seen)
    assert main([*arguments, "--fail-if-absent"]) == 7 and len(scored.seen) == calls


def test_a_model_without_a_score_is_told_to_be_calibrated(tmp_path, mixture, scored, capfd):
    scored.presence = None
    arguments = ["separate", str(mixture), "--text", "a cat", "-o", str(tmp_path), "-q"]
    code, line = failure(capfd, [*arguments, "--fail-if-absent"])
    assert code == 2 and "no presence score" in line and "flowsep calibrate" in line and not scored.seen
    assert main(arguments) == 0
    capfd.readouterr()
    assert main([*arguments, "--fail-if-absent"]) == 2  # done before, without a score
    assert "no presence score" in capfd.readouterr().err


@pytest.mark.parametrize("threshold", ["1.5", "-0.1"])
def test_a_threshold_that_is_no_probability_is_refused(mixture, scored, capfd, threshold):
    code, line = failure(capfd, ["separate", mixture, "--text", "a cat", f"--fail-if-absent={threshold}"])
    assert code == 2 and "no probability" in line and not scored.seen
