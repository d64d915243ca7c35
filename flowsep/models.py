"""What separators there are: shipped, in folders, published elsewhere, or to be trained here; and what each needs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowsep.checkpoint import SHIPPED, find_model, list_models, read_json
from flowsep.errors import ModelError
from flowsep.references import AUDIO

QUERY_PARTS = ("text_encoder", "text_projection", AUDIO)  # of a model folder; counted apart
CARD_LICENCE = "Apache-2.0, see its card"
UNSTATED = "none stated in its repository"


@dataclass(frozen=True)
class ModelEntry:
    """One separator. Parameters are those of the separator without its query encoder."""

    name: str
    system: str
    parameters: int | None  # None: not known
    sample_rate: int  # Hz
    licence: str  # of weights, or of the code where there are none
    needs: str  # "nothing" where --model NAME works now


# Weights that exist elsewhere, and networks that `flowsep train` makes. The counts are checked by the tests.
PUBLISHED = (
    ModelEntry(
        "flowsep (official)",
        "FlowSep",
        334_880_154,
        16000,
        "see Audio-AGI/FlowSep",
        "v2_100k.ckpt: flowsep convert official; tokenizer google/flan-t5-large",
    ),
    ModelEntry(
        "audiosep",
        "AudioSep",
        25_623_941,
        32000,
        "MIT",
        "audiosep_base_4M_steps.ckpt: flowsep convert audiosep; tokenizer FacebookAI/roberta-base",
    ),
    ModelEntry(
        "dcase2024-task9",
        "DCASE 2024 Task 9 baseline",
        25_622_917,
        16000,
        UNSTATED,
        "Zenodo 10887460: flowsep convert dcase; tokenizer FacebookAI/roberta-base",
    ),
    ModelEntry(
        "uss",
        "Universal Source Separation",
        25_747_781,
        32000,
        "Apache-2.0",
        "RSNuts/Universal_Source_Separation: flowsep convert uss; --labels class_labels_indices.csv to name classes",
    ),
    ModelEntry(
        "lassnet",
        "LASS-Net",
        52_228_323,
        32000,
        UNSTATED,
        "LASSNet.pt: flowsep convert lassnet; tokenizer prajjwal1/bert-mini",
    ),
)
TRAINABLE = (
    ModelEntry(
        "small-diffusion",
        "DiffusionSep, small",
        6_871_873,
        16000,
        "Apache-2.0",
        "flowsep train diffusion small-diffusion --from small --data CLIPS --run RUN",
    ),
    ModelEntry(
        "small-audiosep",
        "ResUNet30, small",
        3_862_469,
        16000,
        "Apache-2.0",
        "flowsep train mask small-audiosep --data CLIPS --text small --run RUN",
    ),
    ModelEntry(
        "small-lassnet",
        "LASS-Net, small",
        8_588_283,
        16000,
        "Apache-2.0",
        "flowsep train mask small-lassnet --data CLIPS --text small --run RUN",
    ),
)


def known_models(folders: Sequence[Path] = ()) -> list[ModelEntry]:
    """Shipped models and those in `folders`, ready to use, then what is published elsewhere or can be trained.

    A folder is a model folder, or holds some. ModelError for one that is and does neither.
    """
    ready = [describe_folder(SHIPPED / name, name) for name in list_models()]
    for folder in folders:
        found = (
            [folder]
            if (folder / "model_index.json").is_file()
            else sorted(index.parent for index in folder.glob("*/model_index.json"))
        )
        if not found:
            raise ModelError(f"{folder} is no model folder and holds none; give one with a model_index.json")
        ready += [describe_folder(one, str(one)) for one in found]
    names = {entry.name for entry in ready}
    return ready + [entry for entry in PUBLISHED + TRAINABLE if entry.name not in names]


def describe_folder(folder: Path, name: str) -> ModelEntry:
    """What a model folder says of itself, without loading it."""
    folder = find_model(folder)
    index = read_json(folder / "model_index.json")
    masker = index.get("_class_name") == "MaskSeparator"
    settings = folder / "network" / "config.json" if masker else folder / "feature_extractor/preprocessor_config.json"
    origin = index.get("_origin", {})
    query = index.get("_query", index.get("_text", {}))
    missing = [part.replace("_", " ") for part in ("text_encoder", "tokenizer") if not (folder / part).is_dir()]
    if query.get("kind") in ("classes", "clips"):  # asked without words
        missing = []
    parts = [path for path in sorted(folder.rglob("*.safetensors")) if path.parent.name not in QUERY_PARTS]
    return ModelEntry(
        name,
        origin.get("system") or index.get("_class_name", "?"),
        sum(count_numbers(path) for path in parts) or None,
        read_json(settings)["sample_rate"],
        origin.get("licence") or (CARD_LICENCE if folder.parent == SHIPPED else "not stated"),
        f"the {' and the '.join(missing)} of {query['hub']} from the hub, once" if missing else "nothing",
    )


def count_numbers(path: Path) -> int:
    """How many numbers the floating-point tensors of a safetensors file hold, from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(
        math.prod(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"].startswith(("F", "BF")) and "running_" not in name
    )
