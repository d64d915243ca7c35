"""Reading checkpoint files: every format gives its tensors, and no file gets anything executed."""

from __future__ import annotations

import copyreg
import importlib.abc
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowsep.convert.files import open_checkpoint
from flowsep.convert.lazy import LazyTensor, strided_tensor, without_weight_norm, write_safetensors
from flowsep.convert.pickles import Placeholder, read_pickle
from flowsep.errors import ModelError


def nothing_there(key: str, length: int):
    raise ModelError(f"no storage {key}")


def make_zip(
    path: Path, text: bytes, folder: str = "archive/", storages: dict[str, bytes] | None = None, **extra: bytes
):
    """A file in torch's zip layout with any pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}data.pkl", text)
        for key, data in (storages or {}).items():
            archive.writestr(f"{folder}data/{key}", data)
        for name, data in extra.items():
            archive.writestr(f"{folder}{name}", data)
    return path


@pytest.fixture
def no_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the modules that anybody tried to import."""
    tried: list[str] = []

    class Watcher(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            tried.append(name)

    monkeypatch.setattr(sys, "meta_path", [Watcher(), *sys.meta_path])
    yield tried


class Attack:
    """Its pickle calls os.system."""

    def __init__(self, marker: Path) -> None:
        self.command = f"echo run > {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


def attacks(marker: Path) -> dict[str, bytes]:
    """Pickles that would make a file if they were run, one per opcode that can call."""
    command = f"echo run > {marker}".encode()
    text = b"V" + command + b"\n"
    return {
        "reduce, protocol 0": pickle.dumps(Attack(marker), protocol=0),
        "reduce, protocol 2": pickle.dumps(Attack(marker), protocol=2),
        "stack global, protocol 4": pickle.dumps(Attack(marker), protocol=4),
        "inst": b"(" + text + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + text + b"o.",
        "newobj": b"\x80\x02cos\nsystem\n" + text + b"\x85\x81.",
        "newobj_ex": b"\x80\x04cos\nsystem\n" + text + b"\x85}\x92.",
        "eval": b"cbuiltins\neval\n(V__import__('os').system('" + command + b"')\ntR.",
        "dotted name": b"\x80\x04\x8c\x0bflowsep.cli\x8c\x09os.system\x93" + text + b"\x85R.",
        "attribute lookup": b"cbuiltins\ngetattr\n(cos\n__dict__\nVsystem\ntR(" + text + b"tR.",
        "state of a class": b"cos\nsystem\n}V__class__\ncos\nsystem\nsb(" + text + b"tR.",
        "through a rebuild function": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(" + text + b"tNtR.",
        "as persistent id": b"\x80\x02(X\x07\x00\x00\x00storagecos\nsystem\n" + text + b"X\x03\x00\x00\x00cpuK\x01tQ.",
        "calls what a call gave": b"cos\nsystem\n(" + text + b"tR(" + text + b"tR.",
    }


@pytest.mark.parametrize("kind", attacks(Path("unused")))
def test_malicious_pickle_runs_nothing(kind: str, tmp_path: Path):
    marker = tmp_path / "marker"
    payload = attacks(marker)[kind]
    inside = pickle.dumps({"epoch": 3}, protocol=2)
    path = make_zip(tmp_path / "bad.ckpt", payload)
    try:
        with open_checkpoint(path) as content:
            # Whatever it is, it is nothing that acts.
            assert content is None or isinstance(content, Placeholder)
    except ModelError:
        pass  # refusing is as good
    assert not marker.exists()
    with open_checkpoint(make_zip(tmp_path / "good.ckpt", inside)) as content:
        assert content == {"epoch": 3}


@pytest.mark.parametrize(
    "kind", ["reduce, protocol 0", "reduce, protocol 2", "stack global, protocol 4", "inst", "eval"]
)
def test_the_attacks_are_real(kind: str, tmp_path: Path):
    marker = tmp_path / "marker"
    pickle.loads(attacks(marker)[kind])
    assert marker.exists()


@pytest.mark.parametrize("opcode", [b"\x82\x05", b"\x83\x05\x00", b"\x84\x05\x00\x00\x00"])
def test_extension_codes_are_refused_even_if_registered(opcode: bytes, monkeypatch: pytest.MonkeyPatch):
    copyreg.add_extension("os", "getpid", 5)
    try:
        pickle.loads(b"\x80\x02\x82\x05.")  # now the interpreter has it in its cache, where find_class is not asked
        with pytest.raises(ModelError, match="EXT"):
            read_pickle(io.BytesIO(b"\x80\x02" + opcode + b"(tR."), nothing_there)
    finally:
        copyreg.remove_extension("os", "getpid", 5)
        copyreg.clear_extension_cache()


def test_huge_memo_number_is_refused():
    with pytest.raises(ModelError, match="LONG_BINPUT"):
        read_pickle(io.BytesIO(b"\x80\x02Nr\xff\xff\xff\x7f."), nothing_there)


@pytest.mark.parametrize("text", [b"", b"\x80\x02", b"not a pickle", b"\x80\x02}(K\x01u.", b"\x80\x02K\x01K\x02b."])
def test_damaged_pickle_is_a_model_error(text: bytes):
    with pytest.raises(ModelError, match="pickle"):
        read_pickle(io.BytesIO(text), nothing_there)


def test_lightning_like_file_gives_its_tensors_without_importing_its_classes(tmp_path: Path, no_imports: list[str]):
    module = types.ModuleType("elsewhere_lightning")

    class Callback(dict):
        pass

    class Settings:
        def __setstate__(self, state):
            raise RuntimeError("built")

        def __getstate__(self):
            return {"rate": 1e-4, "sizes": [1, 2]}

    class Sequence(list):
        pass

    for kind in (Callback, Settings, Sequence):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    sys.modules[module.__name__] = module
    weights = torch.randn(3, 4)
    try:
        torch.save(
            {
                "epoch": 7,
                "hyper_parameters": Settings(),
                "callbacks": {Callback: Callback(best=1), "list": Sequence([1, 2])},
                "counts": defaultdict(int, a=1),
                "names": {"x", "y"},
                "state_dict": OrderedDict(weight=weights, parameter=torch.nn.Parameter(weights + 1)),
                "optimizer_states": [{"state": {0: {"exp_avg": weights}}}],
                "dtype": torch.float16,
                "size": weights.shape,
            },
            tmp_path / "lightning.ckpt",
        )
    finally:
        del sys.modules[module.__name__]
    with open_checkpoint(tmp_path / "lightning.ckpt") as content:
        assert torch.equal(content["state_dict"]["weight"].load(), weights)
        assert torch.equal(content["state_dict"]["parameter"].load(), weights + 1)
        assert content["epoch"] == 7
        assert content["counts"] == {"a": 1}
        assert content["names"] == {"x", "y"}
        assert content["dtype"] is torch.float16
        assert tuple(content["size"]) == (3, 4)
        assert isinstance(content["hyper_parameters"], Placeholder)
        assert torch.equal(content["optimizer_states"][0]["state"][0]["exp_avg"].load(), weights)
    assert not [name for name in no_imports if name.startswith("elsewhere")]
    assert module.__name__ not in sys.modules


def some_tensors() -> dict[str, torch.Tensor]:
    """Every dtype, views that share storage, strides, no dimension, no elements."""
    base = torch.arange(24.0).reshape(2, 3, 4)
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    return {
        "whole": base,
        "view": base[1, :, 1:3],
        "transposed": base.permute(2, 0, 1),
        "expanded": torch.tensor([5.0]).expand(3, 2),
        "scalar": torch.tensor(0.75),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
        "complex": torch.tensor([1 + 2j]),
        **{str(kind): torch.arange(-3, 5).to(kind) for kind in kinds},
    }


def assert_same(content: dict[str, LazyTensor], tensors: dict[str, torch.Tensor]):
    assert list(content) == list(tensors)
    for name, tensor in tensors.items():
        lazy, loaded = content[name], content[name].load()
        assert lazy.shape == tuple(tensor.shape), name
        assert lazy.dtype == loaded.dtype == tensor.dtype, name
        assert loaded.is_contiguous(), name
        assert torch.equal(loaded, tensor), name


@pytest.mark.parametrize("modern", [True, False])
def test_torch_files_of_both_formats_are_read(modern: bool, tmp_path: Path):
    tensors = some_tensors()
    torch.save(tensors, tmp_path / "file.pt", _use_new_zipfile_serialization=modern)
    with open_checkpoint(tmp_path / "file.pt") as content:
        assert_same(content, tensors)


@pytest.mark.parametrize("folder", ["", "g_01000000/", "a/b c/", "données/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_may_have_any_folder_and_be_repacked(folder: str, compression: int, tmp_path: Path):
    tensors = some_tensors()
    torch.save(tensors, tmp_path / "file.pt")
    with zipfile.ZipFile(tmp_path / "file.pt") as old, zipfile.ZipFile(tmp_path / "new.pt", "w", compression) as new:
        for name in old.namelist():
            new.writestr(folder + name.split("/", 1)[1], old.read(name))
    with open_checkpoint(tmp_path / "new.pt") as content:
        assert_same(content, tensors)


@pytest.mark.parametrize("legacy", [True, False])
def test_other_byte_order_is_swapped(legacy: bool, tmp_path: Path):
    numbers = [1.5, -2.25, 3e-5]
    reference = ("storage", torch.FloatStorage, "0", "cpu", 3)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return reference if obj == "the storage" else None

    class Rebuilt:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, ("the storage", 0, (3,), (1,), False, OrderedDict())

    text = io.BytesIO()
    Pickler(text, protocol=2).dump({"x": Rebuilt()})
    data = struct.pack(">3f", *numbers)
    if legacy:
        head = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": False})]
        keys = pickle.dumps(["0"], protocol=2)
        (tmp_path / "big.pt").write_bytes(b"".join([*head, text.getvalue(), keys, struct.pack(">q", 3), data]))
    else:
        make_zip(tmp_path / "big.pt", text.getvalue(), storages={"0": data}, byteorder=b"big")
    with open_checkpoint(tmp_path / "big.pt") as content:
        assert torch.equal(content["x"].load(), torch.tensor(numbers))


def test_safetensors_is_read(tmp_path: Path):
    tensors = {name: tensor.contiguous().clone() for name, tensor in some_tensors().items() if name != "complex"}
    save_file(tensors, tmp_path / "file.safetensors")
    with open_checkpoint(tmp_path / "file.safetensors") as content:
        assert_same(dict(sorted(content.items())), dict(sorted(tensors.items())))


def test_written_safetensors_are_those_of_the_library(tmp_path: Path):
    tensors = {"a": torch.randn(3, 4), "b": torch.tensor(0.75), "c": torch.randn(2).half(), "d": torch.empty(0, 2)}
    lazy = {name: LazyTensor(t.dtype, tuple(t.shape), lambda t=t: t) for name, t in tensors.items()}
    write_safetensors(tmp_path / "file.safetensors", lazy)
    loaded = load_file(tmp_path / "file.safetensors")
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.float())


def test_weight_norm_is_removed_as_torch_does():
    with pytest.warns(FutureWarning):
        layer = torch.nn.utils.weight_norm(torch.nn.ConvTranspose1d(4, 6, 5))
    layer.weight_g.data *= torch.rand(4, 1, 1) + 0.5
    parts = [LazyTensor(p.dtype, tuple(p.shape), lambda p=p: p.detach()) for p in (layer.weight_v, layer.weight_g)]
    folded = without_weight_norm(*parts).load()
    torch.nn.utils.remove_weight_norm(layer)
    assert torch.equal(folded, layer.weight.detach())


def truncated(path: Path):
    path.write_bytes(path.read_bytes()[:-200])


def shortened_storage(path: Path):
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in entries.items():
            new.writestr(name, data[:-4] if "/data/" in name else data)


def without_storage(path: Path):
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist() if "/data/" not in name}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in entries.items():
            new.writestr(name, data)


def no_checkpoint(path: Path):
    path.write_bytes(b"<!DOCTYPE html><title>404</title>")


def other_zip(path: Path):
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    "damage", [truncated, shortened_storage, without_storage, no_checkpoint, other_zip, Path.unlink]
)
def test_damaged_file_is_a_model_error(damage: Callable[[Path], None], tmp_path: Path):
    path = tmp_path / "file.pt"
    torch.save({"x": torch.randn(100)}, path)
    damage(path)
    with pytest.raises(ModelError), open_checkpoint(path) as content:
        content["x"].load()


@pytest.mark.parametrize("end", [4, 9, 60, -100])
def test_truncated_safetensors_is_a_model_error(end: int, tmp_path: Path):
    path = tmp_path / "file.safetensors"
    save_file({"x": torch.randn(100), "y": torch.randn(100)}, path)
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ModelError), open_checkpoint(path) as content:
        content["y"].load()


@pytest.mark.parametrize(
    ("offset", "shape", "stride"), [(-1, (1,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (1,)), (0, ("2",), (1,))]
)
def test_impossible_views_are_refused(offset: int, shape: tuple, stride: tuple):
    with pytest.raises(ModelError):
        strided_tensor(None, torch.float32, offset, shape, stride)
