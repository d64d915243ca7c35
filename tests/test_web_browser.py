"""The page in a real browser, headless Chromium.

Needs gradio and selenium (extra `dev`). Without a browser the tests are skipped; on Debian: apt-get install chromium
chromium-driver.
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

from flowsep.files import LoadedModel
from flowsep.web.orders import Limits
from flowsep.web.server import Served, Where, start
from tests.fakes import FakeSeparator, tone

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'flowsep-toolkit[web]'")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE = 300  # seconds: the machine may be busy
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1280,900"),
    "--autoplay-policy=no-user-gesture-required",
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a microphone that beeps
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # there is no outside
)


class Slow(FakeSeparator):
    """Half of the mixture for a dog, a quarter for all else; some time per window where the query asks for it."""

    def __init__(self) -> None:
        super().__init__(gain=lambda text: 0.5 if "dog" in text else 0.25)

    def separate(self, mixture: Any, texts: Any, options: Any = None) -> Any:
        self.delay = 0.3 if "slow" in texts[0] else 0.0
        return super().separate(mixture, texts, options)


@pytest.fixture(scope="module")
def fake() -> Slow:
    return Slow()


@pytest.fixture(scope="module")
def served(fake: Slow, outside: list[Any]) -> Iterator[Served]:
    """The page over a fake separator."""
    page = start(LoadedModel(fake, "fake"), Where(port=0, limits=Limits(minutes=2, megabytes=20, sounds=4)))
    yield page
    page.close()
    assert not page.sessions.root.exists()


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, downloads) -> Iterator[Any]:
    """One Chromium for all tests, with an empty profile."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium or chromedriver; on Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    where = {"behavior": "allow", "downloadPath": str(downloads)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    yield driver
    driver.quit()


class OnPage:
    """What a user does and sees in one tab."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.get(url)
        self.tab = browser.current_window_handle
        self.wait(lambda: self.all("#run") and self.all("#recording input[type=file]"), "the page")

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        return " ".join(element.text for element in self.all(selector))

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """What the condition gives once it is true; elements that the page replaces meanwhile are looked up again."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if found := condition():
                    return found
            except WebDriverException:
                pass
            time.sleep(0.1)
        raise AssertionError(f"waited {PATIENCE} s for {what}; status: {self.text('#status')!r}")

    def upload(self, path: Path, said: str = "kHz") -> None:
        self.all("#recording input[type=file]")[0].send_keys(str(path))
        self.wait(lambda: said in self.text("#about"), f"{said!r} about {path.name}")

    def describe(self, text: str, row: int = 0) -> None:
        field = self.wait(lambda: self.all(f"#sound-{row} textarea, #sound-{row} input"), "the field")[0]
        self.wait(lambda: field.is_displayed(), "the field to be seen")
        field.clear()
        field.send_keys(text)

    def click(self, selector: str) -> None:
        button = self.all(selector)[0]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def separate(self, said: str) -> None:
        self.click("#run")
        self.wait(lambda: said in self.text("#status"), f"status {said!r}")

    def titles(self) -> list[str]:
        return [element.text for element in self.all(".panel h3")]


@pytest.fixture
def recording(tmp_path) -> Path:
    """Two seconds of stereo at 48 kHz."""
    path = tmp_path / "two seconds ☂.wav"
    soundfile.write(path, tone(2.0, 48000, channels=2).T.numpy(), 48000, subtype="PCM_16")
    return path


def test_upload_separate_hear_and_download_without_a_request_to_anywhere_else(
    browser, served, outside, recording, downloads
):
    page = OnPage(browser, served.url)
    page.upload(recording, "2.0 seconds, stereo, 48 kHz")
    page.describe("a dog barking")
    page.separate("Done")
    page.wait(lambda: len(page.titles()) == 4, "four panels")
    assert page.titles()[1:] == ["a dog barking", "Everything else", "Your remix"]
    durations = "return [...document.querySelectorAll('.panel audio')].map(player => player.duration)"
    page.wait(lambda: all(browser.execute_script(durations)), "the players to know how long they are")
    assert browser.execute_script(durations) == pytest.approx([2.0] * 4, abs=0.01)
    widths = "return [...document.querySelectorAll('.panel img')].map(picture => picture.naturalWidth)"
    page.wait(lambda: all(browser.execute_script(widths)), "the pictures")
    playing = "return [...document.querySelectorAll('.panel audio')].map(player => !player.paused)"
    for number in (0, 2):
        browser.execute_script(f"document.querySelectorAll('.panel audio')[{number}].play()")
        page.wait(lambda number=number: browser.execute_script(playing)[number], "the player to play")
    page.wait(lambda: not browser.execute_script(playing)[0], "the other player to stop")
    page.click("#download")
    archive = page.wait(lambda: next(downloads.glob("*.zip"), None), "the download")
    with zipfile.ZipFile(archive) as found:
        [sidecar] = [name for name in found.namelist() if name.endswith(".json")]
        document = json.loads(found.read(sidecar))
        assert document["remix"]["parts"][0]["query"] == "a dog barking" and len(found.namelist()) == 5
    logged = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in logged if entry["method"] == "Network.requestWillBeSent"]
    hosts = {urlsplit(url).hostname for url in asked if url.startswith(("http", "ws"))}
    assert hosts == {"127.0.0.1"} and outside == []


def test_several_sounds_a_sentence_and_what_is_refused(browser, served, recording):
    page = OnPage(browser, served.url)
    page.describe("a dog")
    page.separate("no recording yet")
    page.upload(recording)
    page.click("#add")
    page.describe("rain <b>☂</b>", row=1)
    page.separate("Done")
    page.wait(lambda: len(page.titles()) == 5, "five panels")
    assert page.titles()[2] == "rain <b>☂</b>"
    page.describe("A Dog", row=1)
    page.separate("twice")
    page.click("button[role=tab]:nth-of-type(2)")
    field = page.wait(lambda: page.all("#sentence textarea"), "the sentence")[0]
    page.wait(field.is_displayed, "the sentence to be seen")
    field.send_keys("what a lovely day")
    page.separate("did not understand")
    assert len(page.titles()) == 5, "an error leaves the last result"
    field.clear()
    field.send_keys("remove the dog")
    page.separate("Done")
    page.wait(lambda: "Understood: remove 'dog'" in page.text("#result"), "what was understood")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("song.wav", b"a text that was renamed", "cannot be read as audio"),
        ("empty.wav", b"", "is empty"),
    ],
)
def test_files_that_are_no_audio_are_refused_in_one_line(browser, served, tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    page = OnPage(browser, served.url)
    page.describe("a dog")
    page.upload(path, words)
    page.separate(words)
    assert "Traceback" not in page.text("body") and str(served.sessions.root) not in page.text("body")


@pytest.mark.parametrize(
    ("name", "size", "words"), [("notes.txt", 5, "Invalid file type"), ("big.wav", 20_100_000, "maximum")]
)
def test_other_kinds_of_files_and_those_above_the_limit_do_not_get_in(browser, served, tmp_path, name, size, words):
    path = tmp_path / name
    path.write_bytes(bytes(size))
    page = OnPage(browser, served.url)
    page.all("#recording input[type=file]")[0].send_keys(str(path))
    page.wait(lambda: words in page.text("body"), f"{words!r} on the page")
    assert not list(served.sessions.uploads.rglob(name))


def test_a_microphone_gives_a_recording(browser, served):
    page = OnPage(browser, served.url)

    def press(name: str) -> None:
        named = "return [...document.querySelectorAll('#recording button')].find(one => one.offsetParent && "
        named += f"(one.ariaLabel || one.innerText.trim()) === '{name}')"
        page.wait(lambda: browser.execute_script(named), f"the button {name}").click()

    press("Record audio")
    press("Record")
    time.sleep(1.0)
    press("Stop")
    page.wait(lambda: "seconds" in page.text("#about"), "what was recorded")
    page.describe("a dog")
    page.separate("Done")


@pytest.fixture
def long(tmp_path) -> Path:
    """100 seconds, half a minute of work for a query that is slow."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.full(100 * 8000, 0.1), 8000, subtype="PCM_16")
    return path


def assert_idle(fake: Slow, before: int) -> None:
    """The separator is not asked any more, long before the 100 windows after `before` are done."""
    time.sleep(1.0)
    seen = len(fake.seen)
    time.sleep(1.5)
    assert len(fake.seen) == seen < before + 100


def test_cancel_stops_the_work_and_keeps_the_last_result(browser, served, fake, long, recording):
    page = OnPage(browser, served.url)
    page.upload(recording)
    page.describe("a dog")
    page.separate("Done")
    page.browser.execute_script("document.querySelector('#recording button[aria-label=Clear]').click()")
    page.wait(lambda: page.all("#recording input[type=file]"), "the field for another file")
    page.upload(long, "100.0 seconds")
    page.describe("slow dog")
    before = len(fake.seen)
    page.click("#run")
    page.wait(lambda: len(fake.seen) > before + 1, "the work to begin")
    page.click("#cancel")
    page.wait(lambda: "Cancelled" in page.text("#status"), "the cancellation")
    assert_idle(fake, before)
    assert page.titles()[1] == "a dog"
    page.describe("rain")
    page.separate("Done")
    page.wait(lambda: page.titles()[1] == "rain", "the result of the next run")


def test_two_users_at_once_each_get_their_own_result(browser, served, recording):
    first = OnPage(browser, served.url)
    browser.switch_to.new_window("tab")
    second = OnPage(browser, served.url)
    first.wait(lambda: not results(served), "the files of earlier pages to go")
    for page, sound in ((first, "slow dog"), (second, "rain")):
        browser.switch_to.window(page.tab)
        page.upload(recording)
        page.describe(sound)
        page.click("#run")
    for page, sound in ((second, "rain"), (first, "slow dog")):
        browser.switch_to.window(page.tab)
        page.wait(lambda page=page: "Done" in page.text("#status"), "the result")
        page.wait(lambda page=page, sound=sound: page.titles()[1] == sound, "the right result")
    browser.switch_to.window(second.tab)
    browser.close()
    browser.switch_to.window(first.tab)
    first.wait(lambda: len(results(served)) == 1, "the files of the closed page to go")


def test_closing_a_page_in_mid_run_stops_it_and_removes_its_files(browser, served, fake, long):
    first = OnPage(browser, served.url)
    browser.switch_to.new_window("tab")
    second = OnPage(browser, served.url)
    second.wait(lambda: not results(served), "the files of earlier pages to go")
    second.upload(long, "100.0 seconds")
    second.describe("slow dog")
    before = len(fake.seen)
    second.click("#run")
    second.wait(lambda: len(fake.seen) > before, "the work to begin")
    browser.close()
    browser.switch_to.window(first.tab)
    first.wait(lambda: not results(served) and not list(served.sessions.uploads.rglob("long.wav")), "the files to go")
    assert_idle(fake, before)


def results(served: Served) -> list[Path]:
    """The folders of results that are there."""
    return list(served.sessions.results.iterdir())


def test_an_example_with_the_shipped_model(browser):
    from flowsep.files import load_model

    page = start(load_model("small"), Where(port=0))
    try:
        tab = OnPage(browser, page.url)
        [button] = [one for one in tab.all("button") if one.text == "Birds and an engine"]
        button.click()
        tab.wait(lambda: "8.0 seconds" in tab.text("#about"), "the example")
        tab.separate("Done")
        tab.wait(lambda: tab.titles()[1] == "a car engine running", "the result")
        assert "score" in tab.text(".panel.target .note")
    finally:
        page.close()
    assert not page.sessions.root.exists()
