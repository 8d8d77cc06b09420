"""Segmentation and detection together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from volseg.losses.rows import IGNORE, masked_mean

__all__ = ["MultiTaskLoss", "presence"]


class MultiTaskLoss(nn.Module):
    """A segmentation loss plus the binary cross entropy of a detection head.

    What a detection head must say follows from the labels: is the class anywhere in this item?

    Args:
        segmentation: of the outputs and labels; `DeepSupervisionLoss` where there are several heads.
        lambda_detection: weight of the detection.
        ignore_index: label of voxels that do not count.

    Source: Caruana, Multitask learning, Machine Learning 1997; as used in the AI Challenger 2018 edema task.

    Example:
        >>> outputs = {"logits": torch.zeros(1, 1, 2, 2), "detection": torch.zeros(1, 1)}
        >>> f"{MultiTaskLoss(nn.MSELoss())(outputs, torch.zeros(1, 1, 2, 2)):.4f}"
        '0.6931'
    """

    def __init__(
        self, segmentation: nn.Module, lambda_detection: float = 1.0, *, ignore_index: int = IGNORE
    ) -> None:
        super().__init__()
        self.segmentation = segmentation
        self.lambda_detection = lambda_detection
        self.ignore_index = ignore_index

    def forward(
        self, outputs: torch.Tensor | Mapping[str, torch.Tensor], target: torch.Tensor
    ) -> torch.Tensor:
        """Outputs of a network, with "detection" (B, classes) logits or without, and labels; a scalar out."""
        if isinstance(outputs, Mapping) and "deep" not in outputs:
            loss: torch.Tensor = self.segmentation(outputs["logits"], target)
        else:
            loss = self.segmentation(outputs, target)
        if isinstance(outputs, Mapping) and "detection" in outputs:
            logits = outputs["detection"]
            logits = logits if logits.dtype == torch.float64 else logits.float()
            present, known = presence(target, logits.shape[1], self.ignore_index)
            entropy = F.binary_cross_entropy_with_logits(logits, present.to(logits.dtype), reduction="none")
            loss = loss + self.lambda_detection * masked_mean(entropy, known)
        return loss


def presence(
    target: torch.Tensor, classes: int, ignore_index: int = IGNORE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether class 1, 2, ... is in each item, and whether that is known.

    A class that is not seen in a partly ignored item may hide in the ignored part: that is not known.

    Args:
        target: (B, M, *spatial) class indices.
        classes: how many, without background.
        ignore_index: label of voxels that do not count.

    Returns:
        Two boolean tensors (B, classes).

    Example:
        >>> present, known = presence(torch.tensor([[[[0, 2, 255]]]]), 2)
        >>> present.tolist(), known.tolist()
        ([[False, True]], [[False, True]])
    """
    flat = target.detach().as_subclass(torch.Tensor).flatten(1)
    present = torch.stack([(flat == index).any(1) for index in range(1, classes + 1)], dim=1)
    complete = (flat != ignore_index).all(1, keepdim=True)
    return present, present | complete
