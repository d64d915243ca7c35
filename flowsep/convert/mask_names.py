"""Where the published checkpoints of mask separators keep each tensor of ours: pure name rules.

As in `flowsep.convert.names` the rules go from our names to the official ones.
"""

from __future__ import annotations

SEPARATOR = "ss_model."  # Lightning files of AudioSep, the DCASE baseline and USS
CLAP = "query_encoder.model."
CLAP_TEXT = f"{CLAP}text_branch."
TAGGER = "query_net.base."  # USS's Cnn14
LASSNET_TEXT = "text_embedder.bert_layer."
LASSNET_LINEAR = "text_embedder.linear_layer.0."
REPLICA = "module."  # of torch's DataParallel

_PARTS = {"norm": "bn1", "up": "conv1", "norm1": "bn1", "norm2": "bn2"}
_SHIFTS = {"shift": "beta1", "shift1": "beta1", "shift2": "beta2"}
_LASSNET_PARTS = {**_PARTS, "shift1": "film1.linear", "shift2": "film2.linear", "shift_shortcut": "film_res.linear"}
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


def bert_name(name: str) -> str:
    """LASS-Net's name of a tensor of transformers' BertModel."""
    return LASSNET_TEXT + name


def is_known(name: str) -> bool:
    """Whether a tensor of a checkpoint is known and not needed.

    Fixed DFT matrices, the decoder's second batch norm and shift (never used, here or upstream), the audio half of CLAP
    and its temperatures, USS's tagger, pooler and position counters.
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
