"""Voxel sizes: told by the datalist, matched to those of the training, and undone for the prediction."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from volseg.checks import check_choice, check_positive
from volseg.geometry import spacing_of
from volseg.transforms.resize import RESIZERS
from volseg.transforms.volume import name_of, shape_text

__all__ = ["AssignSpacingd", "MatchSpacingd", "RestoreShaped"]


class AssignSpacingd(MapTransform):
    """Give volumes the voxel size that their case item states as `spacing_mm`, keeping axes and origin.

    Items without `spacing_mm` pass unchanged. Slice folders and most pictures state no spacing themselves.

    Args:
        keys: MetaTensors (C, x, y, z) or (x, y, z), whose `spacing_mm` has one number per axis; or pictures
            (C, H, W) of `PictureReader`, whose `spacing_mm` is that along a row and that across the rows.
        allow_missing_keys: skip a key that the item lacks.
    """

    def __init__(
        self, keys: KeysCollection = ("image", "label"), *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with new affines; voxels are shared with the old ones.

        Raises:
            ValueError: when `spacing_mm` is not three positive numbers, or two or three of a picture.
        """
        item = dict(data)
        if item.get("spacing_mm") is None:
            return item
        spacing_mm = [float(length) for length in item["spacing_mm"]]
        check_positive("spacing_mm", spacing_mm)
        for key in self.key_iterator(item):
            volume = item[key]
            affine = _affine_of(volume)
            edges = _per_axis(spacing_mm, volume)
            if len(edges) != len(affine) - 1:
                expected = f"spacing_mm must be {len(affine) - 1} numbers, got {spacing_mm}"
                raise ValueError(f"{name_of(item, key)}: {expected}; correct the datalist")
            affine[:-1, :-1] *= np.array(edges) / np.array(spacing_of(affine))
            meta = dict(volume.meta) if isinstance(volume, MetaTensor) else {}
            meta |= {"spacing_is_known": True, "affine": torch.from_numpy(affine)}
            item[key] = MetaTensor(_bare(volume), meta=meta)
        return item


class MatchSpacingd(MapTransform):
    """Resample volumes to the voxel size that the network was trained at.

    MONAI's `Spacingd` goes through float64, does not antialias and needs about 80 bytes a voxel; it also
    resamples a volume whose spacing nobody knows. Here such volumes are left alone, and so are axes within
    the tolerance and volumes too far off, with a warning. The extent is kept exactly: N voxels of size s
    become round(N*s/t) voxels of nearly size t. `RestoreShaped` undoes it.

    Args:
        keys: MetaTensors (C, x, y, z); their dtype is kept.
        spacing_mm: three edge lengths to match, None for an axis that keeps its own; None turns the transform
            off.
        field_mm: extent along each axis that is assumed of volumes whose spacing nobody knows, None for an
            axis to leave alone; None leaves such volumes alone. Scanners of one kind image a known field.
        mode: one per key: "linear" for images (antialiased when shrinking), "nearest" or "classes" (each
            class linearly, the largest wins) for labels.
        min_ratio: smallest wanted / present voxel size that is resampled.
        max_ratio: largest.
        tolerance: an axis whose ratio differs from 1 by no more than this is left alone.
        allow_missing_keys: skip a key that the item lacks.

    Raises:
        ValueError: for arguments out of range.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image",),
        spacing_mm: Sequence[float | None] | None = None,
        *,
        field_mm: Sequence[float | None] | None = None,
        mode: str | Sequence[str] = "linear",
        min_ratio: float = 0.5,
        max_ratio: float = 2.0,
        tolerance: float = 0.05,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        for name, given in (("spacing_mm", spacing_mm), ("field_mm", field_mm)):
            if isinstance(given, str):
                raise ValueError(f"{name} must be three lengths or None, got the text {given!r}")
        if spacing_mm is not None:
            check_positive("spacing_mm", [1.0 if length is None else length for length in spacing_mm])
        if field_mm is not None:
            check_positive("field_mm", [1.0 if extent is None else extent for extent in field_mm])
        if not 0 < min_ratio <= 1 <= max_ratio:
            raise ValueError(f"ratios must satisfy 0 < min <= 1 <= max, got {min_ratio} and {max_ratio}")
        if isinstance(mode, str) and len(self.keys) > 1:
            raise ValueError(
                f"mode must be one per key, got {mode!r} for {len(self.keys)}; labels need another"
            )
        if tolerance < 0:
            raise ValueError(f"tolerance must be at least 0, got {tolerance}")
        self.mode = [
            check_choice("mode", choice, RESIZERS) for choice in ensure_tuple_rep(mode, len(self.keys))
        ]
        self.spacing_mm = (
            None
            if spacing_mm is None
            else tuple(None if length is None else float(length) for length in spacing_mm)
        )
        self.field_mm = None if field_mm is None else tuple(field_mm)
        self.min_ratio = min_ratio
        self.max_ratio = max_ratio
        self.tolerance = tolerance
        self._warned: set[str] = set()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with resampled volumes; those remember their source grid in their meta data."""
        item = dict(data)
        for key, mode in self.key_iterator(item, self.mode):
            volume = item[key]
            shape = self._wanted_shape(volume, name_of(item, key))
            if shape != tuple(volume.shape[1:]):
                item[key] = resampled(volume, shape, mode)
        return item

    def _wanted_shape(self, volume: torch.Tensor, name: str) -> tuple[int, ...]:
        present = tuple(int(size) for size in volume.shape[1:])
        is_known = isinstance(volume, MetaTensor) and bool(volume.meta.get("spacing_is_known", True))
        if self.spacing_mm is None or (not is_known and self.field_mm is None):
            return present
        spacing = np.array(spacing_of(_affine_of(volume))[: len(present)])
        wanted_mm: list[float | None] = list(self.spacing_mm[: len(present)])
        if not is_known and self.field_mm is not None:
            fields = self.field_mm[: len(present)]
            wanted_mm = [
                None if field is None else edge for edge, field in zip(wanted_mm, fields, strict=True)
            ]
            spacing = np.array([(field or size) / size for field, size in zip(fields, present, strict=True)])
        ratios = np.array(
            [1.0 if edge is None else edge / own for edge, own in zip(wanted_mm, spacing, strict=True)]
        )
        if (ratios < self.min_ratio).any() or (ratios > self.max_ratio).any():
            self._warn(name, spacing)
            return present
        is_near = np.abs(ratios - 1) <= self.tolerance
        wanted = np.where(is_near, present, np.maximum(1, np.rint(present / ratios))).astype(int)
        return tuple(int(size) for size in wanted)

    def _warn(self, name: str, spacing: npt.NDArray[np.float64]) -> None:
        if name in self._warned:
            return
        self._warned.add(name)
        lengths = "x".join(f"{length:.4g}" for length in spacing)
        trained = "x".join("any" if length is None else f"{length:.4g}" for length in self.spacing_mm or ())
        message = (
            f"{name}: voxels of {lengths} mm are too far from the {trained} mm of the training to resample"
        )
        warnings.warn(f"{message}; predictions may be poor", UserWarning, stacklevel=4)


class RestoreShaped(MapTransform):
    """Bring predictions back to the grid that their image had before `MatchSpacingd` or `MatchSized`.

    A `monai.transforms.Resized` is undone as well, where it is all that was applied to the image since it was
    read.

    Args:
        keys: predictions (K, x, y, z) or (K, H, W) on the grid of the reference.
        reference: key of the image that the resizing transform worked on.
        mode: "linear" for probabilities, "nearest" or "classes" for class indices.
        allow_missing_keys: skip a key that the item lacks.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        reference: str = "image",
        *,
        mode: Literal["linear", "nearest", "classes"] = "linear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = reference
        self.mode = check_choice("mode", mode, RESIZERS)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with predictions of exactly the source's shape and affine.

        Raises:
            ValueError: when a prediction is not on the grid of its reference.
        """
        item = dict(data)
        image = item[self.reference]
        source = _source_grid(image)
        for key in self.key_iterator(item):
            pred = item[key]
            if pred.shape[1:] != image.shape[1:]:
                got, expected = shape_text(pred.shape[1:]), shape_text(image.shape[1:])
                raise ValueError(f"{name_of(item, self.reference)}: {key} must be {expected}, got {got}")
            if source is None:
                continue
            shape, affine = source
            meta = dict(pred.meta) if isinstance(pred, MetaTensor) else dict(image.meta)
            meta = {
                name: value for name, value in meta.items() if name not in ("source_shape", "source_affine")
            }
            meta["affine"] = torch.as_tensor(affine, dtype=torch.float64).clone()
            item[key] = MetaTensor(RESIZERS[self.mode](_bare(pred), shape), meta=meta)
        return item


def resampled(volume: MetaTensor, shape: tuple[int, ...], mode: str) -> MetaTensor:
    """Resize (C, *spatial) to another grid over the same place; `RestoreShaped` knows the way back."""
    # 6 voxels become 4: | 0 | 1 | 2 | 3 | 4 | 5 |    outer faces coincide, so that voxel i of the new grid
    #                    |  0  |  1  |  2  |  3  |    has its centre at (i + 0.5) * 6/4 - 0.5 of the old
    affine = _affine_of(volume)
    change = _index_change(shape, volume.shape[1:], len(affine))
    meta = {**volume.meta, "affine": torch.from_numpy(affine @ change)}
    meta["source_shape"] = torch.tensor(volume.shape[1:], dtype=torch.int64)
    meta["source_affine"] = torch.from_numpy(affine)
    return MetaTensor(RESIZERS[mode](_bare(volume), shape), meta=meta)


def _index_change(shape: Sequence[int], source: Sequence[int], rank: int) -> npt.NDArray[np.float64]:
    """Matrix from the voxel index of a resized grid to that of its source."""
    step = np.array(source) / np.array(shape)
    change = np.eye(rank)
    change[: len(step), : len(step)] = np.diag(step)
    change[: len(step), -1] = (step - 1) / 2
    return change


def _source_grid(image: torch.Tensor) -> tuple[tuple[int, ...], Any] | None:
    """Shape and affine that an image had before it was resized, or None when it was not."""
    if not isinstance(image, MetaTensor):
        return None
    if (source := image.meta.get("source_shape")) is not None:
        return tuple(int(size) for size in source), image.meta["source_affine"]
    operations = image.applied_operations
    if len(operations) != 1 or operations[0].get("class") != "Resize":
        return None
    shape = tuple(int(size) for size in operations[0]["orig_size"])
    affine = _affine_of(image)
    return shape, affine @ np.linalg.inv(_index_change(image.shape[1:], shape, len(affine)))


def _per_axis(spacing_mm: list[float], volume: torch.Tensor) -> list[float]:
    """Order (x, y) as the axes of a picture, which run down the rows first."""
    meta = volume.meta if isinstance(volume, MetaTensor) else {}
    is_picture = len(meta.get("spatial_shape", ())) == 2
    if not is_picture or len(spacing_mm) not in (2, 3):
        return spacing_mm
    return [spacing_mm[1], spacing_mm[0], *(spacing_mm[2:] or [1.0])]


def _affine_of(volume: torch.Tensor) -> npt.NDArray[np.float64]:
    affine = volume.affine if isinstance(volume, MetaTensor) else torch.eye(volume.ndim)
    return affine.numpy().astype(np.float64)


def _bare(volume: torch.Tensor) -> torch.Tensor:
    return volume.as_tensor() if isinstance(volume, MetaTensor) else volume
