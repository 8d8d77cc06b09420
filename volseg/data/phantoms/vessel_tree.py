"""Synthetic vessel trees: a supply tree that fills an ellipsoid organ, and masks at other calibres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from volseg.data.phantoms.noise_fields import blur, resize_linear

__all__ = ["grow_vessel_tree", "rescale_mask"]

_STEP = 0.4  # voxels between the balls painted along a branch; below 0.5 leaves no hole
_TIP_RADIUS = (0.75, 1.0)  # arteries, veins; nothing thinner than a voxel's radius is painted

Segment = tuple[npt.NDArray[np.float64], float, float]  # points (n, 3), radius at its start and at its end


def grow_vessel_tree(
    shape: Sequence[int],
    *,
    seed: int,
    root_radius: float | None = None,
    trees: int = 2,
    voxels_per_tip: float = 6000.0,
    tortuosity: float = 0.12,
) -> npt.NDArray[np.uint8]:
    """Grow kidney-like vessel trees from a hilum into an ellipsoid and paint them.

    End points are spread over the organ; the bundle of branches that feeds them is split in two again and
    again. Radii follow Murray's law (the cubes of the children add up to the parent's), with a floor of one
    voxel at the end branches.

    Args:
        shape: (x, y, z), each at least 16.
        seed: same seed, same bytes.
        root_radius: radius at the hilum in voxels; by default it follows from the number of end branches.
        trees: 1 (arterial) or 2 (arterial, and a wider venous one beside it).
        voxels_per_tip: volume of the grid per end branch.
        tortuosity: sideways wander of a branch as a fraction of its length.

    Returns:
        (x, y, z) uint8, 1 inside a vessel. Each tree is one connected component; the two may touch.

    Raises:
        ValueError: for a shape that is no triple of sizes >= 16, or another number of trees.

    Source: Murray, The physiological principle of minimum work (1926), equation 7.

    Example:
        >>> float(grow_vessel_tree((32, 24, 16), seed=0).mean()) < 0.2
        True
    """
    if len(shape) != 3 or min(shape) < 16:
        raise ValueError(f"shape must be three sizes of at least 16, got {tuple(shape)}; enlarge the grid")
    if trees not in (1, 2):
        raise ValueError(f"trees must be 1 or 2, got {trees}; use 2 for arteries and veins")
    size = np.asarray(shape, dtype=float)
    mask = np.zeros(tuple(shape), dtype=np.uint8)
    for tree in range(trees):
        rng = np.random.default_rng([seed, tree])
        tips = _organ_points(rng, size, max(4, round(float(size.prod()) / voxels_per_tip)))
        hilum = size * (0.5, 0.06, 0.5 + (0.08 * tree if trees == 2 else 0.0))
        tip_radius = _TIP_RADIUS[tree]
        if root_radius is not None:
            tip_radius = root_radius / len(tips) ** (1 / 3)
        _paint(mask, _branches(rng, hilum, tips, tip_radius, tortuosity))
    return mask


def rescale_mask(mask: npt.ArrayLike, scale: float) -> npt.NDArray[np.uint8]:
    """Zoom a vessel mask: a voxel is vessel where at least half of it is, thin vessels from a quarter on.

    Args:
        mask: (x, y, z), nonzero inside a vessel.
        scale: size of the result over the size of the mask, 0.2 to 5; 0.5 halves every calibre.

    Returns:
        uint8 mask of shape `max(1, round(size * scale))`.

    Raises:
        ValueError: when the scale lies outside 0.2 to 5.

    Example:
        >>> rescale_mask(np.ones((10, 6, 4)), 0.5).shape
        (5, 3, 2)
    """
    if not 0.2 <= scale <= 5.0:
        raise ValueError(f"scale must lie between 0.2 and 5, got {scale}; rescale in two steps")
    binary = np.asarray(mask) != 0
    shape = [max(1, round(n * scale)) for n in binary.shape]
    if scale == 1.0:
        return binary.astype(np.uint8)
    # A box as wide as the new voxel would alias; this Gaussian has its deviation.
    fraction = resize_linear(blur(binary, 0.29 / scale if scale < 1 else 0.0), shape)
    inside = fraction >= 0.5
    if scale < 1:
        thick = ndimage.binary_opening(inside)
        beside = ndimage.binary_dilation(thick) & ~thick
        inside |= (fraction >= 0.25) & ~thick & ~beside
        inside |= (fraction >= 0.4) & beside
    return inside.astype(np.uint8)


def _organ_points(
    rng: np.random.Generator, size: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.float64]:
    """Points in an ellipsoid that fills the grid, denser towards its surface, as kidney cortex is."""
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    depth = rng.uniform(0.25, 1.0, size=(count, 1)) ** (1 / 3)
    return size / 2 + direction * depth * (size * 0.46 - 1.0)


def _branches(
    rng: np.random.Generator,
    root: npt.NDArray[np.float64],
    tips: npt.NDArray[np.float64],
    tip_radius: float,
    tortuosity: float,
) -> list[Segment]:
    """Split the tips by halves along their longest extent; each half gets a branch towards its middle."""
    segments: list[Segment] = []
    bundles = [(root, tips, tip_radius * len(tips) ** (1 / 3))]
    while bundles:
        start, group, radius = bundles.pop()
        if len(group) == 1:
            segments.append((_wander(rng, start, group[0], tortuosity), radius, radius))
            continue
        # The fork lies nearer to the start for large bundles, so that trunks stay deep in the organ.
        fork = start + rng.uniform(0.35, 0.6) * (group.mean(axis=0) - start)
        segments.append((_wander(rng, start, fork, tortuosity), radius, radius))
        axis = np.linalg.svd(group - group.mean(axis=0), full_matrices=False)[2][0]
        order = np.argsort(group @ axis, kind="stable")
        cut = int(np.clip(round(len(group) * rng.uniform(0.25, 0.75)), 1, len(group) - 1))
        for half in (group[order[:cut]], group[order[cut:]]):
            bundles.append((fork, half, tip_radius * len(half) ** (1 / 3)))
    return segments


def _wander(
    rng: np.random.Generator, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], tortuosity: float
) -> npt.NDArray[np.float64]:
    length = float(np.linalg.norm(end - start))
    along = np.linspace(0.0, 1.0, max(2, int(np.ceil(length * (1 + 4 * tortuosity) / _STEP)) + 1))[:, None]
    sideways = np.zeros((len(along), 3))
    for wave in (1, 2, 3):
        sideways += np.sin(np.pi * wave * along) * rng.standard_normal(3) / wave
    return start + along * (end - start) + sideways * tortuosity * length * 0.6


def _paint(mask: npt.NDArray[np.uint8], segments: Sequence[Segment]) -> None:
    """Set every voxel whose centre lies in a ball of the local radius around a branch."""
    points = np.concatenate([line for line, _, _ in segments])
    radii = np.concatenate([np.linspace(first, last, len(line)) for line, first, last in segments])
    classes = np.maximum(np.round(radii * 2), 2).astype(int)  # radii in half voxels, at least one voxel
    limits = np.asarray(mask.shape) - 1
    for half_voxels in np.unique(classes):
        radius = half_voxels / 2
        reach = np.arange(-int(np.ceil(radius)), int(np.ceil(radius)) + 1)
        ball = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3)
        ball = ball[(ball**2).sum(axis=1) <= radius**2]
        centres = np.unique(np.round(points[classes == half_voxels]).astype(np.intp), axis=0)
        voxels = np.clip(centres, 0, limits)[:, None, :] + ball[None]
        voxels = voxels.reshape(-1, 3)
        voxels = voxels[((voxels >= 0) & (voxels <= limits)).all(axis=1)]
        mask[voxels[:, 0], voxels[:, 1], voxels[:, 2]] = 1
