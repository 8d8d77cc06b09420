"""Surface Dice at many thresholds, from one pass over the probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.checks import check_positive
from volseg.metrics.neighbour_codes import check_pair, mask_of, streaming_order, to_array
from volseg.metrics.surface_area import compute_surface_area_table

__all__ = ["compute_surface_dice_sweep"]

_Bytes = npt.NDArray[np.uint8]
_Flags = npt.NDArray[np.bool_]
_Places = npt.NDArray[np.intp]
_Counts = npt.NDArray[np.int64]
_Doubles = npt.NDArray[np.float64]
_Quantiser = Callable[[npt.NDArray[Any], "_Flags | None"], tuple[_Places, _Bytes]]

_CORNERS = tuple(product((0, 1), repeat=3))  # of a neighbourhood: (slice, row, column), highest bit first
_NEIGHBOURS = tuple(product((0, 1, 2), repeat=3))  # of a voxel, which is (1, 1, 1)
_MIDDLE = 13
# for each corner that a voxel can be of a neighbourhood: the other seven, as places in _NEIGHBOURS
_OTHERS = tuple(
    [_MIDDLE + (z - c) * 9 + (y - b) * 3 + (x - a) for z, y, x in _CORNERS if (z, y, x) != (c, b, a)]
    for c, b, a in _CORNERS
)
_BATCH = 1 << 15  # voxels; counting pays for many at a time
_BLOCK = 1 << 17  # voxels; small slices are read several at a time
_BINS = 1 << 12  # of equal width, in which a probability finds the thresholds near it
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

    Each score equals `compute_surface_dice` of the thresholded volume. As the threshold falls, voxels join
    the prediction one after the other, and each changes the codes of the eight neighbourhoods around it;
    only these changes are counted, so that the time depends on how many voxels reach the lowest threshold
    and hardly on the number of thresholds. Three slices are in memory.

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
    levels_of = _quantiser(thresholds, soft.dtype)
    soft, mask = soft.transpose(order), mask.transpose(order)
    ledger = _Ledger(len(thresholds))
    window = _Window(soft.shape[1:], ledger, levels_of)
    for start in range(0, len(soft) + 1, window.slices):  # an empty slice closes the volume
        part = slice(start, start + window.slices)
        window.advance(soft[part], mask[part], ignore_value)
    areas = compute_surface_area_table([spacing_mm[axis] for axis in order])
    return ledger.scores(areas, float(empty_value))


class _Window:
    """The slices in memory, two old ones before the new, as flat arrays in which a step is a number.

    A voxel of level n is foreground at the first n thresholds. One empty column parts the rows, one empty
    row the slices; both also bound the volume.
    """

    def __init__(self, shape: Sequence[int], ledger: _Ledger, levels_of: _Quantiser) -> None:
        self.shape = shape
        self.row = shape[1] + 1
        self.plane = (shape[0] + 1) * self.row
        self.slices = max(1, _BLOCK // self.plane)
        self.old = 2 * self.plane
        self.new = self.slices * self.plane
        self.ledger = ledger
        self.levels_of = levels_of
        self.levels, self.labels = np.zeros((2, self.old + self.new + self.row + 1), dtype=np.uint8)
        # of the neighbourhood that begins at a place: are its levels several, and the truth's surface there?
        self.mixed, self.near = np.zeros((2, self.plane + self.new), dtype=np.bool_)
        self.waiting = np.zeros(0, dtype=np.intp)  # voxels of the last slice, which lack the next
        self.empty_slices = 2

    def advance(self, soft: npt.NDArray[Any], mask: npt.NDArray[Any], ignore_value: int | None) -> None:
        """Take in the next slices, and book what is complete."""
        ignored = None if ignore_value is None else mask == ignore_value
        labels = mask_of(mask, "truth")
        if ignored is not None:
            labels = labels & ~ignored
        places, levels = self.levels_of(soft, ignored)
        nothing = not len(places) and not labels.any()
        if nothing and self.empty_slices >= 2:
            return
        self.empty_slices = self.empty_slices + self.slices if nothing else 0
        self._shift()
        grid = self.labels[self.old : self.old + self.new].reshape(self.slices, -1, self.row)
        grid[: len(labels), 1:, 1:] = labels
        first = self._first_neighbours(places)
        self.levels[self._step(1, 1, 1) :][first] = levels
        self._book_surface()
        first = np.concatenate((self.waiting, first))
        complete = np.searchsorted(first, self.new)
        self._book_voxels(first[:complete])
        self.waiting = first[complete:] - self.new

    def _shift(self) -> None:
        for volume in (self.levels, self.labels):
            volume[: self.old] = volume[self.new : self.new + self.old]
            volume[self.old :] = 0
        for cells in (self.mixed, self.near):
            cells[: self.plane] = cells[self.new :]

    def _first_neighbours(self, places: _Places) -> _Places:
        """Turn places in the new slices into those of the neighbours (0, 0, 0) in the window."""
        height, width = self.shape
        first = places + places // width
        first += places // (height * width) * self.row
        first += self.plane
        return first

    def _book_surface(self) -> None:
        levels, labels = self.levels[self.plane :], self.labels[self.plane :]
        mixed, near = self.mixed[self.plane :], self.near[self.plane :]
        lowest, highest = self._over_corners(levels, np.minimum), self._over_corners(levels, np.maximum)
        border = self._over_corners(labels, np.minimum) != self._over_corners(labels, np.maximum)
        np.not_equal(lowest, highest, out=mixed)
        np.logical_and(border, mixed, out=near)
        corners = [labels[self._step(*corner) :] for corner in _CORNERS]
        self.ledger.surface.gather([lowest, highest, *corners], np.flatnonzero(border))

    def _book_voxels(self, first: _Places) -> None:
        # where all levels around are one, the changes by the voxels cancel out
        first = first[self._over_corners(self.mixed, np.logical_or).take(first)]
        levels = [self.levels[self._step(*place) :] for place in _NEIGHBOURS]
        cells = self.near.view(np.uint8)
        near = [cells[self._step(1 - z, 1 - y, 1 - x) :] for z, y, x in _CORNERS]
        self.ledger.voxels.gather([*levels, *near], first)

    def _step(self, slices: int, rows: int, columns: int) -> int:
        return slices * self.plane + rows * self.row + columns

    def _over_corners(self, values: npt.NDArray[Any], of: np.ufunc) -> npt.NDArray[Any]:
        for step in (1, self.row, self.plane):
            values = of(values[:-step], values[step:])
        return values


class _Batch:
    """Rows of bytes, gathered from flat arrays at the same places and handed on when they are full."""

    def __init__(self, rows: int, settle: Callable[[_Bytes], None]) -> None:
        self.rows = np.empty((rows, _BATCH), dtype=np.uint8)
        self.filled = 0
        self.settle = settle

    def gather(self, sources: Sequence[_Bytes], places: _Places) -> None:
        while len(places):
            part, places = np.split(places, [_BATCH - self.filled])
            into = slice(self.filled, self.filled + len(part))
            for row, source in zip(self.rows, sources, strict=True):
                source.take(part, out=row[into], mode="clip")  # the one mode that fills `out` in place
            self.filled += len(part)
            if self.filled == _BATCH:
                self.flush()

    def flush(self) -> None:
        if self.filled:
            self.settle(self.rows[:, : self.filled])
            self.filled = 0


class _Ledger:
    """Counts of codes and of their changes at each level; integers, so that nothing rounds."""

    def __init__(self, thresholds: int) -> None:
        self.levels = thresholds + 1
        self.voxels = _Batch(len(_NEIGHBOURS) + 8, self._count_changes)
        self.surface = _Batch(10, self._count_surface)
        # index: level << 8 | near the truth's surface << 7 | the seven other corners, for each own corner
        self.joined = np.zeros((8, self.levels * 256), dtype=np.int64)
        # index: level << 8 | code; the truth's codes by the lowest and the highest level there
        self.lowest, self.highest = np.zeros((2, self.levels * 256), dtype=np.int64)

    def _count_changes(self, rows: _Bytes) -> None:
        around, near = np.split(rows, [len(_NEIGHBOURS)])
        level = around[_MIDDLE]
        # who of a voxel and its neighbour joins first? the higher level, of equals the first in the volume
        earlier = np.empty(around.shape, dtype=np.uint8)
        np.greater_equal(around[:_MIDDLE], level, out=earlier[:_MIDDLE].view(np.bool_))
        np.greater(around[_MIDDLE + 1 :], level, out=earlier[_MIDDLE + 1 :].view(np.bool_))
        index = np.left_shift(level, 8, dtype=np.uint16)
        for account, others, flag in zip(self.joined, _OTHERS, near, strict=True):
            code = _as_code([flag, *(earlier[place] for place in others)])
            account += np.bincount(index | code, minlength=len(account))

    def _count_surface(self, rows: _Bytes) -> None:
        lowest, highest, *corners = rows
        code = _as_code(corners)
        for account, level in ((self.lowest, lowest), (self.highest, highest)):
            index = np.left_shift(level, 8, dtype=np.uint16) | code
            account += np.bincount(index, minlength=len(account))

    def scores(self, areas: _Doubles, empty_value: float) -> _Doubles:
        """Surface Dice at each threshold."""
        self.voxels.flush()
        self.surface.flush()
        far, near = self._codes_of_prediction() @ areas
        lowest, highest = self.lowest.reshape(-1, 256), self.highest.reshape(-1, 256)
        # the prediction has a surface in a neighbourhood from its lowest level to its highest
        truth_near = np.cumsum(lowest - highest, axis=0)[:-1] @ areas
        whole = far + near + lowest.sum(axis=0) @ areas
        empty = np.full(self.levels - 1, empty_value)
        return np.divide(near + truth_near, whole, out=empty, where=whole > 0)

    def _codes_of_prediction(self) -> _Counts:
        """Count (2, T, 256) codes at each threshold, away from the truth's surface and near it."""
        changes = np.zeros((self.levels, 2, 256), dtype=np.int64)
        for bit, account in enumerate(self.joined[::-1]):
            # (..., higher bits, own bit, lower bits)
            split = changes.reshape(self.levels, 2, 128 >> bit, 2, 1 << bit)
            joined = account.reshape(self.levels, 2, 128 >> bit, 1 << bit)
            split[..., 1, :] += joined
            split[..., 0, :] -= joined
        at_thresholds = np.cumsum(changes[:0:-1], axis=0)[::-1]  # of this level or a higher one
        return at_thresholds.transpose(1, 0, 2)


def _as_code(bits: Sequence[_Bytes]) -> _Bytes:
    """Join rows of 0 and 1 into numbers, the first the highest bit; adding is faster than shifting."""
    code = bits[0].copy()
    for bit in bits[1:]:
        code += code
        code |= bit
    return code


def _quantiser(thresholds: Sequence[float], dtype: np.dtype[Any]) -> _Quantiser:
    """Function from slices of probabilities to the flat places that reach a threshold, and how many each."""
    native = dtype.newbyteorder("=")
    if native not in (np.uint8, np.float16, np.float32, np.float64):
        raise ValueError(
            f"probability must be floating-point or uint8, got {dtype}; pass a mask to compute_surface_dice"
        )
    rising = np.asarray(thresholds, dtype=np.float64)
    counted = rising.ndim == 1 and 1 <= len(rising) <= 255
    edges = rising if native == np.uint8 else rising.astype(native)
    if not counted or (np.diff(rising, prepend=0.0) <= 0).any() or not 0 < edges[0] <= rising[-1] <= 1:
        raise ValueError(
            f"thresholds must be 1 to 255 rising numbers in (0, 1] as {dtype}, got {list(thresholds)}"
        )
    if native != np.uint8:
        return _BitQuantiser(native, edges[0], _float_levels(edges))
    levels = np.searchsorted(rising, np.arange(256) / 255.0, side="right").astype(np.uint8)
    return _BitQuantiser(native, np.uint8(levels.searchsorted(1)), levels.take)


class _BitQuantiser:
    """Finds the voxels that reach the lowest threshold; the others of a sparse structure cost little.

    Numbers of at least 0 are ordered as the integers of the same bits, which compare faster; negative ones
    and NaN are integers above all of them.
    """

    def __init__(
        self, dtype: np.dtype[Any], lowest: np.generic, levels_of: Callable[[npt.NDArray[Any]], _Bytes]
    ) -> None:
        self.dtype = dtype
        self.bits = np.dtype(f"u{dtype.itemsize}")
        self.lowest = lowest.view(self.bits)
        self.highest = self.bits.type(255) if dtype == np.uint8 else dtype.type(1 + _SLACK).view(self.bits)
        self.levels_of = levels_of

    def __call__(self, planes: npt.NDArray[Any], ignored: _Flags | None) -> tuple[_Places, _Bytes]:
        flat = np.ascontiguousarray(planes, dtype=self.dtype).ravel()
        places = np.flatnonzero(flat.view(self.bits) >= self.lowest)
        values = flat.take(places)
        if len(values) and values.view(self.bits).max() > self.highest:
            _check_range(values)
            places, values = places[values > 0], values[values > 0]
        if ignored is not None:
            labelled = ~ignored.ravel()[places]
            places, values = places[labelled], values[labelled]
        return places, self.levels_of(values)


def _check_range(values: npt.NDArray[Any]) -> None:
    if not (values.min() >= -_SLACK and values.max() <= 1.0 + _SLACK):
        found = f"{values.min()} to {values.max()}"
        raise ValueError(f"probability must lie in [0, 1], got {found}; apply sigmoid and look for NaN")


def _float_levels(edges: npt.NDArray[Any]) -> Callable[[npt.NDArray[Any]], _Bytes]:
    """Function from values to the number of rising edges that each reaches."""
    wide = np.append(edges, np.inf).astype(np.float32 if edges.dtype == np.float16 else edges.dtype)
    bins = (wide[:-1] * _BINS).astype(np.intp)
    below = np.searchsorted(bins, np.arange(int(_BINS * (1 + _SLACK)) + 2)).astype(np.uint8)
    crowd = int(np.bincount(bins).max())

    def levels_of(values: npt.NDArray[Any]) -> _Bytes:
        values = values.astype(wide.dtype, copy=False)
        levels = below.take((values * _BINS).astype(np.intp))
        for _ in range(crowd):  # the edges of the value's own bin, one after the other
            levels += values >= wide.take(levels)
        return levels

    return levels_of
