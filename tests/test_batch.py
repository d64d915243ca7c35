"""Folders: what is done is kept, what was killed is taken up again, what fails stops nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import threading
import time

import pytest
import soundfile

from flowsep.atomic import PREFIX, recover
from flowsep.audio import read_audio
from flowsep.cli import main
from tests.conftest import install
from tests.fakes import FakeSeparator, tone
from tests.killed_runner import run
from tests.test_cli import failure

TEXTS = ["--text", "a dog", "--text", "rain"]


@pytest.fixture
def folder(tmp_path):
    """Four recordings, one of them in a sub-folder, and a broken one."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.wav", "b.flac", "sub/a.wav", "sub/c.wav")):
        samples = tone(1.0 + 0.5 * number, 16000, hertz=300.0 + 100 * number)
        soundfile.write(tmp_path / "in" / name, samples.T.numpy(), 16000)
    return tmp_path / "in"


def command(folder, out, *more):
    return ["separate", str(folder), *TEXTS, "--recursive", "--residual", "-o", str(out), *map(str, more)]


def content(out):
    """Samples of every finished audio file below a folder, by relative path; what a killed run left is no output."""
    files = sorted(path for path in out.rglob("*") if path.suffix in (".wav", ".flac"))
    files = [path for path in files if not any(part.startswith(PREFIX) for part in path.parts)]
    return {path.relative_to(out).as_posix(): soundfile.read(path)[0].tobytes() for path in files}


def stamps(out):
    """When each file below a folder was written."""
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_a_folder_is_processed_recursively_with_a_table_and_lines_of_json(folder, tmp_path, separator, capfd):
    assert main(command(folder, tmp_path / "out", "--json-lines")) == 0
    out, err = capfd.readouterr()
    documents = [json.loads(line) for line in out.splitlines()]
    assert len(documents) == 8 and {document["status"] for document in documents} == {"done"}
    names = ["a.a-dog.wav", "b.rain.flac", "sub/a.a-dog.wav", "sub/c.rain.residual.wav"]
    assert len(content(tmp_path / "out")) == 16 and set(names) <= set(content(tmp_path / "out"))
    assert err.splitlines()[-1] == "flowsep: 4 done, 0 skipped, 0 failed"
    assert sum(" done " in line and line.endswith(" s") for line in err.splitlines()) == 4


def test_what_was_done_with_the_same_settings_is_kept_and_the_rest_is_done(folder, tmp_path, separator, capfd):
    out = tmp_path / "out"
    assert main(command(folder / "a.wav", out, "-q")) == 0
    before, calls = stamps(out), len(separator.seen)
    capfd.readouterr()
    assert main(command(folder, out)) == 0
    stdout, err = capfd.readouterr()
    assert stamps(out).items() > before.items()  # nothing was written again
    assert err.splitlines()[-1] == "flowsep: 3 done, 1 skipped, 0 failed"
    assert len(stdout.split()) == 4 * 2 * 3 and len(separator.seen) > calls
    calls = len(separator.seen)
    assert main(command(folder, out, "-q")) == 0 and len(separator.seen) == calls
    capfd.readouterr()
    assert main(command(folder / "a.wav", out)) == 0
    assert "a.wav was done before with the same settings" in capfd.readouterr().err


@pytest.mark.parametrize("change", ["seed", "input", "output", "sidecar", "model"])
def test_what_differs_from_before_is_refused_unless_overwritten(
    folder, tmp_path, separator, capfd, monkeypatch, change
):
    out, source = tmp_path / "out", folder / "a.wav"
    assert main(command(source, out, "-q")) == 0
    more = []
    if change == "seed":
        more = ["--seed", 3]
    elif change == "input":
        soundfile.write(source, 0.5 * tone(1.0, 16000).T.numpy(), 16000)
    elif change == "output":
        (out / "a.a-dog.residual.wav").unlink()
    elif change == "sidecar":
        (out / "a.rain.json").write_text("{}")
    else:
        monkeypatch.setattr("flowsep.files.weights_hash", lambda folder: "another")
    capfd.readouterr()
    code, line = failure(capfd, command(source, out, "-q", *more))
    assert code == 3 and "--overwrite" in line
    assert main(command(source, out, "-q", "--overwrite", *more)) == 0
    calls = len(separator.seen)
    assert main(command(source, out, "-q", *more)) == 0 and len(separator.seen) == calls


def test_a_bad_file_among_good_ones_exits_with_6_at_any_number_of_jobs(folder, tmp_path, separator, capfd):
    (folder / "bad.wav").write_text("this is not audio")
    assert main(command(folder, tmp_path / "one")) == 6
    err = capfd.readouterr().err
    assert "bad.wav cannot be read as audio" in err and "4 done, 0 skipped, 1 failed" in err
    assert main(command(folder, tmp_path / "three", "--jobs", 3, "--json")) == 6
    documents = json.loads(capfd.readouterr().out)
    assert sum("error" in document for document in documents) == 1 and len(documents) == 9
    assert content(tmp_path / "one") == content(tmp_path / "three")


def test_jobs_run_at_the_same_time(folder, tmp_path, monkeypatch):
    together = threading.Barrier(2, timeout=20)

    class Waiting(FakeSeparator):
        def separate(self, mixture, texts, options=None):
            if mixture.shape[-1] == self.window:
                together.wait()  # passes only where two are here at once
            return super().separate(mixture, texts, options)

    install(Waiting(window=16000), monkeypatch)
    files = [folder / "a.wav", tmp_path / "copy.wav"]
    files[1].write_bytes(files[0].read_bytes())
    arguments = ["remove", *map(str, files), "--text", "a dog", "--jobs", "2", "-q", "-o", str(tmp_path / "out")]
    assert main(arguments) == 0


def test_a_manifest_names_files_and_what_is_asked_of_each(folder, tmp_path, separator):
    (folder / "list.csv").write_text("path,text,gains\na.wav,a dog,\nb.flac,,\n")
    assert main(["separate", "--manifest", str(folder / "list.csv"), "--text", "rain", "-q", "-o", str(tmp_path)]) == 0
    assert {"a.a-dog.wav", "b.rain.flac"} == set(os.listdir(tmp_path)) - {"in", "a.a-dog.json", "b.rain.json"}
    (folder / "list.jsonl").write_text('{"path": "a.wav", "gains": {"a dog": -6}}\n{"path": "b.flac"}\n')
    arguments = ["remix", "--manifest", str(folder / "list.jsonl"), "--gain", "rain=mute", "-q"]
    assert main([*arguments, "-o", str(tmp_path / "r")]) == 0
    assert {"a.remix-a-dog-minus-6.wav", "b.remix-rain-mute.flac"} < set(os.listdir(tmp_path / "r"))
    (folder / "texts.csv").write_text("path,text\na.wav,a dog|rain\n")
    assert main(["remove", "--manifest", str(folder / "texts.csv"), "-q", "-o", str(tmp_path / "r")]) == 0
    assert (tmp_path / "r" / "a.without-a-dog-and-rain.wav").exists()


def test_start_end_and_span_limit_the_work(folder, tmp_path, separator, capfd):
    arguments = ["--start", "0.5", "--end", "2.0", "--span", "1.0-1.2", "-q", "--text", "a dog"]
    assert main(["separate", str(folder / "sub" / "c.wav"), *arguments, "--residual", "-o", str(tmp_path)]) == 0
    target, residual = (read_audio(tmp_path / f"c.a-dog{role}.wav").samples for role in ("", ".residual"))
    recording = read_audio(folder / "sub" / "c.wav").samples[:, 8000:32000]
    assert (target + residual).equal(recording)
    assert target[:, 8400:11000].abs().max() > 0.1 and not target[:, :6000].any() and not target[:, 13000:].any()
    capfd.readouterr()
    assert main(["segments", str(folder / "sub" / "c.wav"), *arguments]) == 0
    [segment] = json.loads(capfd.readouterr().out)["queries"][0]["segments"]
    assert segment["start"] == pytest.approx(1.0, abs=0.1) and segment["end"] == pytest.approx(1.2, abs=0.1)


def test_a_dry_run_counts_windows_and_calls_and_writes_nothing(folder, tmp_path, separator, capfd):
    assert main(command(folder, tmp_path / "out", "--dry-run", "--json")) == 0
    rows = json.loads(capfd.readouterr().out)
    assert [(row["windows"], row["nfe"]) for row in rows] == [(1, 4), (2, 8), (3, 12), (3, 12)]
    assert all(row["seconds"] >= 0 and row["memory_bytes"] > 1e7 for row in rows)
    assert not (tmp_path / "out").exists()
    assert main(command(folder, tmp_path / "out", "--dry-run", "-q")) == 0
    out = capfd.readouterr().out
    assert "windows" in out and str(tmp_path / "out" / "a.a-dog.wav") in out and not (tmp_path / "out").exists()


def test_max_memory_decides_how_many_windows_go_through_at_once(folder, tmp_path, monkeypatch, capfd):
    class Heavy(FakeSeparator):
        def separate(self, mixture, texts, options=None):
            self.ballast = bytearray(len(texts) * 300_000_000)  # per row
            for start in range(0, len(self.ballast), 4096):
                self.ballast[start] = 1
            time.sleep(0.02)
            found = super().separate(mixture, texts, options)
            self.ballast = None
            return found

    import psutil

    fake = Heavy()
    install(fake, monkeypatch)
    now = psutil.Process().memory_info().rss
    limit = f"{(now + 1.1e9) / 1e6:.0f}MB"
    arguments = ["remove", str(folder / "sub" / "c.wav"), "--text", "a dog", "-q", "-o", str(tmp_path)]
    assert main([*arguments, "--max-memory", limit]) == 0
    assert max(len(texts) for _, texts in fake.seen) in (2, 3)
    capfd.readouterr()
    code, line = failure(capfd, [*arguments, "--overwrite", "--max-memory", f"{now / 1e6:.0f}MB"])
    assert code == 5 and "one window at once needs about" in line and "--max-memory" in line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--start", "-1"], 2, "--start must be seconds of at least 0"),
        (["--start", "nan"], 2, "--start must be"),
        (["--end", "inf"], 2, "--end must be"),
        (["--start", "3", "--end", "2"], 2, "--end 2 is not after --start 3"),
        (["--start", "soon"], 2, "--start"),
        (["--start", "99"], 3, "has nothing after --start 99"),
        (["--span", "4-3"], 2, "does not rise"),
        (["--span", "a"], 2, "write start and end in seconds"),
        (["--max-memory", "lots"], 2, "write it like 4GB"),
        (["--max-memory", "0GB"], 2, "write it like 4GB"),
        (["--max-memory", "-4GB"], 2, "write it like 4GB"),
        (["--max-memory", "1MB"], 5, "one window at once needs about"),
        (["--jobs", "0"], 2, "--jobs"),
        (["--jobs", "many"], 2, "--jobs"),
        (["--name", "{stem}"], 2, "lacks {text}"),
        (["--name", "../{text}"], 2, "out of the output folder"),
        (["--name", "{text}" + "x" * 300], 3, "too long"),
        (["--manifest", "none.csv"], 3, "no manifest at none.csv"),
        (["--video"], 2, "is none; leave it out"),
        (["--json", "--json-lines"], 2, "exclude one another"),
    ],
)
def test_hostile_flags_get_one_line_and_the_right_code(tmp_path, mixture, separator, capfd, arguments, code, words):
    for verb, query in (("separate", ["--text", "a"]), ("remove", ["--text", "a"]), ("remix", ["--gain", "a=1"])):
        found, line = failure(capfd, [verb, mixture, *query, "-q", "-o", tmp_path / "out", *arguments])
        assert (found, words in line) == (code, True), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--start", "nan"], 2, "--start must be"),
        (["--end", "-1"], 2, "--end must be"),
        (["--start", "99"], 3, "has nothing after"),
        (["--span", "b-a"], 2, "write start and end in seconds"),
        (["--max-memory", "1e9"], 2, "write it like 4GB"),
        (["--max-memory", "1MB"], 5, "one window at once"),
        (["--candidates", "0"], 2, "--candidates"),
        (["--negative", "rain"], 2, "guidance 1 is none"),
    ],
)
def test_hostile_flags_of_segments_get_one_line_and_the_right_code(mixture, separator, capfd, arguments, code, words):
    found, line = failure(capfd, ["segments", mixture, "--text", "a", "-q", *arguments])
    assert (found, words in line) == (code, True), line


def test_an_empty_folder_and_a_file_without_query_are_refused(tmp_path, mixture, separator, capfd):
    (tmp_path / "empty").mkdir()
    assert failure(capfd, ["separate", tmp_path / "empty", "--text", "a"])[0] == 3
    assert failure(capfd, ["separate", mixture]) == (
        2,
        f"flowsep: error: nothing is asked of {mixture}; give --text or --reference, or a manifest that says it in "
        "each row",
    )  # fmt: skip
    assert failure(capfd, ["separate", "--text", "a"])[0] == 2


# Killed


@pytest.fixture(scope="module")
def processes():
    """A fork server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.killed_runner"])
    return context


def leftovers(out):
    return [path for path in out.rglob(f"{PREFIX}*")]


def check_nothing_is_half_done(out, reference):
    """Every sidecar stands for whole outputs, and every output is what it would be without a kill."""
    for name, samples in content(out).items():
        assert samples == reference[name], name
    for sidecar in out.rglob("*.json"):
        if not any(part.startswith(PREFIX) for part in sidecar.parts):
            outputs = json.loads(sidecar.read_text())["outputs"]
            assert all(os.path.exists(output["path"]) for output in outputs)


@pytest.mark.parametrize("renames", [0, 1, 4, 7])
def test_a_process_that_dies_while_it_renames_is_completed_by_the_next(folder, tmp_path, separator, processes, renames):
    out = tmp_path / "out"
    main(command(folder / "a.wav", tmp_path / "reference", "-q"))
    reference = content(tmp_path / "reference")
    process = processes.Process(target=run, args=(command(folder / "a.wav", out, "-q"), 0.0, renames))
    process.start()
    process.join(60)
    assert process.exitcode == (9 if renames < 7 else 0)
    check_nothing_is_half_done(out, reference)
    recover(out)
    assert leftovers(out) == []
    complete = renames >= 1  # from then on all files are known to be whole
    assert (content(out) == reference) == complete
    calls = len(separator.seen)
    assert main(command(folder / "a.wav", out, "-q")) == 0
    assert (len(separator.seen) == calls) == complete and content(out) == reference


def test_killed_at_random_moments_it_goes_on_where_it_was(folder, tmp_path, separator, processes):
    out, chance = tmp_path / "out", random.Random(time.time_ns())
    main(command(folder, tmp_path / "reference", "-q"))
    reference, before = content(tmp_path / "reference"), {}
    for _ in range(6):
        process = processes.Process(target=run, args=(command(folder, out, "-q"), 0.02))
        process.start()
        time.sleep(chance.uniform(0.05, 0.6))
        process.kill()
        process.join(60)
        check_nothing_is_half_done(out, reference)
        done = {path: stamp for path, stamp in stamps(out).items() if path.suffix == ".json"}
        assert before.items() <= done.items()  # nothing that was done is done again
        before = done
    assert main(command(folder, out, "-q")) == 0
    assert before.items() <= stamps(out).items()
    assert content(out) == reference and leftovers(out) == []


def test_the_work_of_a_living_process_is_left_alone(tmp_path):
    (tmp_path / f"{PREFIX}{os.getpid()}-abc").mkdir()
    (tmp_path / f"{PREFIX}mine").mkdir()
    recover(tmp_path)
    recover(tmp_path / "none")
    assert len(os.listdir(tmp_path)) == 2
