"""`flowsep train recipe`: the stages that make a model from nothing, one after another, each resumed or skipped.

What the stages are stands in the configuration (`recipe:`). Every stage has a folder under the run's with a marker,
stage.json: the settings that decide its result, and, once it is done, the hashes of the weights that it wrote.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowsep.checkpoint import SHIPPED, load_separator, read_json, write_json
from flowsep.config import ModelConfig, RecipeStage, load_config, load_recipe
from flowsep.data.doubtful import list_file
from flowsep.data.manifest import listed_path, read_manifest
from flowsep.errors import InputError, UsageError
from flowsep.evaluation.calibrate import FEWEST, calibrate_folder
from flowsep.evaluation.recipe import VALID, read_recipe
from flowsep.evaluation.run import evaluate_recipe, summary_lines
from flowsep.files import sha256, weights_hash
from flowsep.protocol import SampleOptions
from flowsep.training.export import export_model
from flowsep.training.loop import latest_checkpoint
from flowsep.training.recipes import train_text, train_unet, train_vae, train_vocoder

WRITES = {"text": "text", "vae": "vae", "flow": "model", "diffusion": "model", "vocoder": "vocoder"}  # in their folders
UNET_BLOCKS = ("codec", "text", "unet", "vocoder", "sampling", "data")
BLOCKS = {  # of the configuration: what decides a stage's result, beside its own _stage and _loss
    "text": ("text", "data"),
    "vae": ("codec", "vocoder", "data"),
    "flow": (*UNET_BLOCKS, "flow"),
    "diffusion": (*UNET_BLOCKS, "diffusion"),
    "vocoder": ("vocoder", "data"),
}
IDLE = {"checkpoint_steps", "log_steps", "media_steps", "workers"}  # of a stage's block: they change no weight


@dataclass(frozen=True)
class Sources:
    """Where the material of a recipe lies."""

    data: Path  # clips
    captions: Path | None = None  # in place of the recipe's
    teacher: Path | None = None
    mixtures: Path | None = None  # list for calibration and figures; None: the project's, where `data` has its clips

    def mixture_list(self) -> Path | None:
        """The list to use, if there is one whose clips are there."""
        if self.mixtures is not None:
            return self.mixtures
        paths = {path for row in read_recipe(VALID) for path in (row.target_path, row.interferer_path)}
        return VALID if all((self.folder / path).is_file() for path in paths) else None

    @property
    def folder(self) -> Path:
        """That the paths in lists start from."""
        return self.data if self.data.is_dir() else self.data.parent


class Chain:
    """The stages of one recipe in one run folder."""

    def __init__(
        self, name: Path | str, overrides: Sequence[str], sources: Sources, run: Path, say: Callable[[str], None]
    ) -> None:
        self.stages = load_recipe(name)
        # What the caller asks for wins over the recipe.
        self.configs = [load_config(name, [*stage.overrides, *overrides]) for stage in self.stages]
        names = [name_of(stage) for stage in self.stages]
        if len(set(names)) < len(names):
            raise UsageError(f"the recipe names two stages alike ({', '.join(names)}); give each a name")
        self.sources, self.run, self.say = sources, run, say
        self.model = run / "model"
        self.mixtures = sources.mixture_list()
        self.check()
        self.clips = clips_hash(sources.data)
        self.settings: list[dict[str, Any]] = []
        for number in range(len(self.stages)):
            self.settings.append(self.settings_of(number))

    def check(self) -> None:
        """UsageError or InputError for what would stop some stage, though hours of others may come before it."""
        self.check_end()
        for number, stage in enumerate(self.stages):
            if stage.teacher and self.sources.teacher is None:
                raise UsageError(
                    f"the stage {name_of(stage)} learns from a sentence encoder; give its folder with --teacher"
                )
            captions = self.captions(stage)
            if captions is not None and not captions.is_file():
                raise InputError(
                    f"the stage {name_of(stage)} reads {captions}, which is not there; give --captions FILE"
                )
            kinds = ("vocoder",) if stage.stage == "vocoder" else ("flow", "diffusion")
            if stage.start and stage.start not in [name_of(s) for s in self.stages[:number] if s.stage in kinds]:
                raise UsageError(
                    f"the stage {name_of(stage)} starts from {stage.start!r}, which is no earlier stage of its kind"
                )

    def check_end(self) -> None:
        """What turns trained parts into a model: an export after them, and mixtures for the calibration after that."""
        kinds = [stage.stage for stage in self.stages]
        if "export" not in kinds or not {"flow", "diffusion"} & set(kinds[: kinds.index("export")]):
            raise UsageError("the recipe needs a stage export, after a stage flow or diffusion")
        if "calibrate" not in kinds:
            return
        if kinds.index("calibrate") < kinds.index("export"):
            raise UsageError("the recipe calibrates before it exports; put the stage calibrate last")
        if self.mixtures is None:  # the stage is left out
            return
        if (count := len(read_recipe(self.mixtures))) < FEWEST:
            raise InputError(
                f"{self.mixtures} holds {count} mixtures, too few to calibrate with; give at least {FEWEST}"
            )
        if not (self.sources.folder / "manifest.csv").is_file():
            raise InputError(
                f"{self.sources.folder} has no manifest.csv, by which calibration knows what a mixture does not hold; "
                "add one, or take the stage calibrate out of the recipe"
            )

    def captions(self, stage: RecipeStage) -> Path | None:
        """The captions that a stage reads."""
        return (self.sources.captions or self.sources.folder / stage.captions) if stage.captions else None

    def train(self, max_minutes: float | None, quiet: bool) -> bool:
        """Run what is not done; False where the time ran out first."""
        end = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        fresh = True
        for number, (stage, config) in enumerate(zip(self.stages, self.configs, strict=True)):
            name, settings = name_of(stage), self.settings[number]
            title = f"[{number + 1}/{len(self.stages)}] {name}"
            if stage.stage == "calibrate" and self.mixtures is None:
                self.say(f"{title}: left out, {self.sources.data} lacks clips of the list of mixtures; give --mixtures")
                continue
            if self.done(name, settings):
                self.say(f"{title}: done before")
                continue
            left = None if end is None else max(0.0, (end - time.monotonic()) / 60)
            if left == 0 and not fresh:
                self.say(f"{title}: no time left; the same command goes on here")
                return False
            fresh = False
            self.say(f"{title}: {length(stage, config)}")
            write_marker(self.run / name, settings, None)
            self.perform(number, left, quiet)
            reached = steps_done(stage, config, self.run / name)
            if reached is not None:
                self.say(f"{title}: stopped at step {reached}; the same command goes on here")
                return False
            write_marker(self.run / name, settings, self.hashes(number))
        return True

    def output(self, number: int) -> Path:
        """The folder that a stage writes its weights to."""
        stage = self.stages[number]
        return self.run / name_of(stage) / WRITES[stage.stage] if stage.stage in WRITES else self.model

    def earlier(self, number: int, *kinds: str) -> Path | None:
        """What the last stage of such a kind before number `number` wrote."""
        found = [self.output(n) for n in range(number) if self.stages[n].stage in kinds]
        return found[-1] if found else None

    def hashes(self, number: int) -> dict[str, str]:
        """SHA-256 of what a stage wrote, by path under the run's folder; the sampler's settings are calibration's."""
        files = [file for file in weight_files(self.output(number)) if file.suffix != ".json"]
        if self.stages[number].stage == "calibrate":
            files = [file for file in weight_files(self.model) if file.suffix == ".json"]
        return {file.relative_to(self.run).as_posix(): sha256(file) for file in files}

    def perform(self, number: int, minutes: float | None, quiet: bool) -> None:
        """Run one stage, for so many minutes at most."""
        stage, config, data = self.stages[number], self.configs[number], self.sources.data
        folder = self.run / name_of(stage)
        if stage.stage == "text":
            teacher = self.sources.teacher if stage.teacher else None
            train_text(config, data, folder, self.captions(stage), tokenizer_of(stage), teacher, minutes, quiet)
        elif stage.stage == "vae":
            train_vae(config, data, folder, minutes, quiet)
        elif stage.stage == "vocoder":
            start = self.run / stage.start / WRITES["vocoder"] if stage.start else None
            train_vocoder(config, data, folder, start, minutes, quiet)
        elif stage.stage in ("flow", "diffusion"):
            codec, text = (self.earlier(number, kind) for kind in ("vae", "text"))
            start = self.run / stage.start / "model" if stage.start else None
            train_unet(stage.stage, config, data, folder, codec, None, text, start, minutes, quiet)
        elif stage.stage == "export":
            trained, vocoder = self.earlier(number, "flow", "diffusion"), self.earlier(number, "vocoder")
            export_model(trained, self.model, vocoder, stage.steps, stage.mask_exponent, stage.window_frames)
        else:
            calibrate_folder(self.model, self.mixtures or VALID, self.sources.folder, quiet=quiet)

    def settings_of(self, number: int) -> dict[str, Any]:
        """All that decides the result of a stage, as JSON has it: its blocks, its material and the stages before it."""
        stage, config = self.stages[number], self.configs[number]
        names = [*BLOCKS.get(stage.stage, ()), f"{stage.stage}_stage", f"{stage.stage}_loss"]
        found: dict[str, Any] = {name: asdict(getattr(config, name)) for name in names if hasattr(config, name)}
        for block in found:
            if block.endswith("_stage"):
                found[block] = {key: value for key, value in found[block].items() if key not in IDLE}
        if config.data.exclude_clips is not None and "data" in found:  # what it says decides, not where it lies
            found["data"]["exclude_clips"] = sha256(list_file(config.data.exclude_clips))
        about = {key: value for key, value in asdict(stage).items() if key not in ("name", "overrides")}
        found |= {"recipe": about, "seed": config.seed}
        if stage.stage in WRITES:
            found["clips"] = self.clips
        if stage.stage == "text":
            captions, tokenizer = self.captions(stage), tokenizer_of(stage)
            found["captions"] = None if captions is None else sha256(captions)
            found["tokenizer"] = None if tokenizer is None else sha256(tokenizer / "tokenizer.json")
            found["teacher"] = weights_hash(self.sources.teacher) if stage.teacher and self.sources.teacher else None
        if stage.stage == "calibrate":
            found["mixtures"] = sha256(self.mixtures or VALID)
        alone = stage.stage in ("text", "vae", "vocoder")
        before = [n for n in range(number) if not alone or name_of(self.stages[n]) == stage.start]
        found["after"] = {name_of(self.stages[n]): digest(self.settings[n]) for n in before}
        return json.loads(json.dumps(found))

    def done(self, name: str, settings: dict[str, Any]) -> bool:
        """Whether a stage is finished; UsageError where it was begun otherwise, or where its weights have changed."""
        path = self.run / name / "stage.json"
        if not path.is_file():
            return False
        marker = read_json(path)
        if marker["settings"] != settings:
            changes = "; ".join(differences(marker["settings"], settings)[:3])
            raise UsageError(
                f"the stage {name} of {self.run} was begun with other settings ({changes}); use a new --run, or delete "
                f"{self.run / name} and what came after it"
            )
        for file, expected in (marker["files"] or {}).items():
            if not (self.run / file).is_file() or sha256(self.run / file) != expected:
                raise UsageError(f"{self.run / file} is not what the stage {name} wrote; delete {self.run / name}")
        return marker["files"] is not None

    def figures(self, quiet: bool) -> list[str]:
        """SHA-256 of the model's files, and the figures on the list of mixtures, kept in figures.json."""
        lines = [f"{sha256(file)}  {file.relative_to(self.model)}" for file in weight_files(self.model)]
        mixtures, path = self.mixtures, self.run / "figures.json"
        if mixtures is None:
            return [*lines, f"no figures: {self.sources.data} lacks clips of the list of mixtures; give --mixtures"]
        about = {"model_sha256": digest(dict(enumerate(lines))), "mixtures_sha256": sha256(mixtures)}
        if not path.is_file() or {key: read_json(path).get(key) for key in about} != about:
            separator, rows = load_separator(self.model), read_recipe(mixtures)
            options = SampleOptions(render="mixture")
            report = evaluate_recipe(separator, rows, self.sources.folder, options, "model", mixtures.name, quiet)
            write_json(path, {**about, **report})
        return [*lines, *summary_lines(read_json(path))]


def name_of(stage: RecipeStage) -> str:
    """Name of a stage and of its folder."""
    return stage.name or stage.stage


def tokenizer_of(stage: RecipeStage) -> Path | None:
    """The tokenizer folder of the model that a text stage names: a shipped one, or a folder."""
    if not stage.tokenizer:
        return None
    shipped = SHIPPED / stage.tokenizer / "tokenizer"
    return shipped if shipped.is_dir() else Path(stage.tokenizer) / "tokenizer"


def length(stage: RecipeStage, config: ModelConfig) -> str:
    """How much a stage has to do."""
    return f"{getattr(config, f'{stage.stage}_stage').steps} steps" if stage.stage in WRITES else "begins"


def steps_done(stage: RecipeStage, config: ModelConfig, folder: Path) -> int | None:
    """The step that an unfinished training reached; None where there is nothing left to do."""
    if stage.stage not in WRITES:
        return None
    saved = latest_checkpoint(folder)
    reached = 0 if saved is None else int(saved.name.split("-")[1])
    return reached if reached < getattr(config, f"{stage.stage}_stage").steps else None


def weight_files(folder: Path) -> list[Path]:
    """What a model consists of: all its weights, and its sampler's settings, which hold the presence score."""
    return sorted([*folder.rglob("*.safetensors"), *folder.glob("scheduler/*.json")])


def digest(settings: dict[str, Any]) -> str:
    """SHA-256 of settings as JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def clips_hash(data: Path) -> str:
    """SHA-256 of the list of clips: paths under the folder, sizes, and all that the manifest says of each."""
    rows = []
    root = data if data.is_dir() else data.parent
    for clip in read_manifest(data):
        size = clip.path.stat().st_size if clip.path.is_file() else 0
        rows.append({**asdict(clip), "path": listed_path(clip.path, root), "size": size})
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two settings, as "flow_stage.steps was 6 and is 8"; hashes are only named."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [line for k in keys for line in differences(before.get(k), now.get(k), f"{name}.{k}".lstrip("."))]
    if before == now:
        return []
    if any(isinstance(value, str) and len(value) == 64 for value in (before, now)):
        return [f"{name} changed"]
    return [f"{name} was {before} and is {now}"]


def write_marker(folder: Path, settings: dict[str, Any], files: dict[str, str] | None) -> None:
    """Write stage.json; `files` None: begun and not done."""
    write_json(folder / "stage.json", {"hash": digest(settings), "settings": settings, "files": files})


def train_recipe(
    name: Path | str,
    overrides: Sequence[str],
    sources: Sources,
    run: Path,
    max_minutes: float | None = None,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Run the recipe of a configuration in the folder `run`; returns run/model, or None where the time ran out first.

    The same call again goes on where it stopped, step for step as if it had not; stages that are done are left alone.
    `say` gets a line per stage, and in the end hashes and figures. UsageError for settings that changed since a stage
    was begun, for weights that are no longer what a stage wrote, and for material that is missing.
    """
    chain = Chain(name, overrides, sources, run, say)
    if not chain.train(max_minutes, quiet):
        return None
    for line in chain.figures(quiet):
        say(line)
    return chain.model
