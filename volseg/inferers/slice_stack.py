"""Slice stacks along one axis of a volume: where they start, what they read, which slices they predict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from volseg.checks import check_odd, check_positive
from volseg.inferers.tiles import window_starts

__all__ = ["SliceStacks", "check_slices"]


@dataclass(frozen=True)
class SliceStacks:
    """All stacks of neighbouring slices that a network sees along one axis.

    With `slice_step` 1 every slice is once the middle of a stack, and neighbours beyond the volume repeat the
    edge slice. With a larger step the stacks lie inside the volume and the last one is shifted:
      7 slices, stacks of 3, step 2:  [0 1 2]  [2 3 4]  [4 5 6]

    Attributes:
        depth: slices of the volume along the axis.
        in_slices: S, slices of a stack.
        out_slices: M, slices predicted from a stack: its middle one, or all.
        slice_step: slices from one stack to the next.

    Example:
        >>> stacks = SliceStacks(depth=4, in_slices=3)
        >>> stacks.sources(0, 4).tolist()
        [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
        >>> stacks.targets(0, 4).tolist()
        [[0], [1], [2], [3]]
    """

    depth: int
    in_slices: int
    out_slices: int = 1
    slice_step: int = 1

    @cached_property
    def starts(self) -> torch.Tensor:
        """(stacks,) first slice of each stack; negative where the edge is repeated."""
        if self.slice_step == 1:
            return torch.arange(self.depth) - self.in_slices // 2
        return torch.tensor(window_starts(self.depth, self.in_slices, self.slice_step))

    def __len__(self) -> int:
        return len(self.starts)

    def sources(self, first: int, stop: int) -> torch.Tensor:
        """(stacks, S) slices that stacks `first` to `stop` read, all of them in the volume."""
        return (self.starts[first:stop, None] + torch.arange(self.in_slices)).clamp(0, self.depth - 1)

    def targets(self, first: int, stop: int) -> torch.Tensor:
        """(stacks, M) slices that stacks `first` to `stop` predict; some lie beyond the volume when M = S."""
        offset = torch.arange(self.out_slices) + (self.in_slices - self.out_slices) // 2
        return self.starts[first:stop, None] + offset

    @cached_property
    def shares(self) -> torch.Tensor:
        """(depth,) one over the number of stacks that predict a slice."""
        targets = self.targets(0, len(self)).flatten()
        inside = targets[(targets >= 0) & (targets < self.depth)]
        return 1.0 / torch.bincount(inside, minlength=self.depth).to(torch.float32)


def check_slices(in_slices: int, out_slices: int, slice_step: int) -> None:
    """Refuse combinations of stack sizes that would leave slices without a prediction.

    Raises:
        ValueError: when `in_slices` is even, `out_slices` is neither 1 nor `in_slices`, or `slice_step` skips
            slices.

    Example:
        >>> check_slices(in_slices=3, out_slices=2, slice_step=1)
        Traceback (most recent call last):
        ValueError: out_slices must be 1 or in_slices (3), got 2
    """
    check_odd("in_slices", in_slices)
    if out_slices not in (1, in_slices):
        raise ValueError(f"out_slices must be 1 or in_slices ({in_slices}), got {out_slices}")
    check_positive("slice_step", slice_step)
    if slice_step > out_slices:
        raise ValueError(
            f"slice_step must not exceed out_slices ({out_slices}), got {slice_step}; "
            f"slices between two stacks would have no prediction"
        )
