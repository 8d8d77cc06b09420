"""From probabilities to a label map, as the last step before a prediction is scored or written."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import convert_to_dst_type

from volseg.checks import check_flag, check_fraction, check_positive

__all__ = ["DecideLabelsd"]


class DecideLabelsd(Transform):
    """Turn probabilities into class indices; keep probability and disagreement maps beside them when asked.

    MONAI's `AsDiscreted` makes float32 masks, and the zoo's bundles decide after the inverse resampling of
    every class. This one decides once, on the image's own grid, into uint8.

    Args:
        key: probabilities (K, x, y, z), or (2K, x, y, z) with the disagreement of a `TriAxisInferer` behind.
        classes: K; with 1 a voxel is foreground from `threshold` on, else the most probable class wins.
        threshold: in [0, 1], for one class.
        keep_probability: put the probabilities under "probability".

    Raises:
        ValueError: for a threshold outside [0, 1] or more than 255 classes; when called, for another number
            of channels.
    """

    def __init__(
        self, key: str = "pred", *, classes: int = 1, threshold: float = 0.5, keep_probability: bool = False
    ) -> None:
        check_positive("classes", classes)
        if classes > 255:
            raise ValueError(f"classes must be at most 255, because labels are uint8, got {classes}")
        self.key = key
        self.classes = classes
        self.threshold = check_fraction("threshold", threshold)
        self.keep_probability = check_flag("keep_probability", keep_probability)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with (1, x, y, z) uint8 class indices under the key."""
        item = dict(data)
        maps = item[self.key]
        if len(maps) not in (self.classes, 2 * self.classes):
            expected = f"{self.classes} channels, or {2 * self.classes} with the disagreement"
            raise ValueError(f"{self.key} must have {expected}, got {len(maps)}; check `classes`")
        plain = maps.as_subclass(torch.Tensor)
        probability = plain[: self.classes]
        if self.classes == 1:
            labels = (probability >= self.threshold).to(torch.uint8)
        else:
            labels = probability.argmax(dim=0, keepdim=True).to(torch.uint8)
        item[self.key] = convert_to_dst_type(labels, maps, dtype=torch.uint8)[0]
        if self.keep_probability:
            item["probability"] = convert_to_dst_type(probability, maps)[0]
        if len(maps) == 2 * self.classes:
            item["disagreement"] = convert_to_dst_type(plain[self.classes :], maps)[0]
        return item
