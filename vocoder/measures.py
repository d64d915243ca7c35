"""Which of the faster formulations run: one record for all three packages, so that one switch turns each off.

Each is the plain computation in another order of operations, beside the module that it speeds up; docs/performance.md
has what each gains. They are for inference: training takes the plain path whatever is asked for here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Measures:
    """The measures by name; all run unless told otherwise."""

    framed: bool = True  # the vocoder's anti-aliased activation as matrix products (vocoder/activation.py)
    winograd: bool = True  # 3 x 3 convolutions of VAE and UNet with fewer multiplications (vae/winograd.py)
    products: bool = True  # convolutions of 1 x 1, and of few places, as plain matrix products (vae/products.py)
    gated: bool = True  # the UNet's gated layers without fresh memory (flowsep/gated.py)
    trimmed: bool = True  # no text states of the padding, which the UNet's mask hides (flowsep/text.py)
    text_once: bool = True  # keys and values of the text once for all steps (flowsep/attention.py)
    paired: bool = True  # guidance as one batch of two (flowsep/flow/guidance.py)
    blocked: bool = True  # bfloat16: attention over many places as matrix products (vae/attention.py)
    channels_last: bool = True  # bfloat16: the VAE's features with their channels last in memory (vae/model.py)


PLAIN = Measures(**{field.name: False for field in fields(Measures)})
_current = Measures()


def measures() -> Measures:
    """Those in use."""
    return _current


def use_measures(chosen: Measures) -> None:
    """Use these from here on, in the whole process."""
    global _current
    _current = chosen


def for_inference(x: Tensor) -> bool:
    """Whether x is on the CPU and neither gradients nor a compiled graph are being made: where most measures run."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def replace_modules(module: nn.Module, wanted: Callable[[nn.Module], bool], made: Callable[..., nn.Module]) -> None:
    """Put `made` of each module below `module` that is `wanted` in its place."""
    for name, child in module.named_children():
        if wanted(child):
            setattr(module, name, made(child))
        else:
            replace_modules(child, wanted, made)


def sharing(kind: type[nn.Module], plain: nn.Module) -> nn.Module:
    """A module of another kind with everything that `plain` has: parameters, sub-modules, settings."""
    made = kind.__new__(kind)
    made.__dict__.update(plain.__dict__)
    return made


@contextmanager
def using(chosen: Measures) -> Iterator[None]:
    """Use these within this context: to compare, and to count the operations that the model as defined needs."""
    before = _current
    use_measures(chosen)
    try:
        yield
    finally:
        use_measures(before)
