"""One minus a soft F-beta score."""

from __future__ import annotations

import torch
from torch import nn

from volseg.checks import check_positive
from volseg.losses.rows import IGNORE, masked_mean, target_rows

__all__ = ["FBetaLoss"]


class FBetaLoss(nn.Module):
    """One minus the soft F-beta score: recall weighs beta times as much as precision; beta 1 is soft Dice.

    MONAI's TverskyLoss with alpha = 1 / (1 + beta^2) is the same without the ignored label.

    Args:
        beta: above 1 for recall, below 1 for precision.
        include_background: count class 0, for several classes.
        batch: take the score over the whole batch instead of slice by slice.
        smooth: added to numerator and denominator, in voxels.
        ignore_index: label of voxels that do not count.

    Raises:
        ValueError: when beta is not positive.

    Source: van Rijsbergen, Information Retrieval, 1979, chapter 7; with probabilities for counts.

    Example:
        >>> labels = torch.tensor([[[[1.0, 1.0, 0.0]]]])
        >>> missed = torch.tensor([[[[99.0, -99.0, -99.0]]]])  # precision 1, recall 1/2: F2 = 5/9
        >>> f"{FBetaLoss(beta=2.0)(missed, labels):.3f}"
        '0.444'
    """

    def __init__(
        self,
        beta: float = 2.0,
        *,
        include_background: bool = True,
        batch: bool = False,
        smooth: float = 1e-5,
        ignore_index: int = IGNORE,
    ) -> None:
        super().__init__()
        check_positive("beta", beta)
        self.beta = beta
        self.include_background = include_background
        self.batch = batch
        self.smooth = smooth
        self.ignore_index = ignore_index

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, K*M, *spatial) logits and (B, M, *spatial) labels in, a scalar out."""
        rows = target_rows(logits, target, self.ignore_index)
        overlap, predicted, truth, counted = rows.sums(
            batch=self.batch, include_background=self.include_background
        )
        square = self.beta**2
        score = ((1 + square) * overlap + self.smooth) / (square * truth + predicted + self.smooth)
        return masked_mean(1 - score, counted)
