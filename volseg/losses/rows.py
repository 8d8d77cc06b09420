"""Logits and labels of a batch as rows, one row per output slice, with what must not count taken out.

All losses here read the same two tensors. Logits are (B, K*M, *spatial), K-major; labels (B, M, *spatial).
One channel a slice (K = 1) means sigmoid and labels in [0, 1]; more mean softmax and class indices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

__all__ = ["IGNORE", "TargetRows", "masked_mean", "soft_dice", "target_rows"]

IGNORE = 255
"""Label value of a voxel that a loss leaves out."""


@dataclass(frozen=True)
class TargetRows:
    """One row per output slice of each item; R = B*M.

    Attributes:
        logits: (R, K, *spatial), at least float32.
        labels: (R, *spatial), 0 where not valid; class indices, or values in [0, 1] when K is 1.
        valid: (R, *spatial), False where the label says ignore.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor

    def probabilities(self) -> torch.Tensor:
        """(R, K, *spatial): sigmoid of one channel, softmax of several."""
        return self.logits.sigmoid() if self.logits.shape[1] == 1 else self.logits.softmax(dim=1)

    def truth(self) -> torch.Tensor:
        """(R, K, *spatial): the labels as probabilities, one-hot for several classes."""
        classes = self.logits.shape[1]
        if classes == 1:
            return self.labels.to(self.logits.dtype).unsqueeze(1)
        one_hot = F.one_hot(self.labels.long(), classes)
        return one_hot.movedim(-1, 1).to(self.logits.dtype)

    def sums(
        self, *, batch: bool, include_background: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Overlap, size of the prediction, size of the truth, and whether any voxel is valid.

        Four tensors (R, K'), or (1, K') over the whole batch; K' is K, or K - 1 without background.
        """
        valid = self.valid.unsqueeze(1).flatten(2)
        first = 0 if include_background or self.logits.shape[1] == 1 else 1
        predicted = torch.where(valid, self.probabilities().flatten(2)[:, first:], 0.0)
        truth = torch.where(valid, self.truth().flatten(2)[:, first:], 0.0)
        counted = valid.any(2).expand(-1, predicted.shape[1])
        overlap, predicted, truth = (predicted * truth).sum(2), predicted.sum(2), truth.sum(2)
        if not batch:
            return overlap, predicted, truth, counted
        return overlap.sum(0)[None], predicted.sum(0)[None], truth.sum(0)[None], counted.any(0)[None]


def target_rows(logits: torch.Tensor, target: torch.Tensor, ignore_index: int = IGNORE) -> TargetRows:
    """Pair each output slice with its labels.

    Args:
        logits: (B, K*M, *spatial).
        target: (B, M, *spatial), any dtype.
        ignore_index: label of voxels that do not count.

    Raises:
        ValueError: when shapes do not fit, or a label is neither a class nor `ignore_index`.

    Example:
        >>> target_rows(torch.zeros(2, 6, 5, 4), torch.zeros(2, 3, 5, 4)).logits.shape
        torch.Size([6, 2, 5, 4])
    """
    _check_shapes(logits, target)
    items, slices = target.shape[:2]
    classes = logits.shape[1] // slices
    spatial = target.shape[2:]
    folded = logits.reshape(items, classes, slices, *spatial).transpose(1, 2)
    folded = folded.reshape(items * slices, classes, *spatial)
    labels = target.detach().as_subclass(torch.Tensor).reshape(items * slices, *spatial)
    valid = labels != ignore_index
    labels = torch.where(valid, labels, torch.zeros_like(labels))
    _check_labels(labels, classes, ignore_index)
    wide = folded.as_subclass(torch.Tensor)
    return TargetRows(wide if wide.dtype == torch.float64 else wide.float(), labels, valid)


def masked_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean of `values` weighted by `weights` of the same shape; 0 with zero gradient without any weight.

    Values without weight are cut out rather than multiplied by 0, so that an infinite one does no harm.

    Example:
        >>> masked_mean(torch.tensor([1.0, 3.0, torch.inf]), torch.tensor([1.0, 1.0, 0.0]))
        tensor(2.)
    """
    weights = weights.to(values.dtype)
    kept = torch.where(weights > 0, values, torch.zeros_like(values))
    total = weights.sum()
    return (kept * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))


def soft_dice(rows: TargetRows, *, batch: bool, include_background: bool, smooth: float) -> torch.Tensor:
    """Dice of probabilities and labels over the valid voxels, (R, K'), or (1, K') over the whole batch.

    K' is K, or K - 1 without background. Rows without a valid voxel are NaN, for the caller to leave out.

    Source: Milletari et al., V-Net, 3DV 2016, with the plain instead of the squared denominator.
    """
    overlap, predicted, truth, counted = rows.sums(batch=batch, include_background=include_background)
    dice = (2 * overlap + smooth) / (predicted + truth + smooth)
    return torch.where(counted, dice, torch.nan)


def _check_shapes(logits: torch.Tensor, target: torch.Tensor) -> None:
    fits = (
        logits.ndim == target.ndim
        and logits.ndim >= 3
        and logits.shape[0] == target.shape[0]
        and logits.shape[2:] == target.shape[2:]
        and target.shape[1] >= 1
        and logits.shape[1] % target.shape[1] == 0
    )
    if not fits:
        raise ValueError(
            f"a loss needs logits (B, K*M, H, W) and labels (B, M, H, W), got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}; give one label channel per output slice, not one per class"
        )


def _check_labels(labels: torch.Tensor, classes: int, ignore_index: int) -> None:
    if labels.numel() == 0:
        return
    lowest, highest = (float(value) for value in labels.aminmax())
    largest = max(classes - 1, 1)
    if not (lowest >= 0 and highest <= largest):
        allowed = "values in [0, 1]" if classes == 1 else f"class indices 0 to {largest}"
        raise ValueError(
            f"labels must be {allowed} or {ignore_index} (ignored), got {lowest:g} to {highest:g}; "
            "map the mask values to classes first"
        )
