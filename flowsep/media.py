"""Sound in video and other files that libsndfile does not read, with PyAV (extra `[video]`), and back into them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowsep.audio import AudioFile, open_audio, refuse_unreadable
from flowsep.blocks import BLOCK
from flowsep.collect import VIDEO_SUFFIXES
from flowsep.errors import InputError

CODECS = {".mp4": "aac", ".m4v": "aac", ".mov": "aac"}  # what goes into a video; others take FLAC, which loses nothing


def open_media(path: Path) -> AudioFile:
    """The audio of a file, through libsndfile or, for the suffixes of video, PyAV; errors as `open_audio`.

    InputError where PyAV is needed and not installed, or the file has no audio.
    """
    path = Path(path)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return open_audio(path)
    refuse_unreadable(path)
    av = need_av(path)
    try:
        with av.open(str(path)) as container:
            stream = audio_stream(container, path)
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
            name = container.format.name.split(",")[0].upper()
            return MediaFile(path, rate, channels, name, stream.codec_context.name.upper())
    except av.FFmpegError as error:
        raise InputError(f"{path} cannot be read as audio or video ({error.strerror}); give another file") from error


def need_av(path: Path) -> Any:
    """PyAV; InputError that names the extra where it is not installed."""
    try:
        import av
    except ImportError as error:
        advice = "pip install 'flowsep-toolkit[video]', or convert it to wav or flac"
        raise InputError(f"{path} needs PyAV to be read; {advice}") from error
    return av


def audio_stream(container: Any, path: Path) -> Any:
    """The first audio stream of an open file; InputError where it has none."""
    if not container.streams.audio:
        raise InputError(f"{path} has no audio stream")
    return container.streams.audio[0]


@dataclass(frozen=True)
class MediaFile(AudioFile):
    """The first audio stream of a file that PyAV decodes."""

    def blocks(self) -> Iterator[Tensor]:
        """The samples of the stretch in blocks (C, n); InputError where the file cannot be decoded."""
        position = 0
        for block in self.decoded():
            end = position + block.shape[-1]
            first, last = max(self.first, position), end if self.last is None else min(self.last, end)
            if first < last:
                yield block[:, first - position : last - position]
            position = end
            if self.last is not None and position >= self.last:
                return

    def decoded(self) -> Iterator[Tensor]:
        """All samples of the stream, in blocks of BLOCK and what remains."""
        av = need_av(self.path)
        held: list[Tensor] = []
        try:
            with av.open(str(self.path)) as container:
                stream = audio_stream(container, self.path)
                resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=self.sample_rate)
                for frame in container.decode(stream):
                    held += [as_tensor(part) for part in resampler.resample(frame)]
                    if sum(part.shape[-1] for part in held) >= BLOCK:
                        yield torch.cat(held, dim=-1)
                        held = []
                held += [as_tensor(part) for part in resampler.resample(None)]
        except av.FFmpegError as error:
            raise InputError(f"{self.path} cannot be decoded ({error.strerror}); give another file") from error
        if sum(part.shape[-1] for part in held):
            yield torch.cat(held, dim=-1)


def as_tensor(frame: Any) -> Tensor:
    """A planar float frame as samples (C, n)."""
    return torch.from_numpy(np.ascontiguousarray(frame.to_ndarray(), dtype=np.float32).copy())


def replace_audio(recording: AudioFile, audio: Path, output: Path) -> None:
    """Write `output`: the video of the recording's file, its pictures as they are, with the sound of the file `audio`.

    AAC in mp4 and mov, FLAC in Matroska. InputError for a stretch of a file, and where there is no video.
    """
    av = need_av(recording.path)
    sound = open_audio(audio)
    try:
        with av.open(str(recording.path)) as source, av.open(str(output), "w") as target:
            if not source.streams.video:
                raise InputError(f"{recording.path} has no video to write back; leave --video out")
            picture = source.streams.video[0]
            kept = target.add_stream_from_template(picture)
            codec = CODECS.get(output.suffix.lower(), "flac")
            stream = target.add_stream(codec, rate=sound.sample_rate)
            stream.layout = {1: "mono", 2: "stereo"}.get(sound.channels, f"{sound.channels} channels")
            for packet in source.demux(picture):
                if packet.dts is not None:
                    packet.stream = kept
                    target.mux(packet)
            encode(av, sound, stream, target)
    except av.FFmpegError as error:
        raise InputError(f"cannot write the video {output.name} ({error.strerror}); leave --video out") from error


def encode(av: Any, sound: AudioFile, stream: Any, target: Any) -> None:
    """Add a sound file to an open output as its audio stream."""
    resampler = av.AudioResampler(
        format=stream.codec_context.format or "s16", layout=stream.layout, rate=sound.sample_rate
    )
    position = 0
    for block in sound.blocks():
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(block.numpy()), format="fltp", layout=stream.layout.name
        )
        frame.sample_rate, frame.pts = sound.sample_rate, position
        position += block.shape[-1]
        for part in resampler.resample(frame):
            target.mux(stream.encode(part))
    for part in resampler.resample(None):
        target.mux(stream.encode(part))
    target.mux(stream.encode(None))
