"""Output files while they are written: block by block, rounded as the file will hold them, measured on the way."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import soundfile
import torch
from torch import Tensor

from flowsep.audio import AudioWarning, reason
from flowsep.blocks import BLOCK
from flowsep.encodings import Encoding
from flowsep.errors import InputError

SILENCE_DB = -200.0  # stands for zero: JSON has no infinity
ANALYSED = 4096  # samples of one spectrum of the measured share above the band


class OutputFile:
    """One file that samples (C, n) are added to; `finish` completes it.

    Integer encodings are rounded to the nearest step, without dither, and clipped at full scale; floats are kept. With
    the policy "scale" the samples wait in a float file beside `temporary` until the factor is known. InputError where
    the format cannot hold the channels or the rate, or nothing can be written.
    """

    def __init__(
        self,
        temporary: Path,
        path: Path,
        role: str,
        sample_rate: int,
        channels: int,
        encoding: Encoding,
        clip: str = "warn",
        band: float | None = None,
    ) -> None:
        self.temporary, self.path, self.role, self.clip = temporary, path, role, clip
        self.sample_rate, self.channels, self.encoding = sample_rate, channels, encoding
        self.meter = Meter(sample_rate, band)
        self.factor, self.clipped = 1.0, 0
        self.digest = hashlib.sha256()
        self.raw = temporary.with_name(f"{uuid4().hex}.part") if clip == "scale" else None
        first = (temporary, encoding) if self.raw is None else (self.raw, Encoding("wav", "RF64", "FLOAT"))
        self.file = self.opened(*first)

    def opened(self, path: Path, encoding: Encoding) -> soundfile.SoundFile:
        """A new sound file."""
        how = {"format": encoding.container, "subtype": encoding.subtype}
        try:
            return soundfile.SoundFile(path, "w", self.sample_rate, self.channels, **how)
        except (soundfile.SoundFileError, ValueError, TypeError) as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: Exception) -> InputError:
        """The error for samples that the format, or the disk, cannot hold."""
        shape = f"{self.channels} channels at {self.sample_rate} Hz as {self.encoding.format} {self.encoding.subtype}"
        return InputError(f"cannot write {self.path} with {shape}: {reason(error)}")

    def add(self, samples: Tensor) -> Tensor:
        """Append samples (C, n); gives back what a reader of the file finds there, before any scaling."""
        samples = samples.detach().to("cpu", torch.float32)
        self.meter.add(samples)
        if self.raw:
            self.write(samples.T.contiguous().numpy())
            bits = self.encoding.bits
            return samples if bits is None else (steps_of(samples, bits) / 2.0 ** (bits - 1)).float()
        return self.encode(samples)

    def encode(self, samples: Tensor) -> Tensor:
        """Append samples (C, n) as the file holds them, and give that back."""
        bits = self.encoding.bits
        if self.encoding.clips:
            self.clipped += int((samples.abs() > 1).sum())
        if bits is None:
            samples = samples.clamp(-1, 1) if self.encoding.clips else samples
            data = samples.T.contiguous().numpy()
        else:
            full = 2.0 ** (bits - 1)
            steps = steps_of(samples, bits).clamp(-full, full - 1)
            samples = (steps / full).float()
            # As integers: what libsndfile makes of float depends on how it rounds.
            data = (steps * 2.0 ** (32 - bits)).to(torch.int32).T.contiguous().numpy()
        self.digest.update(data.tobytes())
        self.write(data)
        return samples

    def write(self, data: Any) -> None:
        """Hand frames to libsndfile."""
        try:
            self.file.write(data)
        except (soundfile.SoundFileError, ValueError) as error:
            raise self.unwritable(error) from error

    def finish(self, factor: float = 1.0) -> None:
        """Complete the file; `factor` multiplies all samples and can differ from 1 where the policy is "scale"."""
        self.file.close()
        if self.raw is None:
            return
        self.factor = factor
        self.file = self.opened(self.temporary, self.encoding)
        with soundfile.SoundFile(self.raw) as waiting:
            while len(frames := waiting.read(BLOCK, dtype="float32", always_2d=True)):
                samples = torch.from_numpy(frames.T.copy())
                self.encode(samples if factor == 1 else (factor * samples).clamp(-1, 1))
        self.file.close()
        self.raw.unlink()

    def close(self) -> None:
        """Let go of the file, whatever state it is in."""
        self.file.close()

    def clipping(self) -> dict[str, Any]:
        """The policy, the peak in dBFS before anything was done, the scaling in dB, and how many samples clip."""
        return {
            "policy": self.clip,
            "peak_dbfs": round(decibels(self.meter.peak), 2),
            "scale_db": round(decibels(self.factor), 4) if self.factor != 1 else 0.0,
            "clipped_samples": self.clipped,
        }

    def describe(self) -> dict[str, Any]:
        """The file's entry in the sidecar."""
        above = self.meter.above_share()
        return {
            "role": self.role,
            "path": str(self.path),
            "peak": self.factor * self.meter.peak,
            "rms_db": round(max(SILENCE_DB, decibels(self.factor * self.meter.rms())), 2),
            "format": self.encoding.container,
            "subtype": self.encoding.subtype,
            "clipping": self.clipping(),
            "above_band": {"from_hz": self.meter.band, "energy_share": above} if above is not None else None,
            "samples_sha256": self.digest.hexdigest(),
        }

    def warn(self) -> None:
        """Warn of a peak above full scale, unless float was asked for: what it is and what was done."""
        report = self.clipping()
        if self.meter.peak <= 1 or self.clip == "float":
            return
        if self.clip == "scale":
            done = f"the output is turned down by {-report['scale_db']:.2f} dB"
        elif self.encoding.clips:
            done = f"{self.clipped} samples are clipped; --clip scale turns it down, --clip float keeps it"
        else:
            done = f"float {self.encoding.format} keeps it, players clip it; --clip scale turns it down"
        message = f"{self.path.name}: peak {report['peak_dbfs']:+.2f} dBFS is above full scale: {done}"
        warnings.warn(message, AudioWarning, stacklevel=3)


def steps_of(samples: Tensor, bits: int) -> Tensor:
    """Samples in steps of an integer encoding, float64, rounded; beyond full scale they are beyond its range."""
    return (samples.double() * 2.0 ** (bits - 1)).round()


def finish_together(files: Sequence[OutputFile]) -> None:
    """Complete files that add up to a recording: where they are scaled they are scaled alike, and still add up."""
    peak = max(file.meter.peak for file in files)
    factor = 1 / peak if peak > 1 and files[0].clip == "scale" else 1.0
    for file in files:
        file.finish(factor)
        file.warn()


class Meter:
    """Peak, RMS and the share of the energy above `band` Hz of samples that pass by in blocks."""

    def __init__(self, sample_rate: int, band: float | None = None) -> None:
        self.sample_rate = sample_rate
        self.band = band if band is not None and sample_rate / 2 > band else None
        self.peak, self.energy, self.count = 0.0, 0.0, 0
        self.above, self.all, self.rest = 0.0, 0.0, None

    def add(self, samples: Tensor) -> None:
        """Measure samples (C, n)."""
        if not samples.numel():
            return
        self.peak = max(self.peak, float(samples.abs().max()))
        self.energy += float(samples.double().square().sum())
        self.count += samples.numel()
        if self.band is not None:
            samples = samples if self.rest is None else torch.cat([self.rest, samples], dim=-1)
            whole = samples.shape[-1] // ANALYSED * ANALYSED
            self.analyse(samples[:, :whole])
            self.rest = samples[:, whole:].clone()

    def analyse(self, samples: Tensor) -> None:
        """Add the power spectra of samples (C, k * ANALYSED), in frames with a Hann window."""
        if not samples.numel():
            return
        frames = samples.unflatten(-1, (-1, ANALYSED)) * torch.hann_window(ANALYSED)
        power = torch.fft.rfft(frames).abs().square().sum((0, 1))
        first = math.ceil(self.band * ANALYSED / self.sample_rate)
        self.all += float(power.double().sum())
        self.above += float(power[first:].double().sum())

    def rms(self) -> float:
        """Root of the mean square over all channels."""
        return math.sqrt(self.energy / self.count) if self.count else 0.0

    def above_share(self) -> float | None:
        """Energy at and above `band` as a share of all, 0..1; None where the samples have no such band."""
        if self.band is None:
            return None
        if self.rest is not None and self.rest.shape[-1]:
            self.analyse(torch.nn.functional.pad(self.rest, (0, -self.rest.shape[-1] % ANALYSED)))
            self.rest = None
        return float(f"{self.above / self.all:.6g}") if self.all > 0 else 0.0


def decibels(amplitude: float) -> float:
    """20 log10(amplitude), at least -200."""
    return max(SILENCE_DB, 20 * math.log10(amplitude)) if amplitude > 0 else SILENCE_DB
