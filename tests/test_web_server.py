"""What the server of the page gives to whoever asks, without a browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from flowsep.files import LoadedModel
from flowsep.web.orders import Limits
from flowsep.web.server import Served, Where, start
from tests.fakes import FakeSeparator

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'flowsep-toolkit[web]'")

PATIENCE = 300  # seconds: the machine may be busy


@pytest.fixture(scope="module")
def served(outside: list[Any]) -> Iterator[Served]:
    """The page over a fake separator."""
    page = start(LoadedModel(FakeSeparator(), "fake"), Where(port=0, limits=Limits(megabytes=20)))
    yield page
    page.close()
    assert not page.sessions.root.exists()


def fetched(url: str, data: bytes | None = None) -> tuple[int, str, Any]:
    """Status, text and headers of an answer."""
    try:
        with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode(errors="replace"), answer.headers
    except HTTPError as error:
        return error.code, error.read().decode(errors="replace"), error.headers


def fetched_form(url: str, form: bytes) -> int:
    """Status of the answer to a form."""
    try:
        with urlopen(Request(url, form), timeout=PATIENCE) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def test_the_page_names_no_other_host_and_forbids_the_browser_to_ask_one(served):
    status, page, headers = fetched(served.url)
    assert status == 200 and headers["Content-Security-Policy"].startswith("default-src 'self'")
    configuration = json.loads(fetched(f"{served.url}config")[1])
    assert configuration["analytics_enabled"] is False and "fonts.googleapis" not in page
    assert not any(sheet.startswith("http") for sheet in configuration.get("stylesheets") or [])


@pytest.mark.parametrize("path", ["/etc/passwd", "http://example.com/", "https:/example.com/x", __file__])
def test_no_file_of_the_machine_and_no_address_is_given_out(served, outside, path):
    assert fetched(f"{served.url}gradio_api/file={path}")[0] in (403, 404)
    assert outside == []


@pytest.mark.parametrize("path", ["/etc/hostname", "http://127.0.0.1:9/x.wav", "https://example.com/x.wav"])
def test_a_recording_that_was_not_uploaded_is_not_taken(served, outside, path):
    configuration = json.loads(fetched(f"{served.url}config")[1])
    [number] = [one["id"] for one in configuration["dependencies"] if one["targets"][0][1] == "change"]
    recording = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [recording], "fn_index": number, "session_hash": "hostile"}
    status, answer, _ = fetched(f"{served.url}gradio_api/run/predict", json.dumps(body).encode())
    assert status >= 400 or "error" in answer.lower(), answer
    assert "kHz" not in answer and outside == []


def test_files_above_the_limit_are_refused_while_they_arrive(served):
    boundary = "x" * 20
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    body = head.encode() + bytes(21_000_000) + f"\r\n--{boundary}--\r\n".encode()
    request = Request(
        f"{served.url}gradio_api/upload", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    with pytest.raises((HTTPError, OSError)):
        urlopen(request, timeout=PATIENCE)
    kept = [path for path in served.sessions.uploads.rglob("*") if path.is_file() and path.stat().st_size > 2e7]
    assert kept == []


def test_with_a_password_nothing_is_given_to_strangers():
    page = start(LoadedModel(FakeSeparator(), "fake"), Where(port=0, auth="anna:secret"))
    try:
        configuration = fetched(f"{page.url}config")
        assert configuration[0] == 401 or "auth_required" in configuration[1]
        [example] = list((page.sessions.root / "examples").glob("*birds*"))
        assert fetched(f"{page.url}gradio_api/file={example}")[0] == 401
        form = b"username=anna&password=wrong"
        assert fetched_form(f"{page.url}login", form) == 400
        assert fetched_form(f"{page.url}login", b"username=anna&password=secret") == 200
    finally:
        page.close()
    assert not os.path.exists(page.sessions.root)


def test_the_command_says_where_it_is_warns_and_leaves_nothing_after_ctrl_c(tmp_path):
    command = [sys.executable, "-m", "tests.slow_runner", "web", "--port", "0", "--host", "0.0.0.0", "--no-browser"]
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored below a job in the background
    )
    said = [process.stderr.readline() for _ in range(3)]
    address = said[1].split()[5]
    assert "loaded" in said[0] and address.startswith("http://") and "add --auth user:password" in said[2]
    assert fetched(address)[0] == 200 and len(list(tmp_path.glob("flowsep-web-*"))) == 1
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "") and err.endswith("its temporary files are removed\n")
    assert list(tmp_path.glob("flowsep-web-*")) == []
