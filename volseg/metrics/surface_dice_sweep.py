"""Surface Dice at many thresholds, from one pass over the probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
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
_Counts = npt.NDArray[np.int64]
_Indices = npt.NDArray[np.uint16]
_Doubles = npt.NDArray[np.float64]

# Eight corners sorted by 19 compare-and-exchange steps, each on whole arrays (Knuth, The Art of Computer
# Programming 3, 5.3.4: the odd-even merge network).
_EXCHANGES = (
    *((0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (1, 2), (5, 6)),
    *((0, 4), (1, 5), (2, 6), (3, 7), (2, 4), (3, 5), (1, 2), (3, 4), (5, 6)),
)

_BATCH = 1 << 19  # bytes; sorting and counting pay for many neighbourhoods at a time
_LEVEL = np.uint16(0xFF00)  # the upper byte of a key or index
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
    """Counts of codes, booked as changes from threshold to threshold; integers, so that nothing rounds.

    A voxel of level n is foreground at the first n thresholds.
    """

    def __init__(self, thresholds: int) -> None:
        self.thresholds = thresholds
        self.cells = (thresholds + 1) * 256  # index: level << 8 | code
        self.pred, self.pred_near, self.truth_near = np.zeros((3, self.cells), dtype=np.int64)
        self.truth = np.zeros(256, dtype=np.int64)
        self.waiting_pred: list[_Plane] = []  # (9, n): eight corners, is the truth's surface here?
        self.waiting_truth: list[_Plane] = []  # (3, n): code, lowest and highest level

    def book(self, padded: tuple[_Plane, _Plane], labels: tuple[_Plane, _Plane]) -> None:
        """Book the layer between two slices: levels with a margin of one voxel, and codes of labels."""
        codes = join_planes(*labels)
        border = border_of(codes)
        low, high = _lowest_and_highest(*padded)
        surface = np.flatnonzero(border)
        self.waiting_truth.append(np.stack([plane.ravel()[surface] for plane in (codes, low, high)]))
        active = np.flatnonzero(low != high)
        width = padded[0].shape[1]
        place = active + active // (width - 1)  # a layer is one column narrower than a padded slice
        steps = (0, 1, width, width + 1)
        corners = [plane.ravel()[place + step] for plane in padded for step in steps]
        self.waiting_pred.append(np.stack([*corners, border.ravel()[active]], dtype=np.uint8))
        if sum(part.size for part in (*self.waiting_pred, *self.waiting_truth)) > _BATCH:
            self._settle()

    def _settle(self) -> None:
        if self.waiting_pred:
            self._settle_truth(*np.concatenate(self.waiting_truth, axis=1))
            *corners, near = np.concatenate(self.waiting_pred, axis=1)
            self._settle_pred(corners, near.view(np.bool_))
            self.waiting_truth.clear()
            self.waiting_pred.clear()

    def _settle_truth(self, codes: _Plane, low: _Plane, high: _Plane) -> None:
        # the prediction has a surface in a neighbourhood from its lowest level to its highest
        self.truth += np.bincount(codes, minlength=256)
        first, last = (np.left_shift(level, 8, dtype=np.uint16) | codes for level in (low, high))
        self._change(self.truth_near, [first], [last])

    def _settle_pred(self, corners: list[_Plane], near: npt.NDArray[np.bool_]) -> None:
        # from the lowest level to the highest, one corner after the other falls out of the code
        keys = [
            corner.astype(np.uint16) << 8 | np.uint16(128 >> place) for place, corner in enumerate(corners)
        ]
        for one, other in _EXCHANGES:
            keys[one], keys[other] = np.minimum(keys[one], keys[other]), np.maximum(keys[one], keys[other])
        code = np.full(len(near), 255, dtype=np.uint8)
        gained: list[_Indices] = []
        lost: list[_Indices] = []
        for key, following in pairwise(keys):
            code ^= key.astype(np.uint8)
            gained.append(np.bitwise_or(key & _LEVEL, code, dtype=np.uint16))
            lost.append(np.bitwise_or(following & _LEVEL, code, dtype=np.uint16))
        self._change(self.pred, gained, lost)
        self._change(self.pred_near, [index[near] for index in gained], [index[near] for index in lost])

    def _change(self, account: _Counts, gained: list[_Indices], lost: list[_Indices]) -> None:
        account += np.bincount(np.concatenate(gained), minlength=self.cells)
        account -= np.bincount(np.concatenate(lost), minlength=self.cells)

    def scores(self, areas: _Doubles, empty_value: float) -> _Doubles:
        """Surface Dice at each threshold."""
        self._settle()
        accounts = (self.pred, self.pred_near, self.truth_near)
        pred, pred_near, truth_near = (self._area_at_thresholds(account, areas) for account in accounts)
        whole = pred + self.truth @ areas
        empty = np.full(self.thresholds, empty_value)
        return np.divide(pred_near + truth_near, whole, out=empty, where=whole > 0)

    def _area_at_thresholds(self, account: _Counts, areas: _Doubles) -> _Doubles:
        codes = np.cumsum(account.reshape(-1, 256), axis=0)[: self.thresholds]
        return np.asarray(codes @ areas)


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
