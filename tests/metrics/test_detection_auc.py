from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from volseg.metrics.detection_auc import DetectionAUCMetric, compute_detection_auc


def volumes():
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(2, 3, 4, 5, 9, generator=generator)
    labels = torch.randint(0, 60, (2, 1, 4, 5, 9), generator=generator)
    return soft, torch.where(labels < 3, labels, 0)


def test_slices_of_all_cases_are_pooled():
    soft, labels = volumes()
    metric = DetectionAUCMetric()
    for case in (0, 1):
        metric(soft[case : case + 1], labels[case : case + 1])
    scores, present = (
        soft.amax(dim=(2, 3)),
        torch.stack([(labels[:, 0] == k).any(1).any(1) for k in (0, 1, 2)], 1),
    )
    expected = [roc_auc_score(present[:, k].flatten(), scores[:, k].flatten()) for k in (1, 2)]
    assert metric.aggregate().item() == pytest.approx(sum(expected) / 2)
    assert metric.per_class.tolist() == pytest.approx(expected)


def test_scores_of_a_detection_head_are_taken_as_they_are():
    soft, labels = volumes()
    present = torch.stack([(labels[:, 0] == k).any(1).any(1) for k in (0, 1, 2)], 1)
    metrics = DetectionAUCMetric(), DetectionAUCMetric()
    metrics[0](soft, labels)
    metrics[1](soft.amax(dim=(2, 3)), present)
    assert metrics[0].aggregate() == metrics[1].aggregate()


def test_volumes_are_judged_as_wholes():
    soft = torch.tensor([[[0.2, 0.9]], [[0.3, 0.1]]])
    metric = DetectionAUCMetric("volume")
    metric(soft, torch.tensor([[[0, 1]], [[0, 0]]]))
    assert metric.aggregate().item() == 1.0


def test_one_channel_is_judged_by_the_mask_of_its_lesion():
    soft, labels = torch.zeros(1, 1, 3, 4, 5), torch.zeros(1, 1, 3, 4, 5)
    labels[..., 1, 3], labels[..., 0, 2] = 1, 255
    soft[..., 1, 3], soft[..., 2, 4] = 0.9, 0.4
    metric = DetectionAUCMetric()
    metric(soft, labels)
    assert metric.aggregate().item() == 1.0
    metric.reset()
    metric(1 - soft, labels)
    assert metric.aggregate().item() == 0.5  # ties: each slice has a voxel of 1


def test_a_class_that_every_slice_lacks_is_counted():
    metric = DetectionAUCMetric()
    metric(torch.rand(1, 2, 3, 3, 4), torch.zeros(1, 1, 3, 3, 4))
    assert math.isnan(metric.aggregate().item())
    assert metric.undefined_count == 1


def test_guessing_scores_one_half():
    assert compute_detection_auc([0.3, 0.3, 0.3], [1, 0, 1]) == 0.5


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="scores must be numbers, got NaN"):
        compute_detection_auc([math.nan, 0.5], [0, 1])
    with pytest.raises(ValueError, match="must have one length"):
        compute_detection_auc([0.5], [0, 1])
    with pytest.raises(ValueError, match="y have the same slices"):
        DetectionAUCMetric()(torch.zeros(1, 2, 3, 4), torch.zeros(1, 1, 3, 5))
    with pytest.raises(ValueError, match="y must hold class indices or 3 truths"):
        DetectionAUCMetric()(torch.zeros(1, 3, 4), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="level must be one of"):
        DetectionAUCMetric("slices")
    with pytest.raises(ValueError, match="scored no case yet"):
        DetectionAUCMetric().aggregate()
