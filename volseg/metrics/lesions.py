"""Detection of single lesions: connected components of the prediction matched with those of the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cc3d
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from volseg.checks import check_fraction
from volseg.metrics.structures import StructureMetric, mask_pair_of

__all__ = ["LesionCounts", "LesionF1Metric", "components_of", "compute_lesion_counts", "compute_lesion_f1"]


class LesionCounts(NamedTuple):
    """Lesions that are found, missed and predicted where none is."""

    found: int
    missed: int
    spurious: int


class LesionF1Metric(StructureMetric):
    """Mean F1 of lesion detection over structures, see `StructureMetric`; MONAI has none.

    Args:
        min_iou: overlap from which a predicted lesion counts as the true one.
        empty_value: score where neither has a lesion.
        include_background: score channel 0 too, where there is more than one.
    """

    def __init__(
        self, min_iou: float = 0.1, empty_value: float = math.nan, *, include_background: bool = False
    ) -> None:
        super().__init__(include_background=include_background)
        self.min_iou = check_fraction("min_iou", min_iou)
        self.empty_value = empty_value

    def score(self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]) -> float:
        """F1 of the lesions of one class."""
        return compute_lesion_f1(pred, truth, min_iou=self.min_iou, empty_value=self.empty_value)


def compute_lesion_f1(pred: Any, truth: Any, *, min_iou: float = 0.1, empty_value: float = math.nan) -> float:
    """F1 of lesion detection: 2 found / (2 found + missed + spurious).

    Args:
        pred: 2D or 3D mask; array or tensor, non-zero is foreground.
        truth: mask of the same shape.
        min_iou: overlap from which a predicted lesion counts as the true one.
        empty_value: score where neither has a lesion.

    Raises:
        ValueError: as `compute_lesion_counts`.

    Example:
        >>> truth = np.array([[1, 0, 1, 0, 0]])
        >>> compute_lesion_f1(np.array([[1, 0, 0, 0, 1]]), truth)
        0.5
    """
    counts = compute_lesion_counts(pred, truth, min_iou=min_iou)
    if not any(counts):
        return float(empty_value)
    return 2.0 * counts.found / (2 * counts.found + counts.missed + counts.spurious)


def compute_lesion_counts(pred: Any, truth: Any, *, min_iou: float = 0.1) -> LesionCounts:
    """Match lesions one to one, so that as many as possible are found, and count.

    A lesion is a component connected by faces, edges or corners. A prediction that merges two lesions finds
    at most one of them.

    Args:
        pred: 2D or 3D mask; array or tensor, non-zero is foreground.
        truth: mask of the same shape.
        min_iou: intersection over union from which a pair can match; any overlap where it is 0.

    Raises:
        ValueError: when the shapes differ or are not 2D or 3D, a mask holds values between 0 and 1, or
            `min_iou` lies outside [0, 1].

    Example:
        >>> truth = np.array([[1, 0, 1, 0, 0]])
        >>> compute_lesion_counts(np.array([[1, 0, 0, 0, 1]]), truth)
        LesionCounts(found=1, missed=1, spurious=1)
    """
    check_fraction("min_iou", min_iou)
    labels, numbers = zip(*map(components_of, mask_pair_of(pred, truth)), strict=True)
    iou = _overlaps(labels[0].ravel(), labels[1].ravel(), numbers)
    allowed = (iou >= min_iou) & (iou > 0)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    found = int(allowed[rows, columns].sum())
    return LesionCounts(found, missed=numbers[1] - found, spurious=numbers[0] - found)


def components_of(mask: torch.Tensor) -> tuple[np.ndarray, int]:
    """Number the components of a boolean 2D or 3D mask, connected by faces, edges or corners, from 1.

    Returns:
        an array of the mask's shape, and how many there are.

    Raises:
        ValueError: when the mask is not 2D or 3D.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(f"lesions need a 2D or 3D mask, got {mask.ndim} axes; remove batch and channel")
    # cc3d 4.1.1 numbers some small 2D boolean masks wrongly at connectivity 8, bytes never
    values = mask.numpy(force=True).astype(np.uint8)
    labels, number = cc3d.connected_components(
        values, connectivity=8 if mask.ndim == 2 else 26, return_N=True
    )
    return labels, int(number)


def _overlaps(pred: np.ndarray, truth: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """Intersection over union of each predicted with each true lesion, (P, T)."""
    shape = numbers[0] + 1, numbers[1] + 1
    either = (pred > 0) | (truth > 0)
    cells = pred[either].astype(np.int64) * shape[1] + truth[either]
    common = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    union = common.sum(axis=1)[1:, None] + common.sum(axis=0)[None, 1:] - common[1:, 1:]
    return common[1:, 1:] / np.maximum(union, 1)
