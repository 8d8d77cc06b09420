from __future__ import annotations

import pytest
import torch

from volseg.inferers.slice_stack import SliceStacks, check_slices

STACKS = [
    SliceStacks(1, 1),
    SliceStacks(1, 5, 5),
    SliceStacks(2, 7, 7, 3),
    SliceStacks(7, 3),
    SliceStacks(7, 3, 3),
    SliceStacks(8, 3, 3, 2),
    SliceStacks(11, 5, 5, 5),
]


@pytest.mark.parametrize("stacks", STACKS, ids=str)
def test_the_shares_of_the_predictions_of_each_slice_sum_to_one(stacks):
    total = torch.zeros(stacks.depth)
    for target in stacks.targets(0, len(stacks)).flatten().tolist():
        if 0 <= target < stacks.depth:
            total[target] += stacks.shares[target]
    torch.testing.assert_close(total, torch.ones(stacks.depth))


@pytest.mark.parametrize("stacks", STACKS, ids=str)
def test_a_predicted_slice_of_the_volume_is_read_at_its_own_place(stacks):
    sources, targets = stacks.sources(0, len(stacks)), stacks.targets(0, len(stacks))
    offset = (stacks.in_slices - stacks.out_slices) // 2
    read = sources[:, offset : offset + stacks.out_slices]
    inside = (targets >= 0) & (targets < stacks.depth)
    assert torch.equal(read[inside], targets[inside])


def test_stacks_with_a_step_stay_inside_the_volume_and_shift_the_last():
    stacks = SliceStacks(depth=8, in_slices=3, out_slices=3, slice_step=2)
    assert stacks.sources(0, 9).tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6], [5, 6, 7]]


def test_edge_slices_are_repeated_beyond_a_thin_volume():
    assert SliceStacks(2, 5).sources(0, 2).tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 1, 1), "in_slices must be an odd number of slices, got 4; use 3 or 5"),
        ((5, 3, 1), r"out_slices must be 1 or in_slices \(5\), got 3"),
        ((3, 3, 0), "slice_step must be positive and finite, got 0"),
        ((3, 1, 2), r"slice_step must not exceed out_slices \(1\), got 2; slices between two stacks"),
    ],
    ids=["even", "neither", "zero", "gaps"],
)
def test_sizes_without_a_meaning_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_slices(*arguments)
