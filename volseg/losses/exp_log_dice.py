"""Exponential logarithmic Dice and cross entropy, finite everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from volseg.checks import check_positive
from volseg.losses.dice_focal import binary_entropy, class_entropy, class_weighted
from volseg.losses.rows import IGNORE, masked_mean, soft_dice, target_rows

__all__ = ["ExpLogDiceLoss"]


class ExpLogDiceLoss(nn.Module):
    """Mean of (-log Dice)^gamma plus mean of (cross entropy)^gamma: weighs what is small and what is wrong.

    As published it is infinite at Dice 0, and its slope at Dice 1. Here x^gamma is replaced by
    (x + e)^gamma - e^gamma and log Dice by log((Dice + e) / (1 + e)), with e = `epsilon`: the same zero,
    the same order, finite value and slope.

    Args:
        lambda_dice: weight of the Dice part.
        lambda_ce: weight of the cross entropy part.
        gamma: exponent of the Dice part; 0.3 as published, 0.5 for the edema task.
        gamma_ce: exponent of the cross entropy part.
        class_weights: one weight per class in the entropy part, for several classes.
        include_background: count class 0 in the Dice part, for several classes.
        batch: take the Dice over the whole batch instead of slice by slice.
        epsilon: keeps value and slope finite.
        ignore_index: label of voxels that do not count.

    Raises:
        ValueError: when an exponent or `epsilon` is not positive.

    Source: Wong et al., 3D segmentation with exponential logarithmic loss, MICCAI 2018, eq. 1-3.

    Example:
        >>> missed = torch.full((1, 1, 2, 2), -1e4)
        >>> f"{ExpLogDiceLoss(gamma=0.5, lambda_ce=0.0)(missed, torch.ones(1, 1, 2, 2)):.2f}"
        '2.08'
    """

    def __init__(
        self,
        lambda_dice: float = 0.8,
        lambda_ce: float = 0.2,
        *,
        gamma: float = 0.3,
        gamma_ce: float = 0.3,
        class_weights: Sequence[float] | None = None,
        include_background: bool = True,
        batch: bool = False,
        epsilon: float = 1e-3,
        ignore_index: int = IGNORE,
    ) -> None:
        super().__init__()
        check_positive("gamma", gamma)
        check_positive("gamma_ce", gamma_ce)
        check_positive("epsilon", epsilon)
        self.lambda_dice = lambda_dice
        self.lambda_ce = lambda_ce
        self.gamma = gamma
        self.gamma_ce = gamma_ce
        self.include_background = include_background
        self.batch = batch
        self.epsilon = epsilon
        self.ignore_index = ignore_index
        self.class_weights: torch.Tensor | None
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, K*M, *spatial) logits and (B, M, *spatial) labels in, a scalar out."""
        rows = target_rows(logits, target, self.ignore_index)
        dice = soft_dice(rows, batch=self.batch, include_background=self.include_background, smooth=1e-5)
        counted = ~dice.isnan()
        # A row that does not count is replaced before the logarithm, so that no NaN reaches the gradient.
        dice = torch.where(counted, dice, torch.ones_like(dice)).clamp_max(1.0)
        distance = -torch.log((dice + self.epsilon) / (1 + self.epsilon))
        loss = self.lambda_dice * masked_mean(self._power(distance, self.gamma), counted)
        if self.lambda_ce > 0:
            entropy, _ = binary_entropy(rows) if rows.logits.shape[1] == 1 else class_entropy(rows)
            weights = class_weighted(rows, self.class_weights)
            loss = loss + self.lambda_ce * masked_mean(self._power(entropy, self.gamma_ce), weights)
        return loss

    def _power(self, values: torch.Tensor, exponent: float) -> torch.Tensor:
        return (values + self.epsilon) ** exponent - float(self.epsilon**exponent)
