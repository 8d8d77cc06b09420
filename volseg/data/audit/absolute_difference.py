"""All pairs of frames whose sum of absolute differences lies below a threshold, exactly and fast.

The sum over a block of |a - b| is at least the |difference of the block's sums|. So the block sums of two
frames bound their distance from below, coarse blocks cheaply, fine blocks tightly:

    whole frame        4 x 4 blocks       16 x 16            64 x 64             pixels
    sorted: a window   16 numbers         256 numbers        4096 numbers        the distance itself

A pair goes to the next level only while its bound is below the threshold; what is left is measured. No pair
is lost, and none is found that a comparison of all pixels would not find.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["SAME_DISTANCE", "ClosePairs", "find_close_pairs", "measure_distance", "sample_distances"]

SAME_DISTANCE = 1000
"""Sum of absolute differences below which an audit calls two pictures the same one."""

_FINEST = 64  # blocks along each edge of a frame; the coarser grids have 16 and 4
_STEP = 4
_PAIRS_AT_ONCE = 1 << 18  # 4 MiB of indices
_NUMBERS_AT_ONCE = 1 << 18  # block sums gathered at once: they stay in the processor's cache
_FRAME_BYTES_AT_ONCE = 1 << 24

_Indices = npt.NDArray[np.int64]
_Frames = npt.NDArray[Any]


class ClosePairs(NamedTuple):
    """Pairs of frames and their distance, ordered by `first`, then `second`.

    Attributes:
        first: (P,) index of the one frame.
        second: (P,) index of the other, above `first`.
        distance: (P,) sum of absolute differences.
    """

    first: _Indices
    second: _Indices
    distance: _Indices


def find_close_pairs(frames: _Frames, *, below: int) -> ClosePairs:
    """Find every pair of frames whose sum of absolute differences is less than `below`.

    Memory stays at about 9 kB per frame of 8 bit (16 or 32 kB where sums are large) and 10 MB besides the
    pairs, also when `frames` is memory-mapped.

    Args:
        frames: (N, H, W) or (N, H, W, C) of bool or of integers of 8 or 16 bit.
        below: the distance that is too large; 1 finds equal frames only.

    Raises:
        TypeError: for another type of frames.
        ValueError: for another shape, or a threshold below 1.

    Example:
        >>> frames = np.array([[[10, 20]], [[90, 20]], [[11, 18]]], dtype=np.uint8)
        >>> find_close_pairs(frames, below=4)._asdict()
        {'first': array([0]), 'second': array([2]), 'distance': array([3])}
    """
    _check_frames(frames)
    if isinstance(below, bool) or not isinstance(below, int | np.integer) or below < 1:
        raise ValueError(f"below must be a whole number from 1, got {below!r}; use 1 for equal frames")
    if len(frames) < 2:
        return _as_pairs([])
    levels = _block_sums(frames)
    parts = []
    for first, second in _window(levels[0][:, 0].astype(np.int64), int(below)):
        for sums in levels[1:]:
            near = _bounds(sums, first, second) < below
            first, second = first[near], second[near]
        distance = _distances(frames, first, second)
        near = distance < below
        parts.append((first[near], second[near], distance[near]))
    return _as_pairs(parts)


def measure_distance(first: _Frames, second: _Frames) -> int:
    """Sum of absolute differences of two arrays of one shape and one integer type of at most 16 bit.

    Example:
        >>> measure_distance(np.uint8([0, 255]), np.uint8([1, 250]))
        6
    """
    # the larger minus the smaller fits the unsigned type of the same size
    unsigned = np.dtype(f"u{first.dtype.itemsize}")
    high, low = np.maximum(first, second).view(unsigned), np.minimum(first, second).view(unsigned)
    np.subtract(high, low, out=high)
    rows = high.reshape(-1, high.shape[-1])
    # adding rows to each other is twice as fast as adding all numbers into one
    columns = rows.sum(axis=0, dtype=np.uint32 if len(rows) < 1 << 16 else np.uint64)
    return int(columns.sum(dtype=np.uint64))


def sample_distances(frames: _Frames, count: int, *, seed: int = 0) -> _Indices:
    """Exact distances of pairs drawn at random, or of all pairs where there are no more than `count`.

    Raises:
        TypeError: for another type of frames than `find_close_pairs` takes.
        ValueError: for another shape.
    """
    _check_frames(frames)
    total = len(frames) * (len(frames) - 1) // 2
    if total <= count:
        first, second = np.triu_indices(len(frames), 1)
    else:
        generator = np.random.default_rng(seed)
        first = generator.integers(len(frames), size=count)
        second = (first + generator.integers(1, len(frames), size=count)) % len(frames)
    return _distances(frames, first.astype(np.int64), second.astype(np.int64))


def _check_frames(frames: _Frames) -> None:
    is_small = frames.dtype.kind in "ui" and frames.dtype.itemsize <= 2
    if not (is_small or frames.dtype == np.bool_):
        raise TypeError(f"frames must be integers of 8 or 16 bit, got {frames.dtype}; convert them")
    if frames.ndim not in (3, 4) or 0 in frames.shape[1:]:
        raise ValueError(f"frames must have the shape (N, H, W) or (N, H, W, C), got {frames.shape}")


def _block_sums(frames: _Frames) -> list[npt.NDArray[Any]]:
    """Sums of blocks, coarsest first: (N, 1), (N, 4x4), (N, 16x16), (N, 64x64)."""
    rows, columns = frames.shape[1], int(np.prod(frames.shape[2:]))
    row_edges, column_edges = _edges(rows), _edges(columns)
    block = (-(-rows // len(row_edges)) + 1) * (-(-columns // len(column_edges)) + 1)
    largest = 1 << (8 * frames.dtype.itemsize)
    finest = np.empty((len(frames), len(row_edges), len(column_edges)), _signed(block * largest))
    adder = np.dtype(np.int32) if finest.dtype.itemsize <= 4 else np.dtype(np.int64)
    at_once = max(1, _FRAME_BYTES_AT_ONCE // (rows * columns * 4))
    for start in range(0, len(frames), at_once):
        part = np.asarray(frames[start : start + at_once]).reshape(-1, rows, columns)
        sums = np.add.reduceat(part, row_edges, axis=1, dtype=adder)
        finest[start : start + at_once] = np.add.reduceat(sums, column_edges, axis=2)
    grids = [finest]
    while max(grids[0].shape[1:]) > 1:
        step = _STEP if len(grids) < 3 else _FINEST
        grids.insert(0, _coarser(grids[0], step, _signed(rows * columns * largest)))
    return [grid.reshape(len(frames), -1) for grid in grids]


def _edges(length: int) -> _Indices:
    count = min(length, _FINEST)
    return np.arange(count, dtype=np.int64) * length // count


def _coarser(grid: npt.NDArray[Any], step: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    for axis in (1, 2):
        grid = np.add.reduceat(grid, np.arange(0, grid.shape[axis], step), axis=axis, dtype=dtype)
    return grid


def _signed(largest: int) -> np.dtype[Any]:
    """Smallest signed type for sums up to `largest`; the difference of two such sums fits as well."""
    return next(np.dtype(kind) for kind in ("i2", "i4", "i8") if largest <= np.iinfo(kind).max)


def _window(totals: _Indices, below: int) -> Iterator[tuple[_Indices, _Indices]]:
    """Pairs whose totals differ by less than `below`, in parts of bounded size."""
    order = np.argsort(totals, kind="stable")
    ordered = totals[order]
    place = np.arange(len(order))
    counts = np.searchsorted(ordered, ordered + below, side="left") - place - 1
    ends = np.cumsum(counts)
    start = 0
    while start < len(order):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
        first = np.repeat(place[start:stop], counts[start:stop])
        before = np.repeat(ends[start:stop] - counts[start:stop] - done, counts[start:stop])
        second = first + 1 + np.arange(len(first)) - before
        start = stop
        if len(first):
            pair = np.sort(np.stack([order[first], order[second]]), axis=0)
            yield pair[0], pair[1]


def _bounds(sums: npt.NDArray[Any], first: _Indices, second: _Indices) -> _Indices:
    bounds = np.empty(len(first), dtype=np.int64)
    at_once = max(1, _NUMBERS_AT_ONCE // sums.shape[1])
    for start in range(0, len(first), at_once):
        part = slice(start, start + at_once)
        difference = sums[first[part]] - sums[second[part]]
        np.abs(difference, out=difference)
        bounds[part] = difference.sum(axis=1, dtype=np.int64)
    return bounds


def _distances(frames: _Frames, first: _Indices, second: _Indices) -> _Indices:
    order = np.argsort(first, kind="stable")  # a frame is read once for all its pairs
    distances = np.empty(len(first), dtype=np.int64)
    known, frame = -1, None
    for pair in order:
        if frame is None or first[pair] != known:
            known = int(first[pair])
            frame = np.asarray(frames[known])
        distances[pair] = measure_distance(frame, np.asarray(frames[second[pair]]))
    return distances


def _as_pairs(parts: list[tuple[_Indices, _Indices, _Indices]]) -> ClosePairs:
    columns = [
        np.concatenate([part[k] for part in parts]) if parts else np.empty(0, np.int64) for k in range(3)
    ]
    order = np.lexsort((columns[1], columns[0]))
    return ClosePairs(*(column[order].astype(np.int64) for column in columns))
