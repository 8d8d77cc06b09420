"""Intersection over union: the common voxels over the voxels of either mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from volseg.metrics.structures import StructureMetric, mask_pair_of

__all__ = ["IoUMetric", "compute_iou"]


class IoUMetric(StructureMetric):
    """Mean intersection over union of structures, see `StructureMetric`; of single images, not pooled.

    MONAI's `MeanIoU` gives nan where the truth is empty, whatever is predicted. `ConfusionMetric` pools all
    voxels.

    Args:
        empty_value: score of two empty masks.
        include_background: score channel 0 too, where there is more than one.
    """

    def __init__(self, empty_value: float = math.nan, *, include_background: bool = False) -> None:
        super().__init__(include_background=include_background)
        self.empty_value = empty_value

    def score(self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]) -> float:
        """IoU of one structure; a missed or spurious one scores 0."""
        return compute_iou(pred, truth, empty_value=self.empty_value)


def compute_iou(pred: Any, truth: Any, *, empty_value: float = math.nan) -> float:
    """Intersection over union of two masks of any dimension: |P ∩ T| / |P ∪ T|.

    Args:
        pred: mask; array or tensor, non-zero is foreground.
        truth: mask of the same shape.
        empty_value: score of two empty masks. One empty mask scores 0.

    Raises:
        ValueError: when the shapes differ, or a mask holds NaN or a value between 0 and 1.

    Example:
        >>> compute_iou([1, 1, 0, 0], [0, 1, 1, 1])
        0.25
    """
    pred, truth = mask_pair_of(pred, truth)
    union = int((pred | truth).sum())
    return int((pred & truth).sum()) / union if union else float(empty_value)
