"""The latency benchmark: counts by formula, reports that add up, GPU timing through a stand-in for its events."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from flowsep.benchmark import ceilings, timing
from flowsep.benchmark.latency import Workload, benchmark_latency
from flowsep.benchmark.machine import describe_machine, git_revision
from flowsep.benchmark.models import compile_parts, random_separator
from flowsep.benchmark.report import compare_lines, latency_lines, ratio_interval, read_report, seconds, write_report
from flowsep.benchmark.timing import Timing, count_gbyte, count_gflop, measure, peak_memory, quantile, reset_peak
from flowsep.errors import InputError, UsageError
from tests.tiny import MIXTURE, PAPER, tiny_separator
from tests.tiny_masks import tiny_masker

CPU = torch.device("cpu")
QUICK = Workload(seconds=0.64, steps=3, repeats=2)  # PAPER pads it to its window


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
    """Ceilings of a size that takes no time."""
    monkeypatch.setattr(ceilings, "SMALL_MATRIX", 128)
    monkeypatch.setattr(ceilings, "SMALL_COPY_MIB", 1)


@pytest.fixture(scope="module")
def report():
    """Of a tiny model, twice the same clip length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceilings, "SMALL_MATRIX", 128)
        patch.setattr(ceilings, "SMALL_COPY_MIB", 1)
        return benchmark_latency(tiny_separator(PAPER), "tiny", replace(QUICK, batch=2), load_seconds=1.5)


def test_operations_are_counted_two_per_multiply_add_attention_included():
    a, b = torch.randn(30, 40), torch.randn(40, 50)
    assert count_gflop(lambda: a @ b) == pytest.approx(2 * 30 * 40 * 50 / 1e9)
    q = torch.randn(1, 2, 16, 8)
    attention = count_gflop(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert attention == pytest.approx(2 * 2 * 2 * 16 * 16 * 8 / 1e9)


def test_bytes_are_those_each_operation_reads_and_writes_and_views_are_free():
    a, b = torch.randn(1000), torch.randn(1000)
    assert count_gbyte(lambda: (a + b) * a) == pytest.approx(2 * 3 * 4000 / 1e9)
    assert count_gbyte(lambda: a.view(10, 100).transpose(0, 1)[3]) == 0
    assert count_gbyte(lambda: a.to(torch.bfloat16)) == pytest.approx((4000 + 2000) / 1e9)


def test_quantiles_are_those_of_numpy():
    values = torch.rand(21).tolist()
    for q in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert quantile(values, q) == pytest.approx(torch.tensor(values).quantile(q).item(), abs=1e-6)


def test_median_lies_between_the_percentiles_and_warm_up_does_not_count():
    calls = []
    summary = measure(lambda: calls.append(sum(range(1000))), CPU, repeats=9, warmup=3).summary()
    assert len(calls) == 12 and summary["repeats"] == len(summary["samples"]) == 9
    assert 0 < summary["p10"] <= summary["median"] <= summary["p90"]


def test_a_gpu_is_timed_by_its_events_from_an_idle_device(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, other):
            return 250.0  # milliseconds

    class Device:
        def __init__(self, device):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *error):
            pass

    cuda = SimpleNamespace(Event=Event, device=Device, synchronize=lambda device: log.append("idle"))
    monkeypatch.setattr(timing.torch, "cuda", cuda)
    found = measure(lambda: log.append("call"), torch.device("cuda"), repeats=2, warmup=1)
    assert found.samples == (0.25, 0.25)
    assert log == ["call", *["idle", "record", "call", "record", "wait"] * 2]


def test_gpu_memory_is_torchs_statistics_since_the_reset(monkeypatch):
    log = []
    cuda = SimpleNamespace(
        reset_peak_memory_stats=log.append,
        max_memory_allocated=lambda device: 3 * 2**20,
        max_memory_reserved=lambda device: 5 * 2**20,
    )
    monkeypatch.setattr(timing.torch, "cuda", cuda)
    reset_peak(torch.device("cuda"))
    peak = peak_memory(torch.device("cuda"))
    assert log == [torch.device("cuda")]
    assert (peak["cuda_allocated_mib"], peak["cuda_reserved_mib"]) == (3, 5)


def test_the_resident_peak_holds_what_was_allocated():
    # A process of its own: the peak of one that has run other tests may lie above, where the system cannot forget it.
    code = (
        "import torch; from flowsep.benchmark.timing import peak_memory as peak, reset_peak; cpu = torch.device('cpu');"
        "reset_peak(cpu); before = peak(cpu)['resident_mib']; held = torch.ones(64 * 2**18);"
        "print(peak(cpu)['resident_mib'] - before)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(shown.stdout) >= 50  # of 64 MiB, written to


def test_the_machine_is_described_without_names_of_hosts_or_paths():
    machine = describe_machine()
    assert {"cpu", "logical_cores", "threads", "memory_gib", "gpus", "system", "versions", "git", "date"} == set(
        machine
    )
    assert machine["versions"]["torch"] == torch.__version__.partition("+")[0] or machine["versions"]["torch"]
    json.dumps(machine)


def test_a_copy_without_git_takes_its_revision_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("FLOWSEP_REVISION", raising=False)
    assert git_revision(tmp_path) is None
    monkeypatch.setenv("FLOWSEP_REVISION", "abc123")
    assert git_revision(tmp_path) == {"revision": "abc123", "dirty": None}


def test_the_report_adds_up(report):
    rows = {row["name"]: row for row in report["rows"]}
    assert report["settings"]["nfe"] == rows["UNet, one call"]["calls"] == 3
    used = [row for name, row in rows.items() if name not in ("sampler", "end to end")]
    for key in ("gflop", "gbyte", "least_gbyte", "floor_s"):
        assert rows["end to end"][key] == pytest.approx(sum(row["calls"] * row[key] for row in used))
        assert rows["sampler"][key] == pytest.approx(3 * rows["UNet, one call"][key])
    assert rows["vocoder"]["calls"] == 1 and rows["mask rendering"]["calls"] == 0  # what its options render with
    assert all(row["repeats"] == 2 for row in report["rows"])
    whole = rows["end to end"]["median"]
    assert rows["sampler"]["median"] < whole
    assert report["clips_per_second"] == pytest.approx(2 / whole)
    assert report["real_time_factor"] == pytest.approx(whole / (2 * 0.64))
    assert report["load_s"] == 1.5 and report["first_run_s"] > 0 and report["peak_memory"]["resident_mib"] > 0


def test_a_share_is_what_was_achieved_of_the_ceiling(report):
    for row in report["rows"]:
        achieved = row["matmul_share"] * report["ceilings"]["gflops"]
        assert achieved == pytest.approx(row["gflop"] / row["median"])


def test_tables_are_rendered_from_the_report(report):
    text = "\n".join(latency_lines(json.loads(json.dumps(report))))
    assert "| stage" in text and "time / floor" in text and "| UNet, one call |" in text
    assert "batch 2" in text and "clips/s" in text


def test_every_clip_of_every_run_is_a_query_that_was_not_met_before(monkeypatch):
    separator = random_separator(MIXTURE, CPU, torch.float32)
    separator.vocoder = None
    seen = []
    encode = separator.text.encode
    monkeypatch.setattr(separator.text, "encode", lambda texts: (seen.extend(texts), encode(texts))[1])
    rows = benchmark_latency(separator, "tiny", QUICK)["rows"]
    runs = [text for text in seen if " of item " in text]
    assert len(runs) == len(set(runs)) == 2 + 2
    assert "vocoder" not in [row["name"] for row in rows]


@pytest.mark.parametrize("kind", ["clap", "t5", "clips"])
def test_a_mask_separator_is_timed_by_query_encoder_and_network(kind):
    """USS by example has no encoder of words, and is asked with vectors as long as those of its clips."""
    separator = tiny_masker(kind)
    report = benchmark_latency(separator, "tiny", Workload(repeats=2))
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == [*(["text"] if kind != "clips" else []), "mask network", "end to end"]
    assert rows["mask network"]["gflop"] > 0 and report["settings"]["nfe"] == 1
    assert rows["end to end"]["gflop"] == pytest.approx(sum(row["gflop"] for row in report["rows"][:-1]))
    assert "| mask network |" in "\n".join(latency_lines(json.loads(json.dumps(report))))


def test_audio_longer_than_the_window_is_refused():
    with pytest.raises(UsageError, match=r"sees 2.56 s at once; give --seconds up to that"):
        benchmark_latency(tiny_separator(), "tiny", Workload(seconds=10.0, repeats=1))


def test_compiled_parts_compute_what_they_computed(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda call, **options: calls.append(options) or call)
    separator, mixture = tiny_separator(PAPER), 0.1 * torch.randn(1, 8000)
    plain = separator.separate(mixture, ["rain"]).target
    compile_parts(separator, "reduce-overhead")
    torch.testing.assert_close(separator.separate(mixture, ["rain"]).target, plain)
    assert [options.get("mode") for options in calls] == ["reduce-overhead", None, None, None]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", [None, "default", "reduce-overhead"])
def test_a_gpu_runs_the_benchmark_in_bfloat16(mode):
    separator = random_separator(PAPER, torch.device("cuda"), torch.bfloat16)
    report = benchmark_latency(separator, "tiny", replace(QUICK, compile=mode))
    assert report["peak_memory"]["cuda_allocated_mib"] > 0


def test_a_ratio_is_noise_where_its_interval_holds_one():
    steady, slower = [1.0, 1.01, 0.99, 1.02, 0.98], [2.0, 2.02, 1.98, 2.01, 1.99]
    low, high = ratio_interval(slower, steady)
    assert 1.9 < low < 2 < high < 2.1
    low, high = ratio_interval(steady, list(reversed(steady)))
    assert low < 1 < high


def test_two_reports_are_compared_row_by_row(report):
    faster = json.loads(json.dumps(report))
    faster["settings"]["dtype"] = "bfloat16"
    for row in faster["rows"]:
        row["median"], row["samples"] = row["median"] / 2, [sample / 2 for sample in row["samples"]]
    text = "\n".join(compare_lines(report, faster))
    assert "dtype float32 -> bfloat16" in text and "2.000" in text
    assert "too few repeats" in text  # two are no base for an interval


def test_times_are_written_with_their_unit():
    assert [seconds(x) for x in (12.345, 0.01234, 0.000012)] == ["12.3 s", "12.3 ms", "12 µs"]


def test_a_report_is_written_whole_and_read_back(tmp_path, report):
    write_report(tmp_path / "new" / "a.json", report)
    assert read_report(tmp_path / "new" / "a.json")["rows"][0]["name"] == "text"
    with pytest.raises(InputError, match="exists; add --overwrite"):
        write_report(tmp_path / "new" / "a.json", report)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no report at"), ("{", "is not a report"), ('{"kind": "steps", "schema_version": 2}', "holds 'steps'")],
)
def test_what_is_no_report_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_report(tmp_path / "a.json")


def test_timing_of_one_sample_is_that_sample():
    assert Timing((0.5,)).summary() == {"median": 0.5, "p10": 0.5, "p90": 0.5, "repeats": 1, "samples": [0.5]}
