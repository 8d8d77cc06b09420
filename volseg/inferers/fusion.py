"""Fuses what a network says along several axes, and measures how far the axes disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from volseg.checks import check_choice, check_positive

__all__ = ["Activation", "AxisFusion", "Fusion", "activate", "activate_", "check_fusion"]

Fusion = Literal["mean", "logit_mean", "max", "union", "vote"]
Activation = Literal["sigmoid", "softmax"] | None

_FUSIONS = ("mean", "logit_mean", "max", "union", "vote")
_SLICES_AT_ONCE = 8


class AxisFusion:
    """Fuses the maps of several axes one after another, so that no two of them need memory at a time.

    - "mean": weighted mean of the axes' maps.
    - "logit_mean": weighted mean of logits; the activation follows it.
    - "max": the largest value over the axes.
    - "union": the maps are masks, and a voxel is 1 where any axis says so.
    - "vote": the maps are masks, and a voxel is 1 where more than half of the weight says so.

    Args:
        fusion: one of the names above.
        activation: what "logit_mean" applies to the fused logits, and to an axis's own before comparing it.
        has_disagreement: also measure the standard deviation between what each axis says alone.
    """

    def __init__(
        self, fusion: Fusion, activation: Activation = None, *, has_disagreement: bool = False
    ) -> None:
        self.fusion = fusion
        self.activation = activation if fusion == "logit_mean" else None
        self.has_disagreement = has_disagreement
        self._maps = 0
        self._mean = torch.empty(0)
        self._result = torch.empty(0)
        self._classes = 0

    def add(self, axis_map: torch.Tensor, weight: float) -> None:
        """Take in one axis's map (B, K, D0, D1, D2); weights of all axes sum to one."""
        if self._maps == 0:
            self._allocate(axis_map)
        fused = self._result[:, : self._classes]
        if self.fusion in ("max", "union"):
            torch.maximum(fused, axis_map, out=fused)
        else:
            fused.add_(axis_map, alpha=weight)
        self._maps += 1
        if self.has_disagreement:
            self._compare(axis_map)

    def result(self) -> torch.Tensor:
        """Fused map (B, K, D0, D1, D2); with disagreement (B, 2K, …), the standard deviations last."""
        fused = self._result[:, : self._classes]
        if self.fusion == "vote":
            # Half of the weight is no majority; the margin covers the rounding of sums such as 3 * 1/3.
            torch.gt(fused, 0.5 + 1e-6, out=fused)
        activate_(fused, self.activation)
        if self.has_disagreement:
            self._result[:, self._classes :].div_(self._maps).sqrt_()
        return self._result

    def _allocate(self, axis_map: torch.Tensor) -> None:
        self._classes = axis_map.shape[1]
        channels = self._classes * (2 if self.has_disagreement else 1)
        self._result = axis_map.new_zeros((axis_map.shape[0], channels, *axis_map.shape[2:]))
        if self.fusion == "max":
            self._result[:, : self._classes] = -torch.inf
        if self.has_disagreement:
            self._mean = torch.zeros_like(axis_map)

    def _compare(self, axis_map: torch.Tensor) -> None:
        # Welford's update: exact zero for equal maps, no cancellation; in slabs, to keep its scratch small.
        squares = self._result[:, self._classes :]
        for start in range(0, axis_map.shape[2], _SLICES_AT_ONCE):
            slab = (slice(None), slice(None), slice(start, start + _SLICES_AT_ONCE))
            values = activate(axis_map[slab], self.activation)
            delta = values - self._mean[slab]
            self._mean[slab].add_(delta, alpha=1.0 / self._maps)
            squares[slab].addcmul_(delta, values - self._mean[slab])


def activate(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Turn logits (B, K, …) into probabilities.

    Example:
        >>> activate(torch.zeros(1, 2), "softmax")
        tensor([[0.5000, 0.5000]])
    """
    if activation == "sigmoid":
        return logits.sigmoid()
    return logits.softmax(dim=1) if activation == "softmax" else logits


def activate_(logits: torch.Tensor, activation: Activation) -> None:
    """Do the same in place of logits (B, K, D0, …), with scratch memory of a few slices."""
    if activation is None:
        return
    for slab in logits.split(_SLICES_AT_ONCE, dim=2):
        slab.copy_(activate(slab, activation))


def check_fusion(
    fusion: Fusion, activation: Activation, axis_weights: Sequence[float] | None, axes: int
) -> tuple[float, ...]:
    """Return the axes' shares, which sum to one.

    Raises:
        ValueError: for an unknown fusion or activation, a wrong number of weights, a weight that is not
            positive, or weights for a fusion that has no use for them.

    Example:
        >>> check_fusion("mean", None, (2, 1, 1), axes=3)
        (0.5, 0.25, 0.25)
    """
    check_choice("fusion", fusion, _FUSIONS)
    if activation is not None:
        check_choice("activation", activation, ("sigmoid", "softmax"))
    if axis_weights is None:
        return (1.0 / axes,) * axes
    if fusion in ("max", "union"):
        raise ValueError(f"axis_weights must be None for fusion {fusion!r}, got {tuple(axis_weights)}")
    if len(axis_weights) != axes:
        raise ValueError(f"axis_weights must be one per axis ({axes}), got {len(axis_weights)}")
    check_positive("axis_weights", axis_weights)
    total = float(sum(axis_weights))
    return tuple(float(weight) / total for weight in axis_weights)
