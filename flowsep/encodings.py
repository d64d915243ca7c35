"""What an output file is written as: like its input unless told otherwise. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowsep.errors import UsageError
from flowsep.options import check_choice

# Format as users name it, which is the suffix -> libsndfile's container and the subtype where nothing else says.
FORMATS = {
    "wav": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_24"),
    "aiff": ("AIFF", "FLOAT"),
    "caf": ("CAF", "FLOAT"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
KEPT_SUFFIXES = {".wav": "wav", ".flac": "flac", ".aiff": "aiff", ".aif": "aiff", ".caf": "caf"}  # others become wav
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
FLOATS = ("FLOAT", "DOUBLE")
SUBTYPES = (*BITS, *FLOATS)
LOSSLESS = {**{name: name for name in SUBTYPES}, "ALAC_16": "PCM_16", "ALAC_20": "PCM_24", "ALAC_24": "PCM_24"}
NEAREST = {"PCM_U8": "PCM_S8", "PCM_S8": "PCM_U8", "PCM_32": "PCM_24", "FLOAT": "PCM_24", "DOUBLE": "PCM_24"}
CLIP_POLICIES = ("warn", "scale", "float")
RIFF_LIMIT = 2**32 - 2**20  # bytes of samples: a wav file counts them in 32 bits


@dataclass(frozen=True)
class Encoding:
    """How samples are stored: a format of FORMATS, libsndfile's container and its subtype."""

    format: str
    container: str
    subtype: str

    @property
    def bits(self) -> int | None:
        """Of an integer encoding; None for the others."""
        return BITS.get(self.subtype)

    @property
    def clips(self) -> bool:
        """Whether it cannot hold values beyond full scale."""
        return self.subtype not in FLOATS

    def for_size(self, values: int) -> Encoding:
        """The same for so many samples of all channels: a wav beyond 4 GB is written as RF64, with the same suffix."""
        width = {"DOUBLE": 8, "FLOAT": 4}.get(self.subtype) or (self.bits or 8) // 8
        if self.container == "WAV" and values * width > RIFF_LIMIT:
            return Encoding(self.format, "RF64", self.subtype)
        return self


def check_format(format: str | None, subtype: str | None, clip: str) -> None:
    """UsageError for a format, subtype or clip policy that does not exist, or that contradict one another."""
    check_choice("format", format, tuple(FORMATS))
    check_choice("subtype", subtype, SUBTYPES)
    check_choice("clip policy", clip, CLIP_POLICIES)
    if clip == "float" and subtype not in (None, *FLOATS):
        raise UsageError(f"--clip float writes 32-bit float, not {subtype}; leave --subtype out")
    if clip == "float" and format in ("flac", "ogg", "opus", "mp3"):
        raise UsageError(f"--clip float needs a format that holds float, not {format}; give --format wav")
    if format in ("ogg", "opus", "mp3") and subtype is not None:
        raise UsageError(f"--format {format} has no subtype; leave --subtype out")


def output_format(source: Path, format: str | None, clip: str = "warn") -> str:
    """The format of what comes from `source`: as asked for, or that of its suffix where it is lossless, or wav."""
    kept = format or KEPT_SUFFIXES.get(source.suffix.lower(), "wav")
    return "wav" if clip == "float" and kept == "flac" else kept


def encoding_of(
    format: str, subtype: str | None = None, source_subtype: str | None = None, clip: str = "warn"
) -> Encoding:
    """The encoding of a file in `format`: `subtype` if given, else that of the source, or the nearest there is.

    Sources without a lossless encoding give 32-bit float (24 bit in flac). UsageError for what the format cannot hold.
    """
    import soundfile

    check_choice("format", format, tuple(FORMATS))
    container, default = FORMATS[format]
    wanted = "FLOAT" if clip == "float" and subtype is None else subtype
    if wanted is not None:
        if not soundfile.check_format(container, wanted):
            known = ", ".join(name for name in SUBTYPES if soundfile.check_format(container, name))
            raise UsageError(f"{format} cannot hold {wanted}; choose from {known}")
        return Encoding(format, container, wanted)
    kept = LOSSLESS.get(source_subtype or "", default)
    for candidate in (kept, NEAREST.get(kept, default), default):
        if soundfile.check_format(container, candidate):
            return Encoding(format, container, candidate)
    return Encoding(format, container, default)
