"""Scores of fundus photographs inside the field of view: AUC, accuracy, sensitivity, specificity."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from monai.metrics import CumulativeIterationMetric
from sklearn.metrics import roc_auc_score

from volseg.checks import check_fraction
from volseg.metrics.neighbour_codes import IGNORE

__all__ = ["FieldOfViewMetric", "FieldOfViewScores", "compute_field_of_view_scores"]


class FieldOfViewScores(NamedTuple):
    """Scores of the pixels inside a field of view, nan where undefined."""

    auc: float
    accuracy: float
    sensitivity: float
    specificity: float


class FieldOfViewMetric(CumulativeIterationMetric):
    """Mean over images of one score inside the field of view; MONAI's `ROCAUCMetric` knows no mask.

    `y_pred` is (B, 1, ...) probabilities; `y` is (B, 1, ...) with 0, 1, and 255 outside the field of view.
    Images where the score is undefined (no vessel: AUC, sensitivity) are left out and counted in
    `undefined_count`. Of an image whose vessels are all missed the sensitivity is 0 and the AUC that of the
    probabilities, 0.5 where they are all the same; accuracy and specificity hardly show it: read
    `missed_count`.

    Args:
        score: field of `FieldOfViewScores`.
        threshold: probability from which a pixel is a vessel.

    Attributes:
        means: after `aggregate`, all four scores.
        missed_count: images with vessels in which nothing reaches the threshold.
        spurious_count: images without vessels in which something does.
        undefined_count: images left out of the mean.
    """

    def __init__(self, score: str = "auc", threshold: float = 0.5) -> None:
        super().__init__()
        if score not in FieldOfViewScores._fields:
            raise ValueError(f"score must be one of {', '.join(FieldOfViewScores._fields)}, got {score!r}")
        self.score = score
        self.threshold = check_fraction("threshold", threshold)
        self.reset()

    def reset(self) -> None:
        """Forget all images and the results of the last `aggregate`."""
        super().reset()
        self.means: FieldOfViewScores | None = None
        self.missed_count = self.spurious_count = self.undefined_count = 0

    def get_buffer(self) -> torch.Tensor | None:
        """The score (N, 1) of all images on all ranks; None before the first."""
        buffers = super().get_buffer()
        column = FieldOfViewScores._fields.index(self.score)
        return None if buffers is None else buffers[0][:, column : column + 1]

    def aggregate(self) -> torch.Tensor:
        """Mean score as a scalar tensor; also sets the attributes.

        Raises:
            ValueError: before any image was scored.
        """
        buffers = super().get_buffer()
        if buffers is None:
            raise ValueError("FieldOfViewMetric has scored no image yet; call it with y_pred and y first")
        scores, in_pred, in_truth = buffers
        means = scores.nanmean(dim=0)
        self.means = FieldOfViewScores(*means.tolist())
        column = FieldOfViewScores._fields.index(self.score)
        self.missed_count = int((in_truth & ~in_pred).sum())
        self.spurious_count = int((in_pred & ~in_truth).sum())
        self.undefined_count = int(scores[:, column].isnan().sum())
        return means[column]

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **_: Any) -> list[torch.Tensor]:
        pairs = zip(y_pred, y, strict=True)
        scores = [
            compute_field_of_view_scores(soft, truth == 1, truth != IGNORE, threshold=self.threshold)
            for soft, truth in pairs
        ]
        found = (y_pred >= self.threshold) & (y != IGNORE)
        flags = (mask.as_subclass(torch.Tensor).flatten(1).any(dim=1) for mask in (found, y == 1))
        return [torch.tensor(scores, dtype=torch.float64, device=y_pred.device), *flags]


def compute_field_of_view_scores(
    probability: Any, truth: Any, field_of_view: Any, *, threshold: float = 0.5
) -> FieldOfViewScores:
    """Score the pixels inside a field of view.

    Args:
        probability: numbers in [0, 1] of any shape.
        truth: mask of the same shape.
        field_of_view: mask of the same shape; pixels outside are not looked at, not even for NaN.
        threshold: probability from which a pixel is foreground.

    Returns:
        The scores; AUC is nan with one class only, sensitivity without foreground, specificity without
        background, accuracy with nothing inside.

    Raises:
        ValueError: when the shapes differ or a probability inside is NaN or outside [0, 1].

    Example:
        >>> compute_field_of_view_scores([0.9, 0.8, 0.1, 0.7], [1, 0, 0, 0], [1, 1, 1, 0])
        FieldOfViewScores(auc=1.0, accuracy=0.6666666666666666, sensitivity=1.0, specificity=0.5)
    """
    soft, real, inside = (torch.as_tensor(each) for each in (probability, truth, field_of_view))
    if not soft.shape == real.shape == inside.shape:
        shapes = f"{tuple(soft.shape)}, {tuple(real.shape)} and {tuple(inside.shape)}"
        raise ValueError(f"probability, truth and field_of_view must have one shape, got {shapes}")
    soft, real = soft[inside != 0], real[inside != 0] != 0
    if not bool(((soft >= 0) & (soft <= 1)).all()):
        raise ValueError("probability must lie in [0, 1], got others; apply sigmoid and look for NaN")
    hit = (soft >= threshold) == real
    has_both = bool(real.any()) and not bool(real.all())
    auc = (
        float(roc_auc_score(real.numpy(force=True), soft.float().numpy(force=True))) if has_both else math.nan
    )
    return FieldOfViewScores(auc, *(_share(each) for each in (hit, hit[real], hit[~real])))


def _share(hits: torch.Tensor) -> float:
    return int(hits.sum()) / len(hits) if len(hits) else math.nan
