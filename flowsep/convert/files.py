"""Checkpoint files of three formats -> names and lazy tensors: torch's zip, its older stream, and safetensors."""

from __future__ import annotations

import json
import math
import struct
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch

from flowsep.convert.lazy import LazyTensor, strided_tensor
from flowsep.convert.pickles import read_pickle
from flowsep.errors import ModelError

MAX_TEXT = 1 << 28  # bytes of pickle or header that are read at once; real ones have a few megabytes
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Any]:
    """The content of a checkpoint: nested plain containers with LazyTensor leaves, readable while the block lasts.

    Raises ModelError where the file is missing, damaged or of another format. Nothing in it is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no checkpoint file at {path}")
    with path.open("rb") as file:
        start = file.read(16)
        if start.startswith(b"PK\x03\x04"):
            with open_zip(path, file) as content:
                yield content
        elif start.startswith(b"\x80\x02\x8a\x0a"):
            yield read_legacy(file)
        elif start[8:9] == b"{":
            yield read_safetensors(file)
        else:
            raise ModelError(f"{path} is neither a torch checkpoint nor safetensors; is the download complete?")


@dataclass
class FilePart:
    """`length` bytes of a file from `start`."""

    file: IO[bytes]
    start: int
    length: int

    def size(self) -> int:
        return self.length

    def read(self, start: int, count: int) -> bytearray:
        data = bytearray(count)
        self.file.seek(self.start + start)
        # The read goes straight into `data`; a memory map would count every page as the process's own.
        if start + count > self.length or self.file.readinto(data) != count:  # type: ignore[attr-defined]
            raise ModelError("damaged checkpoint: the file ends within a tensor; is the download complete?")
        return data


@dataclass
class ZipEntry:
    """A compressed entry of a zip file; torch writes none, but tools that repack do."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def size(self) -> int:
        return self.info.file_size

    def read(self, start: int, count: int) -> bytearray:
        try:
            with self.archive.open(self.info) as stream:
                stream.seek(start)
                data = bytearray(stream.read(count))
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise ModelError(f"damaged checkpoint: {self.info.filename} cannot be read ({error})") from error
        if len(data) != count:
            raise ModelError(f"damaged checkpoint: {self.info.filename} is too short")
        return data


@contextmanager
def open_zip(path: Path, file: IO[bytes]) -> Iterator[Any]:
    """torch.save's format since 1.6: <any folder>/data.pkl and one stored entry data/<key> per storage."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{path} is a broken zip file ({error}); is the download complete?") from error
    with archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.rsplit("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ModelError(f"{path} is a zip file but no torch checkpoint: it holds {len(pickles)} files data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in entries:
            raise ModelError(f"{path} is a TorchScript program, not a checkpoint")

        def locate(key: str, length: int) -> FilePart | ZipEntry:
            info = entries.get(f"{folder}data/{key}")
            if info is None:
                raise ModelError(f"damaged checkpoint: {path} has no entry {folder}data/{key}")
            return entry_bytes(archive, info, file)

        text = small_entry(archive, entries[pickles[0]])
        order = small_entry(archive, entries[f"{folder}byteorder"]) if f"{folder}byteorder" in entries else b"little"
        yield read_pickle(BytesIO(text), locate, swap=order.decode("latin1").strip() != sys.byteorder)


def entry_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: IO[bytes]) -> FilePart | ZipEntry:
    """Where an entry's bytes lie: in the file itself if it is stored as it is."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        return ZipEntry(archive, info)
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise ModelError(f"damaged checkpoint: the entry {info.filename} is not where the zip's directory says")
    name, extra = struct.unpack("<HH", header[26:30])
    return FilePart(file, info.header_offset + 30 + name + extra, info.file_size)


def small_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A whole entry, checked against its CRC where it has one."""
    if info.file_size > MAX_TEXT:
        raise ModelError(f"damaged checkpoint: {info.filename} has {info.file_size} bytes")
    try:
        with archive.open(info) as stream:
            return stream.read(MAX_TEXT)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"damaged checkpoint: {info.filename} cannot be read ({error})") from error


@dataclass
class LegacyStorage:
    """A storage whose place becomes known after the pickle that refers to it."""

    key: str
    places: dict[str, FilePart] = field(repr=False)

    def size(self) -> int:
        return self.places[self.key].size() if self.key in self.places else 0

    def read(self, start: int, count: int) -> bytearray:
        return self.places[self.key].read(start, count)


def read_legacy(file: IO[bytes]) -> Any:
    """torch.save's format before 1.6: five pickles in a row, then per storage an int64 count and its numbers."""
    places: dict[str, FilePart] = {}
    lengths: dict[str, int] = {}  # bytes, which the stream itself does not tell: it counts elements

    def locate(key: str, length: int) -> LegacyStorage:
        lengths[key] = length
        return LegacyStorage(key, places)

    file.seek(0)
    if read_pickle(file, locate) != LEGACY_MAGIC:
        raise ModelError("not a torch checkpoint: its magic number is wrong")
    read_pickle(file, locate)  # protocol version
    system = read_pickle(file, locate)
    little = not isinstance(system, dict) or system.get("little_endian", True)
    content = read_pickle(file, locate, swap=little != (sys.byteorder == "little"))
    keys = read_pickle(file, locate)
    for key in keys if isinstance(keys, list) else []:
        file.seek(8, 1)  # the count, which the pickle told as well
        if key not in lengths:
            raise ModelError(f"damaged checkpoint: storage {key!r} is not referred to")
        places[key] = FilePart(file, file.tell(), lengths[key])
        file.seek(lengths[key], 1)
    return content


def read_safetensors(file: IO[bytes]) -> dict[str, LazyTensor]:
    """Names and tensors of a safetensors file."""
    end = file.seek(0, 2)
    file.seek(0)
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(MAX_TEXT, end - 8):
        raise ModelError("damaged safetensors file: its header is longer than the file; is the download complete?")
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            dtype, shape = SAFETENSORS_DTYPES[entry["dtype"]], tuple(entry["shape"])
            first, last = entry["data_offsets"]
            stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
            source = FilePart(file, 8 + length + first, last - first)
            tensors[name] = strided_tensor(source, dtype, 0, shape, stride, swap=sys.byteorder != "little")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"damaged safetensors file: its header cannot be read ({error!r})") from error
    return tensors
