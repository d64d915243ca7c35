"""`flowsep train recipe|text|vae|flow|diffusion|vocoder|mask|clap CONFIG [key=value ...]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowsep.cli.options import spread

if TYPE_CHECKING:
    from flowsep.config import ModelConfig

app = typer.Typer(help="Train a model, stage by stage.", no_args_is_help=True)

Text = Annotated[
    Path | None, typer.Option("--text", help="Folder written by `flowsep train text`, or a model (small).")
]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is trained, on what, and where."""

    config: Annotated[str, typer.Argument(help="A YAML file, or the name of one in configs/ (small, flowsep, ...).")]
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes such as flow_stage.steps=1000.")] = None
    data: Annotated[
        Path, typer.Option("--data", help="Manifest, or a folder of clips: sub-folders or files named by class.")
    ]
    run: Annotated[
        Path, typer.Option("--run", help="Folder of checkpoints, logs and the result; an old run is resumed.")
    ]

    def settings(self) -> ModelConfig:
        """The configuration with its changes; InputError or UsageError where it cannot be read."""
        from flowsep.config import load_config

        return load_config(self.config, self.overrides or ())


@dataclass(frozen=True)
class Parts:
    """What a UNet is trained beside, and goes on from."""

    vae: Annotated[Path | None, typer.Option("--vae", help="Folder written by `flowsep train vae`.")] = None
    vocoder: Annotated[Path | None, typer.Option("--vocoder", help="Saved vocoder to include in the model.")] = None
    text: Text = None
    start: Annotated[
        Path | None, typer.Option("--from", help="A model to go on from: your sounds on top of what it knows (small).")
    ] = None
    background: Annotated[
        Path | None,
        typer.Option(
            "--background", help="Recordings to mix the clips with, or a manifest of classes to keep in practice."
        ),
    ] = None

    def named(self) -> dict[str, Any]:
        """As `flowsep.training.recipes.train_unet` has them."""
        about = {"codec": self.vae, "vocoder": self.vocoder, "text": self.text}
        return {**about, "start": self.start, "background": self.background}


@dataclass(frozen=True)
class Watch:
    """How long it may take, and what is shown meanwhile."""

    max_minutes: Annotated[float | None, typer.Option("--max-minutes", help="Stop (and save) after so long.")] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False

    def named(self) -> dict[str, Any]:
        """As the training functions have them."""
        return {"max_minutes": self.max_minutes, "quiet": self.quiet}


@app.command()
@spread
def recipe(
    stage: Stage,
    captions: Annotated[
        Path | None, typer.Option("--captions", help="CSV with a caption column, in place of the recipe's.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="Folder of the sentence encoder that a text stage learns from.")
    ] = None,
    mixtures: Annotated[
        Path | None, typer.Option("--mixtures", help="CSV to calibrate and evaluate with. [default: the project's]")
    ] = None,
    *,
    watch: Watch,
) -> None:
    """All stages of a configuration's recipe, one after another; writes RUN/model, and goes on where it was stopped."""
    import sys
    from functools import partial

    from flowsep.training.chain import Sources, train_recipe

    say = partial(print, file=sys.stderr, flush=True)
    sources = Sources(stage.data, captions, teacher, mixtures)
    model = train_recipe(stage.config, stage.overrides or (), sources, stage.run, say=say, **watch.named())
    if model is not None:
        typer.echo(model)


@app.command()
@spread
def text(
    stage: Stage,
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
    *,
    watch: Watch,
) -> None:
    """The text encoder, where it is our own; writes RUN/text."""
    from flowsep.training.recipes import train_text

    typer.echo(train_text(stage.settings(), stage.data, stage.run, captions, tokenizer, teacher, **watch.named()))


@app.command()
@spread
def vae(stage: Stage, watch: Watch) -> None:
    """The mel VAE; writes RUN/vae."""
    from flowsep.training.recipes import train_vae

    typer.echo(train_vae(stage.settings(), stage.data, stage.run, **watch.named()))


@app.command()
@spread
def flow(stage: Stage, parts: Parts, watch: Watch) -> None:
    """The UNet of a flow; writes the model folder RUN/model."""
    from flowsep.training.recipes import train_flow

    settings = stage.settings()
    if settings.name == "small" and parts.start is not None:
        steps = settings.flow_stage.steps
        typer.echo(
            f"flowsep: note: small holds the settings of a run from nothing ({steps} steps at a high rate); "
            "small-finetune holds those for going on from a model, ten minutes of them",
            err=True,
        )
    typer.echo(train_flow(settings, stage.data, stage.run, **parts.named(), **watch.named()))


@app.command()
@spread
def diffusion(stage: Stage, parts: Parts, watch: Watch) -> None:
    """The UNet of a diffusion (method: diffusion, as in small-diffusion); writes the model folder RUN/model."""
    from flowsep.training.recipes import train_diffusion

    typer.echo(train_diffusion(stage.settings(), stage.data, stage.run, **parts.named(), **watch.named()))


@app.command()
@spread
def vocoder(
    stage: Stage,
    start: Annotated[Path | None, typer.Option("--from", help="A model, or a vocoder, to go on from (small).")] = None,
    *,
    watch: Watch,
) -> None:
    """The BigVGAN generator, alone or (vocoder_loss.adversarial) against discriminators; writes RUN/vocoder."""
    from flowsep.training.recipes import train_vocoder

    typer.echo(train_vocoder(stage.settings(), stage.data, stage.run, start, **watch.named()))


@app.command()
@spread
def mask(
    stage: Stage,
    text: Text = None,
    start: Annotated[Path | None, typer.Option("--from", help="A mask separator to go on from.")] = None,
    *,
    watch: Watch,
) -> None:
    """A mask separator (small-audiosep, small-lassnet); writes the model folder RUN/model."""
    from flowsep.training.mask import train_mask

    typer.echo(train_mask(stage.settings(), stage.data, stage.run, text, start, **watch.named()))


@app.command()
@spread
def clap(stage: Stage, text: Text = None, *, watch: Watch) -> None:
    """The text-audio encoder behind the `proxy` scores (small-clap); writes RUN/clap."""
    from flowsep.training.clap import train_clap

    typer.echo(train_clap(stage.settings(), stage.data, stage.run, text, **watch.named()))
