"""Planes that cut a volume obliquely, resampled voxel by voxel from where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from volseg.transforms.volume import Array

__all__ = ["plane_positions", "sample_linear", "sample_nearest", "tilted_frame"]

Positions = npt.NDArray[np.float32]


def tilted_frame(axis: int, angle: float, direction: float) -> npt.NDArray[np.float64]:
    """Rotate the frame (normal, rows, columns) of the slices across `axis` about a line within the slice.

    # from the side:   normal  ^   ^ tilted normal
    #                          |  /
    #                  --------+-------- rows       angle between the two normals

    Args:
        axis: 0, 1 or 2.
        angle: tilt in radians; 0 gives the straight frame.
        direction: angle in radians, within the slice, of the line that is turned about.

    Returns:
        (3, 3): three orthonormal row vectors in voxel coordinates.

    Example:
        >>> tilted_frame(2, 0.0, 1.0).round().tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    unit = np.eye(3)
    rows, columns = [unit[other] for other in range(3) if other != axis]
    straight = np.stack([unit[axis], rows, columns])
    line = np.cos(direction) * rows + np.sin(direction) * columns
    along = np.outer(straight @ line, line)
    return straight * np.cos(angle) + np.cross(line, straight) * np.sin(angle) + along * (1 - np.cos(angle))


def plane_positions(
    centre: npt.NDArray[np.float64],
    frame: npt.NDArray[np.float64],
    slices: int,
    roi_size: tuple[int, int],
    step: float,
) -> Positions:
    """Voxel coordinates (3, S, h, w) of S parallel planes one voxel apart around `centre`.

    Args:
        centre: (3,) voxel coordinates of the middle of the middle plane.
        frame: (3, 3) from `tilted_frame`.
        slices: S, odd.
        roi_size: (h, w).
        step: voxels of the volume per pixel of the plane.
    """
    height, width = roi_size
    across = (np.arange(slices) - slices // 2)[None, :, None, None]
    down = ((np.arange(height) - (height - 1) / 2) * step)[None, None, :, None]
    right = ((np.arange(width) - (width - 1) / 2) * step)[None, None, None, :]
    normal, rows, columns = frame.reshape(3, 3, 1, 1, 1)
    return (centre.reshape(3, 1, 1, 1) + across * normal + down * rows + right * columns).astype(np.float32)


def sample_linear(volume: Array, positions: Positions) -> npt.NDArray[np.float32]:
    """Trilinear values (C, S, h, w) of (C, D0, D1, D2) at `positions`; beyond the volume its edge repeats.

    Only the eight voxels around each position are read, so a memory-mapped volume stays on disk.

    Example:
        >>> ramp = np.arange(4.0).reshape(1, 4, 1, 1)
        >>> sample_linear(ramp, np.array([1.25, 0, 0], np.float32).reshape(3, 1, 1, 1)).item()
        1.25
    """
    lows, highs, fractions = [], [], []
    for coordinate, size in zip(positions, volume.shape[1:], strict=True):
        inside = np.clip(coordinate, 0, size - 1)
        low = inside.astype(np.int64)
        lows.append(low)
        highs.append(np.minimum(low + 1, size - 1))
        fractions.append(inside - low.astype(np.float32))
    corners = []
    for corner in product((False, True), repeat=3):
        where = [high if is_high else low for is_high, high, low in zip(corner, highs, lows, strict=True)]
        corners.append(_gathered(volume, where).astype(np.float32))
    for fraction in reversed(fractions):
        corners = [a + (b - a) * fraction for a, b in zip(corners[::2], corners[1::2], strict=True)]
    return corners[0]


def sample_nearest(volume: Array, positions: Positions, *, outside: int) -> Array:
    """Nearest values (C, S, h, w) of (C, D0, D1, D2) at `positions`; beyond the volume `outside`.

    Example:
        >>> label = np.array([0, 1], np.uint8).reshape(1, 2, 1, 1)
        >>> at = np.array([[0.6, 1.6], [0, 0], [0, 0]], np.float32).reshape(3, 1, 1, 2)
        >>> sample_nearest(label, at, outside=255).ravel().tolist()
        [1, 255]
    """
    where, is_inside = [], np.ones(positions.shape[1:], bool)
    for coordinate, size in zip(positions, volume.shape[1:], strict=True):
        nearest = np.floor(coordinate + np.float32(0.5)).astype(np.int64)
        is_inside &= (nearest >= 0) & (nearest < size)
        where.append(np.clip(nearest, 0, size - 1))
    found = _gathered(volume, where)
    return np.where(is_inside[None], found, np.asarray(outside, found.dtype))


def _gathered(volume: Array, where: Sequence[npt.NDArray[np.int64]]) -> Array:
    if not volume.flags.c_contiguous:
        found: Array = volume[:, where[0], where[1], where[2]]
        return found
    rows, columns = volume.shape[2:]
    return volume.reshape(len(volume), -1).take((where[0] * rows + where[1]) * columns + where[2], axis=1)
