"""Several losses added up."""

import pytest
import torch
from torch import nn

from volseg.losses import BoundaryDoULoss, MaskedDiceFocalLoss, WeightedSumLoss

from .contract import LossContract


class TestWeightedSumLoss(LossContract):
    def build(self):
        return WeightedSumLoss([MaskedDiceFocalLoss(), BoundaryDoULoss()], weights=[0.5, 2.0])


def test_the_sum_is_the_weighted_sum_of_its_parts():
    logits, labels = torch.randn(2, 1, 9, 7), torch.randint(0, 2, (2, 1, 9, 7)).float()
    parts = [MaskedDiceFocalLoss(), BoundaryDoULoss()]
    expected = 0.5 * parts[0](logits, labels) + 2.0 * parts[1](logits, labels)
    assert WeightedSumLoss(parts, weights=[0.5, 2.0])(logits, labels) == pytest.approx(expected.item())


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0]], ids=str)
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        WeightedSumLoss([nn.MSELoss(), nn.L1Loss()], weights=weights)
