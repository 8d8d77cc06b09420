"""Dice: twice the common voxels over the voxels of both masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from volseg.metrics.overlap import OverlapCounts, OverlapMetric
from volseg.metrics.structures import mask_pair_of

__all__ = ["DiceMetric", "compute_dice"]


class DiceMetric(OverlapMetric):
    """Mean Dice over structures, or at the best of several thresholds; see `OverlapMetric`.

    MONAI's `DiceMetric` gives nan where the truth is empty, whatever is predicted, so that a false alarm is
    free; here it scores `spurious_value`, and missed and spurious structures are counted.

    Args:
        empty_value: score of two empty masks: nan (left out) or 1 (the ultrasound nerve challenge).
        spurious_value: score of a prediction where nothing is; nan leaves it out as MONAI and the AI
            Challenger do.
        thresholds: 1 to 255 rising numbers in (0, 1], to score probabilities; None for masks.
        include_background: score channel 0 too, where there is more than one.

    Example:
        >>> metric = DiceMetric(empty_value=1.0, thresholds=[0.25, 0.5, 0.75])
        >>> _ = metric(torch.tensor([[[[0.6, 0.3]]], [[[0.4, 0.0]]]]), torch.tensor([[[[1, 0]]], [[[0, 0]]]]))
        >>> metric.aggregate().item(), metric.best_threshold
        (1.0, 0.5)
    """

    def __init__(
        self,
        empty_value: float = math.nan,
        spurious_value: float = 0.0,
        *,
        thresholds: Sequence[float] | None = None,
        include_background: bool = False,
    ) -> None:
        super().__init__(thresholds, include_background=include_background)
        self.empty_value = empty_value
        self.spurious_value = spurious_value

    def score_counts(self, counts: OverlapCounts) -> torch.Tensor:
        """Dice of one structure at each threshold; a missed one scores 0."""
        score = 2.0 * counts.hit.double() / (counts.pred + counts.truth)
        score = score.where(counts.truth > 0, self.spurious_value)
        return score.where(counts.pred + counts.truth > 0, self.empty_value)


def compute_dice(
    pred: Any, truth: Any, *, empty_value: float = math.nan, spurious_value: float = 0.0
) -> float:
    """Dice of two masks of any dimension: 2 |P ∩ T| / (|P| + |T|).

    Args:
        pred: mask; array or tensor, non-zero is foreground.
        truth: mask of the same shape.
        empty_value: score of two empty masks.
        spurious_value: score of a prediction where the truth is empty. A missed structure always scores 0.

    Raises:
        ValueError: when the shapes differ, or a mask holds NaN or a value between 0 and 1.

    Example:
        >>> compute_dice([1, 1, 0, 0], [0, 1, 1, 0])
        0.5
    """
    pred, truth = mask_pair_of(pred, truth)
    if not truth.any():
        return float(spurious_value if pred.any() else empty_value)
    return 2.0 * int((pred & truth).sum()) / (int(pred.sum()) + int(truth.sum()))
