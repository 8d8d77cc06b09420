from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from volseg.transforms.slice_stack import stack_slices, unstack_slices

SHAPE = (2, 7, 5, 6)


def volume(dtype: torch.dtype = torch.uint16) -> torch.Tensor:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 60000, SHAPE))
    return values.to(dtype)


@pytest.mark.parametrize("in_slices", [1, 3, 5])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_unstack_is_the_inverse_of_stack(axis: int, in_slices: int) -> None:
    source = volume()
    stacks = stack_slices(source, axis, range(SHAPE[axis + 1]), in_slices)
    assert stacks.dtype == source.dtype
    assert torch.equal(unstack_slices(stacks, axis, in_slices), source)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_stack_holds_the_neighbours_channel_by_channel(axis: int) -> None:
    source = volume(torch.float32)
    stack = stack_slices(source, axis, [2], 3)[0]
    for channel in range(2):
        for position, row in enumerate((1, 2, 3)):
            assert torch.equal(stack[channel * 3 + position], source[channel].select(axis, row))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_edges_repeat(axis: int) -> None:
    source = volume()
    last = SHAPE[axis + 1] - 1
    first, end = stack_slices(source[:1], axis, [0, last], 5)
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[1], first[2])
    assert torch.equal(first[2], source[0].select(axis, 0))
    assert torch.equal(end[4], source[0].select(axis, last))
    assert torch.equal(end[1], source[0].select(axis, last - 1))


def test_indices_come_in_the_order_asked_for() -> None:
    source = volume()
    stacks = stack_slices(source, 0, torch.tensor([4, 1, 4]), 1)
    assert torch.equal(stacks[1], source[:, 1])
    assert torch.equal(stacks[0], stacks[2])


def test_strides_and_kinds_of_storage_do_not_matter(tmp_path) -> None:
    source = volume()
    expected = stack_slices(source, 2, [0, 3], 3)
    np.save(tmp_path / "volume.npy", source.numpy())
    mapped = np.load(tmp_path / "volume.npy", mmap_mode="r")
    swapped = source.numpy().astype(">u2")
    strided = source.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)
    for same in (mapped, swapped, strided, MetaTensor(source)):
        found = stack_slices(same, 2, [0, 3], 3)
        assert type(found) is torch.Tensor
        assert found.dtype == torch.uint16
        assert torch.equal(found, expected)


def test_no_indices_give_an_empty_batch() -> None:
    assert stack_slices(volume(), 1, [], 3).shape == (0, 6, 7, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((volume(), 0, [0], 4), "in_slices must be an odd number of slices, got 4; use 3 or 5"),
        ((volume(), 3, [0], 3), "axis must be 0, 1 or 2, got 3"),
        ((volume(), 0, [7], 3), "indices must lie in 0..6, got 7; the axis has 7 slices"),
        ((volume(), 0, [-1], 3), "indices must lie in 0..6, got -1"),
        (
            (volume()[0], 0, [0], 3),
            "a volume must be (C, D0, D1, D2), got shape (7, 5, 6); add the channel axis",
        ),
    ],
    ids=["even", "axis", "beyond", "negative", "no channel"],
)
def test_wrong_arguments_are_told(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        stack_slices(*arguments)


def test_unstack_refuses_channels_that_are_no_stacks() -> None:
    with pytest.raises(ValueError, match="stacks must have a multiple of 3 channels, got 4"):
        unstack_slices(torch.zeros(5, 4, 6, 7), 0, 3)
    with pytest.raises(ValueError, match="axis must be"):
        unstack_slices(torch.zeros(5, 3, 6, 7), 4, 3)
