"""Laws that every score of a mask obeys: nothing is gained by predicting less, or more than there is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.metrics import (
    ClDiceMetric,
    DiceMetric,
    IoUMetric,
    LesionF1Metric,
    SurfaceDiceMetric,
    SurfaceDistanceMetric,
    VolumeDifferenceMetric,
    compute_cl_dice,
    compute_confusion_matrix,
    compute_confusion_measure,
    compute_dice,
    compute_iou,
    compute_lesion_f1,
    compute_surface_dice,
    compute_surface_distance,
    compute_volume_difference,
)

SPACING = (0.5, 1.3, 2.7)
SHAPE = (9, 11, 13)
DIAGONAL = math.hypot(*np.multiply(SHAPE, SPACING))


def pooled(measure):
    return lambda p, t: compute_confusion_measure(compute_confusion_matrix(p, t, classes=2), measure)


# name: score, perfect value, value of a missed structure (None: depends on its size), larger is better
SCORES = {
    "dice": (compute_dice, 1.0, 0.0, 1),
    "iou": (compute_iou, 1.0, 0.0, 1),
    "surface_dice": (lambda p, t: compute_surface_dice(p, t, spacing_mm=SPACING), 1.0, 0.0, 1),
    "surface_dice_2mm": (
        lambda p, t: compute_surface_dice(p, t, spacing_mm=SPACING, tolerance_mm=2.0),
        1.0,
        0.0,
        1,
    ),
    "hd95": (lambda p, t: compute_surface_distance(p, t, spacing_mm=SPACING), 0.0, DIAGONAL, -1),
    "assd": (
        lambda p, t: compute_surface_distance(p, t, spacing_mm=SPACING, distance="assd"),
        0.0,
        DIAGONAL,
        -1,
    ),
    "cl_dice": (compute_cl_dice, 1.0, 0.0, 1),
    "lesion_f1": (compute_lesion_f1, 1.0, 0.0, 1),
    "precision": (pooled("precision"), 1.0, 0.0, 1),
    "recall": (pooled("recall"), 1.0, 0.0, 1),
    "f_beta": (pooled("f_beta"), 1.0, 0.0, 1),
    "mean_iou": (pooled("mean_iou"), 1.0, None, 1),
    "accuracy": (pooled("accuracy"), 1.0, None, 1),
}
every_score = pytest.mark.parametrize("name", SCORES)


def boxes(*spans):
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for span in spans:
        mask[tuple(slice(*pair) for pair in span)] = 1
    return mask


# three structures that do not touch: two of the truth, one that is false, each in its own third along z
corner = st.integers(0, 5)
edge = st.integers(1, 4)


@st.composite
def separate_boxes(draw):
    spans = []
    for third in range(3):
        x, y, z = draw(corner), draw(corner), draw(st.integers(0, 1)) + 5 * third
        spans.append(((x, x + draw(edge)), (y, y + draw(edge)), (z, z + draw(st.integers(1, 2)))))
    return spans


@every_score
@settings(max_examples=8, deadline=None)
@given(spans=separate_boxes())
def test_a_perfect_prediction_is_perfect(name, spans):
    score, perfect, _, _ = SCORES[name]
    truth = boxes(*spans[:2])
    assert score(truth, truth) == perfect


@every_score
@settings(max_examples=8, deadline=None)
@given(spans=separate_boxes())
def test_deleting_a_right_prediction_never_improves(name, spans):
    score, _, _, sign = SCORES[name]
    truth = boxes(*spans[:2])
    for pred in (truth, boxes(*spans)):
        assert sign * score(np.where(boxes(spans[0]), 0, pred), truth) <= sign * score(pred, truth) + 1e-9


@every_score
@settings(max_examples=8, deadline=None)
@given(spans=separate_boxes())
def test_adding_a_false_component_never_improves(name, spans):
    score, _, _, sign = SCORES[name]
    truth = boxes(*spans[:2])
    assert sign * score(boxes(*spans), truth) <= sign * score(truth, truth)


@every_score
def test_a_missed_structure_is_the_worst(name):
    score, _, worst, sign = SCORES[name]
    truth, nothing = boxes(((1, 4), (2, 5), (3, 6))), boxes()
    elsewhere = boxes(((5, 8), (6, 9), (9, 12)))
    if worst is not None:
        assert score(nothing, truth) == pytest.approx(worst)
        assert sign * score(nothing, truth) <= sign * score(elsewhere, truth)
    assert sign * score(nothing, truth) < sign * score(truth, truth)


@every_score
def test_a_spurious_structure_is_no_better_than_a_missed_one(name):
    score, _, worst, _ = SCORES[name]
    spurious = score(boxes(((1, 4), (2, 5), (3, 6))), boxes())
    assert math.isnan(spurious) if name == "recall" else worst is None or spurious == pytest.approx(worst)


@every_score
def test_two_empty_masks_are_undefined(name):
    score, perfect, _, _ = SCORES[name]
    value = score(boxes(), boxes())
    assert value == perfect if name in ("accuracy", "mean_iou") else math.isnan(value)


@every_score
def test_one_voxel_in_the_corner_is_a_structure(name):
    score, perfect, _, _ = SCORES[name]
    voxel = boxes(((0, 1), (0, 1), (0, 1)))
    assert score(voxel, voxel) == perfect


@every_score
def test_nan_is_refused(name):
    score, _, _, _ = SCORES[name]
    pred = boxes().astype(np.float32)
    pred[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"must (be a mask|hold class indices)"):
        score(pred, boxes())


METRICS = {
    "dice": DiceMetric(),
    "iou": IoUMetric(),
    "surface_dice": SurfaceDiceMetric(SPACING),
    "hd95": SurfaceDistanceMetric("hd95", spacing_mm=SPACING),
    "cl_dice": ClDiceMetric(),
    "lesion_f1": LesionF1Metric(),
    "volume": VolumeDifferenceMetric(spacing_mm=SPACING),
}


@pytest.mark.parametrize("name", METRICS)
def test_no_case_is_dropped_silently(name):
    full, nothing = boxes(((1, 4), (2, 5), (3, 6))), boxes()
    batch = [torch.from_numpy(np.stack(masks))[:, None] for masks in ((full, nothing, full, nothing),) * 2]
    truth = torch.from_numpy(np.stack((full, full, nothing, nothing)))[:, None]
    metric = METRICS[name]
    metric.reset()
    metric(batch[0], truth)
    score = metric.aggregate().item()
    counts = metric.missed_count, metric.spurious_count, metric.undefined_count
    expected = {"hd95": 2 * DIAGONAL / 3, "volume": 2 * 27 * math.prod(SPACING) / 4}
    assert score == pytest.approx(expected.get(name, 1 / 3))
    assert counts == (1, 1, 0 if name == "volume" else 1)


def test_a_volume_difference_does_not_see_places():
    pred, truth = boxes(((5, 8), (6, 9), (9, 12))), boxes(((1, 4), (2, 5), (3, 6)))
    assert compute_volume_difference(pred, truth, spacing_mm=SPACING) == 0.0
