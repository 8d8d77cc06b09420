"""Intersection over union: the common voxels over the voxels of either mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from volseg.metrics.overlap import OverlapCounts, OverlapMetric
from volseg.metrics.structures import mask_pair_of

__all__ = ["IoUMetric", "compute_iou"]


class IoUMetric(OverlapMetric):
    """Mean intersection over union of structures, or at the best of several thresholds; see `OverlapMetric`.

    It is that of single images, not pooled: `ConfusionMetric` pools all voxels. MONAI's `MeanIoU` gives nan
    where the truth is empty, whatever is predicted.

    Args:
        empty_value: score of two empty masks.
        thresholds: 1 to 255 rising numbers in (0, 1], to score probabilities; None for masks.
        include_background: score channel 0 too, where there is more than one.
    """

    def __init__(
        self,
        empty_value: float = math.nan,
        *,
        thresholds: Sequence[float] | None = None,
        include_background: bool = False,
    ) -> None:
        super().__init__(thresholds, include_background=include_background)
        self.empty_value = empty_value

    def score_counts(self, counts: OverlapCounts) -> torch.Tensor:
        """IoU of one structure at each threshold; a missed or spurious one scores 0."""
        union = counts.pred + counts.truth - counts.hit
        return (counts.hit.double() / union).where(union > 0, self.empty_value)


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
