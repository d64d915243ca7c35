"""The whole chain, audio to audio, in one method: what FlowSep and DiffusionSep share, and FlowSep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from flowsep.candidates import Candidates, Scorer, choose, scorer
from flowsep.config import ModelConfig, SamplingConfig
from flowsep.errors import ModelError, UsageError
from flowsep.flow import ADAPTIVE, SOLVER_NAMES
from flowsep.flow.grids import parse_grid
from flowsep.flow.guidance import Counted, Stopped, Watch, guided, limited, paired, watched
from flowsep.flow.path import FlowConfig, as_velocity, noise_along, seeded_noise, start_of
from flowsep.flow.solvers import SOLVERS, Velocity, euler
from flowsep.heard import Heard, normalise
from flowsep.options import METHODS, check_options
from flowsep.presence import PresenceConfig, presence
from flowsep.protocol import Choice, SampleOptions, Separation
from flowsep.render import band_mask, bands_put_right, bin_weights, blended_mel, stft_mask
from flowsep.stopwatch import Stopwatch
from flowsep.text import TextEncoder, TextState, rows_of
from flowsep.unet import call_unet, hasten
from vocoder.measures import measures
from vocoder.mel import MelConfig, istft, mel_filterbank, mel_of_magnitude, stft
from vocoder.model import Vocoder

if TYPE_CHECKING:
    from flowsep.diffusion.process import DiffusionConfig
    from flowsep.evaluation.encoders import TextAudioEncoder

ADAPTIVE_END = 0.95  # where an adaptive solver hands over to the last Euler step of a target-predicting model


class LatentSeparator(nn.Module):
    """Mixture to mel latent, a process that makes the target latent of it and of noise, and back to audio.

    A `TextSeparator` without its process: `FlowSep` and `flowsep.diffusion.separator.DiffusionSep` say which
    solvers there are, where the process starts, what the network's output means as a velocity, and how to follow it.
    """

    solvers: ClassVar[tuple[str, ...]]  # that `SampleOptions.solver` can name

    def __init__(
        self,
        unet: nn.Module,
        codec: nn.Module,
        text: TextEncoder,
        vocoder: Vocoder | None,
        mel: MelConfig,
        process: FlowConfig | DiffusionConfig,
        sampling: SamplingConfig,
        name: str = "flowsep",
    ) -> None:
        super().__init__()
        if vocoder is not None and vocoder.config.mel != mel:
            raise ModelError(f"the vocoder was made for another mel ({vocoder.config.mel}) than the model ({mel})")
        self.unet, self.codec, self.text, self.vocoder = hasten(unet), codec, text, vocoder
        self.mel, self.process, self.sampling, self.name = mel, process, sampling, name
        self.presence: PresenceConfig | None = None  # fitted after training: `flowsep calibrate`
        self.encoders: dict[str, TextAudioEncoder] = {}  # by candidate score, loaded when first asked for
        self.register_buffer("filterbank", mel_filterbank(mel), persistent=False)
        frequencies = torch.arange(mel.n_fft // 2 + 1) * mel.sample_rate / mel.n_fft
        self.register_buffer("bin_weights", bin_weights(frequencies, mel), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves and casts as usual, but mel and mask constants stay float32: rounded, bands would not sum to one."""
        constants = {name: self._buffers[name] for name in ("filterbank", "bin_weights")}
        super()._apply(fn, recurse)
        for name, value in constants.items():
            self._buffers[name] = value.to(self._buffers[name].device)
        return self

    @classmethod
    def of_parts(
        cls, config: ModelConfig, unet: nn.Module, codec: nn.Module, text: TextEncoder, vocoder: Vocoder | None
    ) -> Self:
        """From freshly built or trained parts and their configuration, which must be of this class's method."""
        if METHODS[config.method] != cls.solvers:
            raise ValueError(f"{cls.__name__} is not of method {config.method}; use flowsep.checkpoint.separator_class")
        return cls(unet, codec, text, vocoder, config.vocoder.mel, config.process, config.sampling, config.name)

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str = "auto", dtype: torch.dtype | None = None) -> Self:
        """The model saved in `folder` (see `flowsep.checkpoint`)."""
        from flowsep.checkpoint import load_separator

        loaded = load_separator(folder, device, dtype)
        if not isinstance(loaded, cls):
            raise ModelError(f"{folder} holds a {type(loaded).__name__}, not a {cls.__name__}; use load_separator")
        return loaded

    def save_pretrained(self, folder: Path | str, training: dict[str, Any] | None = None) -> None:
        """Write a model folder: one sub-folder per component, safetensors (see `flowsep.checkpoint`)."""
        from flowsep.checkpoint import save_separator

        save_separator(self, Path(folder), training)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.mel.sample_rate

    @property
    def window(self) -> int:
        """Samples that the network sees at once."""
        return self.sampling.window_frames * self.mel.hop_length

    @property
    def noise_stride(self) -> int:
        """Samples per latent frame: windows of one recording start at multiples of it (see `separate`)."""
        return self.codec.stride * self.mel.hop_length

    @property
    def defaults(self) -> SampleOptions:
        """What options left at None become."""
        chosen = self.sampling
        return SampleOptions(steps=chosen.steps, solver=chosen.solver, render=chosen.render, grid=chosen.grid)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.filterbank.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network; mels and waveforms stay float32."""
        return next(self.unet.parameters()).dtype

    def resolve(self, options: SampleOptions | None) -> SampleOptions:
        """Options with solver and rendering filled in (a process adds steps and grid); UsageError for misfits."""
        options = options or SampleOptions()
        options = replace(
            options, solver=options.solver or self.sampling.solver, render=options.render or self.sampling.render
        )
        check_options(options, self.solvers)
        if options.render == "vocoder" and self.vocoder is None:
            raise UsageError(f"the model {self.name!r} has no vocoder; use the mixture rendering")
        return options

    @torch.inference_mode()
    def separate(
        self,
        mixture: Tensor,
        texts: Sequence[str],
        options: SampleOptions | None = None,
        watch: Watch | None = None,
        at: Sequence[int] | None = None,
    ) -> Separation:
        """mixture (B, T) float32 at `sample_rate`, T up to `window`, one text each -> target and residual (B, T).

        The level is the mixture's: the mean and the gain that the network's input was normalised by are put back.
        One mixture expanded to B rows (`mixture.expand(B, -1)`: several queries) is analysed and encoded once.
        `at` (B,) are the positions of the rows in one recording, in samples: rows that overlap there then start from
        the same noise in what they share (`noise_along`). Without it each row has the noise of its own shape.
        `watch(t, x, v)` sees every evaluation of the velocity (`flowsep.flow.guidance.watched`), the candidates of an
        item in a row; with an adaptive solver one row at a time. UsageError for shapes or options that do not fit.
        """
        options = self.resolve(options)
        if mixture.ndim != 2 or len(texts) != len(mixture) or not 0 < mixture.shape[1] <= self.window:
            raise UsageError(
                f"separate takes (B, T) with T from 1 to {self.window} samples and B texts, not {tuple(mixture.shape)} "
                f"and {len(texts)}; use flowsep.longform for longer audio"
            )
        best_by = scorer(options, self)  # what it needs and is not there is said before the work
        clock = Stopwatch(self.device)
        distinct = 1 if mixture.stride(0) == 0 else len(mixture)  # stride 0: all rows are the first
        mixture = mixture[:distinct].to(self.device, torch.float32)
        normalised, mean, gain = normalise(mixture)
        spectrum = stft(self.pad(normalised), self.mel)
        source_mel = self.log_mel(spectrum)
        clock.lap("mel")
        source = self.codec.encode(source_mel.to(self.dtype)).float()
        count = len(texts)
        source, mixture = source.expand(count, -1, -1, -1), mixture.expand(count, -1)
        heard = Heard(mixture, source_mel.expand(count, -1, -1), mean, gain)
        clock.lap("encode")
        text, without = self.conditions(texts, options)
        clock.lap("text")
        seeds = [options.seed + number for number in range(options.candidates)]
        rows = torch.arange(len(texts), device=self.device).repeat_interleave(len(seeds))
        shape = (source.shape[1] * self.process.stream_count, *source.shape[2:])
        noise = self.noise(shape, seeds, count, at).to(source)  # the same in any batch
        latent, calls = self.generate(source[rows], rows_of(text, rows), rows_of(without, rows), noise, options, watch)
        clock.lap("sampler")
        mels = [self.codec.decode(z).float() for z in latent.to(self.dtype).chunk(self.process.stream_count, dim=1)]
        clock.lap("decode")
        mels, choices = self.choose(mels, heard, texts, options, best_by)
        target, mask = self.render(mels, heard, options)
        there = self.judge(mask, mels, heard)
        clock.lap("render")
        settings = {**asdict(options), "device": str(self.device), "dtype": str(self.dtype).removeprefix("torch.")}
        nfe = round(calls / len(texts))
        return Separation(target, mixture - target, nfe, clock.seconds, settings, mask, choices, there)

    def noise(self, shape: tuple[int, ...], seeds: Sequence[int], count: int, at: Sequence[int] | None) -> Tensor:
        """Start noise of `count` rows, the candidates of a row together, (count * len(seeds), *shape)."""
        if at is None:
            return seeded_noise(shape, list(seeds) * count)
        first = [position // self.noise_stride for position in at]
        return torch.stack([noise_along(shape, seed, row) for row in first for seed in seeds])

    def conditions(self, texts: Sequence[str], options: SampleOptions) -> tuple[TextState, TextState | None]:
        """The queries, and what guidance leads away from: the negative query or the empty caption; None without it."""
        text = self.text.encode(texts)
        if options.guidance == 1:
            return text, None
        if options.negative is not None:
            return text, self.text.encode([options.negative] * len(texts))
        return text, self.text.unconditional(len(texts))

    def choose(
        self, mels: list[Tensor], heard: Heard, texts: Sequence[str], options: SampleOptions, best_by: Scorer | None
    ) -> tuple[list[Tensor], list[Choice]]:
        """The mels (B, N, M) of the best candidates from those of all, (B * K, N, M). The padding does not vote."""
        if best_by is None:
            return mels, []
        count = options.candidates
        each = heard.rows(torch.arange(len(texts), device=self.device).repeat_interleave(count))
        frames = self.frames(heard)
        candidates = Candidates(
            mels=[mel[:, :frames] for mel in mels],
            mixture_mel=each.mel[:, :frames],
            texts=[text for text in texts for _ in range(count)],
            mask=lambda: self.mask(mels, each.mel)[:, :frames],
            audio=lambda: (self.render(mels, each, options)[0], self.sample_rate),
        )
        kept, choices = choose(best_by, candidates, range(options.seed, options.seed + count))
        return [mel[kept] for mel in mels], choices

    def generate(
        self,
        source: Tensor,
        text: TextState,
        without: TextState | None,
        noise: Tensor,
        options: SampleOptions,
        watch: Watch | None = None,
    ) -> tuple[Tensor, int]:
        """Follow the process: latent (B, K * C, S, F) at t = 1, and the network calls, summed over the items.

        source (B, C, S, F) is the mixture latent, noise (B, K * C, S, F) standard normal; `without` is the text that
        guidance leads away from, needed when it is not 1. State and time grid are float32 whatever the network's
        precision.
        """
        conditioned = Counted(self.velocity(source, text))
        guiding = conditioned if without is None else Counted(self.velocity(source, without))
        velocity = guided(conditioned, guiding, options.guidance)
        if without is not None and measures().paired:
            guiding = Counted(self.velocity(torch.cat([source, source]), text.cat(without)), each=2)
            velocity = paired(guiding, options.guidance)
        velocity = limited(velocity, conditioned, options.guidance_interval)
        try:
            latent = self.solve(watched(velocity, watch), self.start(source, noise), options)
        except Stopped as stopped:
            latent = stopped.estimate
        return latent, sum(counted.calls for counted in {conditioned, guiding}) * len(source)

    def network(self, source: Tensor, text: TextState) -> Callable[[Tensor, Tensor], Tensor]:
        """The UNet's output as a function of time (or timestep) and state, at this mixture latent and text."""
        return partial(call_unet, self.unet, mixture=source, text=text)

    def velocity(self, source: Tensor, text: TextState) -> Velocity:
        """What the network's output means: dx/dt at (t, x)."""
        raise NotImplementedError

    def start(self, source: Tensor, noise: Tensor) -> Tensor:
        """State at t = 0 (B, K * C, S, F)."""
        raise NotImplementedError

    def solve(self, velocity: Velocity, start: Tensor, options: SampleOptions) -> Tensor:
        """State at t = 1, followed from the start with options as `resolve` leaves them."""
        raise NotImplementedError

    def render(self, mels: list[Tensor], heard: Heard, options: SampleOptions) -> tuple[Tensor, Tensor | None]:
        """Waveform (B, T) at the mixture's level from the generated mels, and the band mask if that was used."""
        mixture, length = heard.audio, heard.audio.shape[-1]
        if options.render == "vocoder":
            mel = mels[0]
            if self.sampling.vocoder_mel == "blended":
                mel = blended_mel(mel, self.mask(mels, heard.mel), heard.mel)
            return self.voice(mel, length) / heard.gain + heard.mean, None
        frames = length // self.mel.hop_length + 1
        mask = self.mask(mels, heard.mel)[:, :frames]
        if mask.shape[1] < frames:  # the frame after the last whole one: hold the gain
            mask = torch.cat([mask, mask[:, -1:]], dim=1)
        padded = nn.functional.pad(mixture, (0, max(0, self.mel.n_fft - length)))
        spectrum = stft(padded, self.mel)
        gains = stft_mask(mask, self.bin_weights)
        gains = nn.functional.pad(gains, (0, spectrum.shape[-1] - gains.shape[-1]), mode="replicate")
        return istft(spectrum * gains, self.mel, padded.shape[-1])[:, :length], mask

    def voice(self, mel: Tensor, length: int) -> Tensor:
        """Waveform (B, length) of log-mel (B, N, M) by the vocoder, its bands put right as the model asks for."""
        made = self.vocoder.audio(mel.to(self.dtype), length).float()
        return bands_put_right(made, mel, self.bin_weights, self.filterbank, self.mel, self.sampling.vocoder_passes)

    def mask(self, mels: list[Tensor], source_mel: Tensor) -> Tensor:
        """Gain (B, N, M) of each mel band that the generated mels ask for."""
        return band_mask(mels[0], mels[1] if len(mels) > 1 else None, source_mel, self.process.mask_exponent)

    def judge(self, mask: Tensor | None, mels: list[Tensor], heard: Heard) -> Tensor | None:
        """Probability (B,) that the queries' sounds are there; None for a model that was not calibrated."""
        if self.presence is None:
            return None
        mask = self.mask(mels, heard.mel) if mask is None else mask
        frames = self.frames(heard)
        return presence(mask[:, :frames], heard.mel[:, :frames], self.presence).cpu()

    def frames(self, heard: Heard) -> int:
        """Mel frames of the recording: the padding has no say."""
        return min(heard.audio.shape[-1] // self.mel.hop_length + 1, heard.mel.shape[1])

    def log_mel(self, spectrum: Tensor) -> Tensor:
        """Log-mel (B, N, M) of a padded spectrum, without its last frame: N is a multiple of frame_multiple."""
        return mel_of_magnitude(spectrum[..., :-1].abs(), self.mel, self.filterbank)

    def pad(self, audio: Tensor) -> Tensor:
        """Audio (B, T) with silence up to the next multiple of frame_multiple frames. FlowSep: always 10.24 s."""
        unit = self.sampling.frame_multiple * self.mel.hop_length
        return nn.functional.pad(audio, (0, -audio.shape[-1] % unit))


class FlowSep(LatentSeparator):
    """A rectified flow from noise (or the mixture) to the described sound, in a mel latent. A `TextSeparator`."""

    solvers = SOLVER_NAMES
    process: FlowConfig

    @property
    def flow(self) -> FlowConfig:
        """The flow's own name for its process."""
        return self.process

    def resolve(self, options: SampleOptions | None) -> SampleOptions:
        """Options with the model's defaults filled in; UsageError for what does not exist or fit together.

        A list as grid decides the steps. The model's own list gives way to steps that were asked for, and every grid
        to an adaptive solver, which has none.
        """
        options = super().resolve(options)
        steps = options.steps or self.sampling.steps
        if options.solver in ADAPTIVE:
            return replace(options, steps=steps, grid=None)
        grid = options.grid or self.sampling.grid
        listed = parse_grid(grid).steps
        if listed is None:
            return replace(options, steps=steps, grid=grid)
        if options.steps not in (None, listed):
            return replace(options, grid="uniform")
        return replace(options, steps=listed, grid=grid)

    def generate(
        self,
        source: Tensor,
        text: TextState,
        without: TextState | None,
        noise: Tensor,
        options: SampleOptions,
        watch: Watch | None = None,
    ) -> tuple[Tensor, int]:
        """As `LatentSeparator.generate`; an adaptive solver takes the rows one at a time."""
        if options.solver in ADAPTIVE and len(source) > 1:  # error control must not couple the items of a batch
            rows = [slice(i, i + 1) for i in range(len(source))]
            solved = [
                self.generate(source[r], rows_of(text, r), rows_of(without, r), noise[r], options, watch) for r in rows
            ]
            return torch.cat([latent for latent, _ in solved]), sum(calls for _, calls in solved)
        return super().generate(source, text, without, noise, options, watch)

    def velocity(self, source: Tensor, text: TextState) -> Velocity:
        """The network as a velocity of (t, x)."""
        network = self.network(source, text)
        return lambda t, x: as_velocity(network(t, x), t, x, self.flow)

    def start(self, source: Tensor, noise: Tensor) -> Tensor:
        """State at t = 0: noise, or the mixture latent plus noise."""
        return start_of(source, noise, self.flow)

    def solve(self, velocity: Velocity, start: Tensor, options: SampleOptions) -> Tensor:
        """State at t = 1. A target-predicting model has no velocity there: its last step is always Euler's."""
        solver = SOLVERS[options.solver]
        if options.solver in ADAPTIVE:
            solver = partial(solver, rtol=options.rtol, atol=options.atol)
        times = parse_grid(options.grid or "uniform").times(options.steps).to(start)
        if self.flow.predict == "velocity" or options.solver == "euler":
            return solver(velocity, start, times)
        if options.solver in ADAPTIVE:
            times = torch.tensor([0.0, ADAPTIVE_END, 1.0]).to(start)
        before_last = solver(velocity, start, times[:-1]) if len(times) > 2 else start
        return euler(velocity, before_last, times[-2:])
