from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from volseg.metrics.field_of_view import FieldOfViewMetric, compute_field_of_view_scores

rng = np.random.default_rng(0)
SOFT, TRUTH, INSIDE = rng.random((9, 11)), rng.random((9, 11)) < 0.3, rng.random((9, 11)) < 0.7


def test_scores_are_those_of_scikit_learn_inside():
    soft, truth = SOFT[INSIDE], TRUTH[INSIDE]
    expected = (
        roc_auc_score(truth, soft),
        accuracy_score(truth, soft >= 0.4),
        recall_score(truth, soft >= 0.4),
        recall_score(~truth, soft < 0.4),
    )
    scores = compute_field_of_view_scores(SOFT, TRUTH, INSIDE, threshold=0.4)
    assert scores == pytest.approx(expected, abs=1e-6)  # the AUC ranks in single precision


def test_pixels_outside_do_not_matter():
    noise = np.where(INSIDE, SOFT, np.nan)
    expected = compute_field_of_view_scores(SOFT, TRUTH, INSIDE)
    assert compute_field_of_view_scores(noise, TRUTH ^ ~INSIDE, INSIDE) == expected


def test_no_vessel_leaves_auc_and_sensitivity_undefined():
    scores = compute_field_of_view_scores([0.1, 0.2], [0, 0], [1, 1])
    assert math.isnan(scores.auc)
    assert math.isnan(scores.sensitivity)
    assert (scores.accuracy, scores.specificity) == (1.0, 1.0)


def test_the_metric_reads_the_field_of_view_off_the_label():
    labels = torch.from_numpy(np.where(INSIDE, TRUTH, 255))[None, None]
    soft = torch.from_numpy(SOFT)[None, None]
    metric = FieldOfViewMetric("auc")
    metric(torch.cat([soft, soft]), torch.cat([labels, torch.where(labels == 1, 0, labels)]))
    expected = compute_field_of_view_scores(SOFT, TRUTH, INSIDE).auc
    assert metric.aggregate().item() == pytest.approx(expected)
    assert metric.undefined_count == 1
    assert metric.get_buffer()[0].tolist() == pytest.approx([expected])
    assert metric.get_buffer().shape == (2, 1)


def test_missed_and_spurious_images_are_counted():
    vessel, nothing = torch.tensor([[0, 1, 1, 255]]), torch.tensor([[0, 0, 0, 255]])
    sure, silent = torch.tensor([[0.1, 0.9, 0.8, 0.9]]), torch.tensor([[0.1, 0.2, 0.3, 0.9]])
    metric = FieldOfViewMetric("sensitivity")
    pairs = [(sure, vessel), (silent, vessel), (sure, nothing), (silent, nothing)]
    metric(*(torch.stack(each)[:, None] for each in zip(*pairs, strict=True)))
    assert metric.aggregate().item() == 0.5
    assert (metric.missed_count, metric.spurious_count, metric.undefined_count) == (1, 1, 2)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        compute_field_of_view_scores([0.5], [0, 1], [1, 1])
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\]"):
        compute_field_of_view_scores([math.nan], [0], [1])
    with pytest.raises(ValueError, match="score must be one of auc"):
        FieldOfViewMetric("acu")
    with pytest.raises(ValueError, match="scored no image yet"):
        FieldOfViewMetric().aggregate()
