"""Several losses on the same output, added up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from volseg.checks import check_positive

__all__ = ["WeightedSumLoss"]


class WeightedSumLoss(nn.Module):
    """Weighted sum of losses; MONAI has fixed pairs only (DiceCE, DiceFocal).

    Args:
        losses: each called with (logits, target).
        weights: one positive weight per loss; all 1 if None.

    Raises:
        ValueError: when there are not as many weights as losses, or a weight is not positive.

    Example:
        >>> half = WeightedSumLoss([nn.MSELoss(), nn.L1Loss()], weights=[1.0, 0.5])
        >>> half(torch.zeros(2), torch.full((2,), 2.0))
        tensor(5.)
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = [1.0] * len(losses) if weights is None else list(weights)
        check_positive("weights", weights)
        if len(weights) != len(losses):
            raise ValueError(f"weights needs one for each of {len(losses)} losses, got {len(weights)}")
        self.losses = nn.ModuleList(losses)
        self.weights = weights

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, K*M, *spatial) logits and (B, M, *spatial) labels in, a scalar out."""
        terms = [
            weight * loss(logits, target) for loss, weight in zip(self.losses, self.weights, strict=True)
        ]
        return torch.stack(terms).sum()
