"""What can be scored on a protocol: models, another tool's files, the mixture left as it is, and the oracle."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from flowsep import checkpoint
from flowsep.audio import AudioWarning, open_audio, read_audio, resample
from flowsep.data.manifest import AUDIO_SUFFIXES
from flowsep.errors import InputError, UsageError
from flowsep.evaluation.protocols.item import Item, Waves, to_tensor
from flowsep.gains import shown
from flowsep.masks.separator import MaskSeparator
from flowsep.protocol import SampleOptions, TextSeparator
from flowsep.references import AUDIO, BY_EXAMPLE, OPTION, References
from flowsep.render import apply_mask, band_mask
from vocoder.mel import MelConfig, log_mel

MIXTURE, ORACLE = "mixture", "oracle"  # names that are no models


@dataclass(frozen=True)
class Answer:
    """What a system makes of one item: the estimate (T,) at the item's rate, and what it cost."""

    estimate: Tensor
    nfe: int = 0
    seconds: float | None = None


class System(Protocol):
    """A row of the table."""

    name: str

    def about(self) -> dict[str, Any]:
        """All that its answers depend on, as JSON; without paths."""
        ...

    def check(self, items: Sequence[Item]) -> None:
        """Errors that can be foreseen before the first item."""
        ...

    def answer(self, item: Item, waves: Waves, sample_rate: int) -> Answer:
        """Its estimate of the item's target."""
        ...


@dataclass
class Model:
    """A separator by name, folder or hub id; loaded when it is first asked, so that finished work costs nothing."""

    name: str
    options: SampleOptions
    device: str = "auto"
    references: References = field(default_factory=dict)  # clips that texts stand for, of a model that hears
    separator: TextSeparator | None = None

    def about(self) -> dict[str, Any]:
        """Weights, configuration and options."""
        from flowsep.files import sha256, weights_hash

        folder = checkpoint.find_model(self.name)
        files = sorted(folder.rglob("*.json"))
        configuration = [f"{file.relative_to(folder).as_posix()} {sha256(file)[:16]}" for file in files]
        options = {key: value for key, value in asdict(self.options).items() if value != getattr(SampleOptions(), key)}
        if "guidance_interval" in options:
            options["guidance_interval"] = list(options["guidance_interval"])
        about = {"kind": "model", "hash": weights_hash(folder), "configuration": configuration, "options": options}
        clips = {text: [clip.sha256 for clip in some] for text, some in self.references.items()}
        return {**about, "references": clips} if clips else about

    def check(self, items: Sequence[Item]) -> None:
        """UsageError where the model cannot be asked for an item."""
        refuse_unread(self.name, [item.text for item in items if item.text not in self.references])

    def answer(self, item: Item, waves: Waves, sample_rate: int) -> Answer:
        """The mixture separated like any mono recording: whole if it fits the model's window, otherwise joined."""
        from flowsep.longform import separate_audio

        if self.separator is None:
            separator = checkpoint.load_separator(self.name, self.device)
            if self.references:
                from flowsep.masks.listening import read_clips, remember_clips

                remember_clips(separator, self.name, read_clips(self.references))
            self.separator = separator
        options = options_for(self.separator, self.options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioWarning)  # of silence, which is not scored anyway
            (found,) = separate_audio(self.separator, to_tensor(waves.mixture)[None], sample_rate, [item.text], options)
        return Answer(found.target[0], found.nfe, sum(found.seconds.values()))


def options_for(separator: TextSeparator, options: SampleOptions) -> SampleOptions:
    """What of the options the separator can use: a mask separator samples nothing and gets the seed alone."""
    return SampleOptions(seed=options.seed) if isinstance(separator, MaskSeparator) else options


@dataclass
class Untouched:
    """The mixture as the answer to every query: what doing nothing scores, at whatever rate the items have."""

    name: str = MIXTURE

    def about(self) -> dict[str, Any]:
        """Nothing to say."""
        return {"kind": MIXTURE}

    def check(self, items: Sequence[Item]) -> None:
        """Never fails."""

    def answer(self, item: Item, waves: Waves, sample_rate: int) -> Answer:
        """The mixture."""
        return Answer(to_tensor(waves.mixture))


@dataclass
class Oracle:
    """The 64-band mask made with the true target and rest: the ceiling of FlowSep's mixture rendering."""

    name: str = ORACLE

    def about(self) -> dict[str, Any]:
        """Nothing to say."""
        return {"kind": ORACLE}

    def check(self, items: Sequence[Item]) -> None:
        """Never fails."""

    def answer(self, item: Item, waves: Waves, sample_rate: int) -> Answer:
        """The mixture under target / (target + rest), magnitudes of mel bands below 8 kHz."""
        config = MelConfig()
        mixture, target = to_tensor(waves.mixture), to_tensor(waves.target)
        heard = resample(torch.stack([target, mixture - target]), sample_rate, config.sample_rate)
        wanted, rest = (log_mel(audio, config)[None] for audio in heard)
        mask = band_mask(wanted, rest, wanted)[0]
        return Answer(apply_mask(mixture[None], mask, sample_rate, config)[0])


@dataclass
class Estimates:
    """Another tool's output: one file per item, named by its id, as long as the mixture and at its rate.

    Nothing is resampled, cut or mixed down on the way: a file that differs is an InputError.
    """

    name: str
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """That it is read anew every time."""
        return {"kind": "estimates"}

    def check(self, items: Sequence[Item]) -> None:
        """InputError where the folder or a file of an item is missing, or is there in two formats."""
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is not a folder; give the one that holds the estimates")
        self.files = {}
        wanted = {item.id for item in items}
        for path in sorted(self.folder.iterdir()):
            if path.suffix.lower() not in AUDIO_SUFFIXES or path.stem not in wanted:
                continue
            if path.stem in self.files:
                raise InputError(f"{self.folder} has {self.files[path.stem].name} and {path.name}; keep one of them")
            self.files[path.stem] = path
        missing = [item.id for item in items if item.id not in self.files]
        if missing:
            text = f"{self.folder} lacks {len(missing)} of {len(items)} estimates, the first {missing[0]}.wav"
            raise InputError(f"{text}; name the files by the ids of the mixtures (flowsep mix writes both)")

    def answer(self, item: Item, waves: Waves, sample_rate: int) -> Answer:
        """The file's samples; InputError where rate, channels or length are not the mixture's."""
        path = self.files[item.id]
        file = open_audio(path)
        if file.sample_rate != sample_rate:
            text = f"{path} is at {file.sample_rate} Hz, its mixture at {sample_rate}"
            raise InputError(f"{text}; resample it yourself, so that it is known how")
        if file.channels != 1:
            raise InputError(f"{path} has {file.channels} channels, its mixture one; write one")
        samples = read_audio(path).samples[0]
        if len(samples) != len(waves.mixture):
            text = f"{path} has {len(samples)} samples, its mixture {len(waves.mixture)}"
            raise InputError(f"{text}; write what belongs to each of its samples")
        return Answer(samples)


def refuse_unread(name: str, texts: Sequence[str]) -> None:
    """UsageError for queries that a USS does not know, which reads class names or no words at all; loads nothing."""
    index = checkpoint.find_model(name) / "model_index.json"
    query = checkpoint.read_json(index).get("_query", {}) if index.is_file() else {}
    if query.get("kind") not in ("classes", "clips"):
        return
    known = {label.casefold() for label in query.get("labels", ())}
    strange = [text for text in dict.fromkeys(texts) if text.strip().casefold() not in known]
    if strange:
        words = f"{name} knows AudioSet's class names" if known else f"{name} knows no words"
        example = f'a protocol takes clips of it: {OPTION} "{strange[0]}=CLIP"'
        raise UsageError(f"{words}, and not {len(strange)} of the queries, the first {shown(strange[0])}; {example}")


def hears(name: str) -> bool:
    """Whether a model has an audio encoder for references, without loading it."""
    return (checkpoint.find_model(name) / AUDIO).is_dir()


def systems_of(
    models: Sequence[str],
    estimates: Sequence[str],
    options: SampleOptions,
    device: str = "auto",
    references: References = MappingProxyType({}),
) -> list[System]:
    """Systems by their words: models, "mixture" or "oracle", and folders of estimates as DIR or NAME=DIR.

    References go to the models that hear, the others read the words. UsageError for a name that is there twice, or none
    at all, and for references that no model hears.
    """
    hearing = [name for name in models if references and name not in (MIXTURE, ORACLE) and hears(name)]
    if references and not hearing:
        raise UsageError(
            f"{' and '.join(models) or 'a folder'} cannot be asked by example; {OPTION} needs {BY_EXAMPLE}"
        )
    systems: list[System] = []
    for name in models:
        special = {MIXTURE: Untouched, ORACLE: Oracle}.get(name)
        systems.append(special() if special else Model(name, options, device, references if name in hearing else {}))
    for words in estimates:
        name, equals, folder = words.partition("=")
        if not equals or Path(words).is_dir():
            name, folder = "", words
        if not folder:
            raise UsageError(f"--estimates {words} names no folder; write NAME=DIR")
        systems.append(Estimates(name or Path(folder).resolve().name, Path(folder)))
    names = [system.name for system in systems]
    if not names or not all(names):
        raise UsageError("nothing to score; name models by --model or a folder by --estimates")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"{twice!r} is named twice; name each once, estimates as NAME=DIR")
    return systems
