from __future__ import annotations

import math

import pytest
import torch

from volseg.metrics.calibration import CalibrationErrorMetric, compute_calibration_error


def test_certain_and_right_is_calibrated():
    assert compute_calibration_error([0.0, 1.0, 1.0], [0, 1, 1]) == 0.0


def test_certain_and_wrong_is_the_worst():
    assert compute_calibration_error([1.0, 0.0], [0, 1]) == 1.0


def test_draws_from_the_probabilities_are_nearly_calibrated():
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(50_000, generator=generator)
    truth = torch.rand(50_000, generator=generator) < soft
    assert compute_calibration_error(soft, truth) < 0.02  # 15 bins of 3333 draws: about 0.007 each
    assert compute_calibration_error(soft**2, truth) > 0.1


def test_no_voxel_is_undefined():
    assert math.isnan(compute_calibration_error([], []))


def test_the_metric_pools_cases_and_leaves_out_unlabelled_voxels():
    soft, truth = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 1, 5, 7)
    truth[:, :, 2:] = 1
    labels = truth.clone()
    labels[1, :, 0] = 255
    metric = CalibrationErrorMetric(bins=5)
    for case in (0, 1):
        metric(soft[case : case + 1], labels[case : case + 1])
    labelled = labels != 255
    expected = compute_calibration_error(soft[labelled], truth[labelled], bins=5)
    assert metric.aggregate().item() == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [math.nan, 1.5, -0.1])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\]"):
        compute_calibration_error([0.5, wrong], [0, 1])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        compute_calibration_error([0.5], [0, 1])
    with pytest.raises(ValueError, match="bins must be at least 1"):
        compute_calibration_error([0.5], [0], bins=0)
    with pytest.raises(ValueError, match="scored no case yet"):
        CalibrationErrorMetric().aggregate()
