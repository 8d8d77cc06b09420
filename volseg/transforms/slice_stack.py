"""Stacks of neighbouring slices: the 2.5D view of a volume, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from volseg.checks import check_odd, check_positive

__all__ = ["check_axis_zoom", "neighbour_rows", "stack_slices", "unstack_slices"]


def stack_slices(
    volume: torch.Tensor | npt.NDArray[np.generic],
    axis: int,
    indices: Sequence[int] | npt.NDArray[np.integer] | torch.Tensor,
    in_slices: int,
) -> torch.Tensor:
    """Gather the slices `indices` across `axis`, each with its neighbours; only these slices are read.

    # in_slices 3, 5 slices:  index 0 -> [0 0 1]   index 2 -> [1 2 3]   index 4 -> [3 4 4]   <- edges repeat

    Args:
        volume: (C, D0, D1, D2) of any dtype and strides; a tensor on any device, or a (memory-mapped) array.
        axis: 0, 1 or 2; the two other axes stay in increasing order.
        indices: N middle slices, each in [0, D_axis).
        in_slices: S, odd.

    Returns:
        (N, C*S, H, W) of the volume's dtype, channel index c*S + s.

    Raises:
        ValueError: for an even `in_slices`, a volume without channel axis, an axis or an index out of range.

    Example:
        >>> volume = torch.arange(5).reshape(1, 1, 1, 5)
        >>> stack_slices(volume, axis=2, indices=[0, 2], in_slices=3).flatten(1).tolist()
        [[0, 0, 1], [1, 2, 3]]
    """
    if volume.ndim != 4:
        raise ValueError(
            f"a volume must be (C, D0, D1, D2), got shape {tuple(volume.shape)}; add the channel axis"
        )
    rows = neighbour_rows(indices, volume.shape[1 + _checked(axis)], in_slices)
    count = rows.shape[0]
    if isinstance(volume, torch.Tensor):
        bare = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        chosen = torch.from_numpy(rows.ravel()).to(bare.device)
        gathered = bare.movedim(axis + 1, 0)[chosen]
    else:
        picked = np.moveaxis(volume, axis + 1, 0)[rows.ravel()]
        gathered = torch.from_numpy(np.asarray(picked, dtype=picked.dtype.newbyteorder("=")))
    channels, height, width = gathered.shape[1:]
    stacked = gathered.reshape(count, in_slices, channels, height, width).transpose(1, 2)
    return stacked.reshape(count, channels * in_slices, height, width)


def unstack_slices(stacks: torch.Tensor, axis: int, in_slices: int) -> torch.Tensor:
    """Put the middle slices of one stack per slice back into a volume; the inverse of `stack_slices`.

    Args:
        stacks: (D_axis, C*S, H, W), one stack for each slice across `axis`, in order.
        axis: 0, 1 or 2, as given to `stack_slices`.
        in_slices: S, odd.

    Returns:
        (C, D0, D1, D2), a view of `stacks`.

    Raises:
        ValueError: for an even `in_slices`, an axis out of range, or channels that S does not divide.

    Example:
        >>> volume = torch.rand(2, 3, 5, 4)
        >>> bool((unstack_slices(stack_slices(volume, 1, range(5), 3), 1, 3) == volume).all())
        True
    """
    _checked(axis)
    depth, channels, height, width = stacks.shape
    if channels % check_odd("in_slices", in_slices):
        raise ValueError(
            f"stacks must have a multiple of {in_slices} channels, got {channels}; check in_slices"
        )
    middles = stacks.reshape(depth, channels // in_slices, in_slices, height, width)[:, :, in_slices // 2]
    return middles.movedim(0, axis + 1)


def neighbour_rows(
    indices: Sequence[int] | npt.NDArray[np.integer] | torch.Tensor, depth: int, in_slices: int
) -> npt.NDArray[np.int64]:
    """Slice numbers (N, S) of the stacks around `indices` in an axis of `depth` slices; edges repeat.

    Raises:
        ValueError: for an even `in_slices` or an index outside [0, depth).

    Example:
        >>> neighbour_rows([0, 4], depth=5, in_slices=3).tolist()
        [[0, 0, 1], [3, 4, 4]]
    """
    half = check_odd("in_slices", in_slices) // 2
    middle = np.asarray(indices, dtype=np.int64).reshape(-1, 1)
    if middle.size and (middle.min() < 0 or middle.max() >= depth):
        wrong = int(middle.min() if middle.min() < 0 else middle.max())
        raise ValueError(f"indices must lie in 0..{depth - 1}, got {wrong}; the axis has {depth} slices")
    return np.clip(middle + np.arange(-half, half + 1), 0, depth - 1)


def check_axis_zoom(
    axis_zoom: Sequence[Sequence[float]] | None, axes: int
) -> tuple[tuple[float, float], ...]:
    """Return for each of `axes` axes how many pixels (h, w) a voxel of its planes becomes; 1 if None.

    Planes of anisotropic volumes need it: cut across the lines of a B-scan, voxels are far from square.

    Raises:
        ValueError: for another number of axes, or a zoom that is not two positive numbers.

    Example:
        >>> check_axis_zoom(None, 2)
        ((1.0, 1.0), (1.0, 1.0))
    """
    if axis_zoom is None:
        return ((1.0, 1.0),) * axes
    for zoom in axis_zoom:
        check_positive("axis_zoom", zoom)
    if len(axis_zoom) != axes or any(len(zoom) != 2 for zoom in axis_zoom):
        raise ValueError(f"axis_zoom must be (h, w) for each of {axes} axes, got {axis_zoom}")
    return tuple((float(zoom[0]), float(zoom[1])) for zoom in axis_zoom)


def _checked(axis: int) -> int:
    if axis not in (0, 1, 2):
        raise ValueError(f"axis must be 0, 1 or 2, got {axis}; the channel axis is not counted")
    return axis
