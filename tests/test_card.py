"""`flowsep card`: tables and pictures of a report."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from flowsep.cli import main
from flowsep.data.manifest import Clip, read_manifest
from flowsep.errors import InputError
from flowsep.evaluation.card import attribution_lines, class_table, doubted_lines, extremes, heard_lines
from flowsep.evaluation.recipe import MixtureRow, draw_recipe, write_recipe
from tests.tiny import tiny_separator, write_clips

ITEMS = [
    {"id": "a", "target_class": "dog_bark", "si_sdri": 4.0, "si_sdri_wrong_query": -8.0},
    {"id": "b", "target_class": "dog_bark", "si_sdri": 2.0, "si_sdri_wrong_query": -6.0},
    {"id": "c", "target_class": "rain", "si_sdri": 9.0, "si_sdri_wrong_query": 1.0},
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Arguments of `flowsep card` for a report of three mixtures by a tiny model."""
    folder = tmp_path_factory.mktemp("card")
    data = write_clips(folder / "data", seconds=2.0)
    write_recipe(folder / "recipe.csv", draw_recipe(read_manifest(data), data, 3, seed=0, length_s=2.0))
    tiny_separator().save_pretrained(folder / "model")
    of = ["--recipe", str(folder / "recipe.csv"), "--data", str(data)]
    evaluated = ["evaluate", *of, "--model", str(folder / "model"), "-q", "-o", str(folder / "report.json")]
    assert main(evaluated) == 0
    return [str(folder / "report.json"), *of]


def test_the_table_counts_training_clips_and_puts_the_best_class_first():
    training = [Clip(Path(f"{n}.wav"), "dog_bark", "dog", "train", ("a dog",)) for n in range(7)]
    assert class_table(ITEMS, training)[2:] == ["| rain | 0 | 1 | 9.0 | 1.0 |", "| dog bark | 7 | 2 | 3.0 | -7.0 |"]


def test_sounds_that_training_never_held_are_counted_apart():
    training = [Clip(Path("0.wav"), "rain", "water", "train", ("rain",))]
    held, other = heard_lines(ITEMS, training)
    assert (
        held.startswith("1 mixtures of kinds of which training held recordings: SI-SDR improvement 9.00 dB")
        and "100 %" in held
    )
    assert other.startswith("2 mixtures of kinds of which it held none: SI-SDR improvement 3.00 dB")
    assert len(heard_lines(ITEMS[2:], training)) == 1


def test_authors_of_the_training_clips_are_counted_by_collection(tmp_path):
    (tmp_path / "attributions.csv").write_text(
        "path,licence,attribution\n"
        'a/rain/0.wav,CC0,"Ada, in A"\n'
        'a/rain/1.wav,CC0,"Ada, in A"\n'
        "b/dog/0.wav,CC BY,Bo\nb/dog/1.wav,CC BY,nobody's\n"
    )
    paths = ("b/dog/0.wav", "a/rain/0.wav", "a/rain/1.wav")
    training = [Clip(tmp_path / path, "x", "x", "train", ("x",)) for path in paths]
    lines = attribution_lines(training, tmp_path / "attributions.csv")
    assert lines[4:] == ["", "## a", "", "- Ada, in A: CC0 (2)", "", "## b", "", "- Bo: CC BY (1)"]
    assert "3 training clips" in lines[2]
    with pytest.raises(InputError, match=r"does not name .*2\.wav, and 0 more"):
        attribution_lines([Clip(tmp_path / "a/rain/2.wav", "x", "x", "train", ("x",))], tmp_path / "attributions.csv")


def test_the_card_counts_what_training_heard(measured, tmp_path):
    report, *of = measured
    data = Path(of[-1])
    clips = [clip for clip in read_manifest(data) if clip.split == "train"]
    rows = [f"{clip.path.relative_to(data)},{clip.label}" for clip in clips[:1]]
    (tmp_path / "left_out.csv").write_text("\n".join(["path,class", *rows]))
    asked = ["card", report, *of, "--failures", "0", "--successes", "0"]
    assert main([*asked, "-o", str(tmp_path / "all")]) == 0
    assert main([*asked, "-o", str(tmp_path / "less"), "--exclude-clips", str(tmp_path / "left_out.csv")]) == 0
    tables = [(tmp_path / name / "classes.md").read_text() for name in ("all", "less")]
    label = clips[0].label
    counts = [
        int(next(x for x in table.splitlines() if x.startswith(f"| {label.replace('_', ' ')}")).split("|")[2])
        for table in tables
    ]
    assert counts[0] == counts[1] + 1


def test_targets_with_a_doubted_label_are_counted_by_class(tmp_path):
    listed = tmp_path / "listed.csv"
    listed.write_text("path,class,reason\nclips/dog/0.wav,dog_bark,a wolf\nclips/rain/0.wav,hail,another class\n")
    rows = [row_of("a", "dog_bark", "clips/dog/0.wav"), row_of("b", "dog_bark", "clips/dog/1.wav")]
    rows.append(row_of("c", "rain", "clips/rain/0.wav"))
    [line] = doubted_lines(ITEMS, rows, str(listed))
    assert line.endswith(": dog bark 1 of 2.")
    assert doubted_lines(ITEMS, rows[1:], str(listed)) == []


def row_of(name: str, label: str, path: str) -> MixtureRow:
    return MixtureRow(name, path, "x.wav", 0.0, 0.0, 0.0, f"a {label}", label, "x", 2.0)


def test_extremes_are_the_worst_or_the_best_in_order():
    assert [item["id"] for item in extremes(ITEMS, 2, worst=True)] == ["b", "a"]
    assert [item["id"] for item in extremes(ITEMS, 2, worst=False)] == ["c", "a"]


def test_the_command_writes_the_table_and_both_pictures(measured, tmp_path, capsys):
    arguments = measured
    assert main(["card", *arguments, "-o", str(tmp_path / "out"), "--failures", "2", "--successes", "1"]) == 0
    assert len(capsys.readouterr().out.split()) == 4
    header = yaml.safe_load((tmp_path / "out" / "header.md").read_text().strip("-\n"))
    metrics = [metric for one in header["model-index"][0]["results"] for metric in one["metrics"]]
    gained = json.loads(Path(arguments[0]).read_text())["si_sdri"]["mean"]
    assert {"type": "si_sdri", "value": round(gained, 2), "name": "SI-SDR improvement (dB)"} in metrics
    lines = (tmp_path / "out" / "classes.md").read_text().splitlines()
    assert len(lines) == 7  # a sentence, a blank, two of head, three classes
    widths = [Image.open(tmp_path / "out" / name).width for name in ("failures.png", "successes.png")]
    assert widths[0] > widths[1]  # a column for each
    assert main(["card", *arguments, "-o", str(tmp_path / "out")]) == 3  # nothing is overwritten unasked
    assert "exists" in capsys.readouterr().err


def test_a_report_that_does_not_fit_is_refused_in_a_line(measured, tmp_path, capsys):
    report, *of = measured
    assert main(["card", str(tmp_path / "none.json"), *of, "-o", str(tmp_path)]) == 3
    (tmp_path / "systems.json").write_text('{"systems": {}}')
    assert main(["card", str(tmp_path / "systems.json"), *of, "-o", str(tmp_path)]) == 3
    (tmp_path / "old.json").write_text(json.dumps(json.loads(Path(report).read_text()) | {"schema_version": 1}))
    assert main(["card", str(tmp_path / "old.json"), *of, "-o", str(tmp_path)]) == 3
    renamed = json.loads(Path(report).read_text())
    for item in renamed["items"]:
        item["id"] = "another"
    (tmp_path / "renamed.json").write_text(json.dumps(renamed))
    assert main(["card", str(tmp_path / "renamed.json"), *of, "-o", str(tmp_path / "out")]) == 3
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 4 and "another version" in errors[2] and "the recipe lacks" in errors[3]
