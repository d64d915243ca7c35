"""An instruction read by a chat model on this machine: the same list of edits as `flowsep.instructions` gives.

The model is asked for JSON and believed no more than a stranger: what it answers goes through the checks of the rules'
own reader (`flowsep.instructions.Draft`), and anything but one list of edits is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowsep.errors import ModelError, UsageError
from flowsep.gains import MUTE, shown, tidied
from flowsep.instruction_clauses import Operation
from flowsep.instruction_words import Things, things_of
from flowsep.instructions import LONGEST_SENTENCE, Draft, Instruction

MOST_TOKENS = 512  # of a reply
MOST_DB = 1e6  # what is beyond it is no slip of the finger; gains beyond 60 dB are refused with the others'
FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # of a model on the hub: no pickles, no code
KEYS = {"action", "text", "gain_db"}
PROMPT = """Turn an instruction about the sounds of a recording into JSON. Answer with the JSON object alone, of this form:

{{"edits": [{{"action": ACTION, "text": SOUND, "gain_db": DB}}, ...], "rest_db": DB}}

SOUND is a sound that the instruction names, in its words and without an article. ACTION is one of
"remove": the sound goes; gain_db is null.
"keep": the sound stays as it is; gain_db is 0.
"gain": the sound is turned up (gain_db above 0) or down (below 0) by so many dB, -60 to 60. Twice as loud is 6, half -6, a bit 3.
"extract": only the named sounds are to be heard; gain_db is 0, and rest_db is null.
"rest_db" is what becomes of all other sounds: 0 leaves them as they are, null removes them, a number changes them by so many dB.
Each sound is named once. To change the whole recording, leave "edits" empty and give "rest_db".

Instruction: mute the hammering and make the speech a little louder
{{"edits": [{{"action": "remove", "text": "hammering", "gain_db": null}}, {{"action": "gain", "text": "speech", "gain_db": 3}}], "rest_db": 0}}

Instruction: I only want to hear the birds
{{"edits": [{{"action": "extract", "text": "birds", "gain_db": 0}}], "rest_db": null}}

Instruction: {sentence}
"""  # noqa: E501 - a line of the prompt is a line of the prompt


@dataclass
class ChatModel:
    """A causal language model with its tokenizer, of the transformers library."""

    model: Any
    tokenizer: Any
    name: str

    def reply(self, prompt: str) -> str:
        """What it answers to one message: the likeliest token each time, at most 512; the prompt is not repeated.

        ModelError for a chat template that cannot be filled in and for a model too small to read the prompt.
        """
        import torch
        from jinja2 import TemplateError
        from transformers import GenerationConfig

        try:
            message = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(f"the chat template of {self.name} does not work: {first_line(error)}") from error
        # The template writes the special tokens itself.
        tokens = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").to(self.model.device)
        length = tokens["input_ids"].shape[1]
        room = getattr(self.model.config, "max_position_embeddings", None) or length + MOST_TOKENS
        if length >= room:
            raise ModelError(f"{self.name} reads {room} tokens and the prompt has {length}; use a larger model")
        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=min(MOST_TOKENS, room - length),
            eos_token_id=self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id or 0,
        )
        with torch.inference_mode():
            written = self.model.generate(
                tokens["input_ids"], attention_mask=tokens["attention_mask"], generation_config=settings
            )
        return self.tokenizer.decode(written[0, length:], skip_special_tokens=True)


def first_line(error: Exception) -> str:
    """The first line of an error's words."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_chat_model(name: Path | str, device: str = "auto") -> ChatModel:
    """A chat model from a folder (config.json, safetensors, tokenizer with a chat template) or by its hub id.

    A folder is never completed from the hub, a hub id is downloaded unless HF_HUB_OFFLINE; code that comes with a model
    is never run and pickles are never read. ModelError says what is missing.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from flowsep.checkpoint import no_progress_bar, pick_device, refuse_missing

    folder, chosen = chat_folder(str(name)), pick_device(device)
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        if tokenizer.chat_template is None:
            raise ModelError(
                f"{name} has no chat template: it is no chat model; take one that was made to follow orders"
            )
        with no_progress_bar():
            model, found = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, dtype="auto", output_loading_info=True, **safe
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"the chat model {name} cannot be read: {first_line(error)}") from error
    refuse_missing(f"the chat model {name}", found)
    return ChatModel(model.to(chosen).eval(), tokenizer, str(name))


def chat_folder(name: str) -> Path:
    """The folder of a chat model, with its configuration and safetensors in it; ModelError otherwise."""
    folder = Path(name)
    if not folder.is_dir():
        folder = downloaded(name)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name} is no chat model: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = any(file.suffix in {".bin", ".pt", ".pth", ".ckpt"} for file in folder.iterdir())
        reason = "its weights are pickles, which are not read for safety" if pickled else "it has no weights"
        raise ModelError(f"{name} holds no *.safetensors: {reason}; save it with save_pretrained, or take another")
    return folder


def downloaded(name: str) -> Path:
    """The folder of a hub id; ModelError for what is no such id, and where it cannot be had."""
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise ModelError(
            f"--llm {name}: no such folder; give a folder with a chat model, or a hub id such as owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"--llm {name}: no such folder, and not to be had from the hub ({type(error).__name__}); check the name "
            "and the connection"
        ) from error


def ask(chat: ChatModel, sentence: str) -> Instruction:
    """The edits that the model reads in a sentence.

    UsageError for a sentence that is empty or too long; ModelError for a reply that holds no list of edits, or one that
    `flowsep.instructions` would refuse.
    """
    sentence = tidied(sentence, "the instruction")
    reply = chat.reply(PROMPT.format(sentence=sentence))
    try:
        return read_reply(reply, sentence)
    except UsageError as error:
        raise ModelError(
            f"the answer of {chat.name} is refused: {error}; say it otherwise, or without --llm"
        ) from error


def read_reply(reply: str, sentence: str) -> Instruction:
    """The instruction in a reply: one JSON object, bare, fenced or with prose around it. UsageError for all else."""
    document = only_object(reply)
    if extra := document.keys() - {"edits", "rest_db"}:
        raise UsageError(f"it holds {shown(sorted(extra)[0])}, which is not part of the form")
    edits = document["edits"]
    if not isinstance(edits, list) or len(edits) > LONGEST_SENTENCE:
        raise UsageError(f"its edits are no list of at most {LONGEST_SENTENCE}")
    draft = Draft()
    for edit in edits:
        draft.apply(operation(edit))
    if "rest_db" in document:
        rest = document["rest_db"]
        draft.set_rest(MUTE if rest is None else number(rest, "rest_db"))
    found = draft.finished(sentence)
    if found.rest == 0 and all(edit.action == "keep" for edit in found.edits):
        raise UsageError("it asks for no change")
    return found


def only_object(reply: str) -> dict[str, Any]:
    """The object with `edits` in a reply, behind what a model may have thought aloud; UsageError for none, or two."""
    text = reply.rpartition("</think>")[2]
    decoder = json.JSONDecoder(parse_constant=refuse_constant)
    objects, place = [], text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if isinstance(value, dict) and "edits" in value:
                objects.append(value)
        place = text.find("{", end)
    if not objects:
        raise UsageError(f"it is no JSON with edits but {shown(' '.join(reply.split()))}")
    if any(value != objects[0] for value in objects):
        raise UsageError("it holds two lists of edits")
    return objects[0]


def refuse_constant(name: str) -> None:
    """NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(f"{name} is no number")


def operation(edit: Any) -> Operation:
    """One edit of a reply, with the gain that its action allows; UsageError for any other."""
    if not isinstance(edit, dict) or not isinstance(edit.get("text"), str) or edit.keys() - KEYS:
        raise UsageError(f"{shown(json.dumps(edit))} is no edit; it needs action, text and gain_db and nothing else")
    action, text, gain = edit.get("action"), tidied(edit["text"], "a sound of it"), edit.get("gain_db", 0)
    if action not in ("remove", "keep", "gain", "extract"):
        raise UsageError(f"{shown(str(action))} is no action; there are remove, keep, gain and extract")
    if action == "remove":
        if gain not in (None, 0):
            raise UsageError(f"it removes {shown(text)} and gives it a gain")
    else:
        gain = number(gain, f"gain_db of {shown(text)}")
        if action == "keep" and gain != 0:
            raise UsageError(f"it keeps {shown(text)} as it is and gives it a gain")
    things = things_of(text.lower(), [])  # "everything else" is no sound
    named = Things("sounds", (text,)) if things is None or things.kind == "sounds" else things
    return Operation(action, named, gain or 0.0)


def number(value: Any, name: str) -> float:
    """A number of dB; UsageError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST_DB:
        raise UsageError(f"{name} is {shown(json.dumps(value))}, which is no number of dB")
    return float(value)
