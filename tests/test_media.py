"""Sound in video: read and written back with PyAV, and told what to install where that is missing."""

import sys

import numpy as np
import pytest
import soundfile
import torch

from flowsep.audio import read_audio
from flowsep.cli import main
from flowsep.errors import InputError
from flowsep.media import open_media
from tests.fakes import tone
from tests.test_cli import failure

RATE = 48000


def make(path, video=True, audio=True):
    """A second of a tone in AAC, with 25 grey pictures of rising brightness where asked for."""
    av = pytest.importorskip("av", reason="PyAV (extra [video]) is not installed")
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=25) if video else None
        sound = container.add_stream("aac", rate=RATE, layout="stereo") if audio else None
        if pictures is not None:
            pictures.width = pictures.height = 32
            pictures.pix_fmt = "yuv420p"
            for number in range(25):
                picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9 * number, np.uint8), format="rgb24")
                container.mux(pictures.encode(picture))
            container.mux(pictures.encode(None))
        if sound is not None:
            samples = np.ascontiguousarray(tone(1.0, RATE, 2).numpy())
            for start in range(0, RATE, 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, start : start + 1024]), format="fltp", layout="stereo"
                )
                frame.sample_rate, frame.pts = RATE, start
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def brightness(path):
    """Mean of every picture."""
    import av

    with av.open(str(path)) as container:
        return [float(frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.mkv"])
def test_the_sound_of_a_video_is_read_at_its_rate_channels_and_level(tmp_path, name):
    file = open_media(make(tmp_path / name, video=not name.endswith("m4a")))
    samples = torch.cat(list(file.blocks()), -1)
    assert (file.sample_rate, file.channels, file.subtype) == (RATE, 2, "AAC")
    assert abs(samples.shape[-1] - RATE) <= 4096
    level = samples.square().mean().sqrt() / tone(1.0, RATE, 2).square().mean().sqrt()
    assert abs(20 * torch.log10(level)) < 0.5
    part = torch.cat(list(file.excerpt(0.25, 0.5).blocks()), -1)
    assert torch.equal(part, samples[:, RATE // 4 : RATE // 2])


def test_a_video_is_separated_to_float_wav(tmp_path, separator):
    path = make(tmp_path / "a.mp4")
    assert main(["separate", str(path), "--text", "a dog", "-o", str(tmp_path / "out"), "-q", "--plot"]) == 0
    assert soundfile.info(tmp_path / "out" / "a.a-dog.wav").subtype == "FLOAT"
    found = read_audio(tmp_path / "out" / "a.a-dog.wav").samples
    torch.testing.assert_close(found, 0.5 * torch.cat(list(open_media(path).blocks()), -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_video_is_written_back_with_its_pictures_and_the_new_sound(tmp_path, separator, suffix):
    path = make(tmp_path / f"a.{suffix}")
    arguments = ["remix", str(path), "--gain", "a dog=-20", "--rest", "-20", "--video", "-q", "-o", str(tmp_path / "o")]
    assert main(arguments) == 0
    [video] = (tmp_path / "o").glob(f"*.{suffix}")
    assert brightness(video) == brightness(path)
    before, after = (torch.cat(list(open_media(one).blocks()), -1) for one in (path, video))
    assert abs(before.shape[-1] - after.shape[-1]) <= 2048
    ratio = before.square().mean().sqrt() / after.square().mean().sqrt()
    assert float(ratio) == pytest.approx(10, rel=0.05)


def test_a_video_without_sound_or_a_sound_without_video_is_an_input_error(tmp_path, separator, capfd):
    silent = make(tmp_path / "silent.mp4", audio=False)
    code, line = failure(capfd, ["separate", silent, "--text", "a"])
    assert code == 3 and "has no audio stream" in line
    sound = make(tmp_path / "a.m4a", video=False)
    code, line = failure(capfd, ["separate", sound, "--text", "a", "--video", "-q", "-o", tmp_path / "out"])
    assert code == 3 and "has no video to write back" in line and not list((tmp_path / "out").iterdir())


def test_what_is_no_video_is_refused(tmp_path):
    pytest.importorskip("av", reason="PyAV (extra [video]) is not installed")
    (tmp_path / "a.mp4").write_text("no video" * 100)
    with pytest.raises(InputError, match="cannot be read as audio or video"):
        open_media(tmp_path / "a.mp4")


def test_without_pyav_the_message_names_the_extra(tmp_path, separator, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"\x00" * 100)
    code, line = failure(capfd, ["separate", tmp_path / "a.mp4", "--text", "a"])
    assert code == 3 and "pip install 'flowsep-toolkit[video]'" in line


def test_video_keeps_the_whole_and_needs_one(tmp_path, separator, mixture, capfd):
    (tmp_path / "a.mp4").write_bytes(b"\x00" * 100)
    code, line = failure(capfd, ["separate", tmp_path / "a.mp4", "--text", "a", "--video", "--start", "1"])
    assert code == 2 and "leave --start and --end out" in line
    assert failure(capfd, ["separate", mixture, "--text", "a", "--video"])[0] == 2
