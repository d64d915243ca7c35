"""`flowsep edit --llm`: what a chat model answers becomes edits, or is refused; no model is believed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import BatchEncoding

from flowsep.cli import main
from flowsep.errors import ModelError, UsageError
from flowsep.gains import MUTE
from flowsep.instruction_model import PROMPT, ChatModel, ask, load_chat_model, read_reply
from flowsep.instructions import parse_instruction
from tests.test_cli import failure

SENTENCE = "Remove the dog, turn the rain down by 6 dB and keep the speech"
EDITS = [
    {"action": "remove", "text": "dog", "gain_db": None},
    {"action": "gain", "text": "rain", "gain_db": -6},
    {"action": "keep", "text": "speech", "gain_db": 0},
]
VALID = json.dumps({"edits": EDITS, "rest_db": 0})
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<>{% endif %}"
)


@dataclass
class FakeTokenizer:
    """A character is a token."""

    eos_token_id: int = 1
    pad_token_id: int | None = None
    seen: str = ""

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt and [message["role"] for message in messages] == ["user"]
        return messages[0]["content"]

    def __call__(self, text, add_special_tokens, return_tensors):
        assert not add_special_tokens
        self.seen = text
        ids = torch.tensor([[ord(letter) for letter in text]])
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(number) for number in ids.tolist())


@dataclass
class FakeModel:
    """Answers with one text, whatever it is asked."""

    answer: str
    device: str = "cpu"

    def __post_init__(self):
        self.config = SimpleNamespace(max_position_embeddings=10_000)
        self.generation_config = SimpleNamespace(eos_token_id=None)

    def generate(self, ids, attention_mask, generation_config):
        assert not generation_config.do_sample and generation_config.max_new_tokens == 512
        return torch.cat([ids, torch.tensor([[ord(letter) for letter in self.answer]])], dim=1)


def chat(answer: str) -> ChatModel:
    return ChatModel(FakeModel(answer), FakeTokenizer(), "parrot")


def save_chat_model(folder, template=TEMPLATE, positions=8192):
    """A random Llama of one layer whose tokens are bytes."""
    torch.manual_seed(0)
    letters = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(letters), max_position_embeddings=positions, eos_token_id=1, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    raw = Tokenizer(models.BPE({letter: row for row, letter in enumerate(letters)}, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "answer",
    [
        VALID,
        f"```json\n{VALID}\n```",
        f"Here you are:\n\n{VALID}\nShall I go on? {{yes}}",
        f'<think>{{"edits": []}} or else</think>{VALID}',
        f"{VALID}\n{VALID}",
        json.dumps({"edits": EDITS}),
    ],
)
def test_an_answer_is_the_same_list_of_edits_as_the_rules_give(answer):
    model = chat(answer)
    found = ask(model, f"  {SENTENCE} ")
    assert found == parse_instruction(SENTENCE)
    assert model.tokenizer.seen == PROMPT.format(sentence=SENTENCE)


def test_extraction_mutes_the_rest_and_no_edits_mean_the_whole_recording():
    only = read_reply('{"edits": [{"action": "extract", "text": "a Dog", "gain_db": 3}], "rest_db": null}', "x")
    assert only.gains() == {"a Dog": 3.0} and only.rest == MUTE
    whole = read_reply('{"edits": [], "rest_db": -6}', "x")
    assert whole.gains() == {"everything": -6.0} and whole.rest == -6
    spoken = read_reply('{"edits": [{"action":"keep","text":"dog"},{"action":"remove","text":"everything else"}]}', "x")
    assert spoken.gains() == {"dog": 0.0} and spoken.rest == MUTE


def one(action="gain", text="dog", gain=3, **more):
    return json.dumps({"edits": [{"action": action, "text": text, "gain_db": gain, **more}]})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("", "no JSON with edits"),
        ("I am sorry, I cannot do that.", "no JSON with edits but 'I am sorry"),
        (VALID[:-20], "no JSON with edits"),
        ("{" * 5000, "no JSON with edits"),
        ('{"edits": ' + "[" * 5000, "no JSON with edits"),
        ('{"edits": [{"action": "gain", "text": "dog", "gain_db": NaN}]}', "no JSON with edits"),
        ('{"edits": []}', "no change"),
        ('{"edits": [], "rest_db": 0}', "no change"),
        ('{"edits": [], "rest_db": null}', "nothing would be left"),
        ('{"edits": "remove the dog"}', "no list"),
        (json.dumps({"edits": [json.loads(one())["edits"][0]] * 61}), "no list of at most 60"),
        ('{"edits": ["remove the dog"]}', "is no edit"),
        (one(gain=70), "+70 dB is beyond +-60 dB"),
        ('{"edits": [], "rest_db": -61}', "-61 dB is beyond +-60 dB"),
        ('{"edits": [{"action": "gain", "text": "dog", "gain_db": -1e999}]}', "no number of dB"),
        (one(gain=10**400), "no number of dB"),
        (one(gain="loud"), "no number of dB"),
        (one(gain=True), "no number of dB"),
        (one(gain=None), "no number of dB"),
        (one("reverb"), "'reverb' is no action"),
        (one("keep", gain=4), "keeps 'dog' as it is and gives it a gain"),
        (one("remove", gain=4), "removes 'dog' and gives it a gain"),
        (one("keep", gain=0)[:-1] + ', "rest_db": 0}', "no change"),
        (one(start=3.2), "is no edit"),
        (one()[:-1] + ', "when": "later"}', "'when', which is not part"),
        (one(text=""), "is empty"),
        (one(text="x" * 1001), "1001 characters"),
        (one(text=7), "is no edit"),
        (one(text="it"), "stands for"),
        ('{"edits": [{"action": "remove", "text": "dog"}, {"action": "gain", "text": "Dog", "gain_db": 3}]}', "also"),
        ('{"edits": [{"action": "extract", "text": "dog"}], "rest_db": 0}', "two things about the rest"),
        (one() + one(gain=4), "two lists of edits"),
    ],
)
def test_any_other_answer_is_refused_with_the_reason(answer, words):
    with pytest.raises(ModelError, match="the answer of parrot is refused") as caught:
        ask(chat(answer), SENTENCE)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_sentence_is_not_even_asked():
    for sentence in (" ", "x" * 1001):
        with pytest.raises(UsageError, match="the instruction"):
            ask(chat(VALID), sentence)


def test_edit_announces_runs_and_remembers_what_the_model_read(tmp_path, mixture, separator, capfd, monkeypatch):
    monkeypatch.setattr("flowsep.instruction_model.load_chat_model", lambda name, device: chat(VALID))
    assert main(["edit", str(mixture), "well, the dog", "--llm", "some/chat", "-o", str(tmp_path), "--json"]) == 0
    out, err = capfd.readouterr()
    wanted = "flowsep: understood: remove 'dog'; gain 'rain' (-6 dB); keep 'speech'; the rest: unchanged"
    assert err.splitlines()[0] == wanted
    instruction = json.loads(out)["instruction"]
    assert (instruction["text"], instruction["read_by"]) == ("well, the dog", "some/chat")
    assert (tmp_path / "mix.v2.edit-dog-mute-rain-minus-6-speech-0.wav").is_file()


def test_garbage_of_a_random_model_is_refused_before_any_work(tmp_path, mixture, separator, capfd):
    folder = save_chat_model(tmp_path / "chat")
    capfd.readouterr()
    code, line = failure(capfd, ["edit", mixture, SENTENCE, "--llm", folder, "--device", "cpu"])
    assert code == 4 and "no JSON with edits" in line and not separator.seen


def test_the_same_question_gets_the_same_answer_of_bounded_length(tmp_path):
    model = load_chat_model(save_chat_model(tmp_path / "chat"), "cpu")
    model.model.generation_config.update(do_sample=True, temperature=5.0)  # what a folder asks for is not done
    answers = {model.reply("What is a dog?") for _ in range(2)}
    assert len(answers) == 1 and 0 < len(answers.pop()) <= 512


def test_a_model_that_cannot_read_the_prompt_says_so(tmp_path):
    with pytest.raises(ModelError, match="reads 64 tokens and the prompt has"):
        ask(load_chat_model(save_chat_model(tmp_path / "chat", positions=64), "cpu"), SENTENCE)


def test_folders_that_are_no_chat_model_say_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="no such folder; give a folder with a chat model, or a hub id"):
        load_chat_model(tmp_path / "nothing", "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_chat_model(tmp_path / "empty", "cpu")
    with pytest.raises(ModelError, match="no chat template"):
        load_chat_model(save_chat_model(tmp_path / "plain", template=None), "cpu")
    with pytest.raises(ModelError, match=r"chat template of .* does not work: no sounds"):
        odd = save_chat_model(tmp_path / "odd", template="{{ raise_exception('no sounds') }}")
        load_chat_model(odd, "cpu").reply("x")
    weights = tmp_path / "plain" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ModelError, match="its weights are pickles"):
        load_chat_model(tmp_path / "plain", "cpu")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="not to be had from the hub"):
        load_chat_model("nobody/no-such-model", "cpu")


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    folder = save_chat_model(tmp_path / "chat")
    (folder / "evil.py").write_text("raise SystemExit('it ran')\n")
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": auto}))
    with pytest.raises(ModelError, match="cannot be read"):
        load_chat_model(folder, "cpu")
