"""Class-weighted cross entropy plus Dice."""

from __future__ import annotations

from collections.abc import Sequence

from volseg.losses.dice_focal import MaskedDiceFocalLoss
from volseg.losses.rows import IGNORE

__all__ = ["WeightedCeDiceLoss"]


class WeightedCeDiceLoss(MaskedDiceFocalLoss):
    """Cross entropy with one weight per class plus soft Dice, over the labelled voxels.

    MONAI's DiceCELoss knows no ignored label. The entropy is divided by the sum of the weights of the
    labelled voxels, as torch does.

    Args:
        class_weights: one weight per class; (1, 5, 10, 20) for background, REA, SRF, PED in the edema task.
        lambda_ce: weight of the cross entropy.
        lambda_dice: weight of the Dice.
        include_background: count class 0 in the Dice.
        batch: take the Dice over the whole batch instead of slice by slice.
        smooth: added to numerator and denominator of the Dice, in voxels.
        ignore_index: label of voxels that do not count.

    Source: Milletari et al., V-Net, 3DV 2016; weights as published for the AI Challenger 2018 edema task.

    Example:
        >>> import torch
        >>> loss = WeightedCeDiceLoss((1, 5))
        >>> wrong, right = torch.tensor([[[[9.0]], [[-9.0]]]]), torch.tensor([[[[-9.0]], [[9.0]]]])
        >>> bool(loss(wrong, torch.ones(1, 1, 1, 1)) > loss(right, torch.ones(1, 1, 1, 1)))
        True
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        lambda_ce: float = 1.0,
        lambda_dice: float = 1.0,
        *,
        include_background: bool = True,
        batch: bool = False,
        smooth: float = 1e-5,
        ignore_index: int = IGNORE,
    ) -> None:
        super().__init__(
            lambda_dice,
            lambda_ce,
            gamma=0.0,
            class_weights=class_weights,
            include_background=include_background,
            batch=batch,
            smooth=smooth,
            ignore_index=ignore_index,
        )
