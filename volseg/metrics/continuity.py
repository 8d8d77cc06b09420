"""Continuity of a prediction in 3D: is a lesion predicted in one piece, and alike in neighbouring slices?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from volseg.checks import check_choice
from volseg.metrics.lesions import components_of
from volseg.metrics.structures import StructureMetric, mask_pair_of

__all__ = ["Continuity", "ContinuityMetric", "compute_continuity"]

ContinuityMeasure = Literal["unbroken", "components_per_lesion", "slice_consistency"]


class Continuity(NamedTuple):
    """How a prediction of one class hangs together; `compute_continuity` says what the numbers mean."""

    unbroken: float
    components_per_lesion: float
    slice_consistency: float
    slice_dice: float
    components: int
    lesions: int


class ContinuityMetric(StructureMetric):
    """Mean of one number of `compute_continuity` over structures, see `StructureMetric`; MONAI has none.

    "unbroken" alone is a score: 1 is best, and taking a lesion's prediction away never improves it. The other
    two explain it and say nothing of what is missed; read them beside `missed_count`.

    Args:
        measure: "unbroken", "components_per_lesion" or "slice_consistency".
        slice_axis: spatial axis across which the slices lie.
        include_background: score channel 0 too, where there is more than one.
    """

    def __init__(
        self,
        measure: ContinuityMeasure = "unbroken",
        *,
        slice_axis: int = 2,
        include_background: bool = False,
    ) -> None:
        super().__init__(include_background=include_background)
        check_choice("measure", measure, get_args(ContinuityMeasure))
        self.measure: ContinuityMeasure = measure
        self.slice_axis = _check_axis(slice_axis)

    def score(self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]) -> float:
        """The chosen number of one class."""
        found = compute_continuity(pred, truth, slice_axis=self.slice_axis)
        return float(getattr(found, self.measure))


def compute_continuity(pred: Any, truth: Any | None = None, *, slice_axis: int = 2) -> Continuity:
    """Measure how far the prediction of one class hangs together as the truth does.

    A component is connected by faces, edges or corners; it is a piece of each lesion of the truth that it
    touches. Components that touch none are spurious, which is for `compute_lesion_counts` to tell.

    - `unbroken`, in [0, 1]: mean over lesions; one in n pieces has 1/n, a missed one 0. Lesions merged into
      one component are unbroken, which F1 of lesions tells apart.
    - `components_per_lesion`: mean number of pieces of the lesions that are found, 1 or more.
    - `slice_consistency`: sum of the Dice of neighbouring slices of the prediction over that of the truth,
      of the pairs in which the truth holds the class in both slices. Below 1 the prediction flickers, above 1
      it is smoother than the truth.
    - `slice_dice`: mean Dice of neighbouring slices of the prediction alone, of the pairs in which it holds
      the class in one slice at least.
    - `components`, `lesions`: how many components prediction and truth have.

    | | both empty | missed | spurious |
    |---|---|---|---|
    | unbroken | nan | 0 | 0 |
    | components_per_lesion | nan | nan | nan |
    | slice_consistency | nan | 0 | 0 |

    A `slice_consistency` of lesions that nowhere reach from one slice into the next is nan.

    Args:
        pred: 3D mask; array or tensor, non-zero is foreground.
        truth: mask of the same shape; without one only `slice_dice` and `components` are known, and what
            needs it is nan or 0.
        slice_axis: axis across which the slices lie.

    Raises:
        ValueError: when the shapes differ or are not 3D, or a mask holds values between 0 and 1.

    Example:
        >>> truth = np.ones((2, 2, 5))
        >>> pred = truth.copy()
        >>> pred[..., 2] = 0  # one slice lost
        >>> compute_continuity(pred, truth)[:3]
        (0.5, 2.0, 0.5)
    """
    masks = mask_pair_of(pred, pred if truth is None else truth)
    if masks[0].ndim != 3:
        raise ValueError(f"continuity needs a 3D mask, got {masks[0].ndim} axes; remove batch and channel")
    axis = _check_axis(slice_axis)
    dice, _ = _neighbour_dice(masks[0], axis)
    mean_dice = float(dice.nanmean())
    labels, number = components_of(masks[0])
    if truth is None:
        return Continuity(math.nan, math.nan, math.nan, mean_dice, number, 0)
    lesions, count = components_of(masks[1])
    if count == 0:
        score = 0.0 if number > 0 else math.nan
        return Continuity(score, math.nan, score, mean_dice, number, 0)
    pieces = _pieces(labels.ravel(), lesions.ravel(), count)
    found = pieces[pieces > 0]
    return Continuity(
        unbroken=float((1.0 / found).sum() / count),
        components_per_lesion=float(found.mean()) if found.size else math.nan,
        slice_consistency=_consistency(dice, *_neighbour_dice(masks[1], axis)),
        slice_dice=mean_dice,
        components=number,
        lesions=count,
    )


def _pieces(pred: np.ndarray, truth: np.ndarray, lesions: int) -> np.ndarray:
    """How many components touch each lesion, (lesions,)."""
    both = (pred > 0) & (truth > 0)
    width = int(pred.max()) + 1
    pairs = np.unique(truth[both].astype(np.int64) * width + pred[both])
    return np.bincount(pairs // width, minlength=lesions + 1)[1:]


def _neighbour_dice(mask: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dice of slices s and s + 1, (S - 1,), nan where both are empty; which of the two hold the class."""
    slices = mask.movedim(axis, 0).flatten(1)
    areas = slices.sum(dim=1)
    common = torch.tensor([int((a & b).sum()) for a, b in pairwise(slices)], dtype=torch.float64)
    both = torch.stack([areas[:-1], areas[1:]]).cpu()
    return 2.0 * common / both.sum(dim=0), both > 0


def _consistency(pred: torch.Tensor, truth: torch.Tensor, holds: torch.Tensor) -> float:
    """Sum of the Dice of the prediction over that of the truth where the truth goes on."""
    goes_on = holds.all(dim=0)
    total = float(truth[goes_on].sum())
    return float(pred[goes_on].nan_to_num(0.0).sum()) / total if total > 0 else math.nan


def _check_axis(axis: int) -> int:
    if axis not in (0, 1, 2):
        raise ValueError(f"slice_axis must be 0, 1 or 2, got {axis}")
    return axis
