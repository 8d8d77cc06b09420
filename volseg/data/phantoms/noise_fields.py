"""Random fields and grid resizing that renderings are made of; everything float32 and separable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

__all__ = ["blur", "cells", "resize_linear", "smooth_noise", "soft_step"]

FloatVolume = npt.NDArray[np.float32]


def blur(volume: npt.ArrayLike, sigma: float | Sequence[float]) -> FloatVolume:
    """Gaussian blur in float32; a sigma of 0 leaves the volume as it is."""
    field = np.asarray(volume, dtype=np.float32)
    if not np.any(sigma):
        return field
    return ndimage.gaussian_filter(field, sigma, mode="nearest", truncate=3.0)


def soft_step(values: FloatVolume, width: float) -> FloatVolume:
    """Step from 0 (negative values) to 1 (positive values) with an edge about `width` wide, linear inside."""
    return np.clip(values / np.float32(width) + np.float32(0.5), 0.0, 1.0)


def resize_linear(volume: npt.ArrayLike, shape: Sequence[int]) -> FloatVolume:
    """Resample to `shape` with linear interpolation; outer faces of both grids coincide, edges are repeated.

    Example:
        >>> resize_linear(np.arange(2.0).reshape(2, 1, 1), (4, 1, 1)).ravel().tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    field = np.asarray(volume, dtype=np.float32)
    for axis, size in enumerate(shape):
        if field.shape[axis] != size:
            field = _resize_axis(field, axis, size)
    return np.ascontiguousarray(field)


def _resize_axis(field: FloatVolume, axis: int, size: int) -> FloatVolume:
    old = field.shape[axis]
    position = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0, old - 1)
    low = np.minimum(position.astype(np.intp), max(old - 2, 0))
    high = np.minimum(low + 1, old - 1)
    weight = (position - low).astype(np.float32)
    weight = weight.reshape([-1 if k == axis else 1 for k in range(field.ndim)])
    first = np.take(field, low, axis=axis)
    return first + weight * (np.take(field, high, axis=axis) - first)


def smooth_noise(
    rng: np.random.Generator, shape: Sequence[int], sigma: float | Sequence[float]
) -> FloatVolume:
    """Gaussian noise of correlation length `sigma` voxels (one, or one per axis), zero mean, unit deviation.

    Long correlations are drawn on a coarser grid and interpolated, so the cost hardly depends on `sigma`.
    """
    sigmas = np.broadcast_to(np.asarray(sigma, dtype=float), (len(shape),))
    factor = np.maximum(1, np.floor(sigmas / 2.0))
    # A coarse field needs a few knots, or a long correlation would be a constant after normalisation.
    coarse = [max(min(n, 4), int(np.ceil(n / f))) for n, f in zip(shape, factor, strict=True)]
    noise = rng.standard_normal(coarse, dtype=np.float32)
    field = resize_linear(blur(noise, tuple(sigmas / factor)), shape)
    field -= field.mean()
    deviation = float(field.std())
    return field / np.float32(deviation if deviation > 0 else 1.0)


def cells(rng: np.random.Generator, shape: Sequence[int], size: float) -> tuple[FloatVolume, FloatVolume]:
    """Random convex blocks about `size` voxels wide, as crushed gel has.

    Returns:
        The grey level of the block that each voxel lies in (zero mean, unit deviation), and each voxel's
        distance to the face of its block in voxels. Both are computed on a grid of half the resolution.
    """
    coarse = [max(1, (n + 1) // 2) for n in shape]
    count = int(np.clip(np.prod(shape) / size**3, 4, 20000)) + 1
    stretch = rng.uniform(0.5, 1.6, size=3)
    seeds = rng.uniform(0, 1, size=(count, 3)) * shape * stretch
    levels = rng.standard_normal(count).astype(np.float32)
    grid = np.stack(np.meshgrid(*[np.arange(n) * 2.0 + 0.5 for n in coarse], indexing="ij"), axis=-1)
    # A wobble of the coordinates keeps faces from being perfect planes.
    wobble = np.stack([smooth_noise(rng, coarse, max(2.0, size / 8)) for _ in range(3)], axis=-1)
    points = (grid + wobble * size * 0.06) * stretch
    distance, index = cKDTree(seeds).query(points.reshape(-1, 3), k=2)
    level = levels[index[:, 0]].reshape(coarse)
    face = (distance[:, 1] - distance[:, 0]).astype(np.float32).reshape(coarse) / 2
    return resize_linear(level, shape), resize_linear(face, shape)
