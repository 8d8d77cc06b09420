"""clDice: Dice of tubes that weighs a thin branch as much as a thick one, by centre lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.losses.cldice import soft_erode, soft_skel

from volseg.metrics.structures import StructureMetric, mask_pair_of

__all__ = ["ClDiceMetric", "compute_cl_dice", "skeleton_of"]


class ClDiceMetric(StructureMetric):
    """Mean centre-line Dice over structures, see `StructureMetric`; MONAI has it as a loss only.

    Args:
        empty_value: score of two empty masks.
        include_background: score channel 0 too, where there is more than one.
    """

    def __init__(self, empty_value: float = math.nan, *, include_background: bool = False) -> None:
        super().__init__(include_background=include_background)
        self.empty_value = empty_value

    def score(self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]) -> float:
        """Centre-line Dice of one structure; a missed or spurious one scores 0."""
        return compute_cl_dice(pred, truth, empty_value=self.empty_value)


def compute_cl_dice(pred: Any, truth: Any, *, empty_value: float = math.nan) -> float:
    """Centre-line Dice of two masks: harmonic mean of |S(P) ∩ T| / |S(P)| and |S(T) ∩ P| / |S(T)|.

    S is the morphological skeleton that MONAI's soft clDice loss converges to, not a one-voxel thinning:
    values are comparable with each other, not with those of other skeletons.

    Args:
        pred: 2D or 3D mask; array or tensor, non-zero is foreground.
        truth: mask of the same shape.
        empty_value: score of two empty masks. One empty mask scores 0.

    Raises:
        ValueError: when the shapes differ or are not 2D or 3D, or a mask holds values between 0 and 1.

    Source:
        Shit et al., clDice, CVPR 2021, equations 1 to 3.

    Example:
        >>> tube = torch.zeros(9, 9)
        >>> tube[3:6] = 1
        >>> compute_cl_dice(tube, tube)
        1.0
    """
    pred, truth = mask_pair_of(pred, truth)
    if not pred.any() or not truth.any():
        return 0.0 if pred.any() or truth.any() else float(empty_value)
    skeletons = skeleton_of(pred), skeleton_of(truth)
    precision = int((skeletons[0] & truth).sum()) / int(skeletons[0].sum())
    sensitivity = int((skeletons[1] & pred).sum()) / int(skeletons[1].sum())
    total = precision + sensitivity
    return 2.0 * precision * sensitivity / total if total else 0.0


def skeleton_of(mask: torch.Tensor) -> torch.Tensor:
    """Morphological skeleton of a 2D or 3D boolean mask; outside the image is background.

    Raises:
        ValueError: for another number of axes.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(f"a skeleton needs a 2D or 3D mask, got {mask.ndim} axes; remove batch and channel")
    image = F.pad(mask[None, None].float(), [1, 1] * mask.ndim)
    erosions, eroded = 0, image
    while eroded.any():
        erosions, eroded = erosions + 1, soft_erode(eroded)
    inner = (slice(1, -1),) * mask.ndim
    return soft_skel(image, erosions)[0, 0][inner] > 0
