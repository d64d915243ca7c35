"""Queries by example on the command line: what clips decide, what is remembered of them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch

from flowsep.audio import read_audio
from flowsep.checkpoint import load_separator
from flowsep.cli import main
from flowsep.errors import InputError, UsageError
from flowsep.longform import separate_audio
from flowsep.masks.examples import mean_embedding
from flowsep.masks.listening import LONGEST, read_clip
from flowsep.models import describe_folder
from flowsep.references import all_texts, parse_references
from tests import layouts
from tests.fakes import tone
from tests.test_audio import BAD, bad_inputs
from tests.test_cli import failure
from tests.tiny import MIXTURE, tiny_separator
from tests.tiny_masks import hearing_folder, tiny_clap_audio, tiny_cnn14, tiny_masker


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A tiny AudioSep and two tiny USS, all of which can hear."""
    folder = tmp_path_factory.mktemp("models")
    return {kind: hearing_folder(folder / kind, kind) for kind in ("clap", "clips", "classes")}


@pytest.fixture
def recording(tmp_path) -> Path:
    return written(tmp_path / "street.wav", tone(1.5, 32000))


@pytest.fixture
def clips(tmp_path) -> list[Path]:
    """A low and a high sound, of other rates and lengths than the recording."""
    (tmp_path / "clips").mkdir()
    low = written(tmp_path / "clips" / "tram.wav", tone(2.5, 16000, hertz=200), 16000)
    return [low, written(tmp_path / "clips" / "bell.wav", tone(0.7, 44100, 2, 3000), 44100)]


def written(path: Path, samples: torch.Tensor, rate: int = 32000) -> Path:
    soundfile.write(path, samples.T.numpy(), rate, subtype="FLOAT")
    return path


def run(verb: str, recording: Path, model: Path, out: Path, *words: object) -> dict:
    """The sidecar of one run."""
    words = [verb, recording, "--model", model, "--device", "cpu", "-o", out, "-q", "--json", *words]
    assert main([str(word) for word in words]) == 0
    [sidecar] = out.glob("*.json")
    return json.loads(sidecar.read_text())


def embed(kind: str):
    """What conditions the tiny model of a kind, its rate, the seconds it hears at once, and whether it has length 1."""
    if kind != "clap":
        return tiny_cnn14("probabilities" if kind == "classes" else "embedding"), 32000, 2.0, False
    from transformers import ClapFeatureExtractor

    model = tiny_clap_audio()
    extractor = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)

    def heard(audio):
        features = extractor(list(audio.numpy()), sampling_rate=48000, return_tensors="pt")["input_features"]
        with torch.inference_mode():
            return torch.nn.functional.normalize(model(features).audio_embeds, dim=-1)

    return heard, 48000, 10.0, True


# --- what they decide


@pytest.mark.parametrize("kind", ["clips", "classes", "clap"])
def test_the_result_is_that_of_the_mean_embedding_given_directly(kind, models, recording, clips, tmp_path, capfd):
    """Of one clip, of two, and not the one the other."""
    targets = []
    for number, some in enumerate([clips[:1], clips]):
        words = [word for clip in some for word in ("--reference", clip)]
        document = run("separate", recording, models[kind], tmp_path / str(number), *words)
        separator = load_separator(models[kind], "cpu")
        heard = [(read_audio(clip).samples, read_audio(clip).sample_rate) for clip in some]
        separator.remember("it", mean_embedding(heard, *embed(kind)))
        (direct,) = separate_audio(separator, read_audio(recording).samples, 32000, ["it"])
        found = read_audio(document["outputs"][0]["path"]).samples
        torch.testing.assert_close(found, direct.target, atol=1e-6, rtol=1e-5)
        targets.append(found)
    assert Path(document["outputs"][0]["path"]).name == "street.like-tram-bell.wav"
    assert document["query"] == "like tram, bell"
    assert (targets[0] - targets[1]).abs().max() > 1e-4 * targets[0].abs().max()


def test_a_reference_says_what_a_text_means(models, recording, clips, tmp_path, capfd):
    """The text names the file; what it says is not read any more."""
    plain = run("separate", recording, models["clap"], tmp_path / "a", "--text", "a dog")
    told = run("separate", recording, models["clap"], tmp_path / "b", "--text", "a dog", "--reference", clips[0])
    by_example = run("separate", recording, models["clap"], tmp_path / "c", "--reference", clips[0])
    hashes = [one["outputs"][0]["samples_sha256"] for one in (plain, told, by_example)]
    assert hashes[0] != hashes[1] == hashes[2]
    assert told["query"] == "a dog" and "references" not in plain


@pytest.mark.parametrize(
    "words",
    [
        ["remove", "--text", "my tram"],
        ["remove"],
        ["remix", "--gain", "My tram=-60", "--gain", "Bell=0"],
        ["edit", 'remove "my tram"'],
    ],
)
def test_other_verbs_take_references(words, models, recording, clips, tmp_path, capfd):
    verb, *rest = words
    first = run(verb, recording, models["classes"], tmp_path / "a", *rest, "--reference", f"my tram={clips[0]}")
    other = run(verb, recording, models["classes"], tmp_path / "b", *rest, "--reference", f"my tram={clips[1]}")
    assert first["outputs"][0]["samples_sha256"] != other["outputs"][0]["samples_sha256"]
    [(text, [clip])] = first["references"].items()
    assert text.casefold() == "my tram" and clip["path"] == str(clips[0]) and len(clip["sha256"]) == 64


def test_segments_take_references(models, recording, clips, capfd):
    words = ["segments", recording, "--model", models["clips"], "--device", "cpu", "-q", "--reference", clips[0]]
    assert main([str(word) for word in words]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["queries"][0]["query"] == "like tram" and "like tram" in document["references"]


@pytest.mark.parametrize("more", [["--dry-run"], ["--max-memory", "8GB"]])
def test_a_model_without_words_is_tried_with_the_clips(more, models, recording, clips, tmp_path, capfd):
    """What a window costs is measured with the query itself: this model knows no other."""
    words = ["separate", recording, "--model", models["clips"], "--reference", clips[0], "-o", tmp_path / "out", *more]
    assert main([str(word) for word in words]) == 0


def test_evaluation_gives_references_to_the_models_that_hear(models, clips, tmp_path, capsys):
    """Resumed with other clips it is another run."""
    data, out = layouts.audiosep(tmp_path / "data", "music"), tmp_path / "out"
    words = ["evaluate", "audiosep-music", "--data", data, "--model", f"mixture,{models['clips']}", "-o", out, "-q"]
    clip = ["--reference", f"violin={clips[0]}", "--reference"]
    assert main([str(word) for word in [*words, *clip, f"tuba, loud={clips[1]}"]]) == 0
    rows = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert len({row["sdri"] for row in rows if row["system"] == str(models["clips"])}) == 4
    capsys.readouterr()
    for arguments, code, word in [
        ([*words, *clip, f"tuba, loud={clips[0]}"], 3, "--overwrite"),
        ([*words, *clip, f"horn={clips[0]}"], 2, "no query is called 'horn'"),
        ([*words[:6], *clip[:2]], 2, "knows no words, and not 1 of the queries, the first 'tuba, loud'"),
        ([*words[:5], models["classes"]], 2, "AudioSet's class names, and not 2 of the queries"),
        ([*words[:5], "mixture", *clip, f"tuba, loud={clips[1]}"], 2, "cannot be asked by example"),
    ]:
        assert main([str(one) for one in arguments]) == code
        assert word in capsys.readouterr().err


# --- what is remembered of them


def test_a_replay_hears_the_clips_again_and_refuses_others(models, recording, clips, tmp_path, capfd):
    out = tmp_path / "out"
    words = ["--text", "Rain", "--reference", f"tram={clips[0]}", "--reference", f"tram={clips[1]}", "--jobs", "2"]
    arguments = ["separate", recording, "--model", models["classes"], "--device", "cpu", "-o", out, "-q", *words]
    assert main([str(word) for word in arguments]) == 0
    for sidecar in sorted(out.glob("*.json")):  # that of rain, too: tram was in its company
        assert main(["replay", str(sidecar), "-o", str(tmp_path / "again"), "-q"]) == 0
        again = json.loads((tmp_path / "again" / sidecar.name).read_text())
        assert again["request"] == json.loads(sidecar.read_text())["request"]
    assert again["query"] == "tram" and [Path(one["path"]).name for one in again["references"]["tram"]] == [
        "tram.wav",
        "bell.wav",
    ]
    replay = ["replay", sidecar, "-o", tmp_path / "again", "-q", "--overwrite"]
    shutil.move(clips[0], out / clips[0].name)
    assert main([str(word) for word in replay]) == 0
    capfd.readouterr()
    written(out / clips[0].name, tone(1.0, 32000))
    code, line = failure(capfd, replay)
    assert code == 3 and "no longer the reference" in line
    (out / clips[0].name).unlink()
    code, line = failure(capfd, replay)
    assert code == 3 and "tram.wav is not there" in line


def test_work_is_kept_for_the_same_clips_only(models, recording, clips, tmp_path, capfd):
    words = [
        "separate",
        recording,
        "--text",
        "tram",
        "--model",
        models["clips"],
        "--device",
        "cpu",
        "-o",
        tmp_path / "o",
    ]
    assert main([str(word) for word in [*words, "--reference", clips[0], "-q"]]) == 0
    moved = Path(shutil.copy(clips[0], tmp_path / "elsewhere.wav"))
    assert main([str(word) for word in [*words, "--reference", moved]]) == 0
    assert "done before" in capfd.readouterr().err
    code, line = failure(capfd, [*words, "--reference", clips[1]])
    assert code == 3 and "--overwrite" in line


def test_a_model_folder_keeps_its_audio_encoder(models, clips, tmp_path):
    load_separator(models["clap"], "cpu").save_pretrained(tmp_path / "copy")
    files = [path.relative_to(models["clap"]) for path in models["clap"].rglob("*") if path.is_file()]
    assert any("audio_encoder" in file.parts for file in files)
    assert all((tmp_path / "copy" / file).is_file() for file in files)
    index = json.loads((tmp_path / "copy" / "model_index.json").read_text())
    assert index["audio_encoder"] == ["transformers", "ClapAudioModelWithProjection"]
    plain = tiny_masker("clap")
    plain.save_pretrained(tmp_path / "plain")
    sizes = {describe_folder(folder, "x").parameters for folder in (tmp_path / "plain", tmp_path / "copy")}
    assert len(sizes) == 1  # those of the separator


# --- which clips are of which sound


def test_clips_are_of_the_text_before_them_of_the_only_one_or_a_query_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav", "x=y.wav"):
        written(Path(name), tone(0.2, 8000), 8000)

    def paths(arguments, texts):
        return {text: [str(one.path) for one in some] for text, some in parse_references(arguments, texts).items()}

    assert paths([], ["rain"]) == {}
    assert paths(["a.wav", "b.wav"], ["rain"]) == {"rain": ["a.wav", "b.wav"]}
    assert paths(["a.wav", "x=y.wav"], []) == {"like a, x=y": ["a.wav", "x=y.wav"]}
    assert paths([" my  tram=a.wav", "MY TRAM=b.wav"], ["rain"]) == {"my tram": ["a.wav", "b.wav"]}
    assert paths(["RAIN=a.wav"], ["rain", "dog"]) == {"rain": ["a.wav"]}
    assert all_texts(["rain"], parse_references(["tram=a.wav"], ["rain"])) == ["rain", "tram"]
    with pytest.raises(UsageError, match=r"of which sound.*TEXT=a\.wav"):
        parse_references(["a.wav"], ["rain", "dog"])
    with pytest.raises(InputError, match=r"c\.wav does not exist"):
        parse_references(["rain=c.wav"], ["rain"])


def test_a_manifest_may_name_what_references_define(models, recording, clips, tmp_path, capfd):
    (tmp_path / "list.csv").write_text("path,text\nstreet.wav,tram|Rain\n")
    words = ["separate", "--manifest", tmp_path / "list.csv", "--model", models["classes"], "-o", tmp_path / "o", "-q"]
    assert main([str(word) for word in [*words, "--reference", f"tram={clips[0]}"]]) == 0
    capfd.readouterr()
    code, line = failure(capfd, [*words, "--reference", f"bus={clips[0]}"])
    assert code == 2 and "no query is called 'bus'" in line


# --- what is refused


@pytest.mark.parametrize("kind", ["flow", "t5", "bert"])
def test_a_model_that_is_asked_in_words_says_which_can_hear(kind, recording, clips, tmp_path, capfd):
    separator = tiny_separator(MIXTURE) if kind == "flow" else tiny_masker(kind, "lassnet")
    separator.save_pretrained(tmp_path / "m")
    capfd.readouterr()  # a bar of transformers
    words = ["separate", recording, "--reference", clips[0], "--model", tmp_path / "m", "-o", tmp_path / "o"]
    code, line = failure(capfd, [*words, "-q"])
    assert code == 2 and "asked in words only" in line and "flowsep convert uss" in line
    assert not (tmp_path / "o").exists() or not any((tmp_path / "o").iterdir())


@pytest.mark.parametrize(("kind", "part"), [("clap", "CLAP's audio branch"), ("clips", "Cnn14")])
def test_a_folder_without_its_audio_encoder_says_what_is_missing(kind, part, recording, clips, tmp_path, capfd):
    tiny_masker(kind).save_pretrained(tmp_path / "m")
    capfd.readouterr()
    words = ["remove", recording, "--reference", clips[0], "--model", tmp_path / "m", "-o", tmp_path / "o", "-q"]
    code, line = failure(capfd, words)
    assert code == 4 and part in line and "audio_encoder" in line


@pytest.mark.parametrize("kind", ["clap", "clips"])
@pytest.mark.parametrize("spoil", ["config", "weights"])
def test_a_damaged_audio_encoder_is_one_line(kind, spoil, models, recording, clips, tmp_path, capfd):
    folder = Path(shutil.copytree(models[kind], tmp_path / "m")) / "audio_encoder"
    (folder / ("config.json" if spoil == "config" else "model.safetensors")).write_text("{}")
    words = ["separate", recording, "--reference", clips[0], "--model", tmp_path / "m", "-o", tmp_path / "o", "-q"]
    code, line = failure(capfd, words)
    assert code == 4 and "audio_encoder" in line


def test_a_model_without_words_asks_for_clips(models, recording, tmp_path, capfd):
    words = ["separate", recording, "--text", "rain", "--model", models["clips"], "-o", tmp_path / "o", "-q"]
    code, line = failure(capfd, words)
    assert code == 2 and "--reference CLIP" in line
    code, line = failure(capfd, ["separate", recording, "-o", tmp_path / "o"])
    assert code == 2 and "--text or --reference" in line


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_clip_is_one_line_before_any_model_is_loaded(bad, recording, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("flowsep.checkpoint.load_separator", lambda *about, **more: pytest.fail("loaded"))
    path, _ = bad_inputs(tmp_path)[bad]
    code, line = failure(capfd, ["separate", recording, "--reference", path, "-o", tmp_path / "o", "-q"])
    assert code == 3 and str(path) in line


def test_clips_that_say_nothing_are_refused(tmp_path):
    for name, samples, word in [
        ("zero.wav", torch.zeros(1, 8000), "is silent"),
        ("dither.wav", 1e-4 * torch.randn(1, 8000).clamp(-3, 3), "is silent"),
        ("short.wav", tone(0.05, 8000), "lasts 0.05 s"),
        ("long.wav", tone(LONGEST + 1, 400), "lasts 601 s"),
    ]:
        rate = 400 if name == "long.wav" else 8000
        with pytest.raises(InputError, match=word):
            read_clip(written(tmp_path / name, samples, rate))
    assert read_clip(written(tmp_path / "good.wav", tone(0.1, 8000), 8000))[0].shape == (1, 800)
