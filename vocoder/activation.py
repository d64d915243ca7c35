"""BigVGAN's anti-aliased activation as matrix products, for inference on a CPU in float32 or bfloat16.

The package up-samples by 2 (a 12-tap filter), applies snake and samples down again (12 taps): three passes over memory
per filter, with one-channel convolutions that leave a CPU's vector units idle. Both filters are banded matrices;
on frames of `FRAME` samples they are two small dense ones, and what lies between fits the cache. Same parameters, same
keys, same values up to rounding; everything else (gradients, other precisions, other devices) takes the package's path.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocoder.measures import for_inference, measures, replace_modules
from vocoder.package import Activation1d

FRAME = 32  # samples per frame
HALO = 6  # input samples needed on either side of a frame, and up-sampled ones needed on either side of its own
ROWS = 8192  # frames treated at once in float32, twice as many in bfloat16: 2.5 MB between the two products
TAPS = 12
PRECISIONS = (torch.float32, torch.bfloat16)
EPSILON = 1e-9  # the package's guard against division by zero


class FramedActivation(Activation1d):
    """A drop-in for the package's Activation1d at its ratio 2 and 12 taps, made from one whose modules it shares."""

    def __init__(self, plain: Activation1d) -> None:
        nn.Module.__init__(self)
        self.up_ratio, self.down_ratio = plain.up_ratio, plain.down_ratio
        self.act, self.upsample, self.downsample = plain.act, plain.upsample, plain.downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        if not (measures().framed and for_inference(x) and x.dtype in PRECISIONS):
            return super().forward(x)
        channels, length = x.shape[1:]
        frames = -(-length // FRAME)
        framed = padded(x, frames).unfold(-1, FRAME + 2 * HALO, FRAME)
        up = up_matrix(2 * self.upsample.filter[0, 0].float()).to(x.dtype)
        down = down_matrix(self.downsample.lowpass.filter[0, 0].float()).to(x.dtype)
        rate, gain = (value[:, None, None].to(x.dtype) for value in snake_parameters(self.act))
        out = x.new_empty(*x.shape[:2], frames, FRAME)
        rows = ROWS * 4 // x.element_size()
        height = max(1, rows // frames)
        for item, made in zip(framed, out, strict=True):
            for first_channel in range(0, channels, height):
                c = slice(first_channel, first_channel + height)
                for first in range(0, frames, rows):
                    f = slice(first, first + rows)
                    block = item[c, f]
                    # One tall product; as a batch of (frames, 44) ones it takes twice as long.
                    wide = (block.reshape(-1, up.shape[0]) @ up).view(*block.shape[:2], up.shape[1])
                    hold_edges(wide, first, frames, length)
                    sine = (wide * rate[c]).sin_()  # snake: x + sin(rate x)^2 * gain
                    wide.addcmul_(sine, sine * gain[c])
                    torch.mm(wide.view(-1, down.shape[0]), down, out=made[c, f].view(-1, FRAME))
        return out.flatten(2)[..., :length]


def padded(x: Tensor, frames: int) -> Tensor:
    """Sound (B, C, T) with its outermost samples repeated: HALO before it, and up to HALO after the last frame."""
    made = x.new_empty(*x.shape[:2], frames * FRAME + 2 * HALO)
    end = HALO + x.shape[2]
    made[..., HALO:end] = x
    made[..., :HALO] = x[..., :1]
    made[..., end:] = x[..., -1:]
    return made


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

    wide (C, rows, 2 FRAME + 2 HALO) holds frames first, first + 1, ... of `frames`, of a sound of `length` samples.
    """
    if first == 0:
        wide[:, 0, :HALO] = wide[:, 0, HALO : HALO + 1]
    for frame in range(max(first, frames - 2), first + wide.shape[1]):
        last = 2 * length - 1 - 2 * FRAME * frame + HALO  # its column of the sound's last up-sampled sample
        if last + 1 < wide.shape[2]:
            wide[:, frame - first, last + 1 :] = wide[:, frame - first, last : last + 1]


def snake_parameters(act: nn.Module) -> tuple[Tensor, Tensor]:
    """(rate, gain), each (C,), of the package's Snake or SnakeBeta: x + gain sin(rate x)^2."""
    alpha, beta = act.alpha.float(), getattr(act, "beta", act.alpha).float()
    if act.alpha_logscale:
        alpha, beta = alpha.exp(), beta.exp()
    return alpha, 1.0 / (beta + EPSILON)


def frame_activations(module: nn.Module) -> None:
    """Replace every Activation1d of ratio 2 and 12 taps below `module`; parameters and their names stay."""
    replace_modules(module, _is_usual, FramedActivation)


def _is_usual(plain: nn.Module) -> bool:
    if type(plain) is not Activation1d:
        return False
    ratios = {plain.up_ratio, plain.down_ratio}
    kernels = {plain.upsample.kernel_size, plain.downsample.kernel_size}
    return ratios == {2} and kernels == {TAPS}
