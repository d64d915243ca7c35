"""Audio files in and out, sample rates and channels. Samples are float32 (C, T), full scale is -1..1."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from flowsep.atomic import atomic_output
from flowsep.errors import InputError, UsageError

SUBTYPES = {"wav": "FLOAT", "flac": "PCM_24"}  # what each output format is written as
CANCELLED = 0.1  # of the loudest channel's RMS (-20 dB): a down-mix weaker than this has cancelled


class AudioWarning(UserWarning):
    """Something a listener should know: samples were clipped, an input is silent."""


@dataclass(frozen=True)
class Audio:
    """One audio file as read: samples (C, T) float32 at `sample_rate` Hz, and what the file was."""

    samples: Tensor  # (C, T)
    sample_rate: int  # Hz
    path: Path  # as given
    format: str  # libsndfile's name of the container: WAV, FLAC, OGG, MP3, ...
    subtype: str  # and of the encoding: PCM_16, FLOAT, VORBIS, ...

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples.shape[-1] / self.sample_rate


def read_audio(path: str | Path) -> Audio:
    """Read a file of any rate, channel count and encoding that libsndfile knows (wav, flac, ogg, opus, mp3, aiff, ...).

    Nothing is rescaled. A path that is missing, a folder, empty, not audio, without samples, or that holds NaN or
    infinity raises InputError with one line on what is wrong.
    """
    path = Path(path)
    refuse_unreadable(path)
    try:
        with soundfile.SoundFile(path) as file:
            samples = file.read(dtype="float32", always_2d=True)
            audio = Audio(torch.from_numpy(samples.T.copy()), file.samplerate, path, file.format, file.subtype)
    except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:  # a name without suffix: TypeError
        advice = "give a wav, flac, ogg, opus, mp3 or aiff file"
        raise InputError(f"{path} cannot be read as audio ({reason(error)}); {advice}") from error
    if audio.samples.shape[-1] == 0:
        raise InputError(f"{path} holds no samples")
    refuse_non_finite(audio)
    return audio


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


def refuse_non_finite(audio: Audio) -> None:
    """Raise InputError where a sample is NaN or infinite, with their number and the first position."""
    bad = ~torch.isfinite(audio.samples)
    if not bad.any():
        return
    frame = int(bad.any(dim=0).nonzero()[0])
    channel = int(bad[:, frame].nonzero()[0])
    count = int(bad.sum())
    raise InputError(
        f"{audio.path} holds {count} NaN or infinite sample{'s' * (count > 1)}, the first at "
        f"{frame / audio.sample_rate:.3f} s (sample {frame}) of channel {channel + 1}; repair the file first"
    )


def write_audio(
    path: str | Path,
    samples: Tensor,
    sample_rate: int,
    format: str = "wav",
    subtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write samples (C, T) as wav (32-bit float unless `subtype` says otherwise) or flac (24 bit).

    The file appears whole or not at all. Float wav never clips; in an integer encoding values beyond -1..1 are
    clipped with an AudioWarning that states the peak. An existing file without `overwrite`, a folder that cannot be
    written, and samples that the format cannot hold raise InputError.
    """
    if format not in SUBTYPES:
        raise UsageError(f"unknown format {format!r}; choose from {', '.join(SUBTYPES)}")
    subtype = subtype or SUBTYPES[format]
    samples = samples.detach().to("cpu", torch.float32)
    peak = float(samples.abs().max()) if samples.numel() else 0.0
    if subtype not in ("FLOAT", "DOUBLE") and peak > 1:
        message = f"{Path(path).name}: peak {peak:.2f} is above full scale and is clipped; wav keeps it"
        warnings.warn(message, AudioWarning, stacklevel=2)
        samples = samples.clamp(-1, 1)
    with atomic_output(Path(path), overwrite) as temporary:
        try:
            soundfile.write(temporary, samples.T.numpy(), sample_rate, format=format.upper(), subtype=subtype)
        except (soundfile.SoundFileError, ValueError) as error:
            shape = f"{samples.shape[0]} channels at {sample_rate} Hz as {format} {subtype}"
            raise InputError(f"cannot write {path} with {shape}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What libsndfile says without the path that soundfile puts before it."""
    return (getattr(error, "error_string", None) or str(error)).rstrip(". ")


def resample(samples: Tensor, from_rate: int, to_rate: int, length: int | None = None) -> Tensor:
    """Change the rate of samples (C, T) in Hz with soxr's very high quality filter.

    The result is float32 (C, T') with T' = `length`, or T * to_rate / from_rate rounded (at least 1) if not given.
    """
    if length is None:
        length = max(1, round(samples.shape[-1] * to_rate / from_rate))
    if from_rate != to_rate:
        frames = np.ascontiguousarray(samples.detach().to("cpu", torch.float32).T.numpy())
        samples = torch.from_numpy(np.ascontiguousarray(soxr.resample(frames, from_rate, to_rate, quality="VHQ").T))
    samples = samples[..., :length]
    return torch.nn.functional.pad(samples, (0, length - samples.shape[-1]))  # soxr may end a sample early


def downmix(samples: Tensor) -> Tensor:
    """Samples (C, T) -> (T,): the mean of the channels.

    Channels in opposite phase cancel in the mean. Where its RMS over the whole file is more than 20 dB below that of
    the loudest channel, the loudest channel is taken instead.
    """
    mean = samples.mean(dim=0)
    levels = samples.double().square().mean(dim=-1).sqrt()  # (C,)
    if mean.double().square().mean().sqrt() < CANCELLED * levels.max():
        return samples[int(levels.argmax())]
    return mean
