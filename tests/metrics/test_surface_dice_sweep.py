from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.metrics.surface_dice import compute_surface_dice
from volseg.metrics.surface_dice_sweep import compute_surface_dice_sweep

SPACING = (0.5, 1.3, 2.7)
PERCENTS = np.arange(1, 100) / 100


def one_by_one(soft, truth, thresholds):
    scores = [compute_surface_dice(soft >= soft.dtype.type(t), truth, spacing_mm=SPACING) for t in thresholds]
    return np.array(scores)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_each_threshold_scores_as_its_own_mask(dtype, order):
    rng = np.random.default_rng(0)
    soft = np.asarray(rng.random((7, 11, 9)), dtype=dtype, order=order)
    truth = rng.random((7, 11, 9)) < 0.3
    scores = compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=PERCENTS)
    np.testing.assert_allclose(scores, one_by_one(soft, truth, PERCENTS), rtol=0, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_probabilities_that_equal_thresholds_are_foreground(seed, x, y, z):
    rng = np.random.default_rng(seed)
    soft = rng.choice([0.0, 0.1, 0.3, 0.7, 1.0], (x, y, z)).astype(np.float32)
    truth = rng.random((x, y, z)) < 0.5
    thresholds = [0.1, 0.3, 0.7, 1.0]
    scores = compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=thresholds)
    np.testing.assert_allclose(scores, one_by_one(soft, truth, thresholds), rtol=0, atol=1e-12)


def test_bytes_are_read_as_fractions_of_255():
    rng = np.random.default_rng(1)
    soft, truth = rng.integers(0, 256, (5, 6, 7), dtype=np.uint8), rng.random((5, 6, 7)) < 0.3
    scores = compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=PERCENTS)
    np.testing.assert_allclose(scores, one_by_one(soft / 255.0, truth, PERCENTS), rtol=0, atol=1e-12)


def test_unlabelled_slices_cost_and_earn_nothing():
    rng = np.random.default_rng(2)
    soft, labels = rng.random((5, 6, 7)), rng.integers(0, 2, (5, 6, 7), dtype=np.uint8)
    labels[..., 4:] = 255
    scores = compute_surface_dice_sweep(
        soft, labels, spacing_mm=SPACING, thresholds=PERCENTS, ignore_value=255
    )
    np.testing.assert_allclose(
        scores, one_by_one(soft[..., :4], labels[..., :4], PERCENTS), rtol=0, atol=1e-12
    )


def test_nothing_predicted_and_nothing_there_is_undefined():
    soft, truth = np.full((2, 3, 4), 0.4), np.zeros((2, 3, 4), dtype=bool)
    scores = compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=[0.3, 0.5])
    assert scores[0] == 0.0
    assert math.isnan(scores[1])


@pytest.mark.parametrize("wrong", [np.nan, 3.0, -2.0], ids=str)
def test_what_is_no_probability_is_refused(wrong):
    soft = np.full((2, 3, 4), 0.4)
    soft[1, 2, 3] = wrong
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\].*look for NaN"):
        compute_surface_dice_sweep(soft, soft > 0.5, spacing_mm=SPACING, thresholds=[0.5])


def test_integers_wider_than_a_byte_are_refused():
    volume = np.zeros((2, 3, 4), dtype=np.int32)
    with pytest.raises(ValueError, match="probability must be floating-point or uint8, got int32"):
        compute_surface_dice_sweep(volume, volume, spacing_mm=SPACING, thresholds=[0.5])


@pytest.mark.parametrize("thresholds", [[], [0.5, 0.5], [0.5, 0.4], [0.0, 0.5], [0.5, 1.5]], ids=str)
def test_thresholds_out_of_order_are_refused(thresholds):
    volume = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="thresholds must be 1 to 255 rising numbers"):
        compute_surface_dice_sweep(volume, volume, spacing_mm=SPACING, thresholds=thresholds)


@pytest.mark.slow
def test_99_thresholds_cost_a_few_single_evaluations():
    x, y, z = np.ogrid[:160, :160, :160]
    vessel = np.sqrt((x - 80.0) ** 2 + (y - 60.0 - z / 8) ** 2)
    soft, truth = np.clip(0.5 + (6.0 - vessel) / 3, 0, 1).astype(np.float32), vessel < 6.5

    def fastest(score):
        starts = []
        for _ in range(3):
            start = time.perf_counter()
            score()
            starts.append(time.perf_counter() - start)
        return min(starts)

    single = fastest(lambda: compute_surface_dice(soft >= np.float32(0.5), truth, spacing_mm=SPACING))
    sweep = fastest(lambda: compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=PERCENTS))
    assert sweep < 6 * single  # measured 2 to 3; a loop would take 99
