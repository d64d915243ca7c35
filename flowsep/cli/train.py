"""`flowsep train recipe|text|vae|flow|diffusion|vocoder|mask|clap CONFIG [key=value ...]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train a model, stage by stage.", no_args_is_help=True)

Config = Annotated[str, typer.Argument(help="A YAML file, or the name of one in configs/ (small, flowsep, ...).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes such as flow_stage.steps=1000.")]
Data = Annotated[
    Path, typer.Option("--data", help="Manifest, or a folder of clips: sub-folders or files named by class.")
]
Run = Annotated[Path, typer.Option("--run", help="Folder of checkpoints, logs and the result; an old run is resumed.")]
Codec = Annotated[Path | None, typer.Option("--vae", help="Folder written by `flowsep train vae`.")]
SavedVocoder = Annotated[Path | None, typer.Option("--vocoder", help="Saved vocoder to include in the model.")]
Text = Annotated[
    Path | None, typer.Option("--text", help="Folder written by `flowsep train text`, or a model (small).")
]
Start = Annotated[
    Path | None, typer.Option("--from", help="A model to go on from: your sounds on top of what it knows (small).")
]
Background = Annotated[
    Path | None,
    typer.Option(
        "--background", help="Recordings to mix the clips with, or a manifest of classes to keep in practice."
    ),
]
Minutes = Annotated[float | None, typer.Option("--max-minutes", help="Stop (and save) after so long.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


@app.command()
def recipe(
    config: Config,
    overrides: Overrides = None,
    *,
    data: Data,
    run: Run,
    captions: Annotated[
        Path | None, typer.Option("--captions", help="CSV with a caption column, in place of the recipe's.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="Folder of the sentence encoder that a text stage learns from.")
    ] = None,
    mixtures: Annotated[
        Path | None, typer.Option("--mixtures", help="CSV to calibrate and evaluate with. [default: the project's]")
    ] = None,
    max_minutes: Minutes = None,
    quiet: Quiet = False,
) -> None:
    """All stages of a configuration's recipe, one after another; writes RUN/model, and goes on where it was stopped."""
    import sys
    from functools import partial

    from flowsep.training.chain import Sources, train_recipe

    say = partial(print, file=sys.stderr, flush=True)
    sources = Sources(data, captions, teacher, mixtures)
    if (model := train_recipe(config, overrides or (), sources, run, max_minutes, quiet, say)) is not None:
        typer.echo(model)


@app.command()
def text(
    config: Config,
    overrides: Overrides = None,
    *,
    data: Data,
    run: Run,
    captions: Annotated[
        Path | None, typer.Option("--captions", help="CSV with a caption column: more words to learn.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", help="Folder of a tokenizer to use; none: one is trained on the captions."),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="Folder of a sentence encoder to learn meanings from.")
    ] = None,
    max_minutes: Minutes = None,
    quiet: Quiet = False,
) -> None:
    """The text encoder, where it is our own; writes RUN/text."""
    from flowsep.config import load_config
    from flowsep.training.recipes import train_text

    settings = load_config(config, overrides or ())
    typer.echo(train_text(settings, data, run, captions, tokenizer, teacher, max_minutes, quiet))


@app.command()
def vae(
    config: Config,
    overrides: Overrides = None,
    *,
    data: Data,
    run: Run,
    max_minutes: Minutes = None,
    quiet: Quiet = False,
) -> None:
    """The mel VAE; writes RUN/vae."""
    from flowsep.config import load_config
    from flowsep.training.recipes import train_vae

    typer.echo(train_vae(load_config(config, overrides or ()), data, run, max_minutes, quiet))


@app.command()
def flow(
    config: Config,
    overrides: Overrides = None,
    *,
    data: Data,
    run: Run,
    vae: Codec = None,
    vocoder: SavedVocoder = None,
    text: Text = None,
    start: Start = None,
    background: Background = None,
    max_minutes: Minutes = None,
    quiet: Quiet = False,
) -> None:
    """The UNet of a flow; writes the model folder RUN/model."""
    from flowsep.config import load_config
    from flowsep.training.recipes import train_flow

    settings = load_config(config, overrides or ())
    typer.echo(train_flow(settings, data, run, vae, vocoder, text, start, max_minutes, quiet, background))


@app.command()
def diffusion(
    config: Config,
    overrides: Overrides = None,
    *,
    data: Data,
    run: Run,
    vae: Codec = None,
    vocoder: SavedVocoder = None,
    text: Text = None,
    start: Start = None,
    background: Background = None,
    max_minutes: Minutes = None,
    quiet: Quiet = False,
) -> None:
    """The UNet of a diffusion (method: diffusion, as in small-diffusion); writes the model folder RUN/model."""
    from flowsep.config import load_config
    from flowsep.training.recipes import train_diffusion

    settings = load_config(config, overrides or ())
    typer.echo(train_diffusion(settings, data, run, vae, vocoder, text, start, max_minutes, quiet, background))


@app.command()
def vocoder(
    config: Config,
    overrides: Overrides = None,
    *,
    data: Data,
    run: Run,
    start: Annotated[Path | None, typer.Option("--from", help="A model whose vocoder to go on from (small).")] = None,
    max_minutes: Minutes = None,
    quiet: Quiet = False,
) -> None:
    """The BigVGAN generator, alone or (vocoder_loss.adversarial) against discriminators; writes RUN/vocoder."""
    from flowsep.config import load_config
    from flowsep.training.recipes import train_vocoder

    typer.echo(train_vocoder(load_config(config, overrides or ()), data, run, start, max_minutes, quiet))


@app.command()
def mask(
    config: Config,
    overrides: Overrides = None,
    *,
    data: Data,
    run: Run,
    text: Annotated[
        Path | None, typer.Option("--text", help="Folder written by `flowsep train text`, or a model (small).")
    ] = None,
    start: Annotated[Path | None, typer.Option("--from", help="A mask separator to go on from.")] = None,
    max_minutes: Minutes = None,
    quiet: Quiet = False,
) -> None:
    """A mask separator (small-audiosep, small-lassnet); writes the model folder RUN/model."""
    from flowsep.config import load_config
    from flowsep.training.mask import train_mask

    settings = load_config(config, overrides or ())
    typer.echo(train_mask(settings, data, run, text, start, max_minutes, quiet))


@app.command()
def clap(
    config: Config,
    overrides: Overrides = None,
    *,
    data: Data,
    run: Run,
    text: Text = None,
    max_minutes: Minutes = None,
    quiet: Quiet = False,
) -> None:
    """The text-audio encoder behind the `proxy` scores (small-clap); writes RUN/clap."""
    from flowsep.config import load_config
    from flowsep.training.clap import train_clap

    typer.echo(train_clap(load_config(config, overrides or ()), data, run, text, max_minutes, quiet))
