"""What takes the steps of a stage: AdamW, as FlowSep has it, or Muon on the matrices inside the network beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

EDGES = ("conv_in", "conv_out", "time_embedding", "class_embedding")  # what leads in and out stays with AdamW


def build_optimiser(objective: nn.Module, kind: str, learning_rate: float, weight_decay: float) -> Optimizer:
    """The optimiser `kind`, adamw or muon, of all that `objective` trains."""
    trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    kernels = {name: p for name, p in trained.items() if kind == "muon" and is_inner(name, p)}
    rest = [p for name, p in trained.items() if name not in kernels]
    if not kernels:
        return torch.optim.AdamW(rest, lr=learning_rate, weight_decay=weight_decay, fused=True)
    return MuonAndAdamW(list(kernels.values()), rest, learning_rate, weight_decay)


def is_inner(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes this one: a matrix or kernel of a layer that is not at an edge of the network."""
    return parameter.ndim >= 2 and not any(part in EDGES for part in name.split("."))


class MuonAndAdamW(Optimizer):
    """Muon on kernels (out, in, ...) and AdamW on the rest, as one optimiser.

    Muon (Jordan et al., 2024; here torch.optim's) orthogonalises the momentum of every matrix, so that no direction in
    it is neglected. It knows matrices only: of a kernel (out, in, h, w) it is lent (out, in h w), in the same memory.
    """

    def __init__(
        self, kernels: list[nn.Parameter], rest: list[nn.Parameter], learning_rate: float, weight_decay: float
    ) -> None:
        settings = {"lr": learning_rate, "weight_decay": weight_decay}
        self.kernels = kernels
        self.matrices = [nn.Parameter(kernel.detach().view(len(kernel), -1)) for kernel in kernels]
        for kernel, matrix in zip(kernels, self.matrices, strict=True):
            kernel.register_post_accumulate_grad_hook(lender(matrix))
        # Steps as long as AdamW's usually are, so that one learning rate serves both (Liu et al., 2025).
        self.parts = [
            torch.optim.Muon(self.matrices, adjust_lr_fn="match_rms_adamw", **settings),
            torch.optim.AdamW(rest, fused=True, **settings),
        ]
        super().__init__([*self.matrices, *rest], settings)
        self.share_groups()

    def share_groups(self) -> None:
        """The groups of this optimiser are those of its parts, so that a rate set here is set there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of each part."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, also those that were lent."""
        for part in self.parts:
            part.zero_grad(set_to_none)
        for kernel in self.kernels:
            kernel.grad = None

    def state_dict(self) -> dict[str, Any]:
        """State of each part."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.share_groups()


def lender(matrix: nn.Parameter) -> Callable[[Tensor], None]:
    """A hook that gives `matrix` the gradient of its kernel, in the same memory, so that it is clipped with it."""

    def lend(kernel: Tensor) -> None:
        kernel.grad = kernel.grad.contiguous()
        matrix.grad = kernel.grad.view_as(matrix)

    return lend
