"""Audio files in and out, sample rates and channels. Samples are float32 (C, T), full scale is -1..1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from flowsep.atomic import atomic_output
from flowsep.blocks import BLOCK, choose_channel, resampled, scan
from flowsep.errors import InputError

ADVICE = "give a wav, flac, ogg, opus, mp3, aiff or caf file"
EXACT_SEEK = ("PCM", "FLOAT", "DOUBLE", "ALAW", "ULAW")  # encodings in which every sample has its place in the file


class AudioWarning(UserWarning):
    """Something a listener should know: samples were clipped, an input is silent."""


@dataclass(frozen=True)
class Samples:
    """A recording in memory: samples (C, T) float32 at `sample_rate` Hz."""

    samples: Tensor  # (C, T)
    sample_rate: int  # Hz

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.samples.shape[0]

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples.shape[-1] / self.sample_rate

    @property
    def name(self) -> str:
        """What messages call it."""
        return "the recording"

    def blocks(self) -> Iterator[Tensor]:
        """The samples in blocks (C, n)."""
        return (block for block in self.samples.split(BLOCK, dim=-1) if block.shape[-1])


@dataclass(frozen=True)
class Audio(Samples):
    """One audio file as read, and what the file was."""

    path: Path  # as given
    format: str  # libsndfile's name of the container: WAV, FLAC, OGG, MP3, ...
    subtype: str  # and of the encoding: PCM_16, FLOAT, VORBIS, ...

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path)


@dataclass(frozen=True)
class AudioFile:
    """A stretch of an audio file that stays on the disk: samples `first` up to `last`, to the end where that is None.

    Make one with `open_audio`.
    """

    path: Path  # as given
    sample_rate: int  # Hz
    channels: int
    format: str  # as in `Audio`
    subtype: str
    first: int = 0
    last: int | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path)

    def excerpt(self, start: float = 0.0, end: float | None = None) -> AudioFile:
        """The stretch from `start` to `end` in seconds, to the end of the file where that is None."""
        last = None if end is None else round(end * self.sample_rate)
        return replace(self, first=round(start * self.sample_rate), last=last)

    def blocks(self) -> Iterator[Tensor]:
        """The samples in blocks (C, n); InputError where the file cannot be decoded."""
        try:
            with soundfile.SoundFile(self.path) as file:
                if self.first and self.subtype.startswith(EXACT_SEEK):
                    file.seek(min(self.first, file.frames))
                else:
                    skip(file, self.first)
                left = None if self.last is None else self.last - self.first
                while left is None or left > 0:
                    frames = file.read(BLOCK if left is None else min(BLOCK, left), dtype="float32", always_2d=True)
                    if not len(frames):
                        return
                    left = None if left is None else left - len(frames)
                    yield torch.from_numpy(frames.T.copy())
        except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
            raise unreadable(self.path, error) from error


def skip(file: soundfile.SoundFile, frames: int) -> None:
    """Decode and drop `frames` samples: seeking in a compressed file may miss by some."""
    while frames > 0:
        found = len(file.read(min(BLOCK, frames), dtype="float32"))
        if not found:
            return
        frames -= found


def open_audio(path: str | Path) -> AudioFile:
    """A file of any rate, channel count and encoding that libsndfile knows (wav, flac, ogg, opus, mp3, aiff, caf, ...).

    A path that is missing, a folder, empty or not audio raises InputError with one line on what is wrong.
    """
    path = Path(path)
    refuse_unreadable(path)
    try:
        with soundfile.SoundFile(path) as file:
            return AudioFile(path, file.samplerate, file.channels, file.format, file.subtype)
    except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:  # a name without suffix: TypeError
        raise unreadable(path, error) from error


def read_audio(path: str | Path) -> Audio:
    """Read a whole file into memory, not rescaled.

    InputError where `open_audio` has one, and for a file without samples or with NaN or infinity in them.
    """
    file = open_audio(path)
    blocks = list(file.blocks())
    if not blocks:
        raise InputError(f"{path} holds no samples")
    audio = Audio(torch.cat(blocks, dim=-1), file.sample_rate, file.path, file.format, file.subtype)
    scan(audio)
    return audio


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a file that is there but cannot be decoded."""
    return InputError(f"{path} cannot be read as audio ({reason(error)}); {ADVICE}")


def refuse_unreadable(path: Path) -> None:
    """Raise InputError where `path` is not a file with something in it that this user may read."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give an audio file")
        if not path.exists():
            raise InputError(f"{path} does not exist")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path} is empty (0 bytes)")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def write_audio(
    path: str | Path,
    samples: Tensor,
    sample_rate: int,
    format: str = "wav",
    subtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write samples (C, T) as wav (32-bit float unless `subtype` says otherwise), flac (24 bit) or another format.

    The file appears whole or not at all. Float wav never clips; in an integer encoding values beyond -1..1 are
    clipped with an AudioWarning that states the peak. An existing file without `overwrite`, a folder that cannot be
    written, and samples that the format cannot hold raise InputError.
    """
    from flowsep.encodings import encoding_of
    from flowsep.outputs import OutputFile

    encoding = encoding_of(format, subtype)
    with atomic_output(Path(path), overwrite) as temporary:
        file = OutputFile(temporary, Path(path), "audio", sample_rate, samples.shape[0], encoding)
        for block in Samples(samples.detach().to("cpu", torch.float32), sample_rate).blocks():
            file.add(block)
        file.finish()
        if encoding.clips:
            file.warn()


def reason(error: Exception) -> str:
    """What libsndfile says without the path that soundfile puts before it."""
    return (getattr(error, "error_string", None) or str(error)).rstrip(". ")


def resample(samples: Tensor, from_rate: int, to_rate: int, length: int | None = None) -> Tensor:
    """Change the rate of samples (C, T) in Hz with soxr's very high quality filter.

    The result is float32 (C, T') with T' = `length`, or T * to_rate / from_rate rounded (at least 1) if not given.
    """
    if length is None:
        length = max(1, round(samples.shape[-1] * to_rate / from_rate))
    return torch.cat(list(resampled([samples], from_rate, to_rate, length)), dim=-1)


def downmix(samples: Tensor) -> Tensor:
    """Samples (C, T) -> (T,): the mean of the channels, or the loudest where they cancel (`flowsep.blocks.scan`)."""
    mean = samples.mean(dim=0)
    energies = samples.double().square().sum(dim=-1)  # (C,)
    channel = choose_channel(float(mean.double().square().sum()), energies)
    return mean if channel is None else samples[channel]
