"""A volume inside a case item: its bare array, its name, and a new array in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

__all__ = ["Array", "bare_array", "name_of", "replaced_array", "shape_text", "slabs"]

Array = npt.NDArray[Any]
SLAB_VOXELS = 1 << 22


def bare_array(volume: npt.ArrayLike | torch.Tensor) -> Array:
    """View a MetaTensor, tensor or (memory-mapped) array as a numpy array, without copying it.

    Example:
        >>> bare_array(MetaTensor(torch.ones(1, 2, 2, 2))).shape
        (1, 2, 2, 2)
    """
    if isinstance(volume, MetaTensor):
        volume = volume.as_tensor()
    if isinstance(volume, torch.Tensor):
        return volume.detach().cpu().numpy()
    return np.asarray(volume)


def replaced_array(
    volume: object, array: Array | torch.Tensor, *, affine: Array | None = None
) -> torch.Tensor:
    """Put a new array in the place of `volume`: a MetaTensor with its meta data if it was one, else a tensor.

    Args:
        volume: what the new array is made from; it is not changed.
        array: the new values.
        affine: (4, 4) RAS mm of the new grid; that of `volume` if None.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array
    if not isinstance(volume, MetaTensor):
        return tensor
    place = volume.affine if affine is None else torch.as_tensor(affine, dtype=torch.float64)
    return MetaTensor(tensor, meta={**volume.meta, "affine": place.clone()})


def name_of(item: Mapping[Any, Any], key: object) -> str:
    """Name a volume for a message: its file, else its case, else its key.

    Example:
        >>> name_of({"case": "kidney_1", "image": np.zeros(3)}, "image")
        'kidney_1 (image)'
    """
    meta = getattr(item.get(key), "meta", None) or {}
    file = meta.get("filename_or_obj")
    if isinstance(file, list | tuple) and file:
        file = file[0]
    return str(file) if file else f"{item.get('case', 'a case')} ({key})"


def shape_text(shape: tuple[int, ...] | torch.Size) -> str:
    """Word a spatial size.

    Example:
        >>> shape_text((912, 1303))
        '912x1303'
    """
    return "x".join(str(int(size)) for size in shape)


def slabs(array: Array) -> Iterator[tuple[slice, Array]]:
    """Walk along the first spatial axis of (C, ...) in slabs of a few million voxels.

    Yields:
        the range along axis 1 and the view of it.
    """
    per_row = max(1, array.size // max(1, array.shape[1]))
    step = max(1, SLAB_VOXELS // per_row)
    for first in range(0, array.shape[1], step):
        part = slice(first, min(first + step, array.shape[1]))
        yield part, array[:, part]
