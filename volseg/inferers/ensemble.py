"""Fusion of several networks: the mean of what their inferers say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type

from volseg.inferers.tri_axis import Output, check_outputs
from volseg.networks.ensemble import Ensemble, member_shares

__all__ = ["EnsembleInferer"]

_SLICES_AT_ONCE = 8


class EnsembleInferer(Inferer):
    """Runs every member of an `Ensemble` by its inferer and fuses the results by their weighted mean.

    MONAI fuses by `MeanEnsembled` after all members' maps are in memory; here there are the running mean and
    one member's map. Members are averaged as their inferers return them, so these apply the activation.
    One member, or equal ones, give that member's map to the last bit.

    Args:
        inferers: one for all members, or one for each; they may differ in slices, axes, windows and views.
        weights: one positive number per member, of any sum; None takes those of the `Ensemble`.
        outputs: ("mean",), or ("mean", "disagreement") to append the standard deviation between the
            members, by their weights, as K more channels; it is zero for one member. The members' inferers
            return the mean alone, what their axes disagree about has no place in it.

    Raises:
        ValueError: without inferers, for inferers that give a disagreement of their own, or weights that
            are not positive.

    Example:
        >>> from volseg.inferers import TriAxisInferer
        >>> from volseg.networks import SliceStackUNet
        >>> members = [SliceStackUNet(in_slices=slices, features=(4, 8), seed=0).eval() for slices in (1, 3)]
        >>> inferers = [TriAxisInferer(in_slices=slices) for slices in (1, 3)]
        >>> EnsembleInferer(inferers)(torch.rand(1, 1, 5, 7, 6), Ensemble(members)).shape
        torch.Size([1, 1, 5, 7, 6])
    """

    def __init__(
        self,
        inferers: Inferer | Sequence[Inferer],
        weights: Sequence[float] | None = None,
        *,
        outputs: Sequence[Output] = ("mean",),
    ) -> None:
        self.inferers = [inferers] if isinstance(inferers, Inferer) else list(inferers)
        if not self.inferers:
            raise ValueError("inferers must be one for all members or one for each, got none")
        if any(getattr(inferer, "has_disagreement", False) for inferer in self.inferers):
            raise ValueError(
                "the inferers of members must have outputs=('mean',); ask the EnsembleInferer for the "
                "disagreement, which is that between the members"
            )
        self.shares = None if weights is None else member_shares(weights, len(weights))
        self.has_disagreement = check_outputs(outputs)

    def __call__(self, inputs: torch.Tensor, network: Ensemble, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(B, C, …) in, (B, K, …) float32 out, or (B, 2K, …) with the disagreement.

        Args:
            inputs: what the members' inferers take; a MetaTensor gives a MetaTensor with the same affine.
            network: in eval mode.
            args: passed to the inferers.
            kwargs: passed to the inferers.

        Raises:
            ValueError: when members give maps of different shapes, or inferers or weights are not as many
                as members.
            TypeError: when the network is no ensemble, or an inferer returns no tensor.
        """
        if not isinstance(network, Ensemble):
            raise TypeError(f"the network must be a volseg.networks.Ensemble, got {type(network).__name__}")
        count = len(network.members)
        inferers = self.inferers * count if len(self.inferers) == 1 else self.inferers
        shares = network.shares if self.shares is None else self.shares
        for name, length in (("inferers", len(inferers)), ("weights", len(shares))):
            if length != count:
                raise ValueError(f"{name} must be one per member ({count}), got {length}")
        if count == 1 and not self.has_disagreement:
            return inferers[0](inputs, network.members[0], *args, **kwargs)
        mean = _RunningMean(has_disagreement=self.has_disagreement)
        for inferer, member, share in zip(inferers, network.members, shares, strict=True):
            mean.add(inferer(inputs, member, *args, **kwargs), share)
        fused = mean.result()
        return convert_to_dst_type(fused, inputs, dtype=torch.float32, device=fused.device)[0]


class _RunningMean:
    """Weighted mean of maps taken in one after another, and their standard deviation."""

    def __init__(self, *, has_disagreement: bool) -> None:
        self.has_disagreement = has_disagreement
        self._members = 0
        self._total = 0.0
        self._result = torch.empty(0)
        self._mean = torch.empty(0)

    def add(self, member_map: object, share: float) -> None:
        """Take in one member's map (B, K, …)."""
        self._members += 1
        if not isinstance(member_map, torch.Tensor):
            raise TypeError(f"member {self._members} gave {type(member_map).__name__}, expected a tensor")
        values = member_map.as_subclass(torch.Tensor).detach()
        self._total += share
        if self._members == 1:
            self._start(values)
            return
        if values.shape != self._mean.shape:
            raise ValueError(
                f"member {self._members} gave a map of {tuple(values.shape)}, the first one of "
                f"{tuple(self._mean.shape)}; members must agree in classes"
            )
        ratio = share / self._total
        for start in range(0, values.shape[2], _SLICES_AT_ONCE):  # in slabs, to keep the scratch small
            slab = (slice(None), slice(None), slice(start, start + _SLICES_AT_ONCE))
            seen = values[slab].to(torch.float32)
            if self.has_disagreement:
                delta = seen - self._mean[slab]
                squares = self._result[:, self._mean.shape[1] :]
                squares[slab].addcmul_(delta, delta, value=share * (1 - ratio))
            self._mean[slab].lerp_(seen, ratio)

    def result(self) -> torch.Tensor:
        """(B, K, …) or with disagreement (B, 2K, …), the standard deviations last."""
        if self.has_disagreement:
            self._result[:, self._mean.shape[1] :].div_(self._total).sqrt_()
        return self._result

    def _start(self, values: torch.Tensor) -> None:
        if self.has_disagreement:
            shape = (values.shape[0], 2 * values.shape[1], *values.shape[2:])
            self._result = values.new_zeros(shape, dtype=torch.float32)
            self._mean = self._result[:, : values.shape[1]]
            self._mean.copy_(values)
        else:
            # a copy, because an inferer may hand out what it goes on using, or its input
            self._result = self._mean = values.to(torch.float32, copy=True)
