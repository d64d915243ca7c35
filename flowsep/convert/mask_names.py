"""Where the published checkpoints of mask separators keep each tensor of ours: pure name rules.

As in `flowsep.convert.names` the rules go from our names to the official ones.
"""

from __future__ import annotations

import re

SEPARATOR = "ss_model."  # Lightning files of AudioSep, the DCASE baseline and USS
CLAP = "query_encoder.model."
CLAP_TEXT = f"{CLAP}text_branch."
CLAP_AUDIO = f"{CLAP}audio_branch."
TAGGER = "query_net.base."  # USS's Cnn14
LASSNET_TEXT = "text_embedder.bert_layer."
LASSNET_LINEAR = "text_embedder.linear_layer.0."
REPLICA = "module."  # of torch's DataParallel

_PARTS = {"norm": "bn1", "up": "conv1", "norm1": "bn1", "norm2": "bn2"}
_SHIFTS = {"shift": "beta1", "shift1": "beta1", "shift2": "beta2"}
_LASSNET_PARTS = {**_PARTS, "shift1": "film1.linear", "shift2": "film2.linear", "shift_shortcut": "film_res.linear"}
_CLAP_AUDIO_PARTS = {  # in this order: the end of one name is another
    "batch_norm.": "bn0.",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.self.": "attn.",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_RESUNET_ENDS = {"normalise": "bn0", "enter": "pre_conv", "leave": "after_conv"}


def resunet_name(name: str) -> str:
    """Official name of a tensor of ResUNet30, without the prefix that a whole system puts before it.

    decoder.1.block.shift2.weight -> film.decoder_block2->conv_block2->beta2.weight
    """
    place, *rest = name.split(".")
    if place in _RESUNET_ENDS:
        return ".".join(["base", _RESUNET_ENDS[place], *rest])
    if place == "middle":
        path = ["conv_block7a", "conv_block1"]
    else:
        path = [f"{place}_block{int(rest.pop(0)) + 1}"]
        if place == "encoder":
            path.append("conv_block1")
        elif rest[0] == "block":
            path.append("conv_block2")
            rest.pop(0)
    part, *leaf = rest
    if part in _SHIFTS:
        return ".".join(["film." + "->".join([*path, _SHIFTS[part]]), *leaf])
    return ".".join(["base", *path, _PARTS.get(part, part), *leaf])


def lassnet_name(name: str) -> str:
    """Official name of a tensor of LASS-Net's U-Net.

    decoder.1.blocks.0.shift2.2.weight -> UNet.decoder_block2.conv_block2.film2.linear.2.weight
    """
    place, *rest = name.split(".")
    if place == "leave":
        return ".".join(["UNet.after_conv2", *rest])
    if place in ("last", "middle"):
        path = {"last": "after_conv_block1", "middle": "conv_block7"}[place]
    else:
        path = f"{place}_block{int(rest.pop(0)) + 1}"
        if rest[0] == "blocks":
            first = 1 if place == "encoder" else 2
            path += f".conv_block{first + int(rest[1])}"
            rest = rest[2:]
    part, *leaf = rest
    return ".".join(["UNet", path, _LASSNET_PARTS.get(part, part), *leaf])


def clap_text_name(name: str) -> str:
    """LAION-CLAP's name, in an AudioSep checkpoint, of a tensor of transformers' ClapTextModelWithProjection."""
    if name.startswith("text_projection."):
        _, layer, leaf = name.split(".")
        return f"{CLAP}text_projection.{2 * (int(layer.removeprefix('linear')) - 1)}.{leaf}"
    return CLAP_TEXT + name.removeprefix("text_model.")


def clap_audio_name(name: str) -> str:
    """LAION-CLAP's name, in an AudioSep checkpoint, of a tensor of transformers' ClapAudioModelWithProjection.

    Query, key and value are one tensor there; `flowsep.convert.listeners` cuts it and names the parts.
    """
    if name.startswith("audio_projection."):
        _, layer, leaf = name.split(".")
        return f"{CLAP}audio_projection.{2 * (int(layer.removeprefix('linear')) - 1)}.{leaf}"
    name = name.removeprefix("audio_model.audio_encoder.")
    for ours, theirs in _CLAP_AUDIO_PARTS.items():
        name = name.replace(ours, theirs)
    return CLAP_AUDIO + name


def cnn14_name(name: str) -> str:
    """PANNs' name, in a USS checkpoint, of a tensor of our Cnn14: blocks.1.conv1.weight -> conv_block2.conv1.weight."""
    if name.startswith("blocks."):
        _, block, rest = name.split(".", 2)
        return f"{TAGGER}conv_block{int(block) + 1}.{rest}"
    return TAGGER + name


def our_cnn14_name(name: str) -> str:
    """The inverse of `cnn14_name`."""
    name = name.removeprefix(TAGGER)
    return re.sub(r"^conv_block(\d+)", lambda found: f"blocks.{int(found[1]) - 1}", name)


def bert_name(name: str) -> str:
    """LASS-Net's name of a tensor of transformers' BertModel."""
    return LASSNET_TEXT + name


def is_known(name: str) -> bool:
    """Whether a tensor of a checkpoint is known and not needed.

    Fixed DFT matrices, the decoder's second batch norm and shift (never used, here or upstream), heads, filters and
    temperatures of CLAP and of USS's tagger, pooler and position counters. The audio half of CLAP and the tagger are
    needed for references only.
    """
    name = name.removeprefix(REPLICA).removeprefix(SEPARATOR)
    if name.startswith(("base.stft.", "base.istft.", TAGGER)):
        return True
    block, _, rest = name.removeprefix("base.").removeprefix("film.").partition("_block")
    if block == "decoder" and rest[1:].startswith((".bn2.", "->beta2.")):
        return True
    if name.startswith(CLAP) and not name.startswith((CLAP_TEXT, f"{CLAP}text_projection.")):
        return True
    return name.endswith(("embeddings.position_ids", "embeddings.token_type_ids")) or name.startswith(
        f"{LASSNET_TEXT}pooler."
    )
