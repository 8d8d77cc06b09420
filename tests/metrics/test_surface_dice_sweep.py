from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.metrics import surface_dice_sweep
from volseg.metrics.surface_dice import compute_surface_dice
from volseg.metrics.surface_dice_sweep import compute_surface_dice_sweep

SPACING = (0.5, 1.3, 2.7)
PERCENTS = np.arange(1, 100) / 100


def one_by_one(soft, truth, thresholds):
    edges = np.asarray(thresholds).astype(soft.dtype)
    return np.array([compute_surface_dice(soft >= edge, truth, spacing_mm=SPACING) for edge in edges])


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


@pytest.mark.parametrize("thresholds", [[], [0.5, 0.5], [0.5, 0.4], [0.0, 0.5], [0.5, 1.5], [1e-9]], ids=str)
def test_thresholds_out_of_order_are_refused(thresholds):
    volume = np.zeros((2, 3, 4), dtype=np.float16)
    with pytest.raises(ValueError, match="thresholds must be 1 to 255 rising numbers"):
        compute_surface_dice_sweep(volume, volume, spacing_mm=SPACING, thresholds=thresholds)


@pytest.mark.parametrize(("block", "batch"), [(1, 7), (200, 64), (1 << 17, 1)], ids=str)
def test_how_much_is_read_and_counted_at_a_time_changes_nothing(monkeypatch, block, batch):
    rng = np.random.default_rng(3)
    soft, truth = rng.random((19, 9, 7), dtype=np.float32), rng.random((19, 9, 7)) < 0.3
    soft[2:11], truth[4:12], soft[14:], truth[15:] = 0, False, 0, False  # slices apart, and an empty end
    whole = compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=PERCENTS)
    monkeypatch.setattr(surface_dice_sweep, "_BLOCK", block)
    monkeypatch.setattr(surface_dice_sweep, "_BATCH", batch)
    parts = compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=PERCENTS)
    assert parts.tolist() == whole.tolist()


@pytest.mark.parametrize(
    "thresholds",
    [np.linspace(0.5, 0.5001, 30), [1e-7, 0.2], [np.nextafter(1.0, 0.0), 1.0]],
    ids=["crowded", "next_to_zero", "next_to_one"],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f4", np.float64])
def test_thresholds_are_compared_in_the_precision_of_the_probability(dtype, thresholds):
    rng = np.random.default_rng(4)
    values = np.concatenate([np.linspace(0.4999, 0.5002, 20), [0.0, -0.0, 1e-9, -5e-4, 1.0, 1.0005]])
    soft, truth = rng.choice(values, (4, 6, 5)).astype(dtype), rng.random((4, 6, 5)) < 0.3
    scores = compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=thresholds)
    np.testing.assert_allclose(scores, one_by_one(soft, truth, thresholds), rtol=0, atol=1e-12)


def test_a_smooth_vessel_with_a_filled_core_scores_at_each_threshold_as_its_own_mask():
    soft, truth = vessel(33)
    assert (soft == 1.0).sum() > 1000
    scores = compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=PERCENTS)
    np.testing.assert_allclose(scores, one_by_one(soft, truth, PERCENTS), rtol=0, atol=1e-12)


def test_a_perfect_probability_is_perfect_at_each_threshold():
    truth = np.random.default_rng(5).random((5, 6, 7)) < 0.3
    scores = compute_surface_dice_sweep(
        truth.astype(np.float32), truth, spacing_mm=SPACING, thresholds=PERCENTS
    )
    assert set(scores.tolist()) == {1.0}


def test_surfaces_apart_score_exactly_zero():
    soft, truth = np.zeros((2, 9, 9, 9))
    soft[1:4, 1:4, 1:4] = np.random.default_rng(6).random((3, 3, 3)) * 0.9 + 0.1
    truth[6:8, 6:8, 6:8] = 1
    scores = compute_surface_dice_sweep(soft, truth, spacing_mm=SPACING, thresholds=[0.1, 0.5, 0.9, 1.0])
    assert set(scores.tolist()) == {0.0}


def vessel(size):
    """A slanted tube: soft edges four voxels wide around a filled core, and a truth a little wider."""
    x, y, z = np.ogrid[:size, :size, :size]
    radius = np.sqrt((x - size / 2) ** 2 + (y - size / 3 - z / 8) ** 2)
    return np.clip(0.5 + (6.0 - radius) / 4, 0, 1).astype(np.float32), radius < 6.5
