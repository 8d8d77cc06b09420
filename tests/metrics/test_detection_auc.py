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


def test_a_slice_that_nobody_labelled_is_left_out():
    soft, labels = volumes()
    unknown, fewer = labels.clone(), [0, 1, 3, 4, 5, 6, 8]
    unknown[..., [2, 7]] = 255
    whole, part = DetectionAUCMetric(), DetectionAUCMetric()
    whole(soft, unknown)
    part(soft[..., fewer], labels[..., fewer])
    assert whole.aggregate() == part.aggregate()
    full = DetectionAUCMetric()
    full(soft, labels)
    assert full.aggregate() != part.aggregate()


@pytest.mark.parametrize("as_truths", [False, True], ids=["class indices", "truths of slices"])
def test_unlabelled_slices_are_left_out_of_the_scores_of_a_head_too(as_truths):
    soft, labels = volumes()
    scores, fewer = soft.amax(dim=(2, 3))[:, 1:], [0, 1, 3, 4, 5, 6, 8]
    truth = labels
    if as_truths:
        truth = torch.stack([(labels[:, 0] == k).any(1).any(1) for k in (1, 2)], 1).long()
    unknown = truth.clone()
    unknown[..., [2, 7]] = 255
    whole, part = (DetectionAUCMetric(first_class=1) for _ in range(2))
    whole(scores, unknown)
    part(scores[..., fewer], truth[..., fewer])
    assert whole.aggregate() == part.aggregate()
    assert len(whole.per_class) == 2


def test_what_is_predicted_where_nobody_labelled_is_not_looked_at():
    soft, labels = torch.full((1, 1, 2, 2, 3), 0.1), torch.zeros(1, 1, 2, 2, 3)
    soft[..., 0, 0, 0] = labels[..., 0, 0, 0] = 0.5
    labels = labels.ceil()
    soft[..., 1, 1, 2], labels[..., 1, 1, 2] = 0.9, 255
    metric = DetectionAUCMetric()
    metric(soft, labels)
    assert metric.aggregate().item() == 1.0
    metric.reset()
    metric(soft > 0.2, labels)  # a mask is scored like probabilities
    assert metric.aggregate().item() == 1.0


def test_a_volume_without_any_label_is_left_out_and_one_labelled_in_part_is_judged_by_that():
    labels = torch.zeros(3, 1, 2, 2, 4)
    labels[0, ..., 1], labels[2], labels[1, ..., 3] = 1, 255, 255
    soft = torch.tensor([[0.1, 0.6, 0.1, 0.1], [0.1, 0.1, 0.1, 0.9], [0.9] * 4])[:, None]
    metric = DetectionAUCMetric("volume", first_class=1)
    metric(soft, labels)
    assert metric.aggregate().item() == 1.0


def test_the_channels_of_a_head_are_the_lesions_from_class_one_on():
    soft, labels = volumes()
    metrics = DetectionAUCMetric(), DetectionAUCMetric(first_class=1)
    metrics[0](soft, labels)
    metrics[1](soft.amax(dim=(2, 3))[:, 1:], labels)
    assert metrics[0].aggregate() == metrics[1].aggregate()
    assert torch.equal(metrics[0].per_class, metrics[1].per_class)


def test_the_details_are_the_scores_within_each_case():
    soft, labels = volumes()
    labels[1, :, :, :, :][labels[1] == 2] = 0
    metric, alone = DetectionAUCMetric(), DetectionAUCMetric()
    assert metric.get_buffer() is None
    metric(soft, labels)
    metric(soft[:1, ..., :4], labels[:1, ..., :4])
    details = metric.get_buffer()
    assert details.shape == (3, 2)
    for row, (s, y) in zip(
        details,
        [(soft[:1], labels[:1]), (soft[1:], labels[1:]), (soft[:1, ..., :4], labels[:1, ..., :4])],
        strict=True,
    ):
        alone.reset()
        alone(s, y)
        alone.aggregate()
        torch.testing.assert_close(row, alone.per_class, rtol=0, atol=0, equal_nan=True)
    assert math.isnan(details[1, 1])


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
    with pytest.raises(ValueError, match="first_class must be 0 or 1, got 2"):
        DetectionAUCMetric(first_class=2)
    with pytest.raises(ValueError, match="level must be one of"):
        DetectionAUCMetric("slices")
    with pytest.raises(ValueError, match="scored no case yet"):
        DetectionAUCMetric().aggregate()
