"""What the metrics of masks share: structures one by one, and a mean that drops no case silently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric

from volseg.geometry import spacing_of
from volseg.metrics.neighbour_codes import IGNORE

__all__ = [
    "StructureMetric",
    "mask_pair_of",
    "mask_tensor",
    "mean_over_cases",
    "spacing_of_case",
    "structures_of",
]


class StructureMetric(CumulativeIterationMetric):
    """Mean of a score over structures: each class of each case, with missed and spurious ones counted apart.

    `y_pred` is (B, C, ...) masks; `y` is of the same shape, or (B, 1, ...) with class indices. Voxels where
    `y` is 255 (nobody has labelled them) are background in both. The mean runs over the cases of each class,
    then over the classes. A score of nan is undefined: it is left out and counted in `undefined_count`. A
    class that is undefined everywhere is left out; nothing but undefined scores gives nan. Under
    `torch.distributed` all ranks give the result of all cases. Subclasses say in `score` what a missed
    structure is worth.

    Args:
        spacing_mm: edge lengths of a voxel; None reads them from the affine of `y` or `y_pred` (MetaTensor),
            for the metrics that measure lengths.
        include_background: score channel 0 too, where there is more than one.

    Attributes:
        per_class: after `aggregate`, (C,) mean over the cases.
        missed_count: structures of the truth of which nothing is predicted.
        spurious_count: predicted structures absent from the truth.
        undefined_count: structures left out of the mean.
    """

    needs_spacing = False

    def __init__(
        self, *, spacing_mm: Sequence[float] | None = None, include_background: bool = False
    ) -> None:
        super().__init__()
        self.spacing_mm = spacing_mm
        self.include_background = include_background
        self.reset()

    def score(self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]) -> float:
        """Score one structure.

        Args:
            pred: spatial mask of one class of one case.
            truth: mask of the same shape.
            spacing_mm: edge lengths of a voxel; all 1 where the metric measures no lengths.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all cases and the results of the last `aggregate`."""
        super().reset()
        self.per_class: torch.Tensor | None = None
        self.missed_count = self.spurious_count = self.undefined_count = 0

    def get_buffer(self) -> torch.Tensor | None:
        """Scores (N, C) of all cases on all ranks; None before the first."""
        buffers = super().get_buffer()
        return None if buffers is None else buffers[0]

    def aggregate(self) -> torch.Tensor:
        """Mean score as a scalar tensor; also sets the attributes.

        Raises:
            ValueError: before any case was scored.
        """
        scores, in_pred, in_truth = self._gathered()
        self._note(scores, in_pred, in_truth)
        return mean_over_cases(scores)

    def _gathered(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        buffers = super().get_buffer()
        if buffers is None:
            raise ValueError(f"{type(self).__name__} has scored no case yet; call it with y_pred and y first")
        scores, in_pred, in_truth = buffers
        return scores, in_pred, in_truth

    def _note(self, scores: torch.Tensor, in_pred: torch.Tensor, in_truth: torch.Tensor) -> None:
        self.per_class = scores.nanmean(dim=0)
        self.missed_count = int((in_truth & ~in_pred).sum())
        self.spurious_count = int((in_pred & ~in_truth).sum())
        self.undefined_count = int(scores.isnan().sum())

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **_: Any) -> list[torch.Tensor]:
        rows = []
        for case, structures in enumerate(structures_of(y_pred, y, self.include_background)):
            spacing_mm = [1.0] * (y.ndim - 2)
            if self.needs_spacing:
                spacing_mm = list(spacing_of_case(self.spacing_mm, (y, y_pred), case))
            rows.append([self._row(*mask_pair_of(*pair), spacing_mm) for pair in structures])
        table = torch.tensor(rows, dtype=torch.float64, device=y_pred.device)  # (B, C, 3)
        return [table[..., 0], table[..., 1] > 0, table[..., 2] > 0]

    def _row(
        self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]
    ) -> tuple[float, bool, bool]:
        return float(self.score(pred, truth, spacing_mm)), bool(pred.any()), bool(truth.any())


def mean_over_cases(scores: torch.Tensor) -> torch.Tensor:
    """Mean of (N, C) or (N, C, T) scores over cases, then over classes; nan is left out.

    Example:
        >>> mean_over_cases(torch.tensor([[1.0, 0.0], [0.0, torch.nan]])).item()
        0.25
    """
    return scores.nanmean(dim=0).nanmean(dim=0)


def structures_of(
    y_pred: torch.Tensor, y: torch.Tensor, include_background: bool
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Yield for each case the prediction and the truth of each class, ignored voxels being 0 in both.

    Raises:
        ValueError: when the batches do not fit together.
    """
    if y_pred.ndim < 3 or y_pred.shape[2:] != y.shape[2:] or len(y_pred) != len(y):
        shapes = f"{tuple(y_pred.shape)} and {tuple(y.shape)}"
        raise ValueError(f"y_pred and y must be (B, C, ...) on one grid, got {shapes}")
    classes = y_pred.shape[1]
    if y.shape[1] not in (1, classes):
        raise ValueError(f"y must have 1 or {classes} channels, got {y.shape[1]}; pass class indices")
    chosen = range(0 if include_background or classes == 1 else 1, classes)
    for pred, truth in zip(y_pred, y, strict=True):
        yield [_labelled(pred[index], _class_of(truth, index, classes)) for index in chosen]


def _class_of(truth: torch.Tensor, index: int, classes: int) -> torch.Tensor:
    if len(truth) > 1 or classes == 1:
        return truth[index]
    return torch.where(truth[0] == IGNORE, truth[0], (truth[0] == index).to(truth.dtype))


def _labelled(pred: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ignored = truth == IGNORE
    return (pred.masked_fill(ignored, 0), truth.masked_fill(ignored, 0)) if ignored.any() else (pred, truth)


def mask_pair_of(pred: Any, truth: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """View two masks of one shape, arrays or tensors, as boolean tensors.

    Raises:
        ValueError: when the shapes differ, or a mask holds NaN or a value between 0 and 1.

    Example:
        >>> mask_pair_of([0, 1], [0.0, 0.5])
        Traceback (most recent call last):
        ValueError: truth must be a mask of 0 and 1, got values between; threshold it first
    """
    tensors = torch.as_tensor(pred), torch.as_tensor(truth)
    if tensors[0].shape != tensors[1].shape:
        shapes = f"{tuple(tensors[0].shape)} and {tuple(tensors[1].shape)}"
        raise ValueError(f"pred and truth must have one shape, got {shapes}; bring them onto one grid")
    return mask_tensor("pred", tensors[0]), mask_tensor("truth", tensors[1])


def mask_tensor(name: str, mask: Any) -> torch.Tensor:
    """View a mask, array or tensor, as a boolean tensor.

    Args:
        name: what the message calls it.
        mask: any shape, non-zero is foreground.

    Raises:
        ValueError: when it holds NaN or a value between 0 and 1.
    """
    tensor = torch.as_tensor(mask).as_subclass(torch.Tensor)
    if tensor.is_floating_point() and not torch.isin(tensor, torch.tensor([0, 1]).to(tensor)).all():
        raise ValueError(f"{name} must be a mask of 0 and 1, got values between; threshold it first")
    return tensor != 0


def spacing_of_case(
    spacing_mm: Sequence[float] | None, batches: Sequence[torch.Tensor], case: int
) -> Sequence[float]:
    """Edge lengths of a voxel: as given, or from the first of some batches that carries an affine.

    Raises:
        ValueError: when none does.
    """
    if spacing_mm is not None:
        return spacing_mm
    for batch in batches:
        affine = getattr(batch, "affine", None)
        if affine is not None:
            affines = affine.reshape(-1, *affine.shape[-2:])
            return spacing_of(affines[case % len(affines)].cpu().numpy())[: batch.ndim - 2]
    raise ValueError("the spacing is unknown: neither y nor y_pred is a MetaTensor; pass spacing_mm")
