"""Colour pictures before a network: one channel of them, or contrast that is even from tile to tile."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from volseg.checks import check_choice, check_fraction, check_positive
from volseg.transforms.volume import Array, bare_array, name_of, replaced_array, shape_text

__all__ = ["ChooseChanneld", "LimitContrastd"]


class ChooseChanneld(MapTransform):
    """Keep one channel of a picture: green shows the vessels of a fundus best.

    In MONAI, `SplitDimd` leaves a new key for each channel beside the old one, and `Lambdad` wants a
    function, whose slice beyond the last channel is an empty picture instead of an error.

    Args:
        keys: volumes (C, *spatial).
        channel: which one, from 0; of RGB, 1 is green.
        allow_missing_keys: skip a key that the item lacks.

    Raises:
        ValueError: when `channel` is no whole number from 0.

    Example:
        >>> ChooseChanneld("image", channel=1)({"image": torch.zeros(3, 5, 4)})["image"].shape
        torch.Size([1, 5, 4])
    """

    def __init__(self, keys: KeysCollection, channel: int = 1, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if isinstance(channel, bool) or not isinstance(channel, int) or channel < 0:
            raise ValueError(f"channel must be a whole number from 0, got {channel!r}; of RGB, 1 is green")
        self.channel = channel

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with volumes (1, *spatial) of the same dtype.

        Raises:
            ValueError: when a volume has too few channels.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            volume = bare_array(item[key])
            if self.channel >= len(volume):
                last = len(volume) - 1
                raise ValueError(
                    f"{name_of(item, key)}: must have channel {self.channel}, got {len(volume)} channel(s); "
                    + (f"use a channel from 0 to {last}" if last else "use channel 0, or leave this out")
                )
            item[key] = replaced_array(item[key], volume[self.channel : self.channel + 1].copy())
        return item


class LimitContrastd(MapTransform):
    """Equalise the contrast of a picture tile by tile, with a limit on how much noise it may raise (CLAHE).

    MONAI's `HistogramNormalized` takes one histogram of the whole picture. The result is float32 between the
    lowest and the highest value of the picture (of its field of view), whatever dtype came in; a constant
    picture passes unchanged. It belongs before resizing and normalisation.

    Args:
        keys: pictures (C, H, W), any real dtype.
        clip_limit: share of a tile's pixels that one of 256 grey levels may hold, in (0, 1]; more is more
            contrast.
        tiles: tiles along each side.
        on: "luminance" equalises the brightest channel and scales the others with it, which keeps the
            colours; "channels" equalises each by itself.
        mask_key: field of view (1, H, W), as `FieldOfViewd` leaves it; what lies outside counts for nothing
            and becomes 0. Ignored where the item has none, or if None.
        allow_missing_keys: skip a key that the item lacks.

    Raises:
        ValueError: when an argument lies outside its range.
        ImportError: when scikit-image is not installed.

    Source:
        Zuiderveld, Contrast limited adaptive histogram equalization, Graphics Gems IV, 1994;
        `skimage.exposure.equalize_adapthist`.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        clip_limit: float = 0.01,
        tiles: int = 8,
        *,
        on: Literal["luminance", "channels"] = "luminance",
        mask_key: str | None = "field_of_view",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_positive("clip_limit", clip_limit)
        check_positive("tiles", tiles)
        self.clip_limit = check_fraction("clip_limit", clip_limit)
        self.tiles = int(tiles)
        self.on = check_choice("on", on, ("luminance", "channels"))
        self.mask_key = mask_key
        _equalizer()  # a missing library is told before the first picture is read

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with float32 pictures of the same shape.

        Raises:
            ValueError: when a picture is not (C, H, W), is not finite, has negative colours to scale, or
                differs in size from its field of view.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            picture, name = bare_array(item[key]), name_of(item, key)
            _check_picture(picture, name, scales=self.on == "luminance")
            inside = self._field(item, picture)
            item[key] = replaced_array(item[key], np.where(inside, self._equalized(picture, inside), 0))
        return item

    def _field(self, item: Mapping[Hashable, Any], picture: Array) -> Array:
        given = None if self.mask_key is None else item.get(self.mask_key)
        if not isinstance(given, torch.Tensor | np.ndarray):
            return np.ones(picture.shape[1:], np.bool_)
        mask = bare_array(given)
        if mask.shape[1:] != picture.shape[1:]:
            got, expected = shape_text(mask.shape[1:]), shape_text(picture.shape[1:])
            raise ValueError(f"{name_of(item, self.mask_key)}: must be {expected}, got {got}")
        field: Array = mask[0] > 0
        return field

    def _equalized(self, picture: Array, inside: Array) -> Array:
        if self.on == "channels" or len(picture) == 1:
            return np.stack([self._plane(channel, inside) for channel in picture])
        # The brightest channel stays the brightest, so that no colour leaves the range.
        before = picture.max(axis=0).astype(np.float32)
        after = self._plane(before, inside)
        factor = np.divide(after, before, out=np.zeros_like(after), where=before > 0)
        return picture.astype(np.float32) * factor

    def _plane(self, plane: Array, inside: Array) -> Array:
        values = plane.astype(np.float64)
        low, high = (values[inside].min(), values[inside].max()) if inside.any() else (0.0, 0.0)
        if low == high:
            return values.astype(np.float32)
        # Outside the field the lowest value stands, so that a black surround takes no grey levels.
        unit = np.where(inside, (values - low) / (high - low), 0.0)
        tile = [max(1, size // self.tiles) for size in plane.shape]
        equal = _equalizer()(np.clip(unit, 0.0, 1.0), kernel_size=tile, clip_limit=self.clip_limit)
        result: Array = (low + (high - low) * equal).astype(np.float32)
        return result


def _check_picture(picture: Array, name: str, *, scales: bool) -> None:
    if picture.ndim != 3 or not picture.size:
        raise ValueError(f"{name}: must be a picture (C, H, W), got shape {picture.shape}")
    if not np.isfinite(picture).all():
        raise ValueError(f"{name}: must be finite, got NaN or infinity")
    if scales and len(picture) > 1 and picture.min() < 0:
        raise ValueError(
            f"{name}: colours to scale must not be negative, got {picture.min():g}; "
            "put LimitContrastd before the normalisation, or set on='channels'"
        )


def _equalizer() -> Callable[..., Array]:
    try:
        from skimage.exposure import equalize_adapthist
    except ImportError as error:
        raise ImportError("LimitContrastd needs scikit-image; pip install volseg[contrast]") from error
    equalizer: Callable[..., Array] = equalize_adapthist
    return equalizer
