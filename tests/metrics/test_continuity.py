"""Continuity in 3D: pieces of a lesion, and the likeness of neighbouring slices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.metrics.continuity import Continuity, ContinuityMetric, compute_continuity

SHAPE = (9, 7, 13)


def box(*spans, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    for span in spans:
        mask[tuple(slice(*pair) for pair in span)] = 1
    return mask


LONG = ((1, 4), (2, 5), (1, 9))
SHORT = ((6, 8), (1, 3), (3, 5))


def test_a_prediction_equal_to_the_truth_is_one_everywhere():
    truth = box(LONG, SHORT)
    found = compute_continuity(truth, truth)
    assert found[:3] == (1.0, 1.0, 1.0)
    assert (found.components, found.lesions) == (2, 2)


def test_a_lost_slice_breaks_a_lesion_in_two():
    truth = box(LONG)
    pred = truth.copy()
    pred[..., 4] = 0
    found = compute_continuity(pred, truth)
    assert found[:3] == (0.5, 2.0, pytest.approx(5 / 7))  # of 7 pairs of slices two are torn


@settings(max_examples=20, deadline=None)
@given(lost=st.sets(st.integers(2, 7), min_size=1, max_size=3))
def test_every_slice_that_is_lost_makes_it_worse_or_leaves_as_many_pieces(lost):
    truth = box(LONG, SHORT)
    pred = truth.copy()
    before = compute_continuity(pred, truth)
    for index in sorted(lost):
        pred[1:4, 2:5, index] = 0
        pieces = len([s for s in range(1, 9) if pred[1, 2, s] and not pred[1, 2, s - 1]])
        after = compute_continuity(pred, truth)
        assert after.components_per_lesion == pytest.approx((pieces + 1) / 2)
        assert after.unbroken == pytest.approx((1 / pieces + 1) / 2)
        assert after.slice_consistency < before.slice_consistency
        before = after


def test_taking_a_lesion_away_never_improves_the_score():
    truth, pred = box(LONG, SHORT), box(LONG, SHORT)
    pred[..., [2, 4, 6]] = 0
    broken = compute_continuity(pred, truth)
    pred[:5] = 0
    assert compute_continuity(pred, truth).unbroken < broken.unbroken < 1
    # the number of pieces does improve, which is why it is no score
    assert compute_continuity(pred, truth).components_per_lesion < broken.components_per_lesion


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [
        (box(), box(), (math.nan, math.nan, math.nan)),
        (box(), box(LONG), (0.0, math.nan, 0.0)),
        (box(SHORT), box(), (0.0, math.nan, 0.0)),
    ],
    ids=["both empty", "missed", "spurious"],
)
def test_empty_masks_have_the_documented_values(pred, truth, expected):
    assert compute_continuity(pred, truth)[:3] == pytest.approx(expected, nan_ok=True)


def test_spurious_components_are_no_pieces():
    found = compute_continuity(box(LONG, SHORT), box(LONG))
    assert (found.unbroken, found.components_per_lesion) == (1.0, 1.0)
    assert (found.components, found.lesions) == (2, 1)


def test_a_component_that_merges_two_lesions_is_unbroken():
    truth = box(((1, 3), (1, 3), (1, 4)), ((1, 3), (1, 3), (6, 9)))
    found = compute_continuity(box(((1, 3), (1, 3), (1, 9))), truth)
    assert (found.unbroken, found.components_per_lesion, found.components) == (1.0, 1.0, 1)


def test_a_lesion_of_one_slice_says_nothing_about_neighbours():
    truth = box(((1, 4), (1, 4), (5, 6)))
    assert compute_continuity(truth, truth)[:2] == (1.0, 1.0)
    assert math.isnan(compute_continuity(truth, truth).slice_consistency)


def test_a_prediction_smoother_than_the_truth_is_above_one():
    truth = box(((1, 3), (2, 4), (1, 2)), ((2, 4), (2, 4), (2, 3)))  # shifted by half of its width
    smooth = box(((1, 4), (2, 4), (1, 3)))
    assert compute_continuity(smooth, truth).slice_consistency == 2.0


def test_without_a_truth_the_prediction_is_described_alone():
    found = compute_continuity(box(LONG))
    assert found == pytest.approx(Continuity(*[math.nan] * 3, 7 / 9, 1, 0), nan_ok=True)
    assert math.isnan(compute_continuity(box()).slice_dice)


def test_the_slices_can_lie_across_any_axis():
    generator = np.random.default_rng(0)
    pred, truth = (generator.random(SHAPE) < 0.2 for _ in range(2))
    expected = compute_continuity(pred, truth)
    for axis in (0, 1):
        turned = (np.moveaxis(each, 2, axis) for each in (pred, truth))
        assert compute_continuity(*turned, slice_axis=axis) == pytest.approx(expected)


def test_many_specks_are_counted_one_by_one():
    truth = np.ones((9, 9, 9), np.uint8)
    specks = np.zeros_like(truth)
    specks[::2, ::2, ::2] = 1
    found = compute_continuity(specks, truth)
    assert found[:3] == (pytest.approx(1 / 125), 125.0, 0.0)


def test_permuting_the_classes_permutes_the_metric():
    generator = torch.Generator().manual_seed(0)
    pred, truth = (torch.rand(2, 3, *SHAPE, generator=generator) < 0.2 for _ in range(2))
    metric = ContinuityMetric(include_background=True)
    metric(pred, truth)
    metric.aggregate()
    expected = metric.per_class
    metric.reset()
    metric(pred[:, [2, 0, 1]], truth[:, [2, 0, 1]])
    metric.aggregate()
    assert torch.equal(metric.per_class, expected[[2, 0, 1]])


@pytest.mark.parametrize("measure", ["unbroken", "components_per_lesion", "slice_consistency"])
def test_the_metric_is_the_mean_of_the_chosen_number(measure):
    truth = box(LONG, SHORT)
    torn = truth.copy()
    torn[..., 4] = 0
    metric = ContinuityMetric(measure)
    metric(
        torch.from_numpy(np.stack([torn, truth, box()]))[:, None],
        torch.from_numpy(np.stack([truth] * 3))[:, None],
    )
    values = [getattr(compute_continuity(pred, truth), measure) for pred in (torn, truth, box())]
    assert metric.aggregate().item() == pytest.approx(np.nanmean(values))
    assert metric.missed_count == 1


def test_unlabelled_slices_do_not_count():
    truth, pred = box(LONG), box(LONG)
    truth[..., 7:], pred[..., 8] = 255, 0
    metric = ContinuityMetric()
    metric(torch.from_numpy(pred)[None, None], torch.from_numpy(truth)[None, None])
    assert metric.aggregate().item() == 1.0


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="continuity needs a 3D mask, got 2 axes"):
        compute_continuity(np.ones((3, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="pred and truth must have one shape"):
        compute_continuity(np.ones((3, 3, 3)), np.ones((3, 3, 4)))
    with pytest.raises(ValueError, match="pred must be a mask of 0 and 1"):
        compute_continuity(np.full((3, 3, 3), 0.5))
    with pytest.raises(ValueError, match="slice_axis must be 0, 1 or 2, got -1"):
        ContinuityMetric(slice_axis=-1)
    with pytest.raises(ValueError, match="measure must be one of"):
        ContinuityMetric("pieces")
