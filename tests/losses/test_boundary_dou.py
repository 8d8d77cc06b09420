"""BoundaryDoU: the contract, and values worked out by hand."""

import pytest
import torch

from volseg.losses import BoundaryDoULoss
from volseg.losses.boundary_dou import boundary_weight

from .contract import LossContract


class TestBoundaryDoULoss(LossContract):
    def build(self):
        return BoundaryDoULoss()


def square(size, edge=60):
    picture = torch.zeros(1, 1, edge, edge)
    picture[..., 2 : 2 + size, 2 : 2 + size] = 1
    return picture


@pytest.mark.parametrize(
    ("size", "weight"), [(1, -1.0), (2, -1.0), (5, 1 - 2 * 16 / 25), (15, 1 - 2 * 56 / 225), (50, 0.8)]
)
def test_the_weight_of_a_square(size, weight):
    assert boundary_weight(square(size)).item() == pytest.approx(weight)


def test_the_edge_of_the_picture_counts_as_boundary():
    assert boundary_weight(torch.ones(1, 1, 5, 5)).item() == pytest.approx(1 - 2 * 16 / 25)


def test_a_cube_has_six_neighbours():
    cube = torch.zeros(1, 1, 7, 7, 7)
    cube[..., 1:6, 1:6, 1:6] = 1
    assert boundary_weight(cube).item() == pytest.approx(1 - 2 * (125 - 27) / 125)


def test_its_value_is_difference_over_the_rest_of_the_union():
    truth, found = square(15), square(15)
    found[..., 2:5, :] = 0  # 45 of 225 are missed
    weight = 1 - 2 * 56 / 225
    loss = BoundaryDoULoss(smooth=1e-5)(found * 198 - 99, truth)
    assert loss.item() == pytest.approx(45 / (225 - weight * 180), rel=1e-4)


def test_a_missed_rim_costs_more_on_a_large_object_than_dou_says():
    truth, found = square(40), square(40)
    found[..., 2, :] = 0
    union_only = 40 / 1600
    assert BoundaryDoULoss()(found * 198 - 99, truth).item() > 2 * union_only


def test_a_slice_without_an_object_has_a_gradient_against_false_alarms():
    logits = torch.zeros(1, 1, 9, 7, requires_grad=True)
    BoundaryDoULoss()(logits, torch.zeros(1, 1, 9, 7)).backward()
    assert (logits.grad > 0).all()
