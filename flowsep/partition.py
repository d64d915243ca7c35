"""Masks that share one recording out without remainder: every cell belongs to the queries and to the rest, wholly."""

from __future__ import annotations

import torch
from torch import Tensor


def partition_masks(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (K, N, M) of K queries -> their shares (K, N, M) and the rest (N, M): in 0..1, one in sum in every cell.

    With m_k the masks of one cell, clipped to 0..1, the shares and the rest are

        w_k = max(0, m_k - tau),   rest = 1 - sum_k w_k,   tau >= 0 the smallest for which sum_k w_k <= 1:

    the point nearest to the m_k, in least squares, that a recording can be divided into. It is the mixture consistency
    of Wisdom et al. (ICASSP 2019) under the constraint that no gain is negative (the projection onto a simplex; Duchi
    et al., ICML 2008). Masks that leave room for each other are untouched, so one query alone keeps its mask; where
    queries overlap, all give up the same amount, and what claims least goes first. Two queries with the same mask share
    it in halves where it is above 1/2; below, each keeps it, because nothing tells them from two different sounds.
    """
    claims = masks.clamp(0, 1)
    falling = claims.sort(dim=0, descending=True).values
    excess = falling.cumsum(dim=0) - 1  # of the j + 1 largest
    count = torch.arange(1, len(claims) + 1, dtype=claims.dtype, device=claims.device)[:, None, None]
    # tau is excess_j / j for the largest j at which the j-th largest claim stays above it.
    kept = (falling * count > excess).sum(dim=0, keepdim=True).clamp(min=1)
    tau = (excess.gather(0, kept - 1) / kept).clamp(min=0)
    shares = (claims - tau).clamp(min=0)
    return shares, (1 - shares.sum(dim=0)).clamp(min=0)
