"""What the tests of all commands start from: a recording, and a separator that needs no weights."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from tests.fakes import FakeSeparator, tone


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random tensors in every run, whatever ran before."""
    torch.manual_seed(0)


def install(fake: FakeSeparator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every command load `fake`, from a folder without weights."""
    monkeypatch.setattr("flowsep.checkpoint.find_model", lambda name: Path("no-weights"))
    monkeypatch.setattr("flowsep.checkpoint.load_separator", lambda folder, device="auto", dtype=None: fake)


@pytest.fixture
def separator(monkeypatch) -> FakeSeparator:
    """The separator that every command of the test gets: half of the mixture for a dog, a quarter for all else."""
    fake = FakeSeparator(gain=lambda text: 0.5 if "dog" in text else 0.25)
    install(fake, monkeypatch)
    return fake


@pytest.fixture
def mixture(tmp_path) -> Path:
    """A stereo file of 2.5 s at 44.1 kHz with 24 bits."""
    path = tmp_path / "mix.v2.wav"
    soundfile.write(path, tone(2.5, 44100, channels=2).T.numpy(), 44100, subtype="PCM_24")
    return path


@pytest.fixture(scope="module")
def outside() -> Iterator[list[Any]]:
    """Addresses other than this machine that this process, and so the server in it, connects to."""
    found, real = [], socket.socket.connect

    def connect(self: socket.socket, address: Any) -> Any:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            found.append(address)
        return real(self, address)

    socket.socket.connect = connect
    yield found
    socket.socket.connect = real
