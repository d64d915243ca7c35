"""Pickles read as data: tensors and plain containers are built, everything else becomes an inert placeholder.

A pickle is a program that names functions and calls them. Here the names are looked up in a table of our own, never
imported; a name that is not in it stands for `Placeholder`, which swallows whatever is done to it. So Lightning files,
which hold objects of many classes, can be read, and a malicious file runs nothing.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import torch

from flowsep.convert.lazy import Bytes, LazyTensor, strided_tensor
from flowsep.errors import ModelError

_DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _DTYPES}
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")


class Placeholder:
    """An object of a class that is not ours to build. Nothing that a pickle does to it has an effect."""

    def __new__(cls, *args: object, **kwargs: object) -> Placeholder:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def _swallow(self, *args: object) -> None:
        pass

    __call__ = __setstate__ = __setitem__ = append = extend = add = _swallow


class Plain(dict):
    """A dictionary, whatever kind of dictionary it was, without the attributes that it had."""

    def __setstate__(self, state: object) -> None:
        pass


class Recipe:
    """A name that a pickle may call: one function of this file, which sees data only."""

    __slots__ = ("build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        object.__setattr__(self, "build", build)

    def __call__(self, *args: Any) -> Any:
        try:
            return self.build(*args)
        except (TypeError, ValueError):  # called with something that is not what its name promises
            return Placeholder()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class StorageType:
    """torch.FloatStorage and its kin: a name for a dtype."""

    dtype: torch.dtype

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class Storage:
    """A block of numbers in the file."""

    dtype: torch.dtype
    source: Bytes
    swap: bool  # its byte order is not the machine's

    def __setstate__(self, state: object) -> None:
        pass


def _tensor_v2(storage: Any, offset: Any, shape: Any, stride: Any, *rest: object) -> LazyTensor:
    if not isinstance(storage, Storage):
        raise TypeError
    return strided_tensor(storage.source, storage.dtype, offset, tuple(shape), tuple(stride), storage.swap)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: object
) -> Any:
    if not (isinstance(storage, Storage) and isinstance(dtype, torch.dtype)):
        raise TypeError
    return strided_tensor(storage.source, dtype, offset, tuple(shape), tuple(stride), storage.swap)


def _parameter(data: Any, *rest: object) -> Any:
    return data


def _from_type(build: Any, kind: Any, args: Any, state: Any) -> Any:
    if not isinstance(build, Recipe):
        raise TypeError
    return build(*args)


def _mapping(*args: Any) -> Plain:
    return Plain(*[arg for arg in args if isinstance(arg, dict | list | tuple)][:1])


RECIPES: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor_v2,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): _mapping,
    ("collections", "defaultdict"): _mapping,
    **{(module, "dict"): _mapping for module in ("builtins", "__builtin__")},
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (list, tuple, set, frozenset)
    },
}


def meaning_of(module: str, name: str) -> Any:
    """What a name in a pickle stands for. Nothing is imported or looked up outside the tables above."""
    if (module, name) in RECIPES:
        return Recipe(RECIPES[module, name])
    if module in STORAGE_MODULES and name in STORAGES:
        return StorageType(STORAGES[name])
    if module == "torch" and name in DTYPES:
        return DTYPES[name]
    return type("Placeholder", (Placeholder,), {"__slots__": ()})


class SafeUnpickler(pickle.Unpickler):
    """`locate(key, bytes)` gives the bytes of a storage; `swap` says that their byte order is not the machine's."""

    def __init__(self, stream: IO[bytes], locate: Callable[[str, int], Bytes], swap: bool = False) -> None:
        # Latin-1 reads every string that Python 2 may have written.
        super().__init__(stream, encoding="latin1")
        self._locate, self._swap = locate, swap

    def find_class(self, module: str, name: str) -> Any:
        """Answer GLOBAL, STACK_GLOBAL and INST; the only way by which a name turns into something to call."""
        return meaning_of(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """A reference to a storage: ("storage", type, key, device, number of elements[, view of another storage])."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[2], str)):
            return Placeholder()
        if len(pid) > 5 and pid[5] is not None:
            raise ModelError("the checkpoint holds views of storages, as torch before 0.4 wrote them; save it anew")
        kind, numel = pid[1], pid[4]
        if not isinstance(kind, StorageType) or type(numel) is not int or numel < 0:
            return Placeholder()
        return Storage(kind.dtype, self._locate(pid[2], numel * kind.dtype.itemsize), self._swap)


def read_pickle(stream: IO[bytes], locate: Callable[[str, int], Bytes], swap: bool = False) -> Any:
    """The next pickle of a seekable stream, which is left just behind it. Raises ModelError where it is damaged."""
    start = stream.tell()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            # Extension codes are resolved by a cache inside the interpreter, past find_class; a memo number far beyond
            # the objects so far would make it allocate that many places. No torch file does either.
            if opcode.name.startswith("EXT") or (opcode.name in ("PUT", "LONG_BINPUT") and argument > count):
                raise ModelError(f"the checkpoint's pickle is not one that torch wrote ({opcode.name} {argument})")
        stream.seek(start)
        return SafeUnpickler(stream, locate, swap).load()
    except ModelError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ModelError(f"damaged checkpoint: its pickle cannot be read ({type(error).__name__}: {error})") from error
