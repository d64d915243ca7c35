"""Outputs: rate, length, channels and bit depth of the input, exact sums, clipping told, the band above measured."""

import json
import warnings

import numpy as np
import pytest
import soundfile
import torch

from flowsep.audio import AudioWarning, read_audio
from flowsep.cli import main
from flowsep.encodings import RIFF_LIMIT, Encoding, encoding_of, output_format
from flowsep.errors import UsageError
from flowsep.outputs import Meter, OutputFile, finish_together
from tests.conftest import install
from tests.fakes import FakeSeparator, PatternSeparator, random_pattern, tone
from tests.test_cli import failure

KINDS = [  # container, suffix, subtype
    ("WAV", "wav", "PCM_U8"), ("WAV", "wav", "PCM_16"), ("WAV", "wav", "PCM_24"), ("WAV", "wav", "PCM_32"),
    ("WAV", "wav", "FLOAT"), ("WAV", "wav", "DOUBLE"), ("FLAC", "flac", "PCM_16"), ("FLAC", "flac", "PCM_24"),
    ("AIFF", "aiff", "PCM_16"), ("AIFF", "aif", "PCM_24"), ("CAF", "caf", "PCM_24"), ("CAF", "caf", "FLOAT"),
]  # fmt: skip


def run(path, out, *more):
    """The documents of `separate` for a dog, quietly."""
    return main(["separate", str(path), "--text", "a dog", "--residual", "-o", str(out), "-q", *more])


@pytest.mark.parametrize(("container", "suffix", "subtype"), KINDS)
def test_outputs_are_encoded_like_the_input_and_add_up_to_it(tmp_path, monkeypatch, container, suffix, subtype):
    install(PatternSeparator(pattern=random_pattern, window=32000), monkeypatch)
    path = tmp_path / f"in.{suffix}"
    soundfile.write(path, tone(1.3, 44100, 3).T.numpy(), 44100, format=container, subtype=subtype)
    assert run(path, tmp_path / "out") == 0
    ending = "aiff" if suffix == "aif" else suffix
    files = [tmp_path / "out" / f"in.a-dog{role}.{ending}" for role in ("", ".residual")]
    for file in files:
        info = soundfile.info(file)
        assert (info.format, info.subtype, info.samplerate, info.channels) == (container, subtype, 44100, 3)
        assert info.frames == soundfile.info(path).frames
    sound = [soundfile.read(file, dtype="float64")[0] for file in [*files, path]]
    error = np.abs(sound[0] + sound[1] - sound[2]).max()
    assert error == 0 if subtype in ("PCM_U8", "PCM_16", "PCM_24") else error < 1e-7
    document = json.loads((tmp_path / "out" / "in.a-dog.json").read_text())
    assert document["params"]["subtype"] == subtype and document["scores"]["sum_error_db"] < -130


@pytest.mark.parametrize("suffix", ["mp3", "ogg"])
def test_a_lossy_input_gives_float_wav(tmp_path, separator, suffix):
    soundfile.write(tmp_path / f"in.{suffix}", tone(0.5, 44100).T.numpy(), 44100)
    assert run(tmp_path / f"in.{suffix}", tmp_path) == 0
    assert soundfile.info(tmp_path / "in.a-dog.wav").subtype == "FLOAT"


@pytest.mark.parametrize(("format", "subtype"), [("caf", "PCM_16"), ("aiff", "FLOAT"), ("mp3", None), ("opus", None)])
def test_another_format_can_be_asked_for(tmp_path, mixture, separator, format, subtype):
    soundfile.write(mixture, tone(0.5, 48000).T.numpy(), 48000)
    more = [] if subtype is None else ["--subtype", subtype]
    assert run(mixture, tmp_path, "--format", format, *more) == 0
    info = soundfile.info(tmp_path / f"mix.v2.a-dog.{format}")
    assert info.samplerate == 48000 and subtype in (None, info.subtype)


def test_the_nearest_encoding_is_taken_where_a_format_lacks_that_of_the_input():
    cases = {("flac", "FLOAT"): "PCM_24", ("flac", "PCM_32"): "PCM_24", ("flac", "PCM_U8"): "PCM_S8"}
    cases |= {("caf", "PCM_U8"): "PCM_S8", ("wav", "PCM_S8"): "PCM_U8", ("wav", "VORBIS"): "FLOAT"}
    cases |= {("wav", "ALAC_16"): "PCM_16", ("flac", "MPEG_LAYER_III"): "PCM_24", ("ogg", "PCM_16"): "VORBIS"}
    assert {key: encoding_of(key[0], None, key[1]).subtype for key in cases} == cases
    with pytest.raises(UsageError, match="flac cannot hold FLOAT; choose from PCM_S8, PCM_16, PCM_24"):
        encoding_of("flac", "FLOAT")


def test_a_wav_beyond_four_gigabytes_becomes_rf64(tmp_path):
    wav = encoding_of("wav", "FLOAT")
    assert wav.for_size(RIFF_LIMIT // 4).container == "WAV"
    assert wav.for_size(RIFF_LIMIT // 4 + 1) == Encoding("wav", "RF64", "FLOAT")
    assert encoding_of("wav", "PCM_16").for_size(RIFF_LIMIT // 4 + 1).container == "WAV"
    file = OutputFile(tmp_path / "a", tmp_path / "a.wav", "target", 16000, 1, Encoding("wav", "RF64", "FLOAT"))
    file.add(tone(0.1, 16000))
    file.finish()
    assert torch.equal(read_audio(tmp_path / "a").samples, tone(0.1, 16000))


# Clipping


@pytest.mark.parametrize("bits", ["PCM_16", "PCM_24"])
def test_what_add_gives_back_is_what_a_reader_finds(tmp_path, bits):
    samples = 1.3 * tone(0.5, 16000, 2)
    samples[0, :3] = torch.tensor([1.0, -1.0, 2.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        file = OutputFile(tmp_path / "a.wav", tmp_path / "a.wav", "target", 16000, 2, encoding_of("wav", bits))
        written = torch.cat([file.add(block) for block in samples.split(1000, -1)], -1)
        file.finish()
    assert torch.equal(read_audio(tmp_path / "a.wav").samples, written)
    assert (written - samples.clamp(-1, 1)).abs().max() <= 2.0 ** (1 - int(bits[-2:]))
    assert file.describe()["clipping"]["clipped_samples"] == int((samples.abs() > 1).sum())


def test_scaled_files_are_scaled_alike(tmp_path):
    parts = [2 * tone(0.3, 16000), tone(0.3, 16000)]
    encoding = encoding_of("wav", "PCM_24")
    files = [
        OutputFile(tmp_path / name, tmp_path / name, name, 16000, 1, encoding, "scale") for name in ("target", "rest")
    ]
    for file, part in zip(files, parts, strict=True):
        file.add(part)
    with pytest.warns(AudioWarning, match="target: peak .* is turned down by"):
        finish_together(files)
    factor = 1 / float(parts[0].abs().max())
    for file, part in zip(files, parts, strict=True):
        torch.testing.assert_close(read_audio(file.path).samples, factor * part, rtol=0, atol=2**-23)
        assert file.describe()["clipping"]["scale_db"] == pytest.approx(20 * np.log10(factor), abs=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rest", "target"]


def test_clip_float_keeps_a_peak_that_the_input_format_cannot_hold(tmp_path, monkeypatch, capfd):
    install(FakeSeparator(), monkeypatch)
    soundfile.write(tmp_path / "in.flac", 0.9 * tone(0.5, 16000).T.numpy(), 16000, subtype="PCM_16")
    recording = read_audio(tmp_path / "in.flac").samples
    arguments = ["remix", str(tmp_path / "in.flac"), "--gain", "a=12", "--clip", "float", "-o", str(tmp_path / "o")]
    assert main([*arguments, "-q"]) == 0
    [path] = (tmp_path / "o").glob("*.wav")
    torch.testing.assert_close(read_audio(path).samples, 10 ** (12 / 20) * recording, rtol=0, atol=1e-4)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clip", "limit"], "choose from warn, scale, float"),
        (["--clip", "float", "--format", "flac"], "--clip float needs a format that holds float"),
        (["--clip", "float", "--subtype", "PCM_16"], "leave --subtype out"),
        (["--subtype", "PCM_17"], "choose from PCM_S8"),
        (["--subtype", "PCM_16", "--format", "mp3"], "mp3 has no subtype"),
        (["--format", "m4a"], "choose from wav, flac"),
    ],
)
def test_bad_encodings_are_usage_errors_before_any_work(mixture, separator, capfd, arguments, words):
    code, line = failure(capfd, ["separate", mixture, "--text", "a dog", *arguments])
    assert code == 2 and words in line and not separator.seen


def test_a_format_that_cannot_hold_the_recording_is_an_input_error_and_leaves_nothing(tmp_path, separator, capfd):
    soundfile.write(tmp_path / "in.wav", tone(0.3, 96000).T.numpy(), 96000)
    out = tmp_path / "out"
    code, line = failure(
        capfd, ["separate", tmp_path / "in.wav", "--text", "a dog", "--format", "mp3", "-o", out, "-q"]
    )
    assert code == 3 and "1 channels at 96000 Hz as mp3" in line and list(out.iterdir()) == []


def test_the_suffix_decides_the_format_where_nothing_else_does(tmp_path):
    given = {"a.FLAC": "flac", "a.aif": "aiff", "a.caf": "caf", "a.mp3": "wav", "a.m4a": "wav", "a": "wav"}
    assert {name: output_format(tmp_path / name, None) for name in given} == given
    assert output_format(tmp_path / "a.flac", None, "float") == "wav"
    assert output_format(tmp_path / "a.flac", "aiff") == "aiff"


# Above the band


def test_the_share_of_energy_above_the_band_is_that_of_the_tones():
    rate = 48000
    times = torch.arange(rate * 2) / rate
    low, high = torch.sin(2 * torch.pi * 500 * times), 0.5 * torch.sin(2 * torch.pi * 12000 * times)
    meter = Meter(rate, 8000.0)
    for block in (low + high)[None].split(5000, -1):
        meter.add(block)
    assert meter.above_share() == pytest.approx(0.2, abs=0.005)  # 0.25 / 1.25
    assert meter.peak == float((low + high).abs().max())
    assert Meter(16000, 8000.0).above_share() is None


def test_the_sidecar_tells_what_of_the_output_lies_above_the_models_band(tmp_path, monkeypatch):
    top = lambda text, frames, bands: (torch.arange(bands) >= bands - 1).float().expand(frames, -1)  # noqa: E731
    install(PatternSeparator(pattern=top, window=32000), monkeypatch)
    rate = 48000
    times = torch.arange(rate) / rate
    sound = 0.3 * torch.sin(2 * torch.pi * 500 * times) + 0.3 * torch.sin(2 * torch.pi * 15000 * times)
    soundfile.write(tmp_path / "in.wav", sound.numpy(), rate, subtype="FLOAT")
    assert run(tmp_path / "in.wav", tmp_path) == 0
    target, residual = json.loads((tmp_path / "in.a-dog.json").read_text())["outputs"]
    assert target["above_band"]["from_hz"] == 8000 and target["above_band"]["energy_share"] > 0.99
    assert residual["above_band"]["energy_share"] < 0.01  # the gain of the top band is held above it
