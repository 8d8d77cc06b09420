"""Dice: twice the common voxels over the voxels of both masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from volseg.metrics.structures import StructureMetric, mask_pair_of

__all__ = ["DiceMetric", "compute_dice"]


class DiceMetric(StructureMetric):
    """Mean Dice over structures, see `StructureMetric`.

    MONAI's `DiceMetric` gives nan where the truth is empty, whatever is predicted, so that a false alarm is
    free; here it scores `spurious_value`, and missed and spurious structures are counted.

    Args:
        empty_value: score of two empty masks: nan (left out) or 1 (the ultrasound nerve challenge).
        spurious_value: score of a prediction where nothing is; nan leaves it out as MONAI and the AI
            Challenger do.
        include_background: score channel 0 too, where there is more than one.
    """

    def __init__(
        self,
        empty_value: float = math.nan,
        spurious_value: float = 0.0,
        *,
        include_background: bool = False,
    ) -> None:
        super().__init__(include_background=include_background)
        self.empty_value = empty_value
        self.spurious_value = spurious_value

    def score(self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]) -> float:
        """Dice of one structure; a missed one scores 0."""
        return compute_dice(pred, truth, empty_value=self.empty_value, spurious_value=self.spurious_value)


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
