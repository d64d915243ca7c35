"""Which parts, loss and data each stage of `flowsep train` has: text, vae, flow, diffusion, vocoder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from flowsep.checkpoint import (
    SHIPPED,
    load_separator,
    load_text,
    load_vocoder,
    save_text,
    separator_class,
    write_json,
)
from flowsep.config import ModelConfig, load_config, save_config
from flowsep.data.dataset import MixtureDataset
from flowsep.data.doubtful import without_listed
from flowsep.data.manifest import (
    PHRASINGS,
    Clip,
    read_background,
    read_manifest,
    read_phrasings,
    select,
    templated,
)
from flowsep.data.synth import KINDS, SYNTH_KINDS
from flowsep.errors import InputError, ModelError, UsageError
from flowsep.separator import LatentSeparator
from flowsep.text import TextEncoder, build_t5, load_tokenizer, train_tokenizer
from flowsep.training.latents import latent_dataset
from flowsep.training.loop import fit, latest_checkpoint, training_device
from flowsep.training.media import MediaLogger, VAEMedia
from flowsep.training.objectives import VAEObjective, VocoderObjective, latent_objective
from flowsep.training.rereading import reread
from flowsep.training.teacher import meanings_of, teacher_words
from flowsep.training.wordings import UNHEARD, TextObjective, WordingDataset, nearest_classes, wording_accuracy
from flowsep.unet import build_unet
from vae.model import MelVAE, build_codec, load_codec
from vocoder.model import Vocoder


def training_data(config: ModelConfig, data: Path, background: Path | None = None) -> tuple[list[Clip], MixtureDataset]:
    """Clips of the train split of the manifest at `data`, less data.exclude, and the mixtures drawn from them.

    `background` is a folder of recordings to mix them with, or a manifest whose classes are practised beside theirs.
    """
    more, labelled = read_background(background) if background else ([], False)
    clips, own = training_clips(config, data, more if labelled else ())
    phrasings = None
    if config.data.phrasings:
        known = read_phrasings(PHRASINGS)
        phrasings = {label: templated(label) for label in own - known.keys()} | known
    rate, recordings = config.vocoder.mel.sample_rate, [] if labelled else more
    return clips, MixtureDataset(clips, config.data, rate, config.seed, phrasings, recordings, own)


def training_clips(config: ModelConfig, data: Path, beside: Sequence[Clip] = ()) -> tuple[list[Clip], set[str]]:
    """Clips of the train split of the manifest at `data` and `beside` it, and the classes of `data` among them.

    Without those of data.exclude and, where data.commercial_only says so, non-commercial ones. InputError where `data`
    has none left.
    """
    listed = read_manifest(data)
    clips = select(taught([*listed, *beside], config), "train", config.data.commercial_only)
    own = {clip.label for clip in listed} & {clip.label for clip in clips}
    if not own:
        total, free = (len(select(listed, "train", commercial_only)) for commercial_only in (False, True))
        raise InputError(
            f"{data} has no clip in its train split that may be used: {total} are in the split, {free} of them "
            "commercial (data.commercial_only), less data.exclude and data.exclude_clips"
        )
    return clips, own


def taught(clips: list[Clip], config: ModelConfig) -> list[Clip]:
    """The clips of classes that are not in data.exclude, less those for training that data.exclude_clips lists.

    UsageError where data.exclude names a class that there is not.
    """
    known = {clip.label for clip in clips} | SYNTH_KINDS.keys() | read_phrasings(PHRASINGS).keys()
    if unknown := sorted(set(config.data.exclude) - known):
        raise UsageError(
            f"no clip and no wording has the class {', '.join(unknown)} of data.exclude; check the spelling"
        )
    return [clip for clip in without_listed(clips, config.data.exclude_clips) if clip.label not in config.data.exclude]


def wordings_for(config: ModelConfig, split: str) -> dict[str, tuple[str, ...]]:
    """The phrasings of a split, `train` or `held_out`, less data.exclude."""
    return {
        label: texts for label, texts in read_phrasings(PHRASINGS, split).items() if label not in config.data.exclude
    }


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
    config: ModelConfig,
    data: Path,
    run: Path,
    start: Path | None = None,
    max_minutes: float | None = None,
    quiet: bool = False,
) -> Path:
    """Train the BigVGAN generator; writes run/vocoder and returns it.

    By spectral reconstruction, and where vocoder_loss.adversarial has a weight against discriminators, which are not
    kept. `start` is a model, its folder or the name of a shipped one, whose vocoder is trained on, or what this wrote.
    """
    prepare_run(config, run)
    vocoder = Vocoder(config.vocoder)
    if start is not None:
        copy_weights(vocoder, trained_vocoder(start), f"the vocoder of {start}")
    _, dataset = training_data(config, data)
    objective = VocoderObjective(vocoder, config)
    fit(objective, dataset, config.vocoder_stage, run, config.seed, max_minutes, quiet=quiet)
    save_config(config, run / "config.yaml")
    objective.cpu().vocoder.save_pretrained(run / "vocoder")
    return run / "vocoder"


def trained_vocoder(start: Path) -> Vocoder:
    """The vocoder of a model, or the one that `train_vocoder` wrote; ModelError where the model has none."""
    if (start / "config.json").is_file():
        return load_vocoder(start)
    vocoder = load_separator(start, "cpu").vocoder
    if vocoder is None:
        raise ModelError(f"{start} has no vocoder to go on from; give a model that has one")
    return vocoder


def copy_weights(network: nn.Module, trained: nn.Module, what: str) -> None:
    """The weights of `trained` into `network`; ModelError, which says of `what`, where the two differ in shape."""
    try:
        network.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise ModelError(f"{what} does not fit this configuration; use the one it was trained with") from error


def train_text(
    config: ModelConfig,
    data: Path,
    run: Path,
    captions_csv: Path | None = None,
    tokenizer: Path | None = None,
    teacher: Path | None = None,
    max_minutes: float | None = None,
    quiet: bool = False,
) -> Path:
    """Train our own text encoder on wordings of sounds; writes run/text for the UNet's stage, and returns it.

    Learns from the manifest's captions (train split), the phrasings of 224 classes and the captions of a CSV.
    `tokenizer` is the folder of one to use instead of training one: its library breaks ties at random. `teacher` is the
    folder of a sentence encoder to learn meanings from, those of single words too.
    """
    if config.text.hub is not None:
        raise UsageError(f"text.hub is {config.text.hub!r}, which needs no training; set text.hub=null")
    prepare_run(config, run)
    wordings, families = class_wordings(config, data)
    free = read_captions(captions_csv) if captions_csv else []
    folder = tokenizer or run / "tokenizer"
    if tokenizer is not None and not (tokenizer / "tokenizer.json").is_file():
        raise InputError(f"{tokenizer} holds no tokenizer.json; give the tokenizer folder of a model")
    words = teacher_words(teacher) if teacher else []
    texts = [text for options in wordings.values() for text in options] + free + words
    if not (folder / "tokenizer.json").exists():
        train_tokenizer(texts, config.text.vocab_size).save_pretrained(folder)
    meanings = meanings_of(texts, teacher, run / "meanings.safetensors") if teacher else None
    text = TextEncoder(build_t5(config.text), load_tokenizer(folder), config.text)
    dataset = WordingDataset(wordings, families, free, config.text_loss, config.seed, meanings, words)
    width = meanings.width if meanings else None
    objective = TextObjective(text, len(dataset.labels), len(dataset.families), config.text_loss, width)
    fit(objective, dataset, config.text_stage, run, config.seed, max_minutes, quiet=quiet)
    save_config(config, run / "config.yaml")
    # In half precision, as it will ship: what trains on it then reads the very states that a user's queries give.
    objective.cpu().text.model.half()
    save_text(objective.text, run / "text")
    objective.text.model.float()
    if config.data.phrasings:
        unseen = wording_accuracy(objective, dataset, wordings_for(config, "held_out"))
        write_json(run / "text" / "held_out.json", unseen)
        write_json(run / "text" / "nearest.json", nearest_classes(objective, dataset, UNHEARD))
    return run / "text"


def class_wordings(config: ModelConfig, data: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Wordings and family of every class of manifest, phrasings and synthesised sounds, less data.exclude."""
    clips = taught(read_manifest(data), config)
    families = {kind: sound.family for kind, sound in KINDS.items()} | {clip.label: clip.family for clip in clips}
    phrasings = wordings_for(config, "train") if config.data.phrasings else {}
    wordings: dict[str, list[str]] = {label: list(texts) for label, texts in phrasings.items()}
    for clip in select(clips, "train", config.data.commercial_only):
        wordings.setdefault(clip.label, []).extend(clip.captions)
    for kind, sound in SYNTH_KINDS.items():
        if kind not in config.data.exclude:
            wordings.setdefault(kind, []).extend(sound.captions)
    return wordings, families


def known_texts(config: ModelConfig, data: Path) -> list[str]:
    """Every wording of `class_wordings` once."""
    return sorted({text for texts in class_wordings(config, data)[0].values() for text in texts})


def read_captions(path: Path) -> list[str]:
    """The caption column of a CSV file; InputError where there is none."""
    import csv

    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [row["caption"] for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"cannot read captions from {path}; give a CSV file with a caption column") from error


def text_encoder_of(config: ModelConfig, folder: Path | None) -> TextEncoder:
    """The encoder that config.text.hub names; where it names none, our own of `folder`, a model or a text stage's."""
    return own_text_encoder(config, folder) if config.text.hub is None else hub_text_encoder(config)


def own_text_encoder(config: ModelConfig, folder: Path | None) -> TextEncoder:
    """The encoder written by `train_text`, or the one of a model: its folder, or the name of a shipped one."""
    if folder is None:
        raise UsageError("text.hub is null: train the text encoder first (flowsep train text) and give --text FOLDER")
    for place in (folder, SHIPPED / folder):
        if (place / "text_encoder").is_dir() and (place / "tokenizer").is_dir():
            text = load_text(place, asdict(config.text))
            if text.model.config.d_model != config.text.d_model:
                raise ModelError(f"{folder} is {text.model.config.d_model} wide, text.d_model {config.text.d_model}")
            return text
    raise InputError(f"{folder} lacks text_encoder/ or tokenizer/; give what `flowsep train text` wrote, or a model")


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


def refuse_untrainable(config: ModelConfig, method: str, codec: Path | None) -> None:
    """UsageError, with what to do, for a configuration of another method, without its VAE, or at odds with itself."""
    if config.method != method:
        raise UsageError(
            f"the configuration {config.name!r} has method: {config.method}; use flowsep train {config.method}"
        )
    if config.codec.kind == "vae" and codec is None:
        raise UsageError("codec.kind is 'vae': train it first (flowsep train vae) and give its folder with --vae")
    if config.data.pool and config.unet_loss.needs_waveforms:
        raise UsageError(
            "data.pool keeps latents, and the losses mel, mask and snr need waveforms; set one or the other"
        )


def train_unet(
    method: str,
    config: ModelConfig,
    data: Path,
    run: Path,
    codec: Path | None = None,
    vocoder: Path | None = None,
    text: Path | None = None,
    start: Path | None = None,
    max_minutes: float | None = None,
    quiet: bool = False,
    background: Path | None = None,
) -> Path:
    """Train the UNet by `method`, config's own; writes run/model, a complete model folder, and returns it.

    `codec` is a folder written by `train_vae`; patches need none. `text` is one written by `train_text`, or a model
    folder; it is needed unless config.text.hub names an encoder. `vocoder` is a saved vocoder to include. `start` is
    a model, its folder or the name of a shipped one, whose text encoder, vocoder and (of the same process) mask
    exponent are kept and whose UNet is trained on. With a `text` of its own beside it the UNet first learns to read
    that one (`reread`). `background` is as in `training_data`.
    """
    refuse_untrainable(config, method, codec)
    refuse_other_method(config, run)
    prepare_run(config, run)
    _, dataset = training_data(config, data, background=background)
    encoder = text_encoder_of(config, text or start)
    latent_codec = load_codec(codec) if codec else build_codec(config.codec)
    unet = build_unet(config.unet, config.process.stream_count, latent_codec.latent_channels, config.text.d_model)
    trained = load_separator(start, "cpu") if start is not None else None
    if trained is not None:
        copy_unet(unet, trained, config, str(start))
        if text is not None and config.text.hub is None and latest_checkpoint(run) is None:
            reread(unet, trained.text, encoder, known_texts(config, data))
    objective = latent_objective(unet, encoder, latent_codec, config)
    loaded = load_vocoder(vocoder) if vocoder else None
    separator = separator_class(config.method).of_parts(config, unet, latent_codec, encoder, loaded)
    if trained is not None:
        separator.vocoder = loaded or trained.vocoder
        kept = replace(config.process, mask_exponent=trained.process.mask_exponent)
        if kept == trained.process:  # the same flow, rendered otherwise: as its owner chose
            separator.process = kept
    media = MediaLogger(separator, dataset)
    items = dataset
    if config.data.pool:
        encoder.capacity = None  # the captions of a pool are few
        objective.to(training_device())
        items = latent_dataset(config, codec, dataset, objective.latents, run, quiet)
    step = fit(objective, items, config.unet_stage, run, config.seed, max_minutes, media, quiet)
    save_config(config, run / "config.yaml")
    separator.save_pretrained(run / "model", training={"steps": step, "seed": config.seed})
    return run / "model"


train_flow = partial(train_unet, "flow")
train_diffusion = partial(train_unet, "diffusion")


def refuse_other_method(config: ModelConfig, run: Path) -> None:
    """UsageError where the run was begun with another method: its weights would fit and mean something else."""
    if latest_checkpoint(run) is None or not (run / "config.yaml").is_file():
        return
    begun = load_config(run / "config.yaml").method
    if begun != config.method:
        raise UsageError(f"{run} was begun with method {begun}, not {config.method}; use a new --run")


def copy_unet(unet: nn.Module, trained: LatentSeparator, config: ModelConfig, name: str) -> None:
    """The weights of a trained model's UNet into `unet`; ModelError where the two differ in shape.

    A model of the other method is a start like any other, of which a warning tells: what its network knows of mixtures
    and words is of use, what its output means is learnt anew.
    """
    if not isinstance(trained, separator_class(config.method)):
        warnings.warn(
            f"{name} is a {type(trained).__name__}: its UNet is only where method {config.method} starts to learn",
            stacklevel=2,
        )
    copy_weights(unet, trained.unet, f"the UNet of {name}")
