"""Area under the ROC curve of the question whether a slice, or a volume, holds a lesion."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from sklearn.metrics import roc_auc_score

from volseg.checks import check_choice
from volseg.metrics.neighbour_codes import IGNORE

__all__ = ["DetectionAUCMetric", "compute_detection_auc"]


class DetectionAUCMetric(CumulativeIterationMetric):
    """Mean over classes of the AUC of "is the lesion in this slice (or volume)".

    All slices of all cases count alike. MONAI's `ROCAUCMetric` wants one score per item; here they are read
    off the volumes. `y_pred` is (B, K, ...) of probabilities with the slices along the last axis: the score
    of a slice is its largest probability. Or it is (B, K, S) scores of S slices, from a detection head. `y`
    is (B, 1, ..., S) class indices with the background 0 (a mask, where K is 1), or (B, K, S) truths of the
    slices. Voxels of 255 hold no lesion.

    A class that all or no items hold has no AUC: it is left out of the mean and counted in `undefined_count`.
    A lesion that is missed in all slices alike scores 0.5, as guessing does: there is no threshold, so that
    nothing is "missed" as a whole.

    Args:
        level: "slice" or "volume".
        include_background: judge class 0 too.

    Attributes:
        per_class: after `aggregate`, (K,) AUC.
        undefined_count: classes left out of the mean.
    """

    def __init__(
        self, level: Literal["slice", "volume"] = "slice", *, include_background: bool = False
    ) -> None:
        super().__init__()
        self.level = check_choice("level", level, ("slice", "volume"))
        self.include_background = include_background
        self.per_class: torch.Tensor | None = None
        self.undefined_count = 0

    def aggregate(self) -> torch.Tensor:
        """Mean AUC as a scalar tensor, nan when no class has one; also sets the attributes.

        Raises:
            ValueError: before any case was scored.
        """
        buffers = self.get_buffer()
        if buffers is None:
            raise ValueError("DetectionAUCMetric has scored no case yet; call it with y_pred and y first")
        scores, present = buffers
        pairs = zip(scores.T, present.T, strict=True)
        self.per_class = torch.tensor([compute_detection_auc(*pair) for pair in pairs], dtype=torch.float64)
        self.undefined_count = int(self.per_class.isnan().sum())
        return self.per_class.nanmean()

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **_: Any) -> list[torch.Tensor]:
        if y_pred.ndim < 3 or y_pred.shape[-1] != y.shape[-1] or len(y_pred) != len(y):
            shapes = f"{tuple(y_pred.shape)} and {tuple(y.shape)}"
            raise ValueError(f"y_pred must be (B, K, ..., S) and y have the same slices S, got {shapes}")
        classes = torch.arange(y_pred.shape[1], device=y.device).reshape(1, -1, *[1] * (y.ndim - 2))
        indices = y.ndim > 3 and y.shape[1] == 1 and y_pred.shape[1] > 1
        truth = (y == classes) if indices else (y != 0) & (y != IGNORE)
        scores, present = _slices_of(y_pred), _slices_of(truth.to(y_pred.dtype))
        if scores.shape != present.shape:
            raise ValueError(
                f"y must hold class indices or {y_pred.shape[1]} truths a slice, got {tuple(y.shape)}"
            )
        if self.level == "volume":
            scores, present = scores.amax(dim=2, keepdim=True), present.amax(dim=2, keepdim=True)
        first = 0 if self.include_background or y_pred.shape[1] == 1 else 1
        rows = [each[:, first:].transpose(1, 2).flatten(0, 1) for each in (scores, present)]
        return [rows[0], rows[1] > 0]


def _slices_of(volumes: torch.Tensor) -> torch.Tensor:
    """Largest value of each slice, (B, K, S)."""
    return volumes.flatten(2, -2).amax(dim=2) if volumes.ndim > 3 else volumes


def compute_detection_auc(scores: Any, present: Any) -> float:
    """Area under the ROC curve: the chance that an item with the lesion scores above one without.

    Ties count half.

    Args:
        scores: (N,) numbers, larger for surer.
        present: (N,) truths.

    Returns:
        A number in [0, 1], 0.5 for guessing; nan when all items hold the lesion or none does.

    Raises:
        ValueError: when the lengths differ or a score is NaN.

    Example:
        >>> compute_detection_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.75
    """
    values, truths = (
        torch.as_tensor(scores).numpy(force=True),
        torch.as_tensor(present).numpy(force=True) != 0,
    )
    if values.shape != truths.shape:
        raise ValueError(f"scores and present must have one length, got {values.shape} and {truths.shape}")
    if np.isnan(values).any():
        raise ValueError("scores must be numbers, got NaN; look for NaN in the network's input")
    return float(roc_auc_score(truths, values)) if 0 < truths.sum() < len(truths) else math.nan
