"""Slices that are missing: a volume on its true grid and back, and labels of some slices only.

`volseg.data.VolumeReader(gaps="keep")` reads the slices that are there, and notes their numbers.

    numbers of the slices   10  15  20                       3 slices as read
    spread                  10  10  10  15  15  15  15  15  20  20  20     number 10 + index
    label                   10   .   .   .   .  15   .   .   .   .  20     . is IGNORE
    gathered                10  15  20                       3 slices again
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from volseg.checks import refuse
from volseg.transforms.labels import IGNORE, refuse_shape
from volseg.transforms.volume import bare_array, name_of, replaced_array

__all__ = ["GatherSlicesd", "MatchSlicesd", "SpreadSlicesd"]

_NUMBERS = "slice_numbers"


class SpreadSlicesd(MapTransform):
    """Put a volume with missing slices on its true grid, from its first to its last slice number.

    An absent slice repeats the nearest present one, of two as near the lower, so that a stack of neighbouring
    slices never mixes in one from far away, and the slice spacing holds. `GatherSlicesd` undoes it. A volume
    without gaps or without slice numbers, or one that is spread already, passes unchanged and is not copied.

    Args:
        keys: MetaTensors (C, x, y, z) whose slices lie along the last axis.
        allow_missing_keys: skip a key that the item lacks.
    """

    def __init__(self, keys: KeysCollection = ("image",), *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with volumes of `last number - first number + 1` slices and the same affine.

        Raises:
            ValueError: when a volume has not as many slices as numbers.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            volume = item[key]
            numbers = _numbers_of(volume)
            if numbers is None or volume.shape[-1] == _span(numbers):
                continue
            _check_count(item, key, numbers)
            item[key] = replaced_array(volume, _taken(volume, _nearest(numbers)))
        return item


class GatherSlicesd(MapTransform):
    """Take the slices that were read out of volumes on the grid that `SpreadSlicesd` made.

    Belongs behind `RestoreShaped`, which leads back to that grid. Without gaps, and for volumes that hold
    just the slices that were read, nothing is changed or copied.

    Args:
        keys: volumes (K, x, y, z) on the grid of the reference: predictions, or labels of `MatchSlicesd`.
        reference: key of the image that was spread; its meta data hold the slice numbers.
        allow_missing_keys: skip a key that the item lacks or that holds None, which MONAI's evaluators put in
            the place of a label that is not there.
    """

    def __init__(
        self, keys: KeysCollection = "pred", reference: str = "image", *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with volumes of exactly the slices that were read.

        Raises:
            ValueError: when a volume is not on the grid of its reference.
        """
        item = dict(data)
        numbers = _numbers_of(item[self.reference])
        if numbers is None:
            return item
        for key in self.key_iterator(item):
            volume = item[key]
            if volume is None and self.allow_missing_keys:
                continue
            if volume.shape[-1] == len(numbers):
                continue
            if volume.shape[-1] != _span(numbers):
                name = f"{name_of(item, self.reference)}: {key}"
                raise ValueError(f"{name} must have {_span(numbers)} slices, got {volume.shape[-1]}")
            item[key] = replaced_array(volume, _taken(volume, _places(numbers)))
        return item


class MatchSlicesd(MapTransform):
    """Put the slices of a label where their numbers are in the image, `IGNORE` on every slice without one.

    A label of 11 of 61 B-scans says nothing about the other 50: they are not background. Slices that
    `SpreadSlicesd` repeated have no label either. Works on class indices, so behind `MapLabelsd`, and on
    images spread or not. Where image and label have the same slices, or one of them has no slice numbers,
    nothing is changed; `CheckPaird` compares their sizes.

    Args:
        image_key: its grid is the label's grid afterwards; (C, x, y, z).
        label_key: the label, (C, x, y, slices).
        offset_key: key under which an item states what a label's number is above that of its image.
    """

    def __init__(
        self, image_key: str = "image", label_key: str = "label", *, offset_key: str = "label_offset"
    ) -> None:
        super().__init__((label_key,))
        self.image_key = image_key
        self.label_key = label_key
        self.offset_key = offset_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item, its label as uint8 of the image's shape where slices had to be placed.

        Raises:
            InputError: when a label slice has no image, or a label has another size than its image.
            ValueError: when a volume has not as many slices as numbers.
        """
        item = dict(data)
        image, label = item[self.image_key], item[self.label_key]
        numbers, label_numbers = _numbers_of(image), _numbers_of(label)
        if numbers is None or label_numbers is None:
            return item
        offset = int(item.get(self.offset_key) or 0)
        wanted = [number - offset for number in label_numbers]
        self._check_pairs(item, set(numbers), offset)
        if wanted == numbers and image.shape[-1] == len(numbers):
            return item
        places = [number - numbers[0] for number in wanted]
        if image.shape[-1] != _span(numbers):
            _check_count(item, self.image_key, numbers)
            places = np.searchsorted(numbers, wanted).tolist()
        item[self.label_key] = _placed(item, self.image_key, self.label_key, places)
        return item

    def _check_pairs(self, item: Mapping[Hashable, Any], numbers: set[int], offset: int) -> None:
        label_numbers = _numbers_of(item[self.label_key]) or []
        _check_count(item, self.label_key, label_numbers)
        stranger = next((number for number in label_numbers if number - offset not in numbers), None)
        if stranger is not None:
            expected = f"image slice {stranger - offset} for label slice {stranger}"
            refuse(name_of(item, self.label_key), expected, "none", "add the image or remove the label")


def _placed(item: Mapping[Hashable, Any], image_key: str, label_key: str, places: Sequence[int]) -> Any:
    image, label = item[image_key], item[label_key]
    shape = tuple(int(size) for size in image.shape[1:])
    if tuple(label.shape[1:3]) != shape[:2]:
        refuse_shape(item, label_key, tuple(label.shape[1:3]), shape[:2])
    placed = np.full((label.shape[0], *shape), IGNORE, dtype=np.uint8)
    placed[..., places] = bare_array(label)
    affine = getattr(image, "affine", None)
    return replaced_array(label, placed, affine=None if affine is None else affine.numpy())


def _numbers_of(volume: object) -> list[int] | None:
    """Slice numbers in meta data, as read or after a batch was made and taken apart."""
    numbers = volume.meta.get(_NUMBERS) if isinstance(volume, MetaTensor) else None
    return None if numbers is None else [int(number) for number in numbers]


def _span(numbers: Sequence[int]) -> int:
    return numbers[-1] - numbers[0] + 1


def _places(numbers: Sequence[int]) -> list[int]:
    return [number - numbers[0] for number in numbers]


def _nearest(numbers: Sequence[int]) -> list[int]:
    """Index of the nearest present slice for every number from the first to the last.

    Example:
        >>> _nearest([10, 14, 15])
        [0, 0, 0, 1, 1, 2]
    """
    present = np.array(numbers)
    # a number is nearer to the lower slice up to the middle between two, the middle included
    middles = (present[:-1] + present[1:]) / 2
    return [int(index) for index in np.searchsorted(middles, np.arange(present[0], present[-1] + 1))]


def _taken(volume: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
    plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    return plain.index_select(-1, torch.tensor(indices, dtype=torch.int64, device=plain.device))


def _check_count(item: Mapping[Hashable, Any], key: str, numbers: Sequence[int]) -> None:
    count = int(item[key].shape[-1])
    if count != len(numbers):
        raise ValueError(
            f"{name_of(item, key)}: {key} must have {len(numbers)} slices, as many as numbers, got {count}"
        )
