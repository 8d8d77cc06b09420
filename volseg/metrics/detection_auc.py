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
    slices.

    255 is unlabelled. A slice that nobody has labelled is left out. In a slice that is labelled in part, the
    question is asked of that part: voxels of 255 hold no lesion, and probabilities there are not looked at.

    A class that all or no items hold has no AUC: it is left out of the mean and counted in `undefined_count`.
    A lesion that is missed in all slices alike scores 0.5, as guessing does: there is no threshold, so that
    nothing is "missed" as a whole.

    Args:
        level: "slice" or "volume".
        include_background: judge class 0 too.
        first_class: class of the first channel of `y_pred`: 0, or 1 for a detection head, which has no
            channel of the background.

    Attributes:
        per_class: after `aggregate`, (K,) AUC.
        undefined_count: classes left out of the mean.
    """

    def __init__(
        self,
        level: Literal["slice", "volume"] = "slice",
        *,
        include_background: bool = False,
        first_class: int = 0,
    ) -> None:
        super().__init__()
        self.level = check_choice("level", level, ("slice", "volume"))
        self.include_background = include_background
        if first_class not in (0, 1):
            raise ValueError(f"first_class must be 0 or 1, got {first_class}")
        self.first_class = first_class
        self.per_class: torch.Tensor | None = None
        self.undefined_count = 0

    def get_buffer(self) -> torch.Tensor | None:
        """AUC of each class within each case, (N, K), nan where undefined; None before the first."""
        buffers = super().get_buffer()
        if buffers is None:
            return None
        numbers = buffers[3][:, 0].cumsum(dim=0)  # of the case that a slice is of
        cases = [[each[numbers == case] for each in buffers[:3]] for case in numbers.unique().tolist()]
        return torch.stack([_auc_per_class(*rows) for rows in cases])

    def aggregate(self) -> torch.Tensor:
        """Mean AUC as a scalar tensor, nan when no class has one; also sets the attributes.

        Raises:
            ValueError: before any case was scored.
        """
        buffers = super().get_buffer()
        if buffers is None:
            raise ValueError("DetectionAUCMetric has scored no case yet; call it with y_pred and y first")
        self.per_class = _auc_per_class(*buffers[:3])
        self.undefined_count = int(self.per_class.isnan().sum())
        return self.per_class.nanmean()

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **_: Any) -> list[torch.Tensor]:
        if y_pred.ndim < 3 or y_pred.shape[-1] != y.shape[-1] or len(y_pred) != len(y):
            shapes = f"{tuple(y_pred.shape)} and {tuple(y.shape)}"
            raise ValueError(f"y_pred must be (B, K, ..., S) and y have the same slices S, got {shapes}")
        scores, present, known = self._slices(y_pred, y)
        if scores.shape != present.shape:
            raise ValueError(
                f"y must hold class indices or {y_pred.shape[1]} truths a slice, got {tuple(y.shape)}"
            )
        if self.level == "volume":
            scores = scores.masked_fill(~known, -math.inf).amax(dim=2, keepdim=True)
            present, known = (each.any(dim=2, keepdim=True) for each in (present & known, known))
        is_background = self.first_class == 0 and y_pred.shape[1] > 1 and not self.include_background
        starts = torch.zeros_like(present)
        starts[:, :, 0] = True
        first = int(is_background)
        return [each[:, first:].transpose(1, 2).flatten(0, 1) for each in (scores, present, known, starts)]

    def _slices(self, y_pred: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Score, truth, and whether that is known, of each slice, (B, K, S) each."""
        labelled = y != IGNORE
        y_pred = y_pred if y_pred.is_floating_point() else y_pred.float()
        if y_pred.ndim > 3 and not labelled.all():
            y_pred = y_pred.masked_fill(~labelled, -math.inf)
        classes = torch.arange(y_pred.shape[1], device=y.device) + self.first_class
        indices = y.ndim > 3 and y.shape[1] == 1 and y_pred.shape[1] > 1
        truth = (y == classes.reshape(1, -1, *[1] * (y.ndim - 2))) if indices else (y != 0) & labelled
        present = _slices_of(truth)
        return _slices_of(y_pred), present, _slices_of(labelled).expand_as(present)


def _slices_of(volumes: torch.Tensor) -> torch.Tensor:
    """Largest value of each slice, (B, K, S)."""
    return volumes.flatten(2, -2).amax(dim=2) if volumes.ndim > 3 else volumes


def _auc_per_class(scores: torch.Tensor, present: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """AUC of each class, (K,) float64, from (N, K) slices."""
    columns = zip(scores.T, present.T, known.T, strict=True)
    return torch.tensor([compute_detection_auc(s[k], p[k]) for s, p, k in columns], dtype=torch.float64)


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
