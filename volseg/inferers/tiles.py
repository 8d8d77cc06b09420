"""Windows that cover a plane, with blending weights that sum to one in every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from volseg.checks import check_choice, check_positive

__all__ = ["Blend", "Tile", "plan_tiles", "window_starts"]

Blend = Literal["constant", "gaussian"]

_GAUSSIAN_SIGMA = 0.125
"""Standard deviation of the gaussian blend in window lengths, as in MONAI's sliding window."""


@dataclass(frozen=True, eq=False)
class Span:
    """One window along one in-plane axis.

    Attributes:
        start: first pixel; negative when the plane is shorter than the window.
        length: pixels of the window, the padding included.
        inside: range of plane pixels under the window.
        weights: (stop - start of `inside`,) share of each pixel's blend that this window gives.
    """

    start: int
    length: int
    inside: slice
    weights: torch.Tensor

    @property
    def padding(self) -> tuple[int, int]:
        """Pixels of the window before and beyond the plane."""
        return self.inside.start - self.start, self.start + self.length - self.inside.stop

    @property
    def unpadded(self) -> slice:
        """Range of window pixels that lie in the plane."""
        return slice(self.inside.start - self.start, self.inside.stop - self.start)


@dataclass(frozen=True, eq=False)
class Tile:
    """One window of a plane: a span of rows times a span of columns."""

    rows: Span
    columns: Span

    @property
    def pixels(self) -> int:
        """Pixels of the window, the padding included."""
        return self.rows.length * self.columns.length

    @property
    def is_padded(self) -> bool:
        """Whether the window is larger than the plane."""
        return any(self.rows.padding + self.columns.padding)

    def weights(self, device: torch.device) -> torch.Tensor:
        """(h, w) blending weights of the pixels inside the plane; over all tiles they sum to one."""
        return torch.outer(self.rows.weights, self.columns.weights).to(device)


def plan_tiles(
    plane: Sequence[int], roi_size: Sequence[int] | None, overlap: float = 0.5, blend: Blend = "constant"
) -> tuple[Tile, ...]:
    """Cover a plane with windows of one size.

    Windows form a grid, so their weights are products of two vectors: no count map of the plane is built.

    Args:
        plane: (H, W) of the plane.
        roi_size: (h, w) of the window; None takes the whole plane.
        overlap: share of a window that its neighbour covers too, in [0, 1).
        blend: "constant" averages overlapping windows, "gaussian" trusts their centres more.

    Example:
        >>> [tile.columns.inside for tile in plan_tiles((4, 10), (4, 5), overlap=0.4)]
        [slice(0, 5, None), slice(3, 8, None), slice(5, 10, None)]
    """
    height, width = roi_size if roi_size is not None else plane
    rows = _plan_spans(plane[0], height, overlap, blend)
    columns = _plan_spans(plane[1], width, overlap, blend)
    return tuple(Tile(row, column) for row in rows for column in columns)


def window_starts(size: int, window: int, step: int) -> tuple[int, ...]:
    """First positions of windows along an axis.

    10 voxels, window 5, step 3:  [0 1 2 3 4]  [3 4 5 6 7]  [5 6 7 8 9]   <- the last is shifted, not padded
    An axis shorter than the window is padded on both sides, so that its one window starts at or before 0.

    Raises:
        ValueError: when size, window or step is not positive.

    Example:
        >>> window_starts(10, 5, 3), window_starts(4, 7, 3)
        ((0, 3, 5), (-1,))
    """
    check_positive("size, window and step", (size, window, step))
    if size <= window:
        return (-((window - size) // 2),)
    return (*range(0, size - window, step), size - window)


def _plan_spans(size: int, window: int, overlap: float, blend: Blend) -> tuple[Span, ...]:
    check_choice("blend", blend, ("constant", "gaussian"))
    starts = window_starts(size, window, max(1, int(window * (1 - overlap))))
    profile = torch.ones(window, dtype=torch.float64)
    if blend == "gaussian":
        offset = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
        profile = torch.exp(-0.5 * (offset / (_GAUSSIAN_SIGMA * window)) ** 2)
    total = torch.zeros(size, dtype=torch.float64)
    cover = []
    for start in starts:
        inside = slice(max(start, 0), min(start + window, size))
        share = profile[inside.start - start : inside.stop - start]
        total[inside] += share
        cover.append((start, inside, share))
    return tuple(
        Span(start, window, inside, (share / total[inside]).to(torch.float32))
        for start, inside, share in cover
    )
