"""One reader per published benchmark; all give the same items (`flowsep.evaluation.protocols.item`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flowsep.errors import InputError, UsageError
from flowsep.evaluation.protocols import datasets, listed
from flowsep.evaluation.protocols.drawn import Draw, DrawRule, draw_items, own_items
from flowsep.evaluation.protocols.item import Item, check_items, fingerprint

SIGNAL = ("si_sdri", "si_sdr", "sdri", "sdr")
LISTED, DRAWN = "the authors' mixtures", "drawn here, not the authors' list"
AUDIOSEP = (
    "AudioSep's evaluation mixtures, which the README of Audio-AGI/AudioSep links, and give its folder `evaluation` "
    "as --data"
)
DCASE = "the validation set of DCASE 2024 Task 9 (Zenodo record 10886481)"


@dataclass(frozen=True)
class Protocol:
    """A benchmark: how its items are read, at which rate they are scored, and how its figures are averaged."""

    title: str
    read: Callable[[Path, Draw], list[Item]]
    where: str  # the data comes from: ends the sentence "get ..."
    figures: tuple[str, ...] = SIGNAL  # the first, of which more is better, ranks the systems
    sample_rate: int = 16000
    average: str = "mean"  # of items; "class_mean" or "class_median": then of classes (flowsep.evaluation.statistics)
    mixtures: str = LISTED
    drawn: bool = False  # the seed and the count matter


@dataclass(frozen=True)
class ItemSet:
    """What a protocol came down to on somebody's data."""

    name: str
    protocol: Protocol
    items: tuple[Item, ...]
    digest: str  # of all items and their files
    draw: Draw


def audiosep(name: str, title: str, average: str = "mean") -> Protocol:
    """One of AudioSep's sets: 32 kHz, ready-made."""
    readers = {"vggsound": listed.read_audiosep_vggsound, "audioset": listed.read_audiosep_audioset}
    reader = readers.get(name, partial(listed.read_audiosep, name))
    figures = ("sdri", "si_sdr", "si_sdri", "sdr")
    return Protocol(title, lambda data, draw: reader(data, AUDIOSEP), AUDIOSEP, figures, 32000, average)


def drawn(title: str, rule: DrawRule, where: str, figures: tuple[str, ...] = SIGNAL) -> Protocol:
    """Mixtures of a data set, drawn here."""
    return Protocol(title, partial(draw_items, rule), where, figures, mixtures=DRAWN, drawn=True)


HSM_FIGURES = (*SIGNAL, "lsd", "lsd_audioldm", "mel_psnr")
WIDE = (-15.0, 15.0)  # dB
THREE = "the data sets AudioCaps, Clotho and FSD50K, in folders audiocaps, clotho and fsd50k"

PROTOCOLS = {
    "own": Protocol(
        "your own clips or recipe",
        own_items,
        "the clips that the list names",
        mixtures="drawn or listed by you",
        drawn=True,
    ),
    "mixtures": Protocol(
        "a folder written by flowsep mix",
        lambda data, draw: listed.read_mixtures(data, "a folder that flowsep mix --targets wrote"),
        "the whole folder that flowsep mix --targets wrote",
        mixtures="as written",
    ),
    "dcase2024-task9": Protocol(
        "DCASE 2024 Task 9, synthetic validation",
        lambda data, draw: listed.read_dcase(data, DCASE),
        DCASE,
        ("sdr", "sdri", "si_sdr", "si_sdri"),
    ),
    "audiosep-audiocaps": audiosep("audiocaps", "AudioSep's AudioCaps"),
    "audiosep-clotho": audiosep("clotho", "AudioSep's Clotho"),
    "audiosep-esc50": audiosep("esc50", "AudioSep's ESC-50"),
    "audiosep-music": audiosep("music", "AudioSep's MUSIC", "class_mean"),
    "audiosep-vggsound": audiosep("vggsound", "AudioSep's VGGSound"),
    "audiosep-audioset": audiosep("audioset", "AudioSep's AudioSet", "class_median"),
    "flowsep-vggsound": drawn(
        "FlowSep's VGGSound",
        DrawRule(datasets.read_vggsound, 2000, others=10, lufs=(-35.0, -25.0)),
        "the data set VGGSound",
    ),
    "flowsep-esc50": drawn(
        "FlowSep's ESC-50",
        DrawRule(datasets.read_esc50, 2000, snr_db=(0.0, 0.0), length_s=5.0),
        "the data set ESC-50",
    ),
    "flowsep-audiocaps": drawn(
        "FlowSep's AudioCaps", DrawRule(datasets.read_audiocaps, 928, snr_db=WIDE), "the data set AudioCaps"
    ),
    "hsm-3sets": drawn("HSM-TSS's 3 Sets", DrawRule(datasets.read_three_sets, 1000, snr_db=WIDE), THREE, HSM_FIGURES),
    "hsm-audiocaps": drawn(
        "HSM-TSS's AudioCaps",
        DrawRule(datasets.read_audiocaps, 500, snr_db=WIDE),
        "the data set AudioCaps",
        HSM_FIGURES,
    ),
    "hsm-clotho": drawn(
        "HSM-TSS's Clotho", DrawRule(datasets.read_clotho, 500, snr_db=WIDE), "the data set Clotho", HSM_FIGURES
    ),
    "hsm-fsd50k": drawn(
        "HSM-TSS's FSD50K", DrawRule(datasets.read_fsd50k, 500, snr_db=WIDE), "the data set FSD50K", HSM_FIGURES
    ),
    "hsm-music": drawn(
        "HSM-TSS's MUSIC, zero-shot",
        DrawRule(datasets.read_music, 500, snr_db=(-5.0, 5.0)),
        "the solos of the data set MUSIC",
        HSM_FIGURES,
    ),
}


def find_protocol(name: str) -> Protocol:
    """By name; UsageError that lists what there is."""
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def read_items(name: str, data: Path, draw: Draw) -> ItemSet:
    """The items of a protocol on the files in `data`.

    UsageError for an unknown protocol and for words that mean nothing to it, InputError for files that are missing,
    unreadable or not what the protocol has, with what they are and where they come from.
    """
    protocol = find_protocol(name)
    if name != "own" and (draw.recipe is not None or draw.split is not None):
        raise UsageError(f"--recipe and --split are for the protocol own, not for {name}; leave them out")
    if not protocol.drawn and draw.count is not None:
        raise UsageError(f"the mixtures of {name} are fixed; leave --count out, or take the first ones by --limit")
    if not data.is_dir():
        raise InputError(f"{data} is not a folder; get {protocol.where}")
    items = protocol.read(data, draw)
    if name == "mixtures":  # rate, figures and average are those of where they come from
        rate, origin = listed.written_from(data, protocol.where)
        came_from = find_protocol(origin)
        title = f"{came_from.title}, as written by flowsep mix"
        protocol = replace(came_from, title=title, sample_rate=rate, where=protocol.where, drawn=False)
    check_items(items, protocol.where)
    return ItemSet(name, protocol, tuple(items), fingerprint(items, data), draw)
