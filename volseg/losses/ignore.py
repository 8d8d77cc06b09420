"""Any loss of voxels, without those that are not labelled."""

from __future__ import annotations

import torch
from torch import nn

from volseg.losses.rows import IGNORE, TargetRows, masked_mean, target_rows

__all__ = ["IgnoreMaskLoss"]


class IgnoreMaskLoss(nn.Module):
    """Make a loss that knows no ignored label, such as MONAI's DiceFocalLoss, leave those voxels out.

    MONAI's MaskedLoss multiplies logits and labels by the mask: a masked logit of 0 is a probability of 0.5,
    which counts in the Dice and in the mean. Here ignored voxels are cut out before the wrapped loss sees
    them. Slices with equally many labelled voxels go through it together; otherwise each goes alone, and
    the values are averaged weighted by its labelled voxels. That is exact for a mean over voxels; the Dice
    part is then the mean of the Dice of slices, weighted by their labelled area (`MaskedDiceFocalLoss`
    weighs them equally). All ignored is 0 with zero gradient.

    Args:
        loss: a loss of logits (R, K, n) and labels (R, 1, n) that does not look at neighbouring voxels. With
            several classes it turns indices to one-hot itself (`to_onehot_y=True`).
        ignore_index: label of voxels that do not count.

    Example:
        >>> from monai.losses import DiceLoss
        >>> labels = torch.tensor([[[[0.0, 1.0, 255.0]]]])
        >>> logits = torch.tensor([[[[-50.0, 50.0, 50.0]]]])
        >>> f"{IgnoreMaskLoss(DiceLoss(sigmoid=True))(logits, labels):.4f}"
        '0.0000'
    """

    def __init__(self, loss: nn.Module, ignore_index: int = IGNORE) -> None:
        super().__init__()
        self.loss = loss
        self.ignore_index = ignore_index

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, K*M, *spatial) logits and (B, M, *spatial) labels in, a scalar out."""
        rows = target_rows(logits, target, self.ignore_index)
        counts = rows.valid.flatten(1).sum(1)
        kept = counts > 0
        if not bool(kept.any()):
            return masked_mean(rows.logits, torch.zeros_like(rows.logits))
        distinct = counts[kept].unique()
        if len(distinct) == 1:
            return self._on_rows(rows, kept.nonzero()[:, 0], int(distinct))
        values = [self._on_rows(rows, row[None], int(counts[row])) for row in kept.nonzero()[:, 0]]
        return masked_mean(torch.stack(values), counts[kept])

    def _on_rows(self, rows: TargetRows, chosen: torch.Tensor, count: int) -> torch.Tensor:
        valid = rows.valid[chosen].flatten(1)
        classes = rows.logits.shape[1]
        logits = rows.logits[chosen].flatten(2).movedim(1, 2)[valid]
        labels = rows.labels[chosen].flatten(1)[valid]
        loss: torch.Tensor = self.loss(
            logits.reshape(len(chosen), count, classes).movedim(2, 1),
            labels.reshape(len(chosen), 1, count).to(rows.logits.dtype),
        )
        return loss
