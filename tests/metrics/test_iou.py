from __future__ import annotations

import pytest
import torch
from monai.metrics import compute_iou as monai_iou

from volseg.metrics.dice import compute_dice
from volseg.metrics.iou import IoUMetric, compute_iou


def pair():
    return torch.rand(2, 1, 1, 7, 9, generator=torch.Generator().manual_seed(0)) < 0.4


def test_random_masks_score_as_monai():
    theirs = monai_iou(*pair().float(), include_background=True)
    assert compute_iou(*pair()) == pytest.approx(theirs.item(), abs=1e-6)  # MONAI: single precision


def test_iou_and_dice_tell_the_same():
    dice = compute_dice(*pair())
    assert compute_iou(*pair()) == pytest.approx(dice / (2 - dice))


def test_the_metric_is_the_mean_over_images():
    metric = IoUMetric()
    metric(torch.tensor([[[[1, 1]]], [[[1, 0]]]]), torch.tensor([[[[1, 1]]], [[[1, 1]]]]))
    assert metric.aggregate().item() == 0.75
