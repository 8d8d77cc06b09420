"""Difference over union, with the weight of the boundary set by the size of the object."""

from __future__ import annotations

import torch
from torch import nn

from volseg.losses.rows import IGNORE, masked_mean, target_rows

__all__ = ["BoundaryDoULoss"]


class BoundaryDoULoss(nn.Module):
    """Difference of prediction and truth over their union less a part of their overlap.

    The larger an object is against its boundary, the more of the overlap is taken off the union, so that its
    boundary goes on to matter: loss = (U - I) / (U - a I), a = 1 - 2 C / S, at most 0.8, with C boundary
    pixels of S. Boundary pixels have a background pixel among their 4 (6 in 3D) neighbours; neighbours that
    are ignored or outside the picture count as background.

    Args:
        include_background: count class 0, for several classes.
        smooth: added to the denominator only, in voxels. The published code adds it to both, by which a slice
            without an object is 1 whatever is predicted, and has no gradient.
        ignore_index: label of voxels that do not count.

    Source: Sun et al., Boundary Difference over Union Loss, MICCAI 2023, eq. 2-3.

    Example:
        >>> labels = torch.zeros(1, 1, 9, 9)
        >>> labels[..., 2:7, 2:7] = 1
        >>> f"{BoundaryDoULoss()(labels * 200 - 100, labels):.3f}"
        '0.000'
    """

    def __init__(
        self, *, include_background: bool = False, smooth: float = 1.0, ignore_index: int = IGNORE
    ) -> None:
        super().__init__()
        self.include_background = include_background
        self.smooth = smooth
        self.ignore_index = ignore_index

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, K*M, *spatial) logits and (B, M, *spatial) labels in, a scalar out."""
        rows = target_rows(logits, target, self.ignore_index)
        first = 0 if self.include_background or rows.logits.shape[1] == 1 else 1
        valid = rows.valid.unsqueeze(1)
        predicted = torch.where(valid, rows.probabilities()[:, first:], 0.0)
        truth = torch.where(valid, rows.truth()[:, first:], 0.0)
        overlap = (predicted * truth).flatten(2).sum(2)
        squares = (predicted**2 + truth**2).flatten(2).sum(2)
        weight = boundary_weight(truth)
        loss = (squares - 2 * overlap) / (squares - (1 + weight) * overlap + self.smooth)
        return masked_mean(loss, valid.flatten(2).any(2).expand_as(loss))


def boundary_weight(truth: torch.Tensor) -> torch.Tensor:
    """Part of the overlap that is taken off the union, in [-1, 0.8].

    Args:
        truth: (R, K, *spatial), an object where it is 0.5 or more.

    Returns:
        (R, K); -1 without an object.

    Example:
        >>> square = torch.zeros(1, 1, 7, 7)
        >>> square[..., 1:6, 1:6] = 1  # 16 of its 25 pixels are boundary
        >>> f"{boundary_weight(square).item():.2f}"
        '-0.28'
    """
    object_ = truth >= 0.5
    inner = object_
    for axis in range(2, truth.ndim):
        outside = torch.zeros_like(object_.narrow(axis, 0, 1))
        length = object_.shape[axis] - 1
        before = torch.cat([outside, object_.narrow(axis, 0, length)], dim=axis)
        after = torch.cat([object_.narrow(axis, 1, length), outside], dim=axis)
        inner = inner & before & after
    size = object_.flatten(2).sum(2).to(truth.dtype)
    boundary = size - inner.flatten(2).sum(2).to(truth.dtype)
    return (1 - 2 * boundary / size.clamp_min(1)).where(size > 0, -torch.ones_like(size)).clamp_max(0.8)
