"""Soft F-beta: the contract, and MONAI's Tversky loss as oracle."""

import pytest
import torch
from monai.losses import DiceLoss, TverskyLoss

from volseg.losses import FBetaLoss

from .contract import LossContract


class TestFBetaLoss(LossContract):
    def build(self):
        return FBetaLoss()


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_it_is_a_tversky_loss(beta):
    logits, labels = torch.randn(3, 1, 9, 7), (torch.rand(3, 1, 9, 7) > 0.6).float()
    alpha = 1 / (1 + beta**2)
    oracle = TverskyLoss(sigmoid=True, alpha=alpha, beta=1 - alpha)(logits, labels)
    torch.testing.assert_close(FBetaLoss(beta)(logits, labels), oracle)


def test_beta_one_is_dice():
    logits, labels = torch.randn(3, 1, 9, 7), (torch.rand(3, 1, 9, 7) > 0.6).float()
    torch.testing.assert_close(FBetaLoss(1.0)(logits, labels), DiceLoss(sigmoid=True)(logits, labels))


def test_a_large_beta_punishes_what_is_missed():
    labels = torch.zeros(1, 1, 4, 4)
    labels[..., :2] = 1
    missed, spurious = labels.clone(), labels.clone()
    missed[..., 0] = 0
    spurious[..., 2] = 1
    losses = [FBetaLoss(3.0)(each * 198 - 99, labels) for each in (missed, spurious)]
    assert losses[0] > losses[1]


def test_beta_must_be_positive():
    with pytest.raises(ValueError, match="beta must be positive and finite, got 0"):
        FBetaLoss(0)
