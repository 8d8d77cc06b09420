from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from volseg.metrics.confusion import ConfusionMetric, compute_confusion_matrix, compute_confusion_measure

rng = np.random.default_rng(0)
PRED, TRUTH = rng.integers(0, 2, 97), rng.integers(0, 2, 97)


def test_the_matrix_is_that_of_scikit_learn():
    pred, truth = rng.integers(0, 4, (2, 7, 9))
    expected = sklearn.confusion_matrix(truth.ravel(), pred.ravel())
    assert compute_confusion_matrix(pred, truth, classes=4).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("accuracy", sklearn.accuracy_score(TRUTH, PRED)),
        ("precision", sklearn.precision_score(TRUTH, PRED)),
        ("recall", sklearn.recall_score(TRUTH, PRED)),
        ("specificity", sklearn.recall_score(TRUTH, PRED, pos_label=0)),
        ("f_beta", sklearn.fbeta_score(TRUTH, PRED, beta=2)),
        ("mean_iou", sklearn.jaccard_score(TRUTH, PRED, average="macro")),
        ("mean_dice", sklearn.f1_score(TRUTH, PRED)),
    ],
)
def test_binary_measures_are_those_of_scikit_learn(measure, expected):
    matrix = compute_confusion_matrix(PRED, TRUTH, classes=2)
    assert compute_confusion_measure(matrix, measure, beta=2.0) == pytest.approx(expected)


def test_the_mean_dice_is_that_of_the_foreground_classes():
    pred, truth = rng.integers(0, 4, (2, 97))
    expected = sklearn.f1_score(truth, pred, labels=[1, 2, 3], average="macro")
    matrix = compute_confusion_matrix(pred, truth, classes=4)
    assert compute_confusion_measure(matrix, "mean_dice") == pytest.approx(expected)


def test_a_class_that_occurs_nowhere_is_left_out():
    assert compute_confusion_measure(np.diag([3, 0, 2]), "mean_iou") == 1.0


def test_a_missed_class_scores_zero():
    assert compute_confusion_measure([[3, 0], [2, 0]], "precision") == 0.0
    assert compute_confusion_measure([[3, 0], [2, 0]], "f_beta") == 0.0


def test_nothing_at_all_is_undefined():
    for measure in ("accuracy", "mean_iou", "precision", "recall", "specificity", "f_beta"):
        assert math.isnan(compute_confusion_measure(np.zeros((2, 2)), measure))


def test_the_metric_pools_voxels_and_leaves_out_unlabelled_ones():
    metric = ConfusionMetric("mean_iou", classes=2)
    logits = torch.tensor([[[[2.0, 1.0, 0.0]], [[1.0, 2.0, 3.0]]]])
    metric(logits, torch.tensor([[[[0, 1, 255]]]]))
    metric(torch.tensor([[[[1, 1, 1]]]]), torch.tensor([[[[0, 1, 1]]]]))
    expected = compute_confusion_measure([[1, 1], [0, 3]], "mean_iou")
    assert metric.aggregate().item() == pytest.approx(expected)


def test_the_most_probable_class_wins_without_any_threshold():
    generator = torch.Generator().manual_seed(0)
    softmax = torch.rand(2, 3, 7, 9, generator=generator).softmax(dim=1)
    labels = torch.randint(0, 3, (2, 1, 7, 9), generator=generator)
    metric, decided = ConfusionMetric(classes=3), ConfusionMetric(classes=3)
    metric(softmax, labels)
    decided(softmax.argmax(dim=1, keepdim=True), labels)
    assert metric.aggregate() == decided.aggregate()
    expected = sklearn.jaccard_score(labels.ravel(), softmax.argmax(dim=1).ravel(), average=None)
    assert metric.per_class.tolist() == pytest.approx(expected)
    assert not hasattr(metric, "best_threshold")


def test_the_score_of_each_case_stands_beside_the_pooled_one():
    metric = ConfusionMetric("accuracy", classes=2)
    assert metric.get_buffer() is None
    metric(torch.tensor([[[[1, 1, 0]]], [[[1, 1, 1]]]]), torch.tensor([[[[1, 1, 255]]], [[[0, 0, 1]]]]))
    assert metric.get_buffer().tolist() == [[1.0], [pytest.approx(1 / 3)]]
    assert metric.aggregate().item() == pytest.approx(3 / 5)
    metric.reset()
    assert metric.per_class is None


def test_predictions_of_other_classes_or_nan_are_refused():
    with pytest.raises(ValueError, match="y_pred must have 3 channels, or 1 of class indices, got 2"):
        ConfusionMetric(classes=3)(torch.zeros(1, 2, 3, 4), torch.zeros(1, 1, 3, 4))
    with pytest.raises(ValueError, match="y_pred holds NaN"):
        ConfusionMetric(classes=2)(torch.full((1, 2, 3, 4), math.nan), torch.zeros(1, 1, 3, 4))


def test_what_is_no_class_index_is_refused():
    with pytest.raises(ValueError, match="truth must hold class indices below 2"):
        compute_confusion_matrix([0, 1], [0, 7], classes=2)
    with pytest.raises(ValueError, match="pred must hold class indices below 2"):
        compute_confusion_matrix([0.0, math.nan], [0, 1], classes=2)


def test_two_shapes_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        compute_confusion_matrix([0, 1], [0], classes=2)


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="did you mean 'recall'"):
        ConfusionMetric("recal")


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="scored no case yet"):
        ConfusionMetric().aggregate()
