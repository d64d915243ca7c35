"""All settings of a model and of its training, nested dataclasses; YAML meets code here once.

The defaults are FlowSep at official size; a YAML file in configs/ says only what differs from them, or from the file
that it names as its `base`. Unknown keys are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowsep.data.dataset import DataConfig
from flowsep.diffusion.process import DiffusionConfig
from flowsep.errors import UsageError
from flowsep.flow.path import FlowConfig
from flowsep.masks.config import MaskConfig, MaskLossConfig
from flowsep.options import METHODS
from flowsep.proxy.config import ProxyConfig, ProxyDataConfig
from flowsep.text import TextConfig
from flowsep.training.wordings import TextLossConfig
from flowsep.unet import UNetConfig
from vae.model import CodecConfig
from vocoder.discriminators import DiscriminatorConfig
from vocoder.model import VocoderConfig


@dataclass(frozen=True)
class SamplingConfig:
    """What a saved model does unless told otherwise."""

    steps: int = 10
    solver: str = "euler"
    grid: str = "uniform"  # see flowsep.flow.grids; a list of times goes before steps
    render: str = "vocoder"  # mixture | vocoder
    vocoder_mel: str = "generated"  # generated (FlowSep) | blended with the mixture's where the mask lets that through
    vocoder_passes: int = 0  # filterings that bring the vocoder's bands to the mel it was given; none in FlowSep
    window_frames: int = 1024  # mel frames per window: 10.24 s
    frame_multiple: int = 1024  # shorter input is padded with silence to a multiple of it; FlowSep always sees 10.24 s

    def __post_init__(self) -> None:
        if self.vocoder_mel not in ("generated", "blended"):
            raise ValueError(f"unknown sampling.vocoder_mel {self.vocoder_mel!r}; choose from generated, blended")


OPTIMISERS = ("adamw", "muon")


@dataclass(frozen=True)
class StageConfig:
    """One training stage: optimiser, schedule, length."""

    steps: int = 100_000
    batch_size: int = 4
    optimiser: str = "adamw"  # adamw | muon: on the matrices inside the network, AdamW on the rest
    learning_rate: float = 5e-5
    final_learning_rate: float = 1.0  # at the end of the decay, as a share; 1.0 = constant, as FlowSep
    decay_share: float = 0.0  # the last share of the steps in which the rate falls to it, along a cosine
    warmup: int = 1000  # steps
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.9999  # upper bound; decay_n = min(ema, (1 + n) / (10 + n))
    precision: str = "no"  # no | bf16 | fp16: accelerate's mixed precision
    checkpoint_steps: int = 500
    log_steps: int = 20
    media_steps: int = 2000  # mel figures and audio for TensorBoard
    workers: int = 1  # processes that mix the items; their number changes no item

    def __post_init__(self) -> None:
        if self.precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"unknown precision {self.precision!r}; choose from no, bf16, fp16")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"unknown optimiser {self.optimiser!r}; choose from {', '.join(OPTIMISERS)}")
        for name in ("steps", "batch_size", "checkpoint_steps", "log_steps", "media_steps", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("final_learning_rate", "decay_share", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, from 0 to 1, not {getattr(self, name)}")
        for name in ("learning_rate", "warmup", "weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")


@dataclass(frozen=True)
class UNetLossConfig:
    """What the losses of flow and diffusion share: weights of losses on the rendering of the estimated target.

    All are off in the paper. A diffusion that predicts the noise cannot see much of the target at its noisy end: its
    estimate is 83 times as wrong as its output there, so that these losses go with "v" and "x0".
    """

    mel: float = 0.0  # L1 on the decoded log-mels, weighted by how loud the mixture is there
    quiet: float = 0.1  # in `mel`, the weight of cells where the mixture is next to silent; 1 weighs all alike
    mask: float = 0.0  # energy-weighted L1 between the rendering mask and the ideal one
    snr: float = 0.0  # log error energy of the rendered spectrogram, which is what SI-SDR sees
    condition_dropout: float = 0.1  # per item: the query is replaced by the empty caption

    @property
    def needs_waveforms(self) -> bool:
        """Whether a loss looks at the rendering, which kept latents cannot give."""
        return any((self.mel, self.mask, self.snr))


@dataclass(frozen=True)
class FlowLossConfig(UNetLossConfig):
    """Weights of the flow's training loss. FlowSep's: mean squared error of the velocity, nothing else."""

    flow: float = 1.0  # mean squared error on the latent
    start_share: float = 0.0  # share of items at t = 0, the one-step case; the others are uniform in 0..1


@dataclass(frozen=True)
class DiffusionLossConfig(UNetLossConfig):
    """Weights of the diffusion's training loss. The usual one: mean squared error of the prediction, nothing else."""

    diffusion: float = 1.0  # mean squared error of noise, v or target, at timesteps drawn evenly


@dataclass(frozen=True)
class VAELossConfig:
    """Weights of the VAE's training loss."""

    kl: float = 1e-4


STAGE_KINDS = ("text", "vae", "flow", "diffusion", "vocoder", "export", "calibrate")


@dataclass(frozen=True)
class RecipeStage:
    """One stage of the recipe that makes a model from nothing (`flowsep train recipe`)."""

    stage: str = ""  # one of STAGE_KINDS
    name: str = ""  # of its folder; the stage's if empty
    overrides: tuple[str, ...] = ()  # key.sub=value, for this stage only
    start: str = ""  # flow, diffusion, vocoder: name of the earlier stage whose network is trained on
    teacher: bool = False  # text: needs --teacher
    captions: str = ""  # text: CSV with a caption column, in the folder of the clips
    tokenizer: str = ""  # text: model whose tokenizer is used; training one breaks ties at random
    steps: int | None = None  # export: default steps, mask exponent and window to store
    mask_exponent: float | None = None
    window_frames: int | None = None

    def __post_init__(self) -> None:
        if self.stage not in STAGE_KINDS:
            raise ValueError(f"unknown stage {self.stage!r} in the recipe; choose from {', '.join(STAGE_KINDS)}")


@dataclass(frozen=True)
class Recipe:
    """What makes a model, one stage after another. Belongs to the file that holds it, not to those built on that."""

    stages: list[RecipeStage] = field(default_factory=list)


@dataclass(frozen=True)
class VocoderLossConfig:
    """Weights of the vocoder's training loss; without the adversary (0) it is spectral reconstruction alone."""

    mel: float = 2.0  # L1 on the log-mel
    magnitude: float = 1.0  # L1 on log magnitudes, mean of three resolutions
    convergence: float = 1.0  # spectral convergence, the same
    adversarial: float = 0.0  # fooling the discriminators; BigVGAN's ratio to the mel is 1 to 45
    feature: float = 1.0  # times adversarial: feature matching, which counts twice already
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)


@dataclass(frozen=True)
class ModelConfig:
    """Everything: what the model is (first block) and how it is trained (second)."""

    name: str = "flowsep"
    method: str = "flow"  # flow | diffusion: which of the blocks below makes the target latent
    codec: CodecConfig = field(default_factory=CodecConfig)
    text: TextConfig = field(default_factory=TextConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)  # in place of codec, unet, flow and sampling: `train mask`
    clap: ProxyConfig = field(default_factory=ProxyConfig)  # no separator: what `train clap` makes to judge them by

    data: DataConfig = field(default_factory=DataConfig)
    text_stage: StageConfig = field(default_factory=StageConfig)
    text_loss: TextLossConfig = field(default_factory=TextLossConfig)
    vae_stage: StageConfig = field(default_factory=StageConfig)
    vae_loss: VAELossConfig = field(default_factory=VAELossConfig)
    flow_stage: StageConfig = field(default_factory=StageConfig)
    flow_loss: FlowLossConfig = field(default_factory=FlowLossConfig)
    diffusion_stage: StageConfig = field(default_factory=StageConfig)
    diffusion_loss: DiffusionLossConfig = field(default_factory=DiffusionLossConfig)
    vocoder_stage: StageConfig = field(default_factory=StageConfig)
    vocoder_loss: VocoderLossConfig = field(default_factory=VocoderLossConfig)
    mask_stage: StageConfig = field(default_factory=StageConfig)
    mask_loss: MaskLossConfig = field(default_factory=MaskLossConfig)
    clap_stage: StageConfig = field(default_factory=StageConfig)
    clap_data: ProxyDataConfig = field(default_factory=ProxyDataConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; choose from {', '.join(METHODS)}")
        known = METHODS[self.method]
        if self.sampling.solver not in known:
            raise ValueError(
                f"unknown sampling.solver {self.sampling.solver!r} for method {self.method}; "
                f"choose from {', '.join(known)}"
            )
        for name in ("text_stage", "vae_stage", "vocoder_stage", "mask_stage", "clap_stage"):
            if getattr(self, name).optimiser == "muon":  # it has to know which layers are a network's edges
                raise ValueError(
                    f"{name}.optimiser=muon: Muon is for the UNet (flow_stage, diffusion_stage); use adamw"
                )

    @property
    def process(self) -> FlowConfig | DiffusionConfig:
        """The block of the method."""
        return self.flow if self.method == "flow" else self.diffusion

    @property
    def unet_stage(self) -> StageConfig:
        """The stage that trains the UNet."""
        return self.flow_stage if self.method == "flow" else self.diffusion_stage

    @property
    def unet_loss(self) -> FlowLossConfig | DiffusionLossConfig:
        """The loss of that stage."""
        return self.flow_loss if self.method == "flow" else self.diffusion_loss


def config_path(name: Path | str) -> Path:
    """The file of a configuration: a path, with or without .yaml, or the name of one in configs/ (flowsep/configs)."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return path
    if path.parent != Path() and path.with_name(f"{path.name}.yaml").is_file():
        return path.with_name(f"{path.name}.yaml")
    name = path.name if path.parent == Path("configs") else name
    package = Path(__file__).parent
    folders = [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
    for folder in folders:
        if (folder / f"{name}.yaml").exists():
            return folder / f"{name}.yaml"
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    raise UsageError(f"unknown configuration {str(name)!r}; give a YAML file or one of {', '.join(known)}")


def read_layers(path: Path) -> list[Any]:
    """The YAML file at `path` after the one that it names as its `base`, if any: a path, or a name in configs/."""
    from omegaconf import OmegaConf

    path = path.resolve()
    layers, seen = [], []
    while path not in seen:
        layer = OmegaConf.load(path)
        base = layer.pop("base", None) if OmegaConf.is_dict(layer) else None
        if OmegaConf.is_dict(layer):
            layer.pop("recipe", None)  # `load_recipe` reads it
        layers.insert(0, layer)
        if base is None:
            return layers
        seen.append(path)
        path = config_path(path.parent / base if Path(base).suffix else base).resolve()
    raise UsageError(f"{path} is its own base; take the `base:` out of one of the files")


def load_config(name: Path | str, overrides: Sequence[str] = ()) -> ModelConfig:
    """Dataclass defaults, then the YAML file (its base before it), then key.sub=value.

    Raises UsageError for unknown keys or values.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = config_path(name)
    for override in overrides:
        if "=" not in override:
            raise UsageError(
                f"cannot read the override {override!r}; write key.sub=value, for example flow_stage.steps=100"
            )
    try:
        loaded = OmegaConf.merge(
            OmegaConf.structured(ModelConfig), *read_layers(path), OmegaConf.from_dotlist(list(overrides))
        )
        config = OmegaConf.to_object(loaded)
    except FileNotFoundError as error:
        raise UsageError(f"no configuration file at {path}") from error
    except (OmegaConfBaseException, AssertionError, OSError, TypeError, ValueError, YAMLError) as error:
        raise UsageError(f"{path}: {str(error).splitlines()[0]}") from error
    return config


def load_recipe(name: Path | str) -> list[RecipeStage]:
    """The stages in a configuration's own file under `recipe:`; UsageError where there are none or a key is unknown."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    load_config(name)  # whatever else is wrong with the file
    path = config_path(name)
    stages = OmegaConf.load(path).get("recipe")
    if not stages:
        raise UsageError(f"the configuration {name} has no recipe; add `recipe:` with a list of stages to its file")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recipe), {"stages": stages})).stages
    except (OmegaConfBaseException, AssertionError, TypeError, ValueError) as error:
        raise UsageError(f"{path}, recipe: {str(error).splitlines()[0]}") from error


def save_config(config: ModelConfig, path: Path) -> None:
    """Write the whole resolved configuration as YAML."""
    from omegaconf import OmegaConf

    OmegaConf.save(OmegaConf.structured(config), path)
