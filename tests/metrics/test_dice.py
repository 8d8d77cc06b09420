from __future__ import annotations

import math

import pytest
import torch
from monai.metrics import compute_dice as monai_dice

from volseg.metrics.dice import DiceMetric, compute_dice


def test_random_masks_score_as_monai():
    masks = torch.rand(2, 1, 1, 7, 9, generator=torch.Generator().manual_seed(0)) < 0.4
    theirs = monai_dice(masks[0].float(), masks[1].float(), include_background=True)
    assert compute_dice(masks[0], masks[1]) == pytest.approx(
        theirs.item(), abs=1e-6
    )  # MONAI: single precision


def test_a_false_alarm_costs_unless_the_protocol_says_otherwise():
    assert compute_dice([1, 0], [0, 0]) == 0.0
    assert math.isnan(compute_dice([1, 0], [0, 0], spurious_value=math.nan))


def test_two_empty_masks_score_the_stated_value():
    assert compute_dice([0, 0], [0, 0], empty_value=1.0) == 1.0


def test_the_metric_scores_each_class_apart():
    labels = torch.tensor([[[[0, 1, 2, 2]]]])
    pred = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 2]]]), 3).movedim(-1, 1)
    metric = DiceMetric()
    metric(pred, labels)
    metric.aggregate()
    assert metric.per_class.tolist() == pytest.approx([2 / 3, 2 / 3])
