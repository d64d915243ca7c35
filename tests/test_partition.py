"""Masks that share a recording out without remainder."""

from itertools import product

import pytest
import torch

from flowsep.partition import partition_masks

ROUNDING = 2e-7  # of a sum of K float32 gains, per query


@pytest.mark.parametrize("queries", [1, 2, 3, 8, 20])
def test_shares_and_rest_are_not_negative_and_sum_to_one_in_every_cell(queries):
    shares, rest = partition_masks(torch.rand(queries, 50, 64, generator=torch.Generator().manual_seed(queries)))
    assert shares.min() >= 0 and rest.min() >= 0
    total = shares.double().sum(0) + rest
    torch.testing.assert_close(total, torch.ones(50, 64, dtype=torch.float64), rtol=0, atol=queries * ROUNDING)


@pytest.mark.parametrize("corner", [0.0, 0.5, 1.0])
def test_masks_at_the_corners_are_shared_out_too(corner):
    shares, rest = partition_masks(torch.full((8, 2, 3), corner))
    torch.testing.assert_close(shares.sum(0) + rest, torch.ones(2, 3))
    torch.testing.assert_close(shares, torch.full((8, 2, 3), min(corner, 1 / 8)))


def test_masks_that_leave_room_for_each_other_are_untouched():
    masks = torch.rand(3, 20, 64) / 3
    shares, rest = partition_masks(masks)
    assert torch.equal(shares, masks)
    torch.testing.assert_close(rest, 1 - masks.sum(0))


def test_one_query_keeps_its_mask():
    mask = torch.rand(1, 20, 64)
    shares, rest = partition_masks(mask)
    assert torch.equal(shares, mask) and torch.equal(rest, 1 - mask[0])


def test_identical_queries_get_identical_shares_and_half_of_a_high_mask():
    mask = torch.rand(20, 64)
    shares, rest = partition_masks(torch.stack([mask, mask]))
    assert torch.equal(shares[0], shares[1])
    torch.testing.assert_close(shares[0], mask.clamp(max=0.5))
    torch.testing.assert_close(rest, (1 - 2 * mask).clamp(min=0))


def test_the_stronger_claim_wins_and_the_order_of_queries_does_not_matter():
    shares, rest = partition_masks(torch.tensor([0.9, 0.5, 0.1])[:, None, None])
    torch.testing.assert_close(shares.flatten(), torch.tensor([0.7, 0.3, 0.0]))
    assert rest.item() == pytest.approx(0, abs=1e-7)
    masks = torch.rand(5, 10, 64)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(partition_masks(masks[order])[0], partition_masks(masks)[0][order])


def test_no_other_partition_is_nearer_to_the_masks():
    claims = torch.tensor([0.9, 0.7, 0.2])
    found = partition_masks(claims[:, None, None])[0].flatten()
    grid = torch.tensor([point for point in product(torch.linspace(0, 1, 41).tolist(), repeat=3) if sum(point) <= 1])
    nearest = (grid - claims).square().sum(1).min()
    assert (found - claims).square().sum() <= nearest + 1e-6


def test_gains_beyond_zero_to_one_are_clipped_first():
    shares, rest = partition_masks(torch.tensor([1.5, -0.5])[:, None, None])
    assert shares.flatten().tolist() == [1.0, 0.0] and rest.item() == 0
