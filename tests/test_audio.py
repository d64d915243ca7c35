"""Audio files: everything readable is read as it is, everything else is refused in one line; outputs are whole."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flowsep.atomic import atomic_output
from flowsep.audio import AudioWarning, downmix, read_audio, resample, write_audio
from flowsep.errors import InputError
from tests.fakes import tone


def written(path: Path, samples: np.ndarray, sample_rate: int = 16000, **how: str) -> Path:
    soundfile.write(path, samples, sample_rate, **how)
    return path


@pytest.mark.parametrize(("name", "how"), [
    ("a.wav", {"subtype": "PCM_16"}), ("a.wav", {"subtype": "PCM_U8"}), ("a.wav", {"subtype": "PCM_24"}),
    ("a.flac", {}), ("a.aiff", {}), ("a.ogg", {"format": "OGG", "subtype": "VORBIS"}),
    ("a.opus", {"format": "OGG", "subtype": "OPUS"}), ("a.mp3", {"format": "MP3"}),
])  # fmt: skip
def test_every_format_comes_back_at_its_rate_channels_and_level(tmp_path, name, how):
    samples = tone(1.0, 48000, channels=2)
    audio = read_audio(written(tmp_path / name, samples.T.numpy(), 48000, **how))
    assert (audio.sample_rate, audio.samples.shape[0], audio.samples.dtype) == (48000, 2, torch.float32)
    assert audio.samples.shape[1] >= 48000
    level = audio.samples[:, :48000].square().mean().sqrt() / samples.square().mean().sqrt()
    assert abs(20 * torch.log10(level)) < 0.5  # dB


def test_a_float_file_is_read_bit_for_bit_beyond_full_scale(tmp_path):
    samples = 3 * tone(0.1, 192000)
    audio = read_audio(written(tmp_path / "loud.wav", samples.T.numpy(), 192000, subtype="FLOAT"))
    assert torch.equal(audio.samples, samples)


def test_one_sample_is_read(tmp_path):
    assert read_audio(written(tmp_path / "one.wav", np.array([0.5]))).samples.shape == (1, 1)


def bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    """Kind of bad input -> path, and words of its message."""
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is not audio\n" * 100)
    (folder / "no_suffix").write_text("this is not audio\n" * 100)
    nan, infinite = np.zeros((1600, 2)), np.zeros(1600)
    nan[800, 1] = nan[900, 0] = np.nan
    infinite[0] = np.inf
    return {
        "missing": (folder / "nothing.wav", "does not exist"),
        "folder": (folder, "is a folder"),
        "empty": (folder / "empty.wav", "is empty"),
        "not audio": (folder / "text.wav", "cannot be read as audio"),
        "no suffix": (folder / "no_suffix", "cannot be read as audio"),
        "no samples": (written(folder / "zero.wav", np.zeros((0, 1))), "holds no samples"),
        "nan": (written(folder / "nan.wav", nan, subtype="FLOAT"), "2 NaN or infinite samples, the first at 0.050 s"),
        "infinity": (written(folder / "inf.wav", infinite, subtype="FLOAT"), "1 NaN or infinite sample,"),
    }  # fmt: skip


BAD = ("missing", "folder", "empty", "not audio", "no suffix", "no samples", "nan", "infinity")


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_input_is_refused_in_one_line_that_names_it(tmp_path, kind):
    path, words = bad_inputs(tmp_path)[kind]
    with pytest.raises(InputError) as caught:
        read_audio(path)
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_position_of_nan_names_sample_and_channel(tmp_path):
    with pytest.raises(InputError, match=r"\(sample 800\) of channel 2"):
        read_audio(bad_inputs(tmp_path)["nan"][0])


def test_wav_is_float_and_never_clips(tmp_path):
    samples = 2 * tone(0.1, 44100, channels=2)
    write_audio(tmp_path / "a.wav", samples, 44100)
    assert torch.equal(read_audio(tmp_path / "a.wav").samples, samples)
    assert soundfile.info(tmp_path / "a.wav").subtype == "FLOAT"


def test_flac_has_24_bits_and_says_what_it_clips(tmp_path):
    quiet = tone(0.1, 44100)
    write_audio(tmp_path / "quiet.flac", quiet, 44100, "flac")
    torch.testing.assert_close(read_audio(tmp_path / "quiet.flac").samples, quiet, rtol=0, atol=2**-23)
    with pytest.warns(AudioWarning, match=r"loud\.flac: peak \+6\.02 dBFS"):
        write_audio(tmp_path / "loud.flac", torch.tensor([[0.5, 2.0, -1.5]]), 44100, "flac")
    expected = torch.tensor([[0.5, 1.0, -1.0]])
    torch.testing.assert_close(read_audio(tmp_path / "loud.flac").samples, expected, rtol=0, atol=2**-23)


def test_an_existing_file_is_replaced_only_when_told(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match="--overwrite"):
        write_audio(path, tone(0.1, 16000), 16000)
    assert path.read_bytes() == b"mine"
    write_audio(path, tone(0.1, 16000), 16000, overwrite=True)
    assert read_audio(path).samples.shape == (1, 1600)
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interrupted_write_leaves_nothing(tmp_path, interruption):
    with pytest.raises(interruption), atomic_output(tmp_path / "a.wav") as temporary:
        temporary.write_bytes(b"half")
        raise interruption
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file_and_a_shape_that_does_not_fit_are_input_errors(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        write_audio(tmp_path / "file" / "a.wav", tone(0.1, 16000), 16000)
    with pytest.raises(InputError, match="9 channels"):
        write_audio(tmp_path / "a.flac", torch.zeros(9, 100), 16000, "flac")
    assert os.listdir(tmp_path) == ["file"]


def test_new_files_have_the_permissions_of_the_umask(tmp_path):
    write_audio(tmp_path / "a.wav", tone(0.1, 16000), 16000)
    (tmp_path / "b").touch()
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_resampling_there_and_back_keeps_a_tone_and_its_length(rate):
    samples = torch.sin(2 * torch.pi * 440 * torch.arange(rate + 7, dtype=torch.float64) / rate)[None].float()
    there = resample(samples, rate, 16000)
    back = resample(there, 16000, rate, length=samples.shape[-1])
    assert there.shape[-1] == round((rate + 7) * 16000 / rate) and back.shape == samples.shape
    inside = slice(rate // 10, -rate // 10)  # the filter rings at the cut ends
    torch.testing.assert_close(back[:, inside], samples[:, inside], rtol=0, atol=1e-4)


def test_the_shortest_audio_resamples_to_at_least_one_sample():
    assert resample(torch.ones(1, 1), 192000, 16000).shape == (1, 1)


def test_downmix_is_the_mean_and_takes_the_louder_channel_where_the_mean_cancels():
    left, right = tone(0.1, 16000, channels=2)
    torch.testing.assert_close(downmix(torch.stack([left, right])), (left + right) / 2)
    assert torch.equal(downmix(torch.stack([left, -1.01 * left])), -1.01 * left)
