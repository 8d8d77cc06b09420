"""The disc that a fundus camera sees: given by a file, or found in the picture."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage

from volseg.checks import check_fraction
from volseg.transforms.volume import Array, bare_array, name_of, replaced_array, shape_text

__all__ = ["FieldOfViewd", "find_field_of_view"]


class FieldOfViewd(MapTransform):
    """Find the lit field of a picture, and set everything outside it to 0.

    MONAI's `CropForegroundd` and `ForegroundMaskd` threshold pixel by pixel: dark vessels at the rim fall out
    of the field and noise outside falls in. Here the field is one piece without holes. An item that has a
    mask under `mask_key` already keeps it.

    Args:
        keys: pictures (C, H, W); the first one decides.
        mask_key: where the field is stored as (1, H, W) uint8, 1 inside.
        level: share of the picture's 95th percentile of brightness from which a pixel counts as lit.
        allow_missing_keys: skip a key that the item lacks.

    Raises:
        ValueError: when `level` lies outside [0, 1].
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        mask_key: str = "field_of_view",
        *,
        level: float = 0.15,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.level = check_fraction("level", level)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its field of view, and pictures that are 0 outside it.

        Raises:
            ValueError: when the mask that the item brought has another size than the picture.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            picture = bare_array(item[key])
            if not isinstance(item.get(self.mask_key), torch.Tensor | np.ndarray):
                found = find_field_of_view(picture, self.level)[None].astype(np.uint8)
                item[self.mask_key] = replaced_array(item[key], found)
            mask = bare_array(item[self.mask_key])
            if mask.shape[1:] != picture.shape[1:]:
                got, expected = shape_text(mask.shape[1:]), shape_text(picture.shape[1:])
                raise ValueError(f"{name_of(item, self.mask_key)}: must be {expected}, got {got}")
            item[self.mask_key] = replaced_array(item[self.mask_key], (mask > 0).astype(np.uint8))
            item[key] = replaced_array(item[key], np.where(mask > 0, picture, np.zeros((), picture.dtype)))
        return item


def find_field_of_view(picture: Array, level: float = 0.15) -> npt.NDArray[np.bool_]:
    """Largest lit piece of a picture, without holes; everything where nothing is lit.

    Args:
        picture: (C, H, W), any real dtype; its brightness is the largest channel.
        level: share of the 95th percentile of brightness from which a pixel counts as lit.

    Returns:
        (H, W), True inside.

    Example:
        >>> picture = np.zeros((1, 9, 9)); picture[0, 2:7, 2:7] = 1; picture[0, 4, 4] = 0
        >>> int(find_field_of_view(picture).sum())
        25
    """
    brightness = picture.max(axis=0)
    lit = brightness > level * np.percentile(brightness, 95)
    pieces, count = ndimage.label(lit)
    if not count:
        return np.ones(lit.shape, np.bool_)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    filled: npt.NDArray[np.bool_] = ndimage.binary_fill_holes(pieces == largest)
    return filled
