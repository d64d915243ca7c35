"""Our mask networks against golden arrays of the public ones, for `flowsep convert --self-test`.

The arrays are in tests/reference/audiosep, made with synthetic weights; a network is built at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowsep.convert import mask_names as names
from flowsep.convert.parity import Parity, difference
from flowsep.convert.synthetic import synthetic_mask_weight, with_synthetic_weights
from flowsep.masks.lassnet import LassNet
from flowsep.masks.resunet import AUDIOSEP, DCASE, ResUNet30, ResUNetConfig
from flowsep.masks.spectrum import spectrum_of

LIMIT = 1e-5  # of waveforms, float32 on the CPU
TAIL = 192000  # where the last of the upstream chunks of case 3 starts; what it writes begins 32000 samples later
EDGE = 32000


def build_resunet(config: ResUNetConfig) -> ResUNet30:
    """ResUNet30 with synthetic weights."""
    return with_synthetic_weights(lambda: ResUNet30(config), names.resunet_name, synthetic_mask_weight)


def golden(folder: Path, name: str) -> dict[str, Tensor]:
    """The arrays of a golden file; the mixture as float32 (B, T)."""
    with np.load(folder / "audiosep" / f"{name}.npz") as stored:
        arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
    arrays["mixture"] = (arrays.pop("mixture_int16").float() / 32768).reshape(len(arrays["condition"]), -1)
    return arrays


@torch.inference_mode()
def check_resunet(folder: Path) -> list[Parity]:
    """AudioSep's network on one clip, on a batch, and on a long clip, whole and the last of the upstream chunks."""
    network = build_resunet(AUDIOSEP)
    found = []
    for case in ("resunet30_32k_case1", "resunet30_32k_case2_batch"):
        arrays = golden(folder, case)
        waveform = network(arrays["mixture"], arrays["condition"])
        found.append(difference(f"AudioSep, {case[14:19]}", waveform, arrays["waveform"][:, 0], LIMIT))
    arrays = golden(folder, "resunet30_32k_case3_chunk")
    index, whole_golden, chunk_golden = (
        arrays[name].reshape(-1) for name in ("sample_index", "full_waveform", "chunk_waveform")
    )
    whole = network(arrays["mixture"], arrays["condition"])[0]
    found.append(difference("AudioSep, case3 in one pass", whole[index], whole_golden, LIMIT))
    chunk = network(arrays["mixture"][:, TAIL:], arrays["condition"])[0]
    late = index >= TAIL + EDGE
    found.append(difference("AudioSep, case3 last chunk", chunk[index[late] - TAIL], chunk_golden[late], LIMIT))
    return found


@torch.inference_mode()
def check_resunet_16k(folder: Path) -> list[Parity]:
    """The DCASE baseline's network: three maps of logits and the waveform."""
    network, arrays = build_resunet(DCASE), golden(folder, "resunet30_16k_case1")
    spectrum = spectrum_of(arrays["mixture"], DCASE.n_fft, DCASE.hop_length)
    logits = network.logits(spectrum.abs().clamp(min=1e-5), arrays["condition"])
    part = arrays["logits_t100_116_f0_128"]
    waveform = network(arrays["mixture"], arrays["condition"])
    return [
        difference("DCASE baseline, logits", logits[0, :, 100:116, :128], part.reshape(3, 16, 128), 2e-5),
        difference("DCASE baseline", waveform, arrays["waveform"][:, 0], LIMIT),
    ]


@torch.inference_mode()
def check_lassnet(folder: Path) -> list[Parity]:
    """LASS-Net's mask and waveform."""
    network = with_synthetic_weights(LassNet, names.lassnet_name, synthetic_mask_weight)
    arrays, config = golden(folder, "lassnet_unet_case1"), network.config
    spectrum = spectrum_of(arrays["mixture"], config.n_fft, config.hop_length)
    mask = network.mask(spectrum.abs(), arrays["condition"])
    waveform = network(arrays["mixture"], arrays["condition"])
    return [
        difference("LASS-Net, mask", mask[0].T, arrays["mask"], LIMIT),
        difference("LASS-Net", waveform[0], arrays["waveform"].reshape(-1), LIMIT),
    ]
