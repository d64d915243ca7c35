"""What is used of the bigvgan package, imported without its side effect.

The package switches matplotlib to a backend that shows nothing, so that figures would vanish from a user's notebook.
"""

from __future__ import annotations

import matplotlib

_use, matplotlib.use = matplotlib.use, lambda *_, **__: None
try:
    from bigvgan import BigVGAN
    from bigvgan.alias_free_activation.torch.act import Activation1d
    from bigvgan.env import AttrDict
    from bigvgan.loss import discriminator_loss, feature_loss, generator_loss
finally:
    matplotlib.use = _use

__all__ = ["Activation1d", "AttrDict", "BigVGAN", "discriminator_loss", "feature_loss", "generator_loss"]
