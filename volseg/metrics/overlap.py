"""Overlap of a prediction with the truth at many thresholds, from one pass over the probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from volseg.metrics.structures import StructureMetric, mask_tensor, mean_over_cases, structures_of

__all__ = ["OverlapCounts", "OverlapMetric", "check_thresholds", "compute_overlap_sweep"]

_SLACK = 1e-3  # a mean of half-precision views may pass 1 by rounding


class OverlapCounts(NamedTuple):
    """Voxels at each threshold, (T,) int64: in both masks, in the prediction, in the truth."""

    hit: torch.Tensor
    pred: torch.Tensor
    truth: torch.Tensor


class OverlapMetric(StructureMetric):
    """A score of overlap counts, of masks or, with `thresholds`, of probabilities at the best common one.

    See `StructureMetric` for shapes, means and `torch.distributed`. With `thresholds` every case is scored at
    all of them from one histogram, and the mean at the best is the result. Subclasses say in `score_counts`
    what is scored.

    Args:
        thresholds: 1 to 255 rising numbers in (0, 1]; None for masks of 0 and 1.
        include_background: score channel 0 too, where there is more than one.

    Attributes:
        best_threshold: after `aggregate`, the threshold of the best mean (the lowest one of equals), or None.
        curve: after `aggregate`, (T,) mean at each threshold; one value without thresholds.
        per_class, missed_count, spurious_count, undefined_count: at `best_threshold`.

    Raises:
        ValueError: for thresholds out of order; when called, for NaN or values outside [0, 1].
    """

    def __init__(
        self, thresholds: Sequence[float] | None = None, *, include_background: bool = False
    ) -> None:
        self.thresholds = None if thresholds is None else check_thresholds(thresholds)
        super().__init__(include_background=include_background)

    def score_counts(self, counts: OverlapCounts) -> torch.Tensor:
        """Score one structure at each threshold, (T,) float64."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all cases and the results of the last `aggregate`."""
        super().reset()
        self.best_threshold: float | None = None
        self.curve: torch.Tensor | None = None

    def get_buffer(self) -> torch.Tensor | None:
        """Scores of all cases on all ranks, (N, C), or (N, C, T) with thresholds; None before the first."""
        scores = super().get_buffer()
        return scores if scores is None or self.thresholds is not None else scores.squeeze(-1)

    def aggregate(self) -> torch.Tensor:
        """Mean score as a scalar tensor, nan when no structure is defined; also sets the attributes.

        Raises:
            ValueError: before any case was scored.
        """
        scores, in_pred, in_truth = self._gathered()
        self.curve = mean_over_cases(scores)
        best = int(self.curve.nan_to_num(-1.0).argmax())
        self.best_threshold = None if self.thresholds is None else self.thresholds[best]
        self._note(scores[..., best], in_pred[..., best], in_truth[..., best])
        return self.curve[best]

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **_: Any) -> list[torch.Tensor]:
        cases = list(structures_of(y_pred, y, self.include_background))
        rows = [[self._row_of(*pair) for pair in structures] for structures in cases]
        return [torch.stack([torch.stack([parts[k] for parts in row]) for row in rows]) for k in range(3)]

    def _row_of(
        self, pred: torch.Tensor, truth: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.thresholds is None:
            pred = mask_tensor("pred", pred).to(torch.uint8) * 255
        counts = compute_overlap_sweep(pred, truth, thresholds=self.thresholds or (1.0,))
        return self.score_counts(counts), counts.pred > 0, counts.truth > 0


def compute_overlap_sweep(probability: Any, truth: Any, *, thresholds: Sequence[float]) -> OverlapCounts:
    """Count the voxels of `probability >= t`, and those of them that are true, for each threshold t.

    Args:
        probability: floating-point numbers in [0, 1] of any shape, or uint8 where 255 stands for 1.
        truth: mask of the same shape, non-zero is foreground.
        thresholds: 1 to 255 rising numbers in (0, 1]; compared in the precision of `probability`.

    Raises:
        ValueError: for shapes that differ, other types, thresholds out of order, NaN or values outside
            [0, 1].

    Example:
        >>> counts = compute_overlap_sweep(torch.tensor([0.9, 0.4, 0.2]), [1, 0, 1], thresholds=[0.3, 0.5])
        >>> counts.hit.tolist(), counts.pred.tolist(), counts.truth.tolist()
        ([1, 1], [2, 1], [2, 2])
    """
    soft = torch.as_tensor(probability).detach().as_subclass(torch.Tensor)
    mask = mask_tensor("truth", truth).to(soft.device)
    if soft.shape != mask.shape:
        shapes = f"{tuple(soft.shape)} and {tuple(mask.shape)}"
        raise ValueError(f"probability and truth must have one shape, got {shapes}")
    edges = torch.tensor(check_thresholds(thresholds), dtype=torch.float64, device=soft.device)
    if soft.dtype == torch.uint8:
        soft = soft.double() / 255.0
    # narrow types are rounded first, so that 0.3 reaches the threshold 0.3, and widened for bucketize
    rounded = edges.to(soft.dtype)
    _check_range(soft)
    wide = soft if soft.dtype == torch.float64 else soft.float()
    levels = torch.bucketize(wide.flatten(), rounded.to(wide.dtype), right=True)
    cells = torch.bincount(2 * levels + mask.flatten(), minlength=2 * len(edges) + 2).reshape(-1, 2)
    reached = cells.flip(0).cumsum(0).flip(0)  # row n: voxels of level n or above
    return OverlapCounts(reached[1:, 1], reached[1:].sum(dim=1), reached[:1, 1].expand(len(edges)))


def check_thresholds(thresholds: Sequence[float]) -> list[float]:
    """Return thresholds as a list.

    Raises:
        ValueError: when they are not 1 to 255 rising numbers in (0, 1].

    Example:
        >>> check_thresholds([0.5, 0.25])
        Traceback (most recent call last):
        ValueError: thresholds must be 1 to 255 rising numbers in (0, 1], got [0.5, 0.25]
    """
    numbers = [float(threshold) for threshold in thresholds]
    rises = all(low < high for low, high in zip([0.0, *numbers], numbers, strict=False))
    if not (1 <= len(numbers) <= 255 and rises and numbers[-1] <= 1):
        raise ValueError(f"thresholds must be 1 to 255 rising numbers in (0, 1], got {numbers}")
    return numbers


def _check_range(soft: torch.Tensor) -> None:
    if not soft.is_floating_point():
        raise ValueError(
            f"probability must be floating-point or uint8, got {soft.dtype}; score a mask as one"
        )
    if soft.numel() and not bool(((soft >= -_SLACK) & (soft <= 1.0 + _SLACK)).all()):
        raise ValueError("probability must lie in [0, 1], got others; apply sigmoid and look for NaN")
