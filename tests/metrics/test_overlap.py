"""The sweep of overlap scores against a loop over thresholds, alone and on two ranks."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from volseg.metrics import (
    ConfusionMetric,
    DiceMetric,
    IoUMetric,
    compute_dice,
    compute_iou,
    compute_overlap_sweep,
)

PERCENTS = [percent / 100 for percent in range(1, 100)]
SCORES = {"dice": (DiceMetric, compute_dice), "iou": (IoUMetric, compute_iou)}
every_score = pytest.mark.parametrize("name", SCORES)


def images(dtype=torch.float32, seed=0):
    """Three frames: with a structure, without one, without any probability."""
    generator = torch.Generator().manual_seed(seed)
    soft = torch.rand(3, 1, 7, 11, generator=generator)
    truth = (torch.rand(3, 1, 7, 11, generator=generator) < 0.3).to(torch.uint8)
    truth[1:] = 0
    soft[2] = 0
    return soft.to(dtype), truth


@every_score
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("empty_value", [1.0, math.nan], ids=str)
def test_each_threshold_scores_as_its_own_mask(name, dtype, empty_value):
    metric_type, compute = SCORES[name]
    soft, truth = images(dtype)
    metric = metric_type(empty_value=empty_value, thresholds=PERCENTS)
    metric(soft, truth)
    metric.aggregate()
    expected = np.array(
        [
            [compute(s >= torch.tensor(t, dtype=dtype), y, empty_value=empty_value) for t in PERCENTS]
            for s, y in zip(soft, truth, strict=True)
        ]
    )
    np.testing.assert_allclose(metric.get_buffer()[:, 0], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(metric.curve, np.nanmean(expected, axis=0), rtol=0, atol=1e-12)


@every_score
def test_the_sweep_at_one_threshold_is_the_score_of_masks(name):
    soft, truth = images()
    swept, plain = SCORES[name][0](empty_value=1.0, thresholds=[0.4]), SCORES[name][0](empty_value=1.0)
    swept(soft, truth)
    plain((soft >= 0.4).float(), truth)
    assert swept.aggregate().item() == plain.aggregate().item()
    assert (swept.best_threshold, plain.best_threshold) == (0.4, None)
    for count in ("missed_count", "spurious_count", "undefined_count"):
        assert getattr(swept, count) == getattr(plain, count)
    assert swept.get_buffer().shape == (3, 1, 1)
    assert plain.get_buffer().shape == (3, 1)


def test_the_best_threshold_is_the_lowest_of_equals():
    metric = DiceMetric(thresholds=PERCENTS)
    metric(torch.tensor([[[[0.505, 0.195]]]]), torch.tensor([[[[1, 0]]]]))
    assert metric.aggregate().item() == 1.0
    assert metric.best_threshold == 0.2
    assert metric.per_class.tolist() == [1.0]


def test_frames_without_nerve_raise_the_threshold_until_they_are_empty():
    soft, truth = torch.tensor([[[[0.9, 0.6]]], [[[0.7, 0.0]]]]), torch.tensor([[[[1, 1]]], [[[0, 0]]]])
    metric = DiceMetric(empty_value=1.0, thresholds=[0.5, 0.65, 0.8, 0.95])
    metric(soft, truth)
    metric.aggregate()
    np.testing.assert_allclose(metric.curve, [0.5, 1 / 3, (2 / 3 + 1) / 2, 0.5])
    assert (metric.best_threshold, metric.missed_count, metric.spurious_count) == (0.8, 0, 0)


def test_classes_are_averaged_at_one_common_threshold():
    labels = torch.tensor([[[[0, 1, 2, 2]]]])
    soft = torch.tensor([[[[0.8, 0.1, 0.1, 0.2]], [[0.1, 0.6, 0.1, 0.0]], [[0.1, 0.3, 0.8, 0.8]]]])
    metric = IoUMetric(thresholds=[0.2, 0.5, 0.7])
    metric(soft, labels)
    metric.aggregate()
    np.testing.assert_allclose(metric.curve, [(1 + 2 / 3) / 2, 1.0, 0.5])
    assert metric.per_class.tolist() == [1.0, 1.0]


def test_pixels_that_nobody_labelled_cost_and_earn_nothing():
    soft, truth = images()
    truth[..., 8:] = 255
    whole, part = DiceMetric(thresholds=PERCENTS), DiceMetric(thresholds=PERCENTS)
    whole(soft, truth)
    part(soft[..., :8], truth[..., :8])
    whole.aggregate(), part.aggregate()
    torch.testing.assert_close(whole.curve, part.curve, rtol=0, atol=0, equal_nan=True)


def test_bytes_are_fractions_of_255():
    soft, truth = (torch.arange(256) % 256).to(torch.uint8), torch.arange(256) > 100
    counts = compute_overlap_sweep(soft, truth, thresholds=PERCENTS)
    assert counts.pred.tolist() == [int((np.arange(256) / 255 >= t).sum()) for t in PERCENTS]


def test_decollated_meta_tensors_are_scored():
    soft, truth = images()
    metric = DiceMetric(empty_value=1.0, thresholds=PERCENTS)
    metric([MetaTensor(each) for each in soft], [MetaTensor(each) for each in truth])
    plain = DiceMetric(empty_value=1.0, thresholds=PERCENTS)
    plain(soft, truth)
    assert metric.aggregate().item() == plain.aggregate().item()
    assert metric.get_buffer().shape == (3, 1, 99)


def test_a_new_validation_forgets_the_last():
    metric = DiceMetric(thresholds=[0.5])
    metric(*images())
    metric.aggregate()
    metric.reset()
    assert (metric.best_threshold, metric.curve, metric.per_class) == (None, None, None)
    assert metric.get_buffer() is None
    with pytest.raises(ValueError, match="DiceMetric has scored no case yet"):
        metric.aggregate()


def test_nothing_but_undefined_scores_is_nan():
    metric = DiceMetric(thresholds=[0.5])
    metric(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4))
    assert math.isnan(metric.aggregate().item())
    assert metric.undefined_count == 1


@pytest.mark.parametrize("wrong", [math.nan, 3.0, -2.0], ids=str)
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\].*look for NaN"):
        compute_overlap_sweep([0.5, wrong], [0, 1], thresholds=[0.5])


def test_other_arguments_without_a_meaning_are_refused():
    with pytest.raises(ValueError, match=r"probability and truth must have one shape, got \(2,\) and \(3,\)"):
        compute_overlap_sweep([0.5, 0.1], [0, 1, 1], thresholds=[0.5])
    with pytest.raises(ValueError, match=r"floating-point or uint8, got torch\.int64"):
        compute_overlap_sweep([1, 0], [0, 1], thresholds=[0.5])
    with pytest.raises(ValueError, match="truth must be a mask of 0 and 1"):
        compute_overlap_sweep([0.5], [0.5], thresholds=[0.5])


@pytest.mark.parametrize("thresholds", [[], [0.5, 0.5], [0.5, 0.4], [0.0, 0.5], [0.5, 1.5]], ids=str)
def test_thresholds_out_of_order_are_refused(thresholds):
    with pytest.raises(ValueError, match="thresholds must be 1 to 255 rising numbers"):
        DiceMetric(thresholds=thresholds)


def labels_of(soft):
    return torch.cat([1 - soft, soft], dim=1)


def score_on_rank(rank, folder):
    os.environ["LOCAL_RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    metrics = DiceMetric(empty_value=1.0, thresholds=PERCENTS), ConfusionMetric(classes=2)
    for seed in range(3)[rank::2]:
        soft, truth = images(seed=seed)
        metrics[0](soft, truth)
        metrics[1](labels_of(soft), truth)
    results = [metric.aggregate() for metric in metrics], metrics[0].best_threshold
    torch.save((*results, [metric.get_buffer() for metric in metrics]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_the_result_of_one(tmp_path):
    metrics = DiceMetric(empty_value=1.0, thresholds=PERCENTS), ConfusionMetric(classes=2)
    for seed in (0, 2, 1):  # the order in which the ranks hand them over
        soft, truth = images(seed=seed)
        metrics[0](soft, truth)
        metrics[1](labels_of(soft), truth)
    context = torch.multiprocessing.get_context("fork")
    ranks = [context.Process(target=score_on_rank, args=(rank, tmp_path)) for rank in range(2)]
    [rank.start() for rank in ranks]
    [rank.join(60) for rank in ranks]
    expected = [metric.aggregate() for metric in metrics]
    for rank in range(2):
        means, best, details = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(means, expected, rtol=0, atol=1e-12)
        assert best == metrics[0].best_threshold
        torch.testing.assert_close(details, [metric.get_buffer() for metric in metrics], rtol=0, atol=0)
