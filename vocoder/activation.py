"""BigVGAN's anti-aliased activation as matrix products, for inference on a CPU in float32 or bfloat16.

The package up-samples by 2 (a 12-tap filter), applies snake and samples down again (12 taps): three passes over memory
per filter, with one-channel convolutions that leave a CPU's vector units idle. Both filters are banded matrices;
on frames of `FRAME` samples they are two small dense ones, and what lies between fits the cache. Same parameters, same
keys, same values up to rounding; everything else (gradients, other precisions, other devices) takes the package's path.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocoder.measures import measures
from vocoder.package import Activation1d

FRAME = 32  # samples per frame
HALO = 6  # input samples needed on either side of a frame, and up-sampled ones needed on either side of its own
ROWS = 8192  # frames treated at once: about 2.5 MB between the two products
TAPS = 12
PRECISIONS = (torch.float32, torch.bfloat16)  # of the sound; all else is float32
EPSILON = 1e-9  # the package's guard against division by zero


class FramedActivation(Activation1d):
    """A drop-in for the package's Activation1d at its ratio 2 and 12 taps, made from one whose modules it shares."""

    def __init__(self, plain: Activation1d) -> None:
        nn.Module.__init__(self)
        self.up_ratio, self.down_ratio = plain.up_ratio, plain.down_ratio
        self.act, self.upsample, self.downsample = plain.act, plain.upsample, plain.downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        if not measures().framed or torch.is_grad_enabled() or x.dtype not in PRECISIONS or x.device.type != "cpu":
            return super().forward(x)
        batch, channels, length = x.shape
        frames = -(-length // FRAME)
        padded = nn.functional.pad(x, (HALO, HALO + frames * FRAME - length), mode="replicate")
        framed = padded.unfold(-1, FRAME + 2 * HALO, FRAME)
        up = up_matrix(2 * self.upsample.filter[0, 0].float())
        down = down_matrix(self.downsample.lowpass.filter[0, 0].float())
        rate, gain = (value[:, None, None] for value in snake_parameters(self.act))
        out = x.new_empty(batch, channels, frames, FRAME)
        height = max(1, ROWS // frames)
        for first_channel in range(0, channels, height):
            c = slice(first_channel, first_channel + height)
            for first in range(0, frames, ROWS):
                f = slice(first, min(first + ROWS, frames))
                block = framed[:, c, f].float()  # in half precision too: these products are short, and the sine is not
                # One tall product; as a batch of (frames, 44) ones it takes twice as long.
                wide = (block.reshape(-1, up.shape[0]) @ up).view(*block.shape[:3], up.shape[1])
                hold_edges(wide, first, frames, length)
                # snake: x + sin(rate x)^2 * gain
                curved = (wide * rate[c]).sin_().square_().mul_(gain[c]).add_(wide)
                out[:, c, f] = (curved.view(-1, down.shape[0]) @ down).view(*block.shape[:3], FRAME)
        return out.reshape(batch, channels, frames * FRAME)[..., :length]


def up_matrix(taps: Tensor) -> Tensor:
    """(FRAME + 2 HALO, 2 FRAME + 2 HALO): a frame and its halo to its up-sampled samples and theirs.

    Column m is up-sampled sample m - HALO of the frame, u[k] = sum over j of x[j] taps[k - 2 j + 5].
    """
    sample = torch.arange(FRAME + 2 * HALO)[:, None] - HALO
    upsampled = torch.arange(2 * FRAME + 2 * HALO)[None] - HALO
    return _banded(taps, upsampled - 2 * sample + 5)


def down_matrix(taps: Tensor) -> Tensor:
    """(2 FRAME + 2 HALO, FRAME): up-sampled samples to the frame's, y[n] = sum over k of u[k] taps[k - 2 n + 5]."""
    upsampled = torch.arange(2 * FRAME + 2 * HALO)[:, None] - HALO
    sample = torch.arange(FRAME)[None]
    return _banded(taps, upsampled - 2 * sample + 5)


def _banded(taps: Tensor, index: Tensor) -> Tensor:
    inside = (index >= 0) & (index < TAPS)
    return torch.where(inside, taps[index.clamp(0, TAPS - 1)], torch.zeros(()))


def hold_edges(wide: Tensor, first: int, frames: int, length: int) -> None:
    """Beyond either end of the sound the package repeats the outermost up-sampled sample; so do these frames, in place.

    wide (B, C, rows, 2 FRAME + 2 HALO) holds frames first, first + 1, ... of `frames`, of a sound of `length` samples.
    """
    if first == 0:
        wide[:, :, 0, :HALO] = wide[:, :, 0, HALO : HALO + 1]
    for frame in range(max(first, frames - 2), first + wide.shape[2]):
        last = 2 * length - 1 - 2 * FRAME * frame + HALO  # its column of the sound's last up-sampled sample
        if last + 1 < wide.shape[3]:
            wide[:, :, frame - first, last + 1 :] = wide[:, :, frame - first, last : last + 1]


def snake_parameters(act: nn.Module) -> tuple[Tensor, Tensor]:
    """(rate, gain), each (C,), of the package's Snake or SnakeBeta: x + gain sin(rate x)^2."""
    alpha, beta = act.alpha.float(), getattr(act, "beta", act.alpha).float()
    if act.alpha_logscale:
        alpha, beta = alpha.exp(), beta.exp()
    return alpha, 1.0 / (beta + EPSILON)


def frame_activations(module: nn.Module) -> None:
    """Replace every Activation1d of ratio 2 and 12 taps below `module`; parameters and their names stay."""
    for name, child in module.named_children():
        if type(child) is Activation1d and _is_usual(child):
            setattr(module, name, FramedActivation(child))
        else:
            frame_activations(child)


def _is_usual(plain: Activation1d) -> bool:
    ratios = {plain.up_ratio, plain.down_ratio}
    kernels = {plain.upsample.kernel_size, plain.downsample.kernel_size}
    return ratios == {2} and kernels == {TAPS}
