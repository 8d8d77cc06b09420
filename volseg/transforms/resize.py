"""Volumes resized with their outer faces kept in place: linearly, by nearest voxel, or class by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

__all__ = ["RESIZERS", "resize_classes", "resize_linear", "resize_nearest", "resize_planes"]

SLAB_ROWS = 16


def resize_linear(volume: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resize linearly, with a triangle filter as wide as the new voxels where they are larger.

    PyTorch antialiases in two dimensions only; the filter is separable, so axes are done one after another,
    the one that grows most at last, while there is least to do for the others. Slabs are cast one at a time,
    so that memory peaks at about the result and one intermediate of the own dtype's size.

    Args:
        volume: (C, *spatial) of any real dtype; integers are rounded to the nearest.
        shape: new spatial size.

    Returns:
        (C, *shape) of the volume's dtype; the volume itself when nothing changes.

    Example:
        >>> resize_linear(torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]), (1, 2)).tolist()
        [[[0.71..., 2.28...]]]
    """
    growth = {axis: int(size) / volume.shape[axis] for axis, size in enumerate(shape, start=1)}
    for axis in sorted(growth, key=lambda axis: growth[axis]):
        volume = _resized_along(volume, axis, int(shape[axis - 1]))
    return volume


def resize_nearest(volume: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resize by taking the voxel in which the centre of the new voxel lies.

    Args:
        volume: (C, *spatial) of any dtype.
        shape: new spatial size.

    Returns:
        (C, *shape) of the volume's dtype.

    Example:
        >>> resize_nearest(torch.tensor([[1, 2, 3, 4]]), (2,)).tolist()
        [[2, 4]]
    """
    for axis, size in enumerate(shape, start=1):
        old = volume.shape[axis]
        if size != old:
            rows = ((torch.arange(size, dtype=torch.float64) + 0.5) * (old / size)).floor().long()
            volume = volume.index_select(axis, rows.clamp_(0, old - 1).to(volume.device))
    return volume


def resize_classes(label: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resize class indices: each class linearly as a map of 0 and 1, then the class with the largest share.

    For two classes that is the linear resize and a threshold of one half. Ties go to the smaller index.

    Args:
        label: (C, *spatial) whole numbers.
        shape: new spatial size.

    Returns:
        (C, *shape) of the label's dtype.

    Example:
        >>> resize_classes(torch.tensor([[[0, 0, 2, 2, 2, 2]]]), (1, 3)).tolist()
        [[[0, 2, 2]]]
    """
    values = torch.unique(label.to(torch.int64)).tolist()
    chosen = torch.full((label.shape[0], *shape), values[0], dtype=label.dtype, device=label.device)
    largest = torch.full(chosen.shape, -1.0, device=label.device)
    for value in values:
        share = resize_linear((label == value).to(torch.float32), shape)
        is_larger = share > largest + 1e-6
        chosen[is_larger] = value
        largest = torch.where(is_larger, share, largest)
    return chosen


def resize_planes(planes: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize a batch of pictures (N, C, h, w) of floating point to (N, C, *size), as `resize_linear` does.

    Example:
        >>> resize_planes(torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]]), (1, 2)).tolist()
        [[[[0.71..., 2.28...]]]]
    """
    if tuple(planes.shape[2:]) == tuple(size):
        return planes
    return F.interpolate(planes, size=tuple(size), mode="bilinear", antialias=True)


def _resized_along(volume: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    if volume.shape[axis] == size:
        return volume
    result = torch.empty((*volume.shape[:axis], size, *volume.shape[axis + 1 :]), dtype=volume.dtype)
    result = result.to(volume.device)
    # the slabs run along another axis than the resized one, so that each is resized by itself
    other = 0 if volume.ndim == 2 else (2 if axis == 1 else 1)
    for first in range(0, volume.shape[other], SLAB_ROWS):
        part = volume.narrow(other, first, min(SLAB_ROWS, volume.shape[other] - first))
        lines = part.to(torch.float32).movedim(axis, -1)
        flat = lines.reshape(1, 1, -1, lines.shape[-1])
        resized = F.interpolate(flat, size=(flat.shape[2], size), mode="bilinear", antialias=True)
        resized = resized.reshape(*lines.shape[:-1], size).movedim(-1, axis)
        if not volume.dtype.is_floating_point:
            resized = resized.round_()
        result.narrow(other, first, part.shape[other]).copy_(resized)
    return result


RESIZERS = {"linear": resize_linear, "nearest": resize_nearest, "classes": resize_classes}
"""The ways to resize by the name that transforms take."""
