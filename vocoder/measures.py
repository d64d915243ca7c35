"""Which of the faster formulations run: one record for all three packages, so that one switch turns each off.

Each is the plain computation in another order of operations, beside the module that it speeds up; docs/performance.md
has what each gains. They are for inference: training takes the plain path whatever is asked for here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Measures:
    """The measures by name; all run unless told otherwise."""

    framed: bool = True  # the vocoder's anti-aliased activation as matrix products (vocoder/activation.py)
    winograd: bool = True  # 3 x 3 convolutions of VAE and UNet with fewer multiplications (vae/winograd.py)
    trimmed: bool = True  # no text states of the padding, which the UNet's mask hides (flowsep/text.py)
    text_once: bool = True  # keys and values of the text once for all steps (flowsep/attention.py)
    paired: bool = True  # guidance as one batch of two (flowsep/flow/guidance.py)


PLAIN = Measures(framed=False, winograd=False, trimmed=False, text_once=False, paired=False)
_current = Measures()


def measures() -> Measures:
    """Those in use."""
    return _current


def use_measures(chosen: Measures) -> None:
    """Use these from here on, in the whole process."""
    global _current
    _current = chosen


@contextmanager
def using(chosen: Measures) -> Iterator[None]:
    """Use these within this context: to compare, and to count the operations that the model as defined needs."""
    before = _current
    use_measures(chosen)
    try:
        yield
    finally:
        use_measures(before)
