"""An output made again from its sidecar, and whether it is the same."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsep.errors import InputError, ModelError
from flowsep.gains import MUTE
from flowsep.naming import FileJob, MixJob, QueryFiles
from flowsep.references import References, read_references
from flowsep.settings import FileSettings

if TYPE_CHECKING:
    from flowsep.audio import AudioFile
    from flowsep.files import LoadedModel
    from flowsep.windows import Progress


class ReplayWarning(UserWarning):
    """Something that differs from when the output was made, so that its bits may differ, too."""


@dataclass(frozen=True)
class Replay:
    """What the sidecar at `path` asks for."""

    path: Path
    document: dict[str, Any]
    settings: FileSettings
    source: Path
    references: References

    @property
    def request(self) -> dict[str, Any]:
        """Verb, texts or gains, format and settings."""
        return self.document["request"]

    @property
    def params(self) -> dict[str, Any]:
        """What was resolved when it ran: device, precision, threads."""
        return self.document["params"]


def read_replay(path: Path) -> Replay:
    """The request of a sidecar; InputError where it is none, its input is gone, or no longer what it was."""
    from flowsep.files import sha256

    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        request, params, input = document["request"], document["params"], document["input"]
        kept = {"rows": params["rows"]}  # as it ran: a batch of another size may round otherwise
        settings = replace(FileSettings.from_json(request["settings"]), **kept)
        source, content, names = Path(input["path"]), input["sha256"], document["outputs"][0]["path"]
        texts = {"separate": "texts", "remix": "gains", "remove": "gains", "edit": "gains"}[request["verb"]]
        assert all(clip["path"] and clip["sha256"] for some in request.get("references", {}).values() for clip in some)
        assert request[texts] and names and document["model"]["id"] and params["device"] and params["threads"]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; give a sidecar of flowsep") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError) as error:
        raise InputError(f"{path} is no sidecar that can be replayed; give the JSON file beside an output") from error
    settings.check(request["format"])
    source = source if source.is_file() else path.parent / source.name
    if not source.is_file():
        raise InputError(f"the input {input['path']} is not there, nor beside {path}; put it back")
    if sha256(source) != content:
        raise InputError(f"{source} is no longer the input that {path} was made from: its content differs")
    return Replay(path, document, settings, source, read_references(request, path.parent))


def check_model(replay: Replay, loaded: LoadedModel) -> None:
    """ModelError where the weights are others; a ReplayWarning for a version or a device that differs."""
    from flowsep.files import versions

    model = replay.document["model"]
    if model["hash"] != loaded.hash:
        raise ModelError(f"{loaded.id} has other weights than {replay.path} was made with; give those with --model")
    before, now = replay.document["versions"], versions()
    changed = [f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
    if replay.params["device"] != loaded.device:
        changed.append(f"device {replay.params['device']} -> {loaded.device}")
    if changed:
        warnings.warn(f"the bits may differ: {', '.join(changed)}", ReplayWarning, stacklevel=2)


def run_replay(
    replay: Replay, loaded: LoadedModel, folder: Path, overwrite: bool = False, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Make the outputs again in `folder`, under their names; returns role, path and whether the samples are the same.

    A query that shared its call of the network with others is made in the same company, because a batch of another size
    may round otherwise. Runs with as many threads as then. Errors as `separate_file` and `remix_file`.
    """
    import torch

    from flowsep.media import open_media

    recording = open_media(replay.source)
    if replay.settings.start or replay.settings.end is not None:
        recording = recording.excerpt(replay.settings.start, replay.settings.end)
    threads = torch.get_num_threads()
    torch.set_num_threads(int(replay.params["threads"]))
    try:
        if replay.references:
            from flowsep.masks.listening import read_clips, remember_clips

            remember_clips(loaded.separator, loaded.id, read_clips(replay.references))
        document = made_again(replay, loaded, recording, folder, overwrite, progress)
    finally:
        torch.set_num_threads(threads)
    found = []
    for before, now in zip(replay.document["outputs"], document["outputs"], strict=True):
        same = before["samples_sha256"] == now["samples_sha256"]
        found.append({"role": now["role"], "path": now["path"], "identical": same})
    return found


def made_again(
    replay: Replay,
    loaded: LoadedModel,
    recording: AudioFile,
    folder: Path,
    overwrite: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    """Write the outputs below `folder` and return the new sidecar document."""
    request, document = replay.request, replay.document
    named = {output["role"]: folder / Path(output["path"]).name for output in document["outputs"]}
    extra = {kind: folder / Path(document[kind]).name if document.get(kind) else None for kind in ("plot", "video")}
    sidecar = folder / Path(document["sidecar"]).name
    if request["verb"] == "separate":
        from flowsep.files import separate_file

        query = QueryFiles(request["text"], named["target"], named.get("residual"), sidecar=sidecar, **extra)
        company = tuple(request["texts"])
        job = FileJob(replay.source, folder, (query,), request["format"], company, replay.references)
        return separate_file(loaded, job, recording, replay.settings, overwrite, progress)[0]
    from flowsep.remix_files import remix_file

    gains = {text: MUTE if gain is None else gain for text, gain in request["gains"].items()}
    rest = MUTE if request["rest"] is None else request["rest"]
    paths = (named[request["verb"]], sidecar, request["format"], extra["video"])
    roles = ((output["role"], folder / Path(output["path"]).name) for output in document["outputs"])
    parts = tuple(path for role, path in roles if role in ("part", "rest"))
    job = MixJob(replay.source, folder, gains, *paths, instruction=request.get("instruction"), parts=parts)
    job = replace(job, references=replay.references)
    return remix_file(loaded, job, recording, request["verb"], rest, replay.settings, overwrite, progress)
