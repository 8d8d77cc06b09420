"""Weighted cross entropy plus Dice: the contract, and torch and MONAI as oracle."""

import torch
from monai.losses import DiceLoss

from volseg.losses import WeightedCeDiceLoss

from .contract import LossContract


class TestWeightedCeDiceLoss(LossContract):
    def build(self):
        return WeightedCeDiceLoss()


def test_it_is_the_sum_of_torch_s_entropy_and_monai_s_dice():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 9, 7, generator=generator)
    labels = torch.randint(0, 4, (2, 1, 9, 7), generator=generator)
    weights = (1.0, 5.0, 10.0, 20.0)
    entropy = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights))(logits, labels[:, 0])
    dice = DiceLoss(softmax=True, to_onehot_y=True)(logits, labels)
    torch.testing.assert_close(WeightedCeDiceLoss(weights, 2.0, 3.0)(logits, labels), 2 * entropy + 3 * dice)
