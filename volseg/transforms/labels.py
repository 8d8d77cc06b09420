"""Labels as the loss needs them: class indices on the image's grid, `IGNORE` where nothing is known."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.config import KeysCollection
from monai.transforms import MapTransform

from volseg.checks import InputError, check_fraction, refuse
from volseg.transforms.label_rules import LabelRule, check_rule, classes_by_rule
from volseg.transforms.volume import bare_array, name_of, replaced_array, shape_text

__all__ = ["IGNORE", "MapLabelsd", "MaskUnlabelledd", "PlaceSparseLabeld"]

IGNORE = 255
"""Value of a training label's voxels that the loss must not look at."""


class MapLabelsd(MapTransform):
    """Map the values or colours of a label file to class indices, refusing what no rule names.

    MONAI's `MapLabelValued` passes unknown values through, so that 0/255 masks reach a sigmoid loss. A rule
    is one of

    - "binary": files of 0 and 1 or of 0 and 255.
    - "nonzero": foreground is what is not 0, for masks whose edges are grey.
    - "above:127": foreground is what is brighter than 127, for masks stored as JPEG.
    - values to class indices, for instance `{0: 0, 255: 1, 191: 2, 128: 3}` (keys may be strings, as in
      JSON).
    - colours to class indices, `{"#ff0000": 1, "#00ff00": 2}`; black is 0. (3, H, W) becomes (1, H, W).

    Args:
        keys: label keys.
        values: the rule; None is "binary", or "nonzero" with a `rule_key`.
        rule_key: key under which an item states its own rule, which goes before `values`.
        require_foreground: refuse a label without any foreground.
        allow_missing_keys: skip a key that the item lacks.

    Raises:
        ValueError: for another rule, or a class index outside 0..255.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        values: Mapping[int, int] | Mapping[str, int] | str | None = None,
        *,
        rule_key: str | None = None,
        require_foreground: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        default = "binary" if rule_key is None else "nonzero"
        self.rule = check_rule("values", default if values is None else values)
        self.rule_key = rule_key
        self.require_foreground = require_foreground

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with uint8 class indices, and `IGNORE` where a rule says so.

        Raises:
            InputError: for a value or colour without a rule, a rule of the item that is none, negative,
                fractional or NaN values, and empty labels if refused.
        """
        item = dict(data)
        rule = self._rule_of(item)
        for key in self.key_iterator(item):
            name = name_of(item, key)
            mapped = classes_by_rule(bare_array(item[key]), rule, name)
            if self.require_foreground and not ((mapped > 0) & (mapped != IGNORE)).any():
                refuse(
                    name, "some foreground", "an empty label", "remove the case from training, or annotate it"
                )
            item[key] = replaced_array(item[key], mapped)
        return item

    def _rule_of(self, item: Mapping[Hashable, Any]) -> LabelRule:
        stated = None if self.rule_key is None else item.get(self.rule_key)
        if stated is None:
            return self.rule
        try:
            return check_rule(str(self.rule_key), stated)
        except ValueError as error:
            raise InputError(f"{item.get('case', 'a case')}: {error}; correct the datalist") from None


class PlaceSparseLabeld(MapTransform):
    """Put a label of a range of slices where it belongs in the image, `IGNORE` everywhere else.

    Items with `labelled_range` [first, last) of slices along z have either a label of just these slices, or
    one of the image's size whose other slices mean nothing. Items without it pass unchanged.

    Args:
        image_key: its grid is the label's grid afterwards.
        label_key: the label, in class indices; (C, x, y, z).
    """

    def __init__(self, image_key: str = "image", label_key: str = "label") -> None:
        super().__init__((label_key,))
        self.image_key = image_key
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with a uint8 label of the image's shape, `IGNORE` outside the range.

        Raises:
            InputError: when the range leaves the image, or the label fits neither the range nor the image.
        """
        item = dict(data)
        if item.get("labelled_range") is None:
            return item
        label, image = bare_array(item[self.label_key]), item[self.image_key]
        shape = tuple(int(size) for size in image.shape[1:])
        first, last = (int(index) for index in item["labelled_range"])
        if not 0 <= first < last <= shape[2]:
            remedy = "correct labelled_range in the datalist; the second number is one past the last slice"
            refuse(
                name_of(item, self.label_key), f"a range within 0..{shape[2]}", f"[{first}, {last})", remedy
            )
        if label.shape[1:] == shape:
            label = label[..., first:last]
        elif label.shape[1:] != (*shape[:2], last - first):
            refuse_shape(item, self.label_key, label.shape[1:], (*shape[:2], last - first))
        placed = np.full((label.shape[0], *shape), IGNORE, dtype=np.uint8)
        placed[..., first:last] = label
        affine = getattr(image, "affine", None)
        place = None if affine is None else affine.numpy()
        item[self.label_key] = replaced_array(item[self.label_key], placed, affine=place)
        return item


class MaskUnlabelledd(MapTransform):
    """Let the loss ignore the background of a label that is known to miss objects.

    With 65 % of the vessels labelled, a background voxel may be vessel. Labelled voxels are certain, and so
    is the background that touches them, where borders are learnt; the rest becomes `IGNORE`.

    Args:
        label_key: class indices, (C, D0, D1, D2) or (C, H, W).
        min_coverage: items whose `label_coverage` (default 1) is at least this keep their background.
        border: background within so many voxels of a labelled one is kept (city blocks along all axes at
            once).
    """

    def __init__(self, label_key: str = "label", min_coverage: float = 0.9, *, border: int = 2) -> None:
        super().__init__((label_key,))
        self.label_key = label_key
        self.min_coverage = check_fraction("min_coverage", min_coverage)
        if border < 0:
            raise ValueError(f"border must be at least 0 voxels, got {border}")
        self.border = border

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item, its label masked if its coverage is below the limit.

        Raises:
            InputError: when the coverage is no number in (0, 1].
        """
        item = dict(data)
        coverage = float(item.get("label_coverage", 1.0))
        if not 0 < coverage <= 1:
            remedy = "correct label_coverage in the datalist"
            refuse(name_of(item, self.label_key), "a coverage above 0 and up to 1", coverage, remedy)
        if coverage >= self.min_coverage:
            return item
        label = bare_array(item[self.label_key])
        known = _dilated((label > 0) & (label != IGNORE), self.border)
        masked = np.where(known, label, np.asarray(IGNORE, label.dtype))
        item[self.label_key] = replaced_array(item[self.label_key], masked)
        return item


def refuse_shape(
    item: Mapping[Hashable, Any], label_key: str, got: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Raise for a label of another size than its image, saying so when it is transposed.

    Raises:
        InputError: always.
    """
    is_transposed = len(got) == len(expected) and got != expected and sorted(got) == sorted(expected)
    remedy = "labels must not be transposed" if is_transposed else "a label needs one voxel per image voxel"
    message = f"{shape_text(got)}, but its image is {shape_text(expected)}; {remedy}"
    raise InputError(f"{name_of(item, label_key)}: {message}")


def _dilated(mask: npt.NDArray[np.bool_], distance: int) -> npt.NDArray[np.bool_]:
    for axis in range(1, mask.ndim):
        source, grown = np.moveaxis(mask, axis, 0), np.moveaxis(mask.copy(), axis, 0)
        for shift in range(1, min(distance, len(source) - 1) + 1):
            grown[shift:] |= source[:-shift]
            grown[:-shift] |= source[shift:]
        mask = np.moveaxis(grown, 0, axis)
    return mask
