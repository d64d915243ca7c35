"""Tiny folders in exactly the layouts of the benchmarks and data sets, sounds included."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile


def sound(seed: int, seconds: float = 1.0, rate: int = 16000, peak: float = 0.3) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (peak * noise / np.abs(noise).max()).astype(np.float32)


def wav(path: Path, audio: np.ndarray, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype="FLOAT")
    return path


def table(path: Path, *rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def dcase(data: Path) -> Path:
    """lass_synthetic_validation.csv and lass_validation/."""
    rows = [
        ("rain, heavy", "dog 1", 3, "Rain is falling, heavily"),
        ("dog 1", "rain, heavy", -15, "A dog barks"),
        ("dog 1", "rain, heavy", 0, "A dog barks, far away"),
    ]
    table(data / "lass_synthetic_validation.csv", ("source", "noise", "snr", "caption"), *rows)
    for seed, name in enumerate(("rain, heavy", "dog 1")):
        wav(data / "lass_validation" / f"{name}.wav", sound(seed))
    return data


def tone(seed: int, seconds: float, rate: int) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (400 + 100 * seed) * times)).astype(np.float32)


def pair(mixture: Path, target: Path, seed: int, rate: int = 32000) -> None:
    """A mixture and its target as files: a tone, and noise of a known level."""
    wanted = tone(seed, 0.5, rate)
    wav(target, wanted, rate)
    wav(mixture, wanted + sound(seed + 100, 0.5, rate, 0.1), rate)


def audiosep(data: Path, name: str) -> Path:
    """The folder `evaluation` of AudioSep with one of its sets."""
    headers = {
        "audiocaps": ("idx", "caption", "labels", "src_wav", "noise_wav"),
        "clotho": ("idx", "caption", "src_wav", "noise_wav1", "noise_wav1"),
        "esc50": ("idx", "caption", "src_wav", "noise_wav"),
        "music": ("idx", "caption", "src_wav", "noise_wav"),
        "vggsound": ("file_id", "mix_wav", "s0_wav", "s0_text", "s1_wav", "s1_text"),
        "audioset": ("idx", "caption", "src_wav", "noise_wav"),
    }
    folder = data / "data" / name
    rows: list[tuple[object, ...]] = []
    for number in range(4):
        text = ("violin", "tuba, loud")[number % 2]
        if name == "vggsound":
            place = {role: f"data/{role}/-a_00000{number}+++b.wav" for role in ("mix_wav", "s0_wav", "s1_wav")}
            rows.append((f"-a_00000{number}+++b", place["mix_wav"], place["s0_wav"], text, place["s1_wav"], "rain"))
            pair(folder / place["mix_wav"], folder / place["s0_wav"], number)
        elif name == "audioset":
            stem = f"class_id={number % 2}/class_id={number % 2},index=00{number // 2}"
            paths = [f"evaluation/data/audioset/{stem},{role}.wav" for role in ("source", "mixture")]
            rows.append((number % 2, text, *paths))
            pair(folder / f"{stem},mixture.wav", folder / f"{stem},source.wav", number)
        else:
            more = ["a label"] if name == "audiocaps" else []
            rows.append((number, text, *more, *["x.wav"] * (len(headers[name]) - 2 - len(more))))
            pair(folder / f"mixture-{number}.wav", folder / f"segment-{number}.wav", number)
    table(data / "metadata" / f"{name}_eval.csv", headers[name], *rows)
    return data


def esc50(data: Path) -> Path:
    names = [("1-100-A-0.wav", "dog"), ("1-101-A-10.wav", "rain"), ("2-5-B-1.wav", "rooster"), ("2-6-B-0.wav", "dog")]
    rows = [(name, 1, 0, label, "False", 1, "A") for name, label in names]
    table(data / "meta" / "esc50.csv", ("filename", "fold", "target", "category", "esc10", "src_file", "take"), *rows)
    for seed, (name, _) in enumerate(names):
        wav(data / "audio" / name, sound(seed, 5.0))
    return data


def vggsound(data: Path) -> Path:
    names = [
        ("---1_cccDE", 20, "dog, barking"),
        ("0AbCd", 0, "playing tuba"),
        ("gone", 3, "rain"),
        ("x-Y", 110, "wind"),
    ]
    rows = [(name, second, label, "test") for name, second, label in names]
    table(data / "vggsound.csv", *rows, ("train1", 1, "rain", "train"))
    for seed, (name, second, _) in enumerate(names):
        if name != "gone":  # as many videos are
            wav(data / "audio" / f"{name}_{second:06d}.wav", sound(seed, 2.0, peak=0.1 + 0.2 * seed))
    return data


def audiocaps(data: Path) -> Path:
    rows = [
        (1, "vid_A", 30, "A dog, barking"),
        (2, "vid_A", 30, "Barks"),
        (3, "-vidB", 0, "Rain falls"),
        (4, "gone", 1, "x"),
    ]
    table(data / "test.csv", ("audiocap_id", "youtube_id", "start_time", "caption"), *rows)
    wav(data / "audio" / "vid_A.wav", sound(1, 2.0))
    wav(data / "audio" / "Y-vidB.wav", sound(2, 12.0))
    return data


def clotho(data: Path) -> Path:
    names = ("Rain é 1.wav", "dog bark.wav")
    header = ("file_name", *(f"caption_{number}" for number in range(1, 6)))
    rows = [(name, *(f"caption {number} of {name}" for number in range(1, 6))) for name in names]
    table(data / "clotho_captions_evaluation.csv", header, *rows)
    for seed, name in enumerate(names):
        wav(data / "evaluation" / name, sound(seed, 15.0), 16000)
    return data


def fsd50k(data: Path) -> Path:
    rows = [
        (
            "37199",
            "Electric_guitar,Guitar,Music",
            "/m/1",
        ),
        ("175151", "Bark,Dog", "/m/2"),
        ("9", "Guitar,Music", "/m/3"),
    ]
    table(data / "FSD50K.ground_truth" / "eval.csv", ("fname", "labels", "mids"), *rows)
    for seed, row in enumerate(rows):
        wav(data / "FSD50K.eval_audio" / f"{row[0]}.wav", sound(seed, 0.3 + seed))
    return data


def music(data: Path) -> Path:
    for seed, name in enumerate(("acoustic_guitar/a b.wav", "tuba/1.wav", "erhu/ü.wav")):
        wav(data / name, sound(seed, 3.0))
    return data


def three_sets(data: Path) -> Path:
    audiocaps(data / "audiocaps"), clotho(data / "clotho"), fsd50k(data / "fsd50k")
    return data


DRAWN = {
    "flowsep-vggsound": vggsound,
    "flowsep-esc50": esc50,
    "flowsep-audiocaps": audiocaps,
    "hsm-3sets": three_sets,
    "hsm-audiocaps": audiocaps,
    "hsm-clotho": clotho,
    "hsm-fsd50k": fsd50k,
    "hsm-music": music,
}
