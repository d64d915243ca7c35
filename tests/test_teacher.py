"""Meanings from a sentence encoder, for the text stage."""

import os
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from flowsep.data.manifest import PHRASINGS
from flowsep.errors import InputError
from flowsep.training.teacher import meanings_of, teacher_words
from flowsep.training.wordings import UNHEARD, TextLossConfig, TextObjective, WordingDataset, nearest_classes
from tests.tiny import tiny_separator

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "dog", "barking", "rain", "a", "##s", "falling"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A random BERT of ten words, saved like any sentence encoder."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    raw = Tokenizer(models.WordPiece({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def test_a_meaning_is_the_mean_state_of_the_text_alone(teacher):
    found = meanings_of(["a dog barking", "rain", "rain"], teacher)
    assert found.vectors.shape == (2, 16)  # distinct texts
    model = BertModel.from_pretrained(teacher).eval()
    with torch.no_grad():
        mean = model(torch.tensor([[1, 7, 4, 5, 2]])).last_hidden_state.mean(1)[0]
    torch.testing.assert_close(found.of("a dog barking"), mean / mean.norm(), rtol=0, atol=1e-3)  # kept in half


def test_kept_meanings_are_not_computed_again_and_new_ones_join_them(teacher, tmp_path):
    kept = tmp_path / "meanings.safetensors"
    first = meanings_of(["rain", "a dog"], teacher, kept)
    again = meanings_of(["a dog", "rain"], tmp_path / "no such teacher", kept)
    assert torch.equal(first.of("rain"), again.of("rain"))
    more = meanings_of(["rain", "barking"], teacher, kept)
    assert torch.equal(more.of("rain"), first.of("rain"))
    torch.testing.assert_close(more.of("barking"), meanings_of(["barking"], teacher).of("barking"))


def test_the_words_of_a_teacher_are_whole_ones(teacher):
    assert teacher_words(teacher) == ["barking", "dog", "falling", "rain"]


def test_a_folder_without_an_encoder_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="holds no sentence encoder"):
        teacher_words(tmp_path)


def test_the_text_stage_draws_words_with_meanings_and_comes_nearer_to_the_teacher(teacher):
    words = teacher_words(teacher)
    meanings = meanings_of([*words, "a dog barking", "rain falling"], teacher)
    config = TextLossConfig(word_share=0.5)
    wordings = {"dog": ["a dog barking"], "rain": ["rain falling"]}
    dataset = WordingDataset(wordings, {}, [], config, 0, meanings, words)
    items = [dataset[index] for index in range(64)]
    single = sum(item["text"] in words for item in items)
    assert 16 < single < 48 and all(int(item["label"]) == -100 for item in items if item["text"] in words)
    torch.manual_seed(0)
    text = tiny_separator().text
    objective = TextObjective(text.requires_grad_(True), 2, 2, config, meanings.width)
    optimiser = torch.optim.Adam(objective.parameters(), 3e-3)
    distances = []
    for _ in range(60):
        batch = {
            "text": [item["text"] for item in items],
            **{key: torch.stack([item[key] for item in items]) for key in ("label", "family", "meaning")},
        }
        loss, parts = objective(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        distances.append(float(parts["teacher"].detach()))
    assert distances[-1] < 0.5 * distances[0]
    nearest = nearest_classes(objective.eval(), dataset, ["rain falling"], count=2)["rain falling"]
    assert list(nearest) == ["rain", "dog"] and nearest["rain"] > nearest["dog"]


def test_the_unheard_words_are_in_no_wording_and_no_caption():
    texts = [PHRASINGS.read_text(encoding="utf-8")]
    if data := os.environ.get("FLOWSEP_DATA"):
        texts += [(Path(data) / name).read_text() for name in ("manifest.csv", "captions/audiocaps_train.csv")]
    known = set(re.findall(r"[a-z]+", "\n".join(texts).lower()))
    assert len(UNHEARD) == 30 and not {form for word in UNHEARD for form in (word, f"{word}s")} & known
