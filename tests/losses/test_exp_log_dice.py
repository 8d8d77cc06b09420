"""Exponential logarithmic Dice: the contract, the published formula, and its two repaired ends."""

import math

import pytest
import torch

from volseg.losses import ExpLogDiceLoss

from .contract import LossContract


class TestExpLogDiceLoss(LossContract):
    def build(self):
        return ExpLogDiceLoss()


class TestExpLogDiceLossOfTheEdemaTask(LossContract):
    def build(self):
        return ExpLogDiceLoss(1.0, 0.2, gamma=0.5, batch=True, include_background=False)


def test_away_from_its_ends_it_is_the_published_formula():
    # Half of the object found, nothing else: Dice = 2 / 3.
    labels = torch.ones(1, 1, 2, 2)
    logits = torch.tensor([[[[99.0, 99.0], [-99.0, -99.0]]]])
    ours = ExpLogDiceLoss(1.0, 0.0, gamma=0.3, epsilon=1e-9)(logits, labels)
    assert ours.item() == pytest.approx(math.log(1.5) ** 0.3, rel=5e-3)


@pytest.mark.parametrize("size", [2, 8])
def test_half_an_object_costs_the_same_whatever_its_size(size):
    labels = torch.zeros(1, 1, 9, 9)
    labels[..., :size, :size] = 1
    found = labels.clone()
    found[..., : size // 2, :] = 0
    loss = ExpLogDiceLoss(1.0, 0.0, epsilon=1e-9)(found * 198 - 99, labels)
    assert loss.item() == pytest.approx(math.log(1.5) ** 0.3, rel=5e-3)


@pytest.mark.parametrize("name", ["gamma", "gamma_ce", "epsilon"])
def test_an_exponent_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, got 0"):
        ExpLogDiceLoss(**{name: 0.0})
