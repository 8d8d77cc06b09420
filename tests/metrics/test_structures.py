from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor

from volseg.metrics.structures import (
    StructureMetric,
    mask_pair_of,
    mean_over_cases,
    spacing_of_case,
    structures_of,
)


class VoxelCount(StructureMetric):
    needs_spacing = True

    def score(self, pred, truth, spacing_mm):
        return math.nan if not truth.any() else float(pred.sum()) * math.prod(spacing_mm)


def test_ignored_voxels_are_background_in_both():
    pred, truth = torch.ones(1, 1, 2, 3), torch.tensor([[[[1, 0, 255], [255, 1, 0]]]])
    [[(seen, real)]] = structures_of(pred, truth, include_background=False)
    assert seen.tolist() == [[1, 1, 0], [0, 1, 1]]
    assert real.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_the_mean_runs_over_cases_then_classes():
    scores = torch.tensor([[1.0, 0.0], [1.0, math.nan], [0.4, math.nan]])
    assert mean_over_cases(scores).item() == pytest.approx((0.8 + 0.0) / 2)


def test_undefined_scores_are_counted_not_dropped_silently():
    metric = VoxelCount(spacing_mm=(1.0, 2.0))
    pred = torch.ones(3, 1, 2, 2)
    truth = torch.tensor([1, 0, 1]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    metric(pred, truth)
    assert metric.aggregate().item() == 8.0
    assert (metric.undefined_count, metric.spurious_count, metric.missed_count) == (1, 1, 0)
    assert len(metric.get_buffer()) == 3


def test_the_spacing_is_that_of_each_case():
    batch = MetaTensor(torch.zeros(1, 1, 2, 2, 2), affine=torch.diag(torch.tensor([-0.5, 2.0, 3.0, 1.0])))
    assert list(spacing_of_case(None, (batch,), 0)) == [0.5, 2.0, 3.0]
    assert spacing_of_case((1, 1, 1), (batch,), 0) == (1, 1, 1)


def test_an_unknown_spacing_is_refused():
    with pytest.raises(ValueError, match="pass spacing_mm"):
        spacing_of_case(None, (torch.zeros(1),), 0)


@pytest.mark.parametrize("values", [[0.0, math.nan], [0.0, 0.5]], ids=str)
def test_values_that_are_no_mask_are_refused(values):
    with pytest.raises(ValueError, match="pred must be a mask of 0 and 1"):
        mask_pair_of(values, [0, 1])


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="pred and truth must have one shape"):
        mask_pair_of([0, 1], [[0, 1]])


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="on one grid"):
        next(structures_of(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 3, 2), False))
    with pytest.raises(ValueError, match="y must have 1 or 3 channels, got 2"):
        next(structures_of(torch.zeros(1, 3, 2, 3), torch.zeros(1, 2, 2, 3), False))


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="VoxelCount has scored no case yet"):
        VoxelCount().aggregate()
