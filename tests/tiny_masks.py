"""Mask separators of a few thousand parameters, with text encoders built from tiny random configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from flowsep.checkpoint import write_json
from flowsep.convert.listeners import CLAP_FEATURES
from flowsep.convert.masks import build_bert, build_clap
from flowsep.masks.cnn14 import Cnn14, Cnn14Config
from flowsep.masks.folder import WEIGHTS, contiguous
from flowsep.masks.lassnet import LassNet, LassNetConfig
from flowsep.masks.query import BertQuery, ClapQuery, ClassQuery, ClipQuery, Query, QueryConfig, T5Query
from flowsep.masks.resunet import ResUNet30, ResUNetConfig
from flowsep.masks.separator import MaskSeparator
from flowsep.references import AUDIO
from flowsep.text import TextEncoder, build_t5
from tests.tiny import TEXT

CLAP = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "projection_dim": 12,
}
BERT = {
    "vocab_size": 64,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}
CLAP_AUDIO = {
    "spec_size": 256,
    "num_mel_bins": 64,
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "projection_dim": 12,
    "depths": [1, 2],
    "num_attention_heads": [2, 4],
    "num_hidden_layers": 2,
    "window_size": 4,
    "patch_size": 4,
    "patch_stride": [4, 4],
}
CNN14 = Cnn14Config("embedding", (2, 4, 4), 12, 4)
RESUNET = ResUNetConfig(32000, 256, 64, 12, (4, 8, 8))
LASSNET = LassNetConfig(32000, 256, 128, 12, (4, 8, 8))
ROBERTA_TOKENS, BERT_TOKENS = ("<s>", "<pad>", "</s>", "<unk>"), ("[CLS]", "[PAD]", "[SEP]", "[UNK]")
LABELS = ["Speech", "Dog", "Rain", "Bell"]
WORDS = ["a", "dog", "barking", "rain", "falling", "siren"]


def parameter_count(modules: Sequence[nn.Module]) -> int:
    """Numbers that training moves, or once moved, in all modules together."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def tokenizer(special: tuple[str, ...]):
    """A word-level tokenizer with the special tokens of RoBERTa or BERT, unknown words included."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    start, pad, end, unknown = special
    vocabulary = {word: row for row, word in enumerate([*special, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 0), (end, 2)]
    )
    names = {"cls_token": start, "pad_token": pad, "sep_token": end, "unk_token": unknown}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def clap_query() -> ClapQuery:
    return ClapQuery(build_clap(CLAP).eval(), tokenizer(ROBERTA_TOKENS), QueryConfig("clap", "x/y", 60))


def bert_query() -> BertQuery:
    made = tokenizer(BERT_TOKENS)
    return BertQuery(build_bert(BERT).eval(), nn.Linear(12, 12), made, QueryConfig("bert", "x/y", 60))


def t5_query() -> T5Query:
    from flowsep.text import train_tokenizer

    trained = train_tokenizer(["a dog barking", "rain falling on a roof"] * 2, 60)
    return T5Query(TextEncoder(build_t5(TEXT), trained, TEXT))


def query_of(kind: str) -> Query:
    """A query encoder of each kind; all but t5 (16) and classes (4) give vectors of 12."""
    made = {"clap": clap_query, "bert": bert_query, "t5": t5_query}
    if kind in made:
        return made[kind]()
    return ClassQuery(LABELS) if kind == "classes" else ClipQuery(12)


def tiny_masker(kind: str = "clap", network: str = "resunet", seed: int = 0, window: float = 1.0) -> MaskSeparator:
    """A whole mask separator at 32 kHz with random weights and uneven batch statistics."""
    torch.manual_seed(seed)
    query = query_of(kind)
    sizes = {"condition_size": query.size}
    if network == "lassnet":
        net: nn.Module = LassNet(LassNetConfig(**{**vars(LASSNET), **sizes}))
    else:
        net = ResUNet30(ResUNetConfig(**{**vars(RESUNET), **sizes}))
    uneven(net)
    return MaskSeparator(net, query, window, f"tiny-{kind}").eval().requires_grad_(False)


def uneven(net: nn.Module) -> None:
    """Give batch norms statistics that matter."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def loud_weights(module: nn.Module) -> None:
    """Larger weights than a network is initialised with: all clips would sound alike to it."""
    for weight in module.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, 0, 2 / weight[0].numel() ** 0.5)
    uneven(module)


def tiny_cnn14(output: str = "embedding") -> Cnn14:
    torch.manual_seed(2)
    network = Cnn14(replace(CNN14, output=output))
    loud_weights(network)
    network.bn0.running_mean.fill_(-30)  # dB
    network.bn0.running_var.fill_(400)
    return network.eval()


def tiny_clap_audio():
    """CLAP's audio branch with random weights."""
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection

    torch.manual_seed(3)
    model = ClapAudioModelWithProjection(ClapAudioConfig(**CLAP_AUDIO))
    loud_weights(model)
    return model.eval()


def hearing_folder(folder: Path, kind: str, seed: int = 0) -> Path:
    """A folder of a tiny separator that can be asked by reference: of clap, classes or clips."""
    tiny_masker(kind, seed=seed).save_pretrained(folder)
    if kind == "clap":
        from transformers import ClapFeatureExtractor

        tiny_clap_audio().save_pretrained(folder / AUDIO)
        ClapFeatureExtractor(**CLAP_FEATURES).save_pretrained(folder / AUDIO)
        return folder
    network = tiny_cnn14("probabilities" if kind == "classes" else "embedding")
    write_json(folder / AUDIO / "config.json", {"_class_name": "Cnn14", **asdict(network.config)})
    save_file(contiguous(network), folder / AUDIO / WEIGHTS)
    return folder
