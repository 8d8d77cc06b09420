"""Surface Dice at many thresholds, from one pass over the probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.checks import check_positive
from volseg.metrics.neighbour_codes import (
    border_of,
    check_pair,
    join_planes,
    mask_of,
    plane_codes,
    streaming_order,
    to_array,
)
from volseg.metrics.surface_area import compute_surface_area_table

__all__ = ["compute_surface_dice_sweep"]

_Plane = npt.NDArray[np.uint8]
_Doubles = npt.NDArray[np.float64]

# Eight corners sorted by 19 compare-and-exchange steps, each on whole arrays (Knuth, The Art of Computer
# Programming 3, 5.3.4: the odd-even merge network).
_EXCHANGES = (
    *((0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (1, 2), (5, 6)),
    *((0, 4), (1, 5), (2, 6), (3, 7), (2, 4), (3, 5), (1, 2), (3, 4), (5, 6)),
)

_BATCH = 1 << 18  # counting into a large table pays for many entries at a time
_SLACK = 1e-3  # a mean of half-precision views may pass 1 by rounding


def compute_surface_dice_sweep(
    probability: Any,
    truth: Any,
    *,
    spacing_mm: Sequence[float],
    thresholds: Sequence[float],
    empty_value: float = math.nan,
    ignore_value: int | None = None,
) -> _Doubles:
    """Surface Dice at tolerance 0 of `probability >= t` for each threshold t.

    Each score equals `compute_surface_dice` of the thresholded volume. The code of a neighbourhood changes
    at most eight times while the threshold rises past its eight corners, so the areas are booked as
    differences at those thresholds and summed up at the end. Two slices are in memory.

    Args:
        probability: (x, y, z) floating-point array in [0, 1], or uint8 where 255 stands for 1.
        truth: mask of the same shape, non-zero is foreground.
        spacing_mm: edge lengths of a voxel along x, y, z.
        thresholds: 1 to 255 rising numbers in (0, 1]; compared in the precision of `probability`.
        empty_value: score where both masks are empty.
        ignore_value: voxels of this value in `truth` are background in both masks.

    Returns:
        (T,) one score per threshold.

    Raises:
        ValueError: for other shapes or types, thresholds out of order, NaN or values outside [0, 1].

    Example:
        >>> truth = np.zeros((5, 5, 5), dtype=bool)
        >>> truth[1:4, 1:4, 1:4] = True
        >>> soft = np.where(truth, np.float32(0.7), np.float32(0.1))
        >>> compute_surface_dice_sweep(soft, truth, spacing_mm=(1, 1, 1), thresholds=[0.5, 0.9]).tolist()
        [1.0, 0.0]
    """
    check_positive("spacing_mm", spacing_mm)
    soft, mask = to_array(probability), to_array(truth)
    check_pair(soft, mask)
    order = streaming_order(soft)
    ledger = _Ledger(len(thresholds))
    levels_of = _quantiser(thresholds, soft.dtype)
    soft, mask = soft.transpose(order), mask.transpose(order)
    no_level, no_label = (np.zeros(np.add(soft.shape[1:], margin), dtype=np.uint8) for margin in (2, 1))
    before = no_level, no_label
    for k in range(len(soft) + 1):
        after = no_level, no_label
        if k < len(soft):
            levels, labels = levels_of(soft[k]), mask_of(mask[k], "truth").view(np.uint8)
            if ignore_value is not None:
                labelled = (mask[k] != ignore_value).view(np.uint8)
                levels, labels = levels * labelled, labels * labelled
            after = (
                np.pad(levels, 1) if levels.any() else no_level,
                plane_codes(labels) if labels.any() else no_label,
            )
        if any(plane is not no_level and plane is not no_label for plane in before + after):
            ledger.book((before[0], after[0]), (before[1], after[1]))
        before = after
    areas = compute_surface_area_table([spacing_mm[axis] for axis in order])
    return ledger.scores(areas, float(empty_value))


class _Ledger:
    """Counts of codes, booked as changes from threshold to threshold; integers, so that nothing rounds."""

    _BITS = 1 << np.arange(8, dtype=np.uint8)

    def __init__(self, thresholds: int) -> None:
        self.thresholds = thresholds
        # how often a corner falls out of a code: [on truth's surface?, level, bit of the corner, code before]
        self.pred = np.zeros((2, thresholds + 1, 8, 256), dtype=np.int64)
        self.waiting: list[npt.NDArray[np.uint32]] = []
        self.truth = np.zeros(256, dtype=np.int64)
        self.truth_near = np.zeros((thresholds + 1, 256), dtype=np.int64)

    def book(self, padded: tuple[_Plane, _Plane], labels: tuple[_Plane, _Plane]) -> None:
        """Book the layer between two slices: levels with a margin of one voxel, and codes of labels.

        A voxel of level n is foreground at the first n thresholds.
        """
        codes = join_planes(*labels)
        border = border_of(codes)
        low, high = _lowest_and_highest(*padded)
        surface = np.flatnonzero(border)
        self._book_truth(codes.ravel()[surface], low.ravel()[surface], high.ravel()[surface])
        active = np.flatnonzero(low != high)
        if len(active):
            width = padded[0].shape[1]
            place = active + active // (width - 1)  # a layer is one column narrower than a padded slice
            steps = (0, 1, width, width + 1)
            corners = [plane.ravel()[place + step] for plane in padded for step in steps]
            self._book_pred(corners, border.ravel()[active])

    def _book_truth(self, codes: _Plane, low: _Plane, high: _Plane) -> None:
        # the prediction has a surface in a neighbourhood from its lowest level to its highest
        self.truth += np.bincount(codes, minlength=256)
        for level, sign in ((low, 1), (high, -1)):
            booked = np.bincount(level.astype(np.uint16) << 8 | codes, minlength=self.truth_near.size)
            self.truth_near += sign * booked.reshape(self.truth_near.shape)

    def _book_pred(self, corners: list[_Plane], near: npt.NDArray[np.bool_]) -> None:
        keys = [corner.astype(np.uint16) << 3 | np.uint16(7 - place) for place, corner in enumerate(corners)]
        for one, other in _EXCHANGES:
            keys[one], keys[other] = np.minimum(keys[one], keys[other]), np.maximum(keys[one], keys[other])
        code = np.full(len(near), 255, dtype=np.uint8)
        account = near.astype(np.uint32) * np.uint32(self.pred[0].size)
        for key in keys:
            self.waiting.append((key.astype(np.uint32) << 8 | code) + account)
            code ^= self._BITS[key & 7]
        if sum(map(len, self.waiting)) > _BATCH:
            self._book_waiting()

    def _book_waiting(self) -> None:
        if self.waiting:
            booked = np.bincount(np.concatenate(self.waiting), minlength=self.pred.size)
            self.pred += booked.reshape(self.pred.shape)
            self.waiting.clear()

    def scores(self, areas: _Doubles, empty_value: float) -> _Doubles:
        """Surface Dice at each threshold."""
        self._book_waiting()
        far, near = (self._codes_at_thresholds(changes) @ areas for changes in self.pred)
        pred = far + near
        near = near + np.cumsum(self.truth_near, axis=0)[: self.thresholds] @ areas
        whole = pred + self.truth @ areas
        return np.divide(near, whole, out=np.full(self.thresholds, empty_value), where=whole > 0)

    def _codes_at_thresholds(self, lost: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        counts = -lost.sum(axis=1)
        for bit in range(8):
            holds = np.flatnonzero(np.arange(256) >> bit & 1)
            counts[:, holds - (1 << bit)] += lost[:, bit, holds]
        return np.cumsum(counts, axis=0)[: self.thresholds]


def _lowest_and_highest(one: _Plane, other: _Plane) -> tuple[_Plane, _Plane]:
    low, high = np.minimum(one, other), np.maximum(one, other)
    low, high = np.minimum(low[:-1], low[1:]), np.maximum(high[:-1], high[1:])
    return np.minimum(low[:, :-1], low[:, 1:]), np.maximum(high[:, :-1], high[:, 1:])


def _quantiser(thresholds: Sequence[float], dtype: np.dtype[Any]) -> Callable[[npt.NDArray[Any]], _Plane]:
    """Function from a slice of probabilities to the number of thresholds that each of them reaches."""
    rising = np.asarray(thresholds, dtype=np.float64)
    counted = rising.ndim == 1 and 1 <= len(rising) <= 255
    if not counted or (np.diff(rising, prepend=0.0) <= 0).any() or rising[-1] > 1:
        raise ValueError(f"thresholds must be 1 to 255 rising numbers in (0, 1], got {list(thresholds)}")
    if dtype == np.uint8:
        levels = np.searchsorted(rising, np.arange(256) / 255.0, side="right").astype(np.uint8)
        return lambda plane: levels[plane]
    if dtype.kind != "f":
        raise ValueError(
            f"probability must be floating-point or uint8, got {dtype}; pass a mask to compute_surface_dice"
        )
    edges = rising.astype(dtype)

    def levels_of(plane: npt.NDArray[Any]) -> _Plane:
        _check_range(plane)
        levels = np.zeros(plane.shape, dtype=np.uint8)
        reached = plane >= edges[0]  # most voxels of a sparse structure stay below all thresholds
        levels[reached] = np.searchsorted(edges, plane[reached], side="right")
        return levels

    return levels_of


def _check_range(plane: npt.NDArray[Any]) -> None:
    if plane.size and not (plane.min() >= -_SLACK and plane.max() <= 1.0 + _SLACK):
        found = f"{plane.min()} to {plane.max()}"
        raise ValueError(f"probability must lie in [0, 1], got {found}; apply sigmoid and look for NaN")
