"""Several networks as one module."""

# torch.jit does not list unused as exported, and to mypy a method of a Module is a Tensor.
# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from volseg.checks import check_positive

__all__ = ["Ensemble", "member_shares"]


class Ensemble(nn.Module):
    """Networks that look at the same images and are averaged; folds of one network, or different ones.

    Alone it gives the mean of logits, and its members then need stacks of the same number of slices.
    `EnsembleInferer` gives the mean of probabilities, with an inferer for each member.

    Args:
        members: networks with the same classes.
        weights: one positive number per member, of any sum; None is the same for all.

    Raises:
        ValueError: without members, or for weights that do not fit them.

    Example:
        >>> one, two = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        >>> stack = torch.rand(2, 1, 5, 7)
        >>> mean = Ensemble([one, two], weights=(3, 1))(stack)
        >>> bool(mean.allclose(0.75 * one(stack) + 0.25 * two(stack), atol=1e-6))
        True
    """

    def __init__(self, members: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.shares = member_shares(weights, len(self.members))

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, (B, K*M, H, W) out: the weighted mean of the members' logits.

        Raises:
            TypeError: when a member returns several outputs, as some do in training.
        """
        mean = stack
        total = 0.0
        for number, member in enumerate(self.members):
            logits = member(stack)
            if not isinstance(logits, torch.Tensor):
                raise TypeError("a member returned no tensor; put the ensemble in eval mode")
            total += self.shares[number]
            # a running mean: equal members give what each of them gives, to the last bit
            mean = logits if number == 0 else torch.lerp(mean, logits, self.shares[number] / total)
        return mean

    @torch.jit.unused
    def detect(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, (B, classes) out: the logit of the weighted mean of the members' probabilities.

        Members without a detection head have no say in it.

        Raises:
            ValueError: when no member has a detection head.
        """
        pairs = zip(self.members, self.shares, strict=True)
        able = [(member, share) for member, share in pairs if getattr(member, "detection", None) is not None]
        if not able:
            raise ValueError(
                "the network has no detection head; build a member with detection_classes of at least 1"
            )
        if len(able) == 1:
            return able[0][0].detect(stack)
        logits = torch.stack([member.detect(stack).float() for member, _ in able])
        shares = logits.new_tensor([share for _, share in able]).log().reshape(-1, *[1] * (logits.ndim - 1))
        # in logarithms, because a probability that rounds to 1 has no finite logit
        present = torch.logsumexp(F.logsigmoid(logits) + shares, dim=0)
        absent = torch.logsumexp(F.logsigmoid(-logits) + shares, dim=0)
        return present - absent


def member_shares(weights: Sequence[float] | None, members: int) -> list[float]:
    """Shares of the members, which sum to one.

    Raises:
        ValueError: without members, for another number of weights, or one that is not positive.

    Example:
        >>> member_shares((3, 1), members=2)
        [0.75, 0.25]
    """
    if members < 1:
        raise ValueError("an ensemble needs at least one member, got none")
    if weights is None:
        return [1.0 / members] * members
    if len(weights) != members:
        raise ValueError(f"weights must be one per member ({members}), got {len(weights)}")
    check_positive("weights", weights)
    total = float(sum(weights))
    return [float(weight) / total for weight in weights]
