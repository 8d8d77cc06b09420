"""One loss on every head of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from volseg.checks import check_positive

__all__ = ["DeepSupervisionLoss"]


class DeepSupervisionLoss(nn.Module):
    """Weighted mean of a loss over the deeply supervised heads of a network.

    MONAI's DeepSupervisionLoss takes a list and halves the weight of each further head; ours takes the
    mapping that volseg networks return in training, and a plain tensor in validation.

    Args:
        loss: applied to the logits of each head.
        weights: one per head; None weighs all alike. Their sum does not matter.

    Raises:
        ValueError: when a weight is not positive.

    Source: Lee et al., Deeply-supervised nets, AISTATS 2015; Zhou et al., UNet++, DLMIA 2018, section 2.2.

    Example:
        >>> outputs = {"logits": torch.zeros(1, 1, 2, 2), "deep": torch.ones(1, 3, 1, 2, 2)}
        >>> DeepSupervisionLoss(nn.MSELoss())(outputs, torch.zeros(1, 1, 2, 2))
        tensor(1.)
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if weights is not None:
            check_positive("weights", weights)
        self.loss = loss
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)

    def forward(
        self, outputs: torch.Tensor | Mapping[str, torch.Tensor], target: torch.Tensor
    ) -> torch.Tensor:
        """Logits (B, N, *spatial), or a mapping of "deep" (B, heads, N, *spatial) or "logits"; a scalar out.

        Raises:
            ValueError: when there are not as many heads as weights.
        """
        if not isinstance(outputs, Mapping):
            plain: torch.Tensor = self.loss(outputs, target)
            return plain
        if "deep" not in outputs:
            plain = self.loss(outputs["logits"], target)
            return plain
        heads = outputs["deep"].unbind(dim=1)
        weights = self.weights or (1.0,) * len(heads)
        if len(weights) != len(heads):
            raise ValueError(f"weights needs one for each of {len(heads)} heads, got {len(weights)}")
        losses = [weight * self.loss(head, target) for weight, head in zip(weights, heads, strict=True)]
        return torch.stack(losses).sum() / sum(weights)
