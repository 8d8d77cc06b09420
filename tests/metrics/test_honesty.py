"""Laws that every score obeys: nothing is gained by predicting less, or more than there is.

Where a published score cannot obey one, a test shows the exception, and the score's docstring tells it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.metrics import (
    ClDiceMetric,
    ContinuityMetric,
    DiceMetric,
    IoUMetric,
    LesionF1Metric,
    SurfaceDiceMetric,
    SurfaceDistanceMetric,
    VolumeDifferenceMetric,
    compute_calibration_error,
    compute_cl_dice,
    compute_confusion_matrix,
    compute_confusion_measure,
    compute_continuity,
    compute_detection_auc,
    compute_dice,
    compute_field_of_view_scores,
    compute_iou,
    compute_lesion_counts,
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
    "continuity": (lambda p, t: compute_continuity(p, t).unbroken, 1.0, 0.0, 1),
    "lesion_f1": (compute_lesion_f1, 1.0, 0.0, 1),
    "precision": (pooled("precision"), 1.0, 0.0, 1),
    "recall": (pooled("recall"), 1.0, 0.0, 1),
    "f_beta": (pooled("f_beta"), 1.0, 0.0, 1),
    "mean_iou": (pooled("mean_iou"), 1.0, None, 1),
    "accuracy": (pooled("accuracy"), 1.0, None, 1),
}
DISTANCES = ("hd95", "assd")
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


@pytest.mark.parametrize("name", sorted(SCORES.keys() - DISTANCES))
@settings(max_examples=8, deadline=None)
@given(spans=separate_boxes())
def test_adding_a_false_component_to_half_a_prediction_never_improves(name, spans):
    score, _, _, sign = SCORES[name]
    truth, half = boxes(*spans[:2]), boxes(spans[0])
    assert sign * score(boxes(spans[0], spans[2]), truth) <= sign * score(half, truth) + 1e-9


@pytest.mark.parametrize("name", DISTANCES)
def test_a_false_component_beside_a_missed_structure_shortens_the_way_to_it(name):
    found, missed, beside = ((3, 6), (3, 6), (0, 2)), ((3, 6), (3, 6), (11, 13)), ((3, 6), (3, 6), (7, 9))
    score, truth = SCORES[name][0], boxes(found, missed)
    assert score(boxes(found, beside), truth) < score(boxes(found), truth)
    counts = (compute_lesion_counts(pred, truth) for pred in (boxes(found), boxes(found, beside)))
    assert [each.spurious for each in counts] == [0, 1]


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


def in_view(field):
    return lambda p, t: getattr(compute_field_of_view_scores(p, t, np.ones(SHAPE)), field)


def of_slices(p, t):
    return compute_detection_auc(p.max(axis=(0, 1)), t.max(axis=(0, 1)))


# name: score of probabilities, perfect value, value of a missed structure, larger is better
SOFT_SCORES = {
    "auc": (in_view("auc"), 1.0, 0.5, 1),
    "accuracy_in_view": (in_view("accuracy"), 1.0, 1 - 27 / math.prod(SHAPE), 1),
    "sensitivity": (in_view("sensitivity"), 1.0, 0.0, 1),
    "specificity": (in_view("specificity"), 1.0, 1.0, 1),  # blind to what is missed
    "detection_auc": (of_slices, 1.0, 0.5, 1),
    "calibration_error": (compute_calibration_error, 0.0, 27 / math.prod(SHAPE), -1),
}
every_soft_score = pytest.mark.parametrize("name", SOFT_SCORES)
every_ranked_score = pytest.mark.parametrize("name", sorted(SOFT_SCORES.keys() - {"calibration_error"}))


def unsure(mask, seed):
    """Probabilities that mostly agree with a mask."""
    noise = np.random.default_rng(seed).random(SHAPE)
    return np.clip(0.2 + 0.4 * mask + 0.6 * (noise - 0.5), 0.0, 1.0)


@every_soft_score
@settings(max_examples=8, deadline=None)
@given(spans=separate_boxes())
def test_a_sure_and_right_probability_is_perfect(name, spans):
    score, perfect, _, _ = SOFT_SCORES[name]
    truth = boxes(*spans[:2])
    assert score(truth.astype(float), truth) == perfect


@every_ranked_score
@settings(max_examples=8, deadline=None)
@given(spans=separate_boxes(), seed=st.integers(0, 99))
def test_silencing_a_right_structure_never_improves(name, spans, seed):
    score, _, _, sign = SOFT_SCORES[name]
    truth = boxes(*spans[:2])
    soft = unsure(truth, seed)
    assert sign * score(np.where(boxes(spans[0]), 0.0, soft), truth) <= sign * score(soft, truth) + 1e-9


@every_ranked_score
@settings(max_examples=8, deadline=None)
@given(spans=separate_boxes(), seed=st.integers(0, 99))
def test_raising_a_false_structure_never_improves(name, spans, seed):
    score, _, _, sign = SOFT_SCORES[name]
    truth = boxes(*spans[:2])
    soft = unsure(truth, seed)
    assert sign * score(np.where(boxes(spans[2]), 1.0, soft), truth) <= sign * score(soft, truth) + 1e-9


def test_silence_can_be_better_calibrated_than_a_right_guess():
    truth = boxes(((1, 4), (2, 5), (3, 6)))
    hesitant = np.where(truth, 0.6, 0.3)
    assert compute_calibration_error(np.zeros(SHAPE), truth) < compute_calibration_error(hesitant, truth)


@every_soft_score
def test_a_structure_that_gets_no_probability_has_the_documented_value(name):
    score, _, worst, _ = SOFT_SCORES[name]
    assert score(np.zeros(SHAPE), boxes(((1, 4), (2, 5), (3, 6)))) == pytest.approx(worst)


@every_soft_score
def test_a_structure_everywhere_where_none_is_is_never_perfect(name):
    score, perfect, _, _ = SOFT_SCORES[name]
    assert score(np.ones(SHAPE), boxes()) != perfect


@every_soft_score
def test_two_empty_volumes_are_undefined_or_perfect(name):
    score, perfect, _, _ = SOFT_SCORES[name]
    value = score(np.zeros(SHAPE), boxes())
    undefined = name in ("auc", "sensitivity", "detection_auc")
    assert math.isnan(value) if undefined else value == perfect


@every_soft_score
def test_a_probability_that_is_nan_is_refused(name):
    soft = np.full(SHAPE, 0.5)
    soft[8, 0, 12] = np.nan
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\]|scores must be numbers, got NaN"):
        SOFT_SCORES[name][0](soft, boxes(((0, 1), (0, 1), (0, 1))))


@every_soft_score
def test_one_sure_voxel_at_the_border_is_perfect(name):
    score, perfect, _, _ = SOFT_SCORES[name]
    voxel = boxes(((8, 9), (0, 1), (12, 13)))
    assert score(voxel.astype(float), voxel) == perfect


METRICS = {
    "dice": DiceMetric(),
    "iou": IoUMetric(),
    "surface_dice": SurfaceDiceMetric(SPACING),
    "dice_swept": DiceMetric(thresholds=[0.25, 0.5]),
    "surface_dice_swept": SurfaceDiceMetric(SPACING, thresholds=[0.25, 0.5]),
    "hd95": SurfaceDistanceMetric("hd95", spacing_mm=SPACING),
    "assd": SurfaceDistanceMetric("assd", spacing_mm=SPACING),
    "cl_dice": ClDiceMetric(),
    "continuity": ContinuityMetric(),
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
    metric(batch[0].float() if name.endswith("swept") else batch[0], truth)
    score = metric.aggregate().item()
    counts = metric.missed_count, metric.spurious_count, metric.undefined_count
    expected = dict.fromkeys(DISTANCES, 2 * DIAGONAL / 3) | {"volume": 2 * 27 * math.prod(SPACING) / 4}
    assert score == pytest.approx(expected.get(name, 1 / 3))
    assert counts == (1, 1, 0 if name == "volume" else 1)


def test_a_class_that_no_case_has_is_counted_and_left_out():
    structure = torch.from_numpy(boxes(((1, 4), (2, 5), (3, 6))))
    one_hot = torch.stack([1 - structure, structure, torch.zeros_like(structure)])[None]
    for metric in (
        DiceMetric(),
        IoUMetric(),
        SurfaceDiceMetric(SPACING),
        SurfaceDistanceMetric(spacing_mm=SPACING),
    ):
        metric(one_hot, structure[None, None])
        assert metric.aggregate().item() == (0.0 if isinstance(metric, SurfaceDistanceMetric) else 1.0)
        assert metric.undefined_count == 1


def test_a_volume_difference_does_not_see_places():
    pred, truth = boxes(((5, 8), (6, 9), (9, 12))), boxes(((1, 4), (2, 5), (3, 6)))
    assert compute_volume_difference(pred, truth, spacing_mm=SPACING) == 0.0
