"""The page without a browser: what may be asked for, what comes of it, what is cleared away, and how it is served."""

from __future__ import annotations

import builtins
import json
import math
import os
import socket
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flowsep.audio import open_audio, read_audio
from flowsep.cli import main
from flowsep.errors import InputError, UsageError
from flowsep.files import LoadedModel
from flowsep.gains import MUTE
from flowsep.protocol import SampleOptions
from flowsep.web.examples import EXAMPLES, render_examples
from flowsep.web.loudness import loudness, write_players
from flowsep.web.markup import notice, result_html
from flowsep.web.orders import Limits, checked_recording, order_of_sentence, order_of_sounds, sampling
from flowsep.web.results import Stopped, carry_out
from flowsep.web.server import Where, free_port
from flowsep.web.sessions import Sessions
from tests.fakes import FakeSeparator, tone

LIMITS = Limits()
DEFAULT = SampleOptions()


def half(text: str) -> float:
    """The share of the fake separator: half of the mixture for a dog, a quarter for all else."""
    return 0.5 if "dog" in text else 0.25


@pytest.fixture
def model() -> LoadedModel:
    return LoadedModel(FakeSeparator(gain=half), "fake")


def carried_out(model, path, order, folder, stop=None):
    """The result of an order, and what was reported on the way."""
    told = []
    folder.mkdir()
    result = carry_out(
        model, open_audio(path), order, folder, lambda done, what: told.append(done), stop or threading.Event()
    )
    return result, told


# What may be asked for


def test_empty_descriptions_do_not_count_and_the_left_end_of_a_slider_removes():
    order = order_of_sounds(["  a  dog ", "", None, "rain"], [-60, 3, 3, -6.0], 2, DEFAULT, LIMITS)
    assert (order.verb, order.gains, order.rest) == ("remix", {"a dog": MUTE, "rain": -6.0}, 2.0)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "No sound is described"),
        ([" ", None], "No sound is described"),
        (["rain", "Rain"], "names 'Rain' twice"),
        ([f"sound {number}" for number in range(30)], "30 sounds are more than the 8"),
        (["x" * 2000], "2000 characters"),
    ],
)
def test_sounds_that_cannot_be_taken_are_refused_in_words_for_the_page(texts, words):
    with pytest.raises(UsageError, match=words) as caught:
        order_of_sounds(texts, [0.0] * len(texts), 0, DEFAULT, LIMITS)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize("gain", [None, math.nan, math.inf, 61.0])
def test_gains_that_no_slider_gives_are_refused(gain):
    with pytest.raises(UsageError):
        order_of_sounds(["rain"], [gain], 0, DEFAULT, LIMITS)


def test_a_sentence_becomes_the_gains_that_the_command_line_would_use():
    order = order_of_sentence("remove the dog and turn the rain down by 6 dB", DEFAULT, LIMITS)
    assert (order.verb, order.gains, order.rest) == ("edit", {"dog": MUTE, "rain": -6.0}, 0.0)
    assert order.understood[0] == "remove 'dog'" and order.instruction["edits"][1]["gain_db"] == -6.0


@pytest.mark.parametrize("sentence", [None, "  ", "what a lovely day", "dance the dog"])
def test_a_sentence_that_is_empty_or_not_understood_is_refused(sentence):
    with pytest.raises(UsageError):
        order_of_sentence(sentence, DEFAULT, LIMITS)


def test_the_models_own_number_of_steps_is_left_to_the_model():
    assert sampling(2, None, SampleOptions(steps=2)) == SampleOptions()
    assert sampling(3, 7.0, SampleOptions(steps=2)) == SampleOptions(steps=3, seed=7)
    for steps, seed in ((0, 0), (2.5, 0), (101, 0), (1, -1), (1, math.nan), (1, 2**40)):
        with pytest.raises(UsageError, match="whole number"):
            sampling(steps, seed, DEFAULT)


# The recording


def test_recordings_within_the_limits_pass_and_others_are_refused_by_name(tmp_path):
    path = tmp_path / "brève ☂.wav"
    soundfile.write(path, tone(3.0, 8000, channels=2).T.numpy(), 8000)
    recording, seconds = checked_recording(path, Limits(minutes=0.05))
    assert (recording.channels, seconds) == (2, 3.0)
    for limits, words in ((Limits(minutes=0.049), "longer than"), (Limits(megabytes=0.09), "this page takes up to")):
        with pytest.raises(InputError, match=words) as caught:
            checked_recording(path, limits)
        assert str(caught.value).startswith(path.name)


def test_the_length_is_counted_and_not_believed(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(80_000), 8000)
    data = bytearray(path.read_bytes())
    data[24:28] = (800_000).to_bytes(4, "little")  # a sample rate that makes it short
    path.write_bytes(data)
    assert checked_recording(path, Limits(minutes=0.01))[1] == 0.1
    data[24:28] = (8).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match="longer than"):
        checked_recording(path, Limits(minutes=10))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"this is a text, really", "cannot be read as audio"), (None, "no longer here")],
)
def test_what_is_no_audio_is_refused_without_naming_a_temporary_folder(tmp_path, content, words):
    path = tmp_path / "song.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        checked_recording(path, LIMITS)
    assert str(tmp_path) not in str(caught.value) and "song.wav" in str(caught.value)


# The result


def test_the_page_writes_what_remix_with_parts_writes(tmp_path, mixture, separator, model, capfd):
    gains = ["--gain", "a dog=mute", "--gain", "rain=-6", "--rest", "3"]
    assert main(["remix", str(mixture), *gains, "--parts", "-q", "-o", str(tmp_path / "cli")]) == 0
    order = order_of_sounds(["a dog", "rain"], [-60, -6], 3, DEFAULT, LIMITS)
    result, told = carried_out(model, mixture, order, tmp_path / "web")
    names = sorted(path.name for path in (tmp_path / "cli").iterdir())
    assert [Path(name).suffix for name in names].count(".wav") == 4 and told == sorted(told)
    for name in names:
        if not name.endswith(".json"):
            assert (tmp_path / "cli" / name).read_bytes() == (tmp_path / "web" / name).read_bytes(), name
    with zipfile.ZipFile(result.archive) as archive:
        assert sorted(archive.namelist()) == sorted([*names, mixture.name]) and archive.testzip() is None


def test_the_panels_are_mixture_targets_residual_and_remix_and_the_parts_add_up(tmp_path, mixture, model):
    order = order_of_sounds(["a dog", "rain"], [-60, -6], 0, DEFAULT, LIMITS)
    result, _ = carried_out(model, mixture, order, tmp_path / "web")
    assert [panel.role for panel in result.panels] == ["mixture", "target", "target", "residual", "remix"]
    whole, dog, rain, rest, remixed = (read_audio(panel.audio).samples for panel in result.panels)
    assert torch.equal(dog + rain + rest, whole)  # 24 bit
    torch.testing.assert_close(remixed, rest + 10 ** (-6 / 20) * rain, rtol=0, atol=1e-6)
    assert all(panel.picture.read_bytes().startswith(b"\x89PNG") for panel in result.panels)
    assert result.panels[-1].note == "a dog: removed; rain: -6 dB"


def test_the_sidecar_holds_no_temporary_path_and_can_be_replayed_beside_the_recording(
    tmp_path, mixture, separator, model, capfd
):
    order = order_of_sentence("remove the dog", DEFAULT, LIMITS)
    result, _ = carried_out(model, mixture, order, tmp_path / "web")
    folder = tmp_path / "unzipped"
    with zipfile.ZipFile(result.archive) as archive:
        archive.extractall(folder)
    [sidecar] = folder.glob("*.json")
    document = json.loads(sidecar.read_text())
    assert str(tmp_path) not in sidecar.read_text() and document["instruction"]["text"] == "remove the dog"
    document["model"]["id"] = "small"  # the fake that the command line gets
    sidecar.write_text(json.dumps(document))
    assert main(["replay", str(sidecar), "-o", str(tmp_path / "again"), "-q"]) == 0
    made = [path.name for path in (tmp_path / "again").glob("*.wav")]
    assert len(made) == 3
    assert all((tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes() for name in made)


def test_a_run_that_is_stopped_ends_at_the_next_window(tmp_path, mixture):
    stop, fake = threading.Event(), FakeSeparator()
    fake.gain = lambda text: stop.set() or 1.0
    with pytest.raises(Stopped):
        order = order_of_sounds(["a dog"], [-60], 0, DEFAULT, LIMITS)
        carried_out(LoadedModel(fake, "fake"), mixture, order, tmp_path / "web", stop)
    assert len(fake.seen) == 1 and list((tmp_path / "web").iterdir()) == []


@pytest.mark.parametrize("samples", [np.zeros((16000, 2)), np.full((1, 1), 0.3), np.full((5, 3), 0.1)])
def test_silence_single_samples_and_many_channels_give_a_result(tmp_path, model, samples):
    path = tmp_path / "in.wav"
    soundfile.write(path, samples, 48000)
    order = order_of_sounds(["a dog"], [-60], 0, DEFAULT, LIMITS)
    result, _ = carried_out(model, path, order, tmp_path / "web")
    assert len(result.panels) == 4 and all(soundfile.info(panel.player).frames for panel in result.panels)
    assert bool(result.notes) != bool(samples.any())


def test_clipping_is_said(tmp_path, model):
    path = tmp_path / "loud.wav"
    soundfile.write(path, 0.9 * np.sign(np.sin(np.arange(8000))), 8000, subtype="PCM_16")
    result, _ = carried_out(model, path, order_of_sounds(["rain"], [12], 0, DEFAULT, LIMITS), tmp_path / "web")
    assert any("above full scale" in note and "clipped" in note for note in result.notes)


def test_what_a_user_wrote_is_text_on_the_page_and_never_markup(tmp_path, mixture, model):
    nasty = "<img src=x onerror=alert(1)> \"dog\" & 'cat'"
    result, _ = carried_out(model, mixture, order_of_sounds([nasty], [0], 0, DEFAULT, LIMITS), tmp_path / "web")
    page = result_html(result)
    assert "<img src=x" not in page and "&lt;img src=x" in page and 'title="&lt;' in page
    assert "<script" not in notice("error", "<script>alert(1)</script>")


# Loudness


def test_a_full_scale_sine_of_1_khz_has_the_loudness_that_the_standard_says():
    sine = torch.sin(2 * math.pi * 997 / 48000 * torch.arange(5 * 48000))[None]
    assert loudness([sine], 48000)[0] == pytest.approx(-3.01, abs=0.05)  # pyloudnorm's filters read -3.05
    assert loudness([sine.expand(2, -1)], 48000)[0] == pytest.approx(0.0, abs=0.05)
    assert loudness(sine.split(1000, dim=-1), 48000)[0] == pytest.approx(loudness([sine], 48000)[0], abs=1e-9)
    low = torch.sin(2 * math.pi * 40 / 16000 * torch.arange(5 * 16000))[None]
    assert loudness([low], 16000)[0] < -5  # the high-pass
    padded = torch.cat([sine, torch.zeros(1, 20 * 48000)], dim=-1)  # pauses do not count
    assert loudness([padded], 48000)[0] == pytest.approx(-3.01, abs=0.3)
    assert loudness([torch.zeros(1, 100)], 48000) == (-math.inf, 0.0)


def test_players_are_equally_loud_and_the_files_stay_as_they_are(tmp_path):
    paths = []
    for number, level in enumerate((0.5, 0.01)):
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], level * tone(2.0, 44100, channels=2).T.numpy(), 44100, subtype="FLOAT")
    before = [path.read_bytes() for path in paths]
    copies = [tmp_path / f"{number}.flac" for number in range(2)]
    players = write_players([open_audio(path) for path in paths], 88200, copies)
    levels = [loudness(open_audio(copy).blocks(), 44100)[0] for copy in copies]
    assert levels == pytest.approx([-20, -20], abs=0.1)
    assert players[1].gain_db - players[0].gain_db == pytest.approx(20 * math.log10(50), abs=0.01)
    assert [path.read_bytes() for path in paths] == before


def test_a_player_never_clips_and_silence_stays_silent(tmp_path):
    click = np.zeros(48000)
    click[100] = 0.9
    files = {"click": click, "silence": np.zeros(48000), "tone": tone(1.0, 48000)[0].numpy()}
    for name, samples in files.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 48000)
    copies = [tmp_path / f"{name}.flac" for name in files]
    write_players([open_audio(tmp_path / f"{name}.wav") for name in files], 48000, copies)
    peaks = [float(np.abs(soundfile.read(copy)[0]).max()) for copy in copies]
    assert max(peaks) <= 10 ** (-1 / 20) + 1e-3 and peaks[1] == 0 and peaks[2] > 0.02


# Temporary files


def test_a_new_result_replaces_the_last_and_a_failed_run_leaves_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sessions = Sessions()
    with sessions.run("me") as (first, _):
        (first / "a").write_text("a")
    with pytest.raises(ValueError), sessions.run("me") as (second, _):
        raise ValueError
    assert first.is_dir() and not second.exists()
    with sessions.run("me") as (third, _):
        pass
    assert third.is_dir() and not first.exists()
    sessions.close_all()
    assert os.listdir(tmp_path) == []


def test_closing_a_page_stops_its_run_and_removes_its_files_but_not_those_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sessions = Sessions()
    mine, ours = sessions.uploads / "mine.wav", sessions.uploads / "ours.wav"
    for path in (mine, ours):
        path.write_bytes(b"x")
    with sessions.run("other") as (kept, _):
        sessions.take("other", ours, kept)
    with sessions.run("me") as (folder, stop):
        taken = sessions.take("me", mine, folder)
        sessions.take("me", ours, folder)
        sessions.close("me")
        assert stop.is_set() and not mine.exists() and ours.exists() and taken.read_bytes() == b"x"
    assert not folder.exists() and kept.exists()
    sessions.close_all()


def test_long_names_of_uploads_are_cut_and_links_do_not_follow_the_upload(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sessions = Sessions()
    path = sessions.uploads / f"{'雨' * 70}.wav"
    path.write_bytes(b"x")
    with sessions.run("me") as (folder, _):
        taken = sessions.take("me", path, folder)
    assert len(taken.name.encode()) <= 84 and taken.suffix == ".wav"
    sessions.close_all()


def test_what_a_killed_page_left_is_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, alive = tmp_path / "flowsep-web-999999999-x", tmp_path / f"flowsep-web-{os.getpid()}-x"
    left.mkdir()
    alive.mkdir()
    sessions = Sessions()
    assert not left.exists() and alive.exists()
    sessions.close_all()


# Serving


def test_only_a_page_that_others_reach_without_a_password_is_warned_of():
    for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"):
        assert Where(host).warning() is None
    for host in ("0.0.0.0", "192.168.1.4", "::", "myhost"):
        assert "--auth" in Where(host).warning()
        assert Where(host, auth="anna:secret").warning() is None


def test_a_password_may_hold_colons_and_must_not_be_missing():
    assert Where(auth="anna:se:cret").login() == ("anna", "se:cret")
    for auth in ("anna", "anna:", ":secret", ""):
        with pytest.raises(UsageError, match="--auth"):
            Where(auth=auth).check()


def test_a_port_that_is_taken_is_refused_and_zero_is_any_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}"):
            free_port(Where(port=port))
    assert free_port(Where(port=0)) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auth", "anna"], "--auth"),
        (["--port", "99999"], "--port"),
        (["--max-minutes", "0"], "--max-minutes"),
        (["--max-megabytes", "nan"], "--max-megabytes"),
        (["--device", "gpu"], "choose from auto"),
    ],
)
def test_flags_that_cannot_be_are_one_line_and_exit_with_2(separator, capfd, arguments, words):
    assert main(["web", *arguments]) == 2
    err = capfd.readouterr().err
    assert err.startswith("flowsep: error: ") and err.count("\n") == 1 and words in err


def test_without_gradio_one_line_names_the_extra(separator, monkeypatch, capfd):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.split(".")[0] == "gradio":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["web"]) == 4
    err = capfd.readouterr().err
    assert "pip install 'flowsep-toolkit[web]'" in err and err.count("\n") == 1


def test_the_examples_are_synthesised_and_within_the_limits(tmp_path):
    for example, (title, *_) in zip(render_examples(tmp_path), EXAMPLES, strict=True):
        assert example.title == title
        assert checked_recording(example.path, LIMITS)[1] == 8.0
        order_of_sounds([example.sound], [example.gain], 0, DEFAULT, LIMITS)
        order_of_sentence(example.sentence, DEFAULT, LIMITS)
