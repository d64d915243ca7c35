"""Inputs and names: folders, patterns and manifests, in order, each once, and no two outputs of one name."""

import pytest

from flowsep.collect import collect, read_job_manifest
from flowsep.errors import InputError, UsageError
from flowsep.gains import MUTE
from flowsep.naming import Naming, Source, plan_mixes, plan_outputs, refuse_outputs


@pytest.fixture
def tree(tmp_path):
    """Audio, other files and hidden ones, in two levels."""
    for name in ("b.wav", "a.flac", "notes.txt", ".hidden.wav", "deep/a.wav", "deep/er/c.mp3", ".cache/d.wav", "v.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return tmp_path / "in"


def names(sources, tree):
    return [source.path.relative_to(tree).as_posix() for source in sources]


def test_a_folder_stands_for_its_audio_files_and_recursively_for_those_below(tree):
    assert names(collect([tree]), tree) == ["a.flac", "b.wav", "v.mp4"]
    found = collect([tree], recursive=True)
    assert names(found, tree) == ["a.flac", "b.wav", "deep/a.wav", "deep/er/c.mp3", "v.mp4"]
    assert [source.folder.as_posix() for source in found] == [".", ".", "deep", "deep/er", "."]


def test_patterns_are_expanded_and_nothing_comes_twice(tree):
    assert names(collect([tree / "*.wav", tree / "b.wav", tree]), tree) == ["b.wav", "a.flac", "v.mp4"]
    assert names(collect([tree / "**" / "*.mp3"]), tree) == ["deep/er/c.mp3"]


def test_a_name_with_brackets_that_exists_is_no_pattern(tmp_path):
    (tmp_path / "take [1].wav").touch()
    assert [source.path.name for source in collect([tmp_path / "take [1].wav"])] == ["take [1].wav"]


@pytest.mark.parametrize(("make", "words"), [(lambda t: t / "deep" / "none", "holds no audio files; --recursive"),
                                             (lambda t: t / "*.ogg", "no audio file matches")])  # fmt: skip
def test_a_folder_or_pattern_without_audio_is_an_input_error(tree, make, words):
    (tree / "deep" / "none").mkdir()
    with pytest.raises(InputError, match=words):
        collect([make(tree)])
    with pytest.raises(UsageError, match="no input"):
        collect([])


def test_manifests_give_each_file_its_own_queries(tmp_path):
    (tmp_path / "a.csv").write_text(
        'path,text,gains\nx.wav,a  dog|rain,\n"sub/y, z.wav",,"dog=-12|hum=mute"\nq.wav,,\n'
    )
    first, second, third = read_job_manifest(tmp_path / "a.csv")
    assert (first.path, first.texts) == (tmp_path / "x.wav", ("a dog", "rain"))
    assert (second.path, second.gains) == (tmp_path / "sub" / "y, z.wav", {"dog": -12.0, "hum": MUTE})
    assert (third.texts, third.gains) == ((), {})
    (tmp_path / "a.jsonl").write_text('{"path": "/x.wav", "text": ["a dog"], "gains": {"rain": 3, "hum": "mute"}}\n\n')
    [source] = read_job_manifest(tmp_path / "a.jsonl")
    assert source.path.as_posix() == "/x.wav" and source.texts == ("a dog",)
    assert source.gains == {"rain": 3.0, "hum": MUTE}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "has no rows"),
        ("a.csv", "path,text\n", "has no rows"),
        ("a.csv", "file,text\nx.wav,dog\n", "row 1 of .* has no path"),
        ("a.csv", "path,text\nx.wav,dog\n,dog\n", "row 2 of .* has no path"),
        ("a.csv", "path,gains\nx.wav,dog\n", "row 1 .*has no '='"),
        ("a.csv", "path,gains\nx.wav,dog=99999999999999999999x\n", "not a number"),
        ("a.csv", "path,text\nx.wav,dog|Dog\n", "twice"),
        ("a.csv", "path,text\nx.wav," + "x" * 2000 + "\n", "2000 characters"),
        ("a.jsonl", "{", "cannot be read"),
        ("a.jsonl", "[1]", "has no path"),
        ("a.jsonl", '{"path": 3}', "has no path"),
        ("a.jsonl", '{"path": "a", "text": 3}', "row 1"),
        ("a.jsonl", '{"path": "a", "gains": [1]}', "row 1"),
    ],
)
def test_a_bad_manifest_is_an_input_error_that_names_the_row(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        read_job_manifest(tmp_path / name)


def test_a_manifest_that_is_missing_or_no_text_is_an_input_error(tmp_path):
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x81" * 9)
    for path in (tmp_path / "none.csv", tmp_path, tmp_path / "bytes.csv"):
        with pytest.raises(InputError, match="manifest"):
            read_job_manifest(path)


def test_the_template_names_outputs_below_the_folder(tree, tmp_path):
    sources = collect([tree], recursive=True)
    jobs = plan_outputs(sources, ["a dog"], Naming(tmp_path / "out"), residual=True)
    paths = [path.relative_to(tmp_path / "out").as_posix() for job in jobs for path in job.paths()]
    assert paths[:3] == ["a.a-dog.flac", "a.a-dog.residual.flac", "a.a-dog.json"]
    assert "deep/a.a-dog.wav" in paths and "deep/er/c.a-dog.wav" in paths and len(set(paths)) == len(paths)
    naming = Naming(tmp_path / "out", "{text}/{number}-{stem}-{suffix}", "wav")
    jobs = plan_mixes(sources, {"dog": 1.0}, lambda gains: "remix dog", naming)
    assert [job.output.relative_to(tmp_path / "out").as_posix() for job in jobs][:2] == [
        "remix-dog/001-a-flac.wav",
        "remix-dog/002-b-wav.wav",
    ]


def test_outputs_that_would_share_a_name_are_numbered_or_refused(tree, tmp_path):
    sources = collect([tree], recursive=True)
    same = [Source(tree / "a.wav"), Source(tree / "A.flac"), Source(tree / "deep" / "a.wav")]
    jobs = plan_outputs(same, ["x", "X!"], Naming(tmp_path, format="wav"))
    written = [path.name for job in jobs for path in job.paths()]
    assert len({name.casefold() for name in written}) == len(written) == 12
    jobs = plan_outputs(sources, ["x"], Naming(tmp_path, "{stem}.{text}", "wav"))
    with pytest.raises(InputError, match=r"two outputs would be named .*a\.x\.wav; .*\{number\}"):
        refuse_outputs(jobs, overwrite=False)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{stem}", "lacks {text}"),
        ("{name}.{text}", "no field {name}; choose from folder"),
        ("{text", "cannot read the name"),
        ("../{text}", "out of the output folder"),
        ("/tmp/{text}", "out of the output folder"),
        ("{0}{text}", "no field {0}"),
        ("", "lacks {text}"),
    ],
)
def test_a_bad_template_is_a_usage_error(template, words):
    with pytest.raises(UsageError, match=words.replace("{", r"\{").replace("}", r"\}")):
        Naming(template=template)
