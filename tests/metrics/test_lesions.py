from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from volseg.metrics.lesions import compute_lesion_counts


@pytest.mark.parametrize("axes", [2, 3])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0, 1))
def test_a_perfect_prediction_finds_as_many_lesions_as_scipy_counts(axes, seed, density):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 9, axes)) < density
    count = ndimage.label(mask, ndimage.generate_binary_structure(axes, axes))[1]
    assert compute_lesion_counts(mask, mask, min_iou=1.0) == (count, 0, 0)


def test_a_bridge_between_two_lesions_finds_one():
    truth = np.array([[1, 1, 0, 1, 1]])
    assert compute_lesion_counts(np.ones_like(truth), truth) == (1, 1, 0)


def test_a_lesion_cut_in_two_is_found_once():
    pred = np.array([[1, 1, 0, 1, 1]])
    assert compute_lesion_counts(pred, np.ones_like(pred)) == (1, 0, 1)


def test_too_little_overlap_is_missed_and_spurious():
    truth, pred = np.array([[1, 1, 1, 1, 0]]), np.array([[0, 0, 0, 1, 1]])
    assert compute_lesion_counts(pred, truth, min_iou=0.3) == (0, 1, 1)
    assert compute_lesion_counts(pred, truth, min_iou=0.0) == (1, 0, 0)


def test_other_axes_and_fractions_are_refused():
    with pytest.raises(ValueError, match="lesions need a 2D or 3D mask, got 1 axes"):
        compute_lesion_counts([1], [1])
    with pytest.raises(ValueError, match="min_iou must lie between 0 and 1"):
        compute_lesion_counts([[1]], [[1]], min_iou=2.0)
