"""Which parts, loss and data each stage of `flowsep train` has: vae, flow, vocoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from flowsep.config import ModelConfig, save_config
from flowsep.data.dataset import MixtureDataset
from flowsep.data.manifest import Clip, read_manifest, read_phrasings, select
from flowsep.data.synth import SYNTH_KINDS
from flowsep.errors import InputError, ModelError, UsageError
from flowsep.separator import FlowSep
from flowsep.text import TextEncoder, build_t5, train_tokenizer
from flowsep.training.loop import fit, latest_checkpoint
from flowsep.training.media import MediaLogger, VAEMedia
from flowsep.training.objectives import FlowObjective, VAEObjective, VocoderObjective
from flowsep.unet import build_unet
from vae.model import MelVAE, build_codec, load_codec
from vocoder.model import Vocoder

PHRASINGS = Path(__file__).parents[1] / "data" / "phrasings.csv"


def training_data(config: ModelConfig, data: Path, split: str = "train") -> tuple[list[Clip], MixtureDataset]:
    """Clips of one split of the manifest at `data` and the mixtures drawn from them."""
    clips = select(read_manifest(data), split, config.data.commercial_only)
    if not clips:
        raise InputError(f"{data} has no clips in its {split} split")
    phrasings = read_phrasings(PHRASINGS) if config.data.phrasings else None
    return clips, MixtureDataset(clips, config.data, config.vocoder.mel.sample_rate, config.seed, phrasings)


def prepare_run(config: ModelConfig, run: Path) -> None:
    """Make the run's folder and keep the resolved configuration in it; seed the initial weights."""
    run.mkdir(parents=True, exist_ok=True)
    if latest_checkpoint(run) is None:  # a resumed run's configuration is written once it has proved to fit
        save_config(config, run / "config.yaml")
    torch.manual_seed(config.seed)


def train_vae(
    config: ModelConfig, data: Path, run: Path, max_minutes: float | None = None, quiet: bool = False
) -> Path:
    """Train the mel VAE; writes run/vae with its scale factor (1 / std of clean targets' latents), and returns it."""
    if config.codec.kind != "vae":
        raise UsageError(f"codec.kind is {config.codec.kind!r}, which has nothing to train; set codec.kind=vae")
    prepare_run(config, run)
    _, dataset = training_data(config, data)
    objective = VAEObjective(MelVAE.build(config.codec), config)
    fit(objective, dataset, config.vae_stage, run, config.seed, max_minutes, VAEMedia(objective, dataset), quiet)
    save_config(config, run / "config.yaml")
    objective.cpu()
    with torch.no_grad():
        # One at a time: a batch of whole clips may not fit where training did.
        targets = (dataset[index]["target"][None] for index in range(2**20, 2**20 + 64))
        mels = (objective.front_end.log_mel(objective.front_end.spectrum(target)) for target in targets)
        latents = torch.cat([objective.codec.posterior(mel)[0] for mel in mels])
    objective.codec.autoencoder.register_to_config(scaling_factor=1.0 / float(latents.std()))
    objective.codec.save_pretrained(run / "vae")
    return run / "vae"


def train_vocoder(
    config: ModelConfig, data: Path, run: Path, max_minutes: float | None = None, quiet: bool = False
) -> Path:
    """Train the BigVGAN generator by spectral reconstruction; writes run/vocoder and returns it."""
    prepare_run(config, run)
    _, dataset = training_data(config, data)
    objective = VocoderObjective(Vocoder(config.vocoder), config)
    fit(objective, dataset, config.vocoder_stage, run, config.seed, max_minutes, quiet=quiet)
    save_config(config, run / "config.yaml")
    objective.cpu().vocoder.save_pretrained(run / "vocoder")
    return run / "vocoder"


def tokenizer_captions(dataset: MixtureDataset, captions_csv: Path | None) -> list[str]:
    """Texts for the tokenizer: all queries of the data, and captions such as AudioCaps' where they are at hand."""
    import csv

    texts = [text for options in dataset.captions for text in options]
    texts += [text for kind in SYNTH_KINDS.values() for text in kind.captions]
    if captions_csv is not None:
        with captions_csv.open(newline="", encoding="utf-8") as file:
            texts += [row["caption"] for row in csv.DictReader(file)]
    return texts


def build_text(config: ModelConfig, captions: Callable[[], list[str]], tokenizer_folder: Path) -> TextEncoder:
    """Our own T5 with a tokenizer trained on `captions` (kept in tokenizer_folder), or the hub's frozen encoder."""
    from flowsep.text import load_tokenizer

    if config.text.hub is not None:
        return hub_text_encoder(config)
    # Training a tokenizer twice gives two vocabularies (ties are broken at random in its library): it is kept.
    if not (tokenizer_folder / "tokenizer.json").exists():
        train_tokenizer(captions(), config.text.vocab_size).save_pretrained(tokenizer_folder)
    return TextEncoder(build_t5(config.text), load_tokenizer(tokenizer_folder), config.text)


def hub_text_encoder(config: ModelConfig) -> TextEncoder:
    """The encoder and tokenizer named by config.text.hub; ModelError when the hub cannot be reached."""
    from transformers import AutoTokenizer, T5EncoderModel

    try:
        model = T5EncoderModel.from_pretrained(config.text.hub)
        return TextEncoder(model, AutoTokenizer.from_pretrained(config.text.hub), config.text)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot load the text encoder {config.text.hub}; connect once, or set text.hub=null"
        ) from error


def train_flow(
    config: ModelConfig,
    data: Path,
    run: Path,
    codec: Path | None = None,
    vocoder: Path | None = None,
    captions_csv: Path | None = None,
    tokenizer: Path | None = None,
    max_minutes: float | None = None,
    quiet: bool = False,
) -> Path:
    """Train UNet and, if it is our own, the text encoder; writes run/model, a complete model folder, and returns it.

    `codec` is a folder written by `train_vae`; patches need none. `vocoder` is a saved vocoder to include,
    `tokenizer` the folder of one to use instead of training another on the captions.
    """
    if config.codec.kind == "vae" and codec is None:
        raise UsageError("codec.kind is 'vae': train it first (flowsep train vae) and give its folder with --vae")
    prepare_run(config, run)
    _, dataset = training_data(config, data)
    if tokenizer is not None and not (tokenizer / "tokenizer.json").is_file():
        raise InputError(f"{tokenizer} holds no tokenizer.json; give the tokenizer folder of a model")
    text = build_text(config, lambda: tokenizer_captions(dataset, captions_csv), tokenizer or run / "tokenizer")
    latent_codec = load_codec(codec) if codec else build_codec(config.codec)
    unet = build_unet(config.unet, config.flow.stream_count, latent_codec.latent_channels, config.text.d_model)
    objective = FlowObjective(unet, text, latent_codec, config)
    loaded = Vocoder.from_pretrained(vocoder) if vocoder else None
    separator = FlowSep.of_parts(config, unet, latent_codec, text, loaded)
    media = MediaLogger(separator, dataset)
    step = fit(objective, dataset, config.flow_stage, run, config.seed, max_minutes, media, quiet)
    save_config(config, run / "config.yaml")
    separator.save_pretrained(run / "model", training={"steps": step, "seed": config.seed})
    return run / "model"
