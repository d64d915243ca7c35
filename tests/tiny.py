"""Two-layer models with real components, built in a second: what the tests run instead of weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from flowsep.checkpoint import separator_class
from flowsep.config import ModelConfig, SamplingConfig, StageConfig
from flowsep.data.dataset import DataConfig
from flowsep.diffusion.process import DiffusionConfig
from flowsep.flow.path import FlowConfig
from flowsep.separator import LatentSeparator
from flowsep.text import TextConfig, TextEncoder, build_t5, train_tokenizer
from flowsep.unet import UNetConfig, build_unet
from vae.model import CodecConfig, build_codec
from vocoder.model import Vocoder, VocoderConfig

TEXT = TextConfig(
    hub=None, vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_to_max=False, dropout=0.0
)
UNET = UNetConfig(
    channels=(16, 32), layers=1, attention=(False, True), head_width=16, groups=8, pooled_text=True, out_channels=None
)
STAGE = StageConfig(
    steps=6, batch_size=2, warmup=2, learning_rate=1e-3, checkpoint_steps=3, log_steps=1, media_steps=100
)
VOCODER = VocoderConfig(upsample_initial_channel=32, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),))

# FlowSep's own setting at a small size, and the shipped model's.
PAPER = ModelConfig(
    name="tiny-paper",
    codec=CodecConfig(channels=(8, 8, 16), layers=1, latent_channels=4, groups=4, scaling_factor=0.7),
    text=TEXT,
    unet=replace(UNET, double_attention=True),
    vocoder=VOCODER,
    sampling=SamplingConfig(steps=2, window_frames=128, frame_multiple=128),
    data=DataConfig(crop_seconds=0.64),
    text_stage=STAGE,
    vae_stage=STAGE,
    flow_stage=STAGE,
)
MIXTURE = replace(
    PAPER,
    name="tiny-mixture",
    codec=CodecConfig(kind="patches"),
    unet=replace(UNET, double_attention=False),
    flow=FlowConfig(start="mixture", predict="target", streams="target+residual", sigma=0.3, sigma_min=0.0),
    sampling=SamplingConfig(steps=1, render="mixture", window_frames=256, frame_multiple=32),
)
# The baseline on the same parts.
DIFFUSION = replace(
    MIXTURE,
    name="tiny-diffusion",
    method="diffusion",
    diffusion=DiffusionConfig(streams="target+residual"),
    sampling=replace(MIXTURE.sampling, steps=3, solver="ddim"),
    diffusion_stage=STAGE,
)


def tiny_separator(config: ModelConfig = MIXTURE, seed: int = 0) -> LatentSeparator:
    """A whole separator of this configuration with random weights."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(
        ["a dog barking", "rain falling on a roof", "a siren wails", "someone is speaking"] * 2, 60
    )
    codec = build_codec(config.codec)
    text = TextEncoder(build_t5(config.text), tokenizer, config.text)
    unet = build_unet(config.unet, config.process.stream_count, codec.latent_channels, config.text.d_model)
    built = separator_class(config.method).of_parts(config, unet, codec, text, Vocoder(config.vocoder))
    return built.eval().requires_grad_(False)


def write_clips(folder: Path, seconds: float = 1.5) -> Path:
    """A folder of clips named by class: two tones and two noises, three recordings each."""
    rng = np.random.default_rng(0)
    time = np.arange(int(seconds * 16000)) / 16000
    for number in range(3):
        sounds = {
            "low_hum": np.sin(2 * np.pi * (100 + 10 * number) * time),
            "high_whistle": np.sin(2 * np.pi * (2500 + 50 * number) * time),
            "hiss": rng.standard_normal(len(time)) * 0.2,
            "clicks": (rng.random(len(time)) < 0.002).astype(float),
        }
        for label, audio in sounds.items():
            (folder / label).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / label / f"{number}.wav", 0.7 * audio / np.abs(audio).max(), 16000)
    return folder
