"""Dice plus focal loss that leaves unlabelled voxels out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from volseg.losses.rows import IGNORE, TargetRows, masked_mean, soft_dice, target_rows

__all__ = ["MaskedDiceFocalLoss"]


class MaskedDiceFocalLoss(nn.Module):
    """Soft Dice plus focal loss over the labelled voxels only; with `gamma=0` Dice plus cross entropy.

    MONAI's DiceFocalLoss knows no ignored label, and MaskedLoss multiplies logits by the mask, which leaves a
    probability of 0.5 in each masked voxel. Here ignored voxels change neither value nor gradient: the focal
    part is the mean over the labelled voxels, the Dice part the mean over the slices (and classes) that
    have a labelled voxel. A batch without any is 0 with zero gradient.

    Args:
        lambda_dice: weight of the Dice part.
        lambda_focal: weight of the focal part.
        gamma: focal exponent; 0 is cross entropy.
        alpha: weight of the foreground, 1 - alpha of the background, for sigmoid; None weighs both 1.
        class_weights: one weight per class in the focal part, for several classes.
        include_background: count class 0 in the Dice part, for several classes.
        batch: take the Dice over the whole batch instead of slice by slice; steadier where most are empty.
        smooth: added to numerator and denominator of the Dice, in voxels.
        ignore_index: label of voxels that do not count.

    Raises:
        ValueError: when a weight or exponent is negative, or all are zero.

    Source: Milletari et al., V-Net, 3DV 2016; Lin et al., Focal loss, ICCV 2017, eq. 5; for soft labels the
    modulation |t - p|^gamma of Li et al., Generalized focal loss, NeurIPS 2020, eq. 5.

    Example:
        >>> labels = torch.tensor([[[[0.0, 1.0, 255.0]]]])
        >>> logits = torch.tensor([[[[-50.0, 50.0, 50.0]]]])
        >>> f"{MaskedDiceFocalLoss()(logits, labels):.6f}"
        '0.000000'
    """

    def __init__(
        self,
        lambda_dice: float = 1.0,
        lambda_focal: float = 1.0,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        class_weights: Sequence[float] | None = None,
        include_background: bool = True,
        batch: bool = False,
        smooth: float = 1e-5,
        ignore_index: int = IGNORE,
    ) -> None:
        super().__init__()
        numbers = (lambda_dice, lambda_focal, gamma)
        if min(numbers) < 0 or lambda_dice + lambda_focal <= 0:
            raise ValueError(
                "lambda_dice, lambda_focal and gamma must be at least 0 and one lambda above, "
                f"got {lambda_dice}, {lambda_focal} and {gamma}"
            )
        self.lambda_dice = lambda_dice
        self.lambda_focal = lambda_focal
        self.gamma = gamma
        self.alpha = alpha
        self.include_background = include_background
        self.batch = batch
        self.smooth = smooth
        self.ignore_index = ignore_index
        self.class_weights: torch.Tensor | None
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, K*M, *spatial) logits and (B, M, *spatial) labels in, a scalar out."""
        rows = target_rows(logits, target, self.ignore_index)
        loss = rows.logits.new_zeros(())
        if self.lambda_dice > 0:
            dice = soft_dice(
                rows, batch=self.batch, include_background=self.include_background, smooth=self.smooth
            )
            loss = loss + self.lambda_dice * masked_mean(1 - dice, ~dice.isnan())
        if self.lambda_focal > 0:
            loss = loss + self.lambda_focal * self._focal(rows)
        return loss

    def _focal(self, rows: TargetRows) -> torch.Tensor:
        if rows.logits.shape[1] == 1:
            entropy, wrong = binary_entropy(rows)
            if self.alpha is not None:
                truth = rows.labels.to(entropy.dtype)
                entropy = entropy * (truth * self.alpha + (1 - truth) * (1 - self.alpha))
        else:
            entropy, wrong = class_entropy(rows)
        if self.gamma > 0:
            # Below 1e-6 the modulation is 0 anyway; the floor keeps its slope finite for gamma < 1.
            entropy = entropy * wrong.clamp_min(1e-6) ** self.gamma
        return masked_mean(entropy, class_weighted(rows, self.class_weights))


def binary_entropy(rows: TargetRows) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy and |label - probability| of each voxel of one-channel rows, both (R, *spatial)."""
    logits = rows.logits[:, 0]
    truth = rows.labels.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return entropy, (truth - logits.sigmoid()).abs()


def class_entropy(rows: TargetRows) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy and 1 - probability of the true class of each voxel, both (R, *spatial)."""
    entropy = F.cross_entropy(rows.logits, rows.labels.long(), reduction="none")
    return entropy, 1 - (-entropy).exp()


def class_weighted(rows: TargetRows, class_weights: torch.Tensor | None) -> torch.Tensor:
    """Weight of each voxel in a mean, (R, *spatial): 0 where ignored, else that of its class, or 1.

    Raises:
        ValueError: when there is not one weight for each class.
    """
    weights = rows.valid.to(rows.logits.dtype)
    if class_weights is None:
        return weights
    classes = rows.logits.shape[1]
    if classes == 1 or len(class_weights) != classes:
        raise ValueError(
            f"class_weights needs one weight for each of {classes} classes, got {len(class_weights)}"
            + ("; with one channel a slice use alpha" if classes == 1 else "")
        )
    return weights * class_weights.to(weights)[rows.labels.long()]
