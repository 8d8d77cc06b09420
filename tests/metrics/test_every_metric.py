"""The contract of all metric classes: a mean of cases, in an ignite handler, and on several processes."""

from __future__ import annotations

import math
import os

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler, from_engine

import volseg.metrics
from volseg.metrics import (
    CalibrationErrorMetric,
    ClDiceMetric,
    ConfusionMetric,
    ContinuityMetric,
    DetectionAUCMetric,
    DiceMetric,
    FieldOfViewMetric,
    IoUMetric,
    LesionF1Metric,
    SurfaceDiceMetric,
    SurfaceDistanceMetric,
    VolumeDifferenceMetric,
)

SPACING = (0.5, 1.3, 2.7)
THRESHOLDS = [0.25, 0.5, 0.75]

# name: how to make the metric, does it score probabilities (or masks)?
METRICS = {
    "calibration": (CalibrationErrorMetric, True),
    "cl_dice": (ClDiceMetric, False),
    "confusion": (lambda: ConfusionMetric("f_beta", classes=2, beta=2.0), False),
    "continuity": (ContinuityMetric, False),
    "slice_consistency": (lambda: ContinuityMetric("slice_consistency"), False),
    "detection_auc": (DetectionAUCMetric, True),
    "detection_auc_volume": (lambda: DetectionAUCMetric("volume"), True),
    "dice": (DiceMetric, False),
    "dice_swept": (lambda: DiceMetric(thresholds=THRESHOLDS), True),
    "field_of_view": (FieldOfViewMetric, True),
    "iou": (IoUMetric, False),
    "lesion_f1": (LesionF1Metric, False),
    "surface_dice": (lambda: SurfaceDiceMetric(SPACING, tolerance_mm=1.5), False),
    "surface_dice_swept": (lambda: SurfaceDiceMetric(SPACING, thresholds=THRESHOLDS), True),
    "hd95": (lambda: SurfaceDistanceMetric("hd95", spacing_mm=SPACING), False),
    "assd": (lambda: SurfaceDistanceMetric("assd", spacing_mm=SPACING), False),
    "volume": (lambda: VolumeDifferenceMetric(spacing_mm=SPACING), False),
}
every_metric = pytest.mark.parametrize("name", METRICS)


def cases(name):
    """Four volumes (4, 1, 5, 7, 6): one with unlabelled voxels, one without truth and prediction."""
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(4, 1, 5, 7, 6, generator=generator)
    truth = (torch.rand(soft.shape, generator=generator) < soft**2).to(torch.uint8)
    truth[2], soft[2] = 0, 0.0
    truth[1, :, 0] = 255
    return soft if METRICS[name][1] else (soft >= 0.5).to(torch.uint8), truth


def aggregate_of(name, pred, truth):
    metric = METRICS[name][0]()
    metric(pred, truth)
    return metric.aggregate()


def test_every_class_of_the_room_is_held_to_the_contract():
    classes = {name for name in volseg.metrics.__all__ if name.endswith("Metric")} - {
        "StructureMetric",
        "OverlapMetric",
    }
    assert {type(make()).__name__ for make, _ in METRICS.values()} == classes


@every_metric
def test_a_batch_scores_what_its_cases_score_one_by_one(name):
    pred, truth = cases(name)
    metric = METRICS[name][0]()
    for case in range(len(pred)):
        metric(pred[case : case + 1], truth[case : case + 1])
    together = aggregate_of(name, pred, truth)
    assert math.isfinite(together)
    torch.testing.assert_close(metric.aggregate(), together, rtol=0, atol=1e-12)


@every_metric
def test_the_score_is_a_scalar_and_forgotten_after_a_reset(name):
    pred, truth = cases(name)
    metric = METRICS[name][0]()
    metric(pred[:2], truth[:2])
    assert metric.aggregate().ndim == 0
    metric.reset()
    with pytest.raises(ValueError, match="has scored no"):
        metric.aggregate()
    metric(pred[2:], truth[2:])
    expected = aggregate_of(name, pred[2:], truth[2:])
    torch.testing.assert_close(metric.aggregate(), expected, rtol=0, atol=0, equal_nan=True)


@every_metric
def test_an_ignite_handler_gives_the_score(name):
    pred, truth = cases(name)
    evaluator = Engine(lambda _, case: [{"pred": pred[case], "label": truth[case]}])
    handler = IgniteMetricHandler(
        metric_fn=METRICS[name][0](), output_transform=from_engine(["pred", "label"])
    )
    handler.attach(evaluator, name)
    evaluator.run(range(len(pred)))
    expected = aggregate_of(name, pred, truth).item()
    assert evaluator.state.metrics[name] == pytest.approx(expected, abs=1e-12)


@every_metric
def test_the_inputs_are_left_as_they_were(name):
    pred, truth = cases(name)
    before = pred.clone(), truth.clone()
    aggregate_of(name, pred, truth)
    assert torch.equal(pred, before[0])
    assert torch.equal(truth, before[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_metric
def test_a_gpu_gives_the_score_of_the_cpu(name):
    pred, truth = cases(name)
    on_gpu = aggregate_of(name, pred.cuda(), truth.cuda()).cpu()
    torch.testing.assert_close(on_gpu, aggregate_of(name, pred, truth), rtol=0, atol=1e-9)


def score_on_rank(rank, folder):
    os.environ["LOCAL_RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    results = {}
    for name, (make, _) in METRICS.items():
        pred, truth = cases(name)
        metric = make()
        for case in range(3)[rank::2]:  # two cases here, one there
            metric(pred[case : case + 1], truth[case : case + 1])
        results[name] = metric.aggregate().item()
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_unequal_shares_give_the_result_of_one(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    ranks = [context.Process(target=score_on_rank, args=(rank, tmp_path)) for rank in range(2)]
    [rank.start() for rank in ranks]
    [rank.join(120) for rank in ranks]
    expected = {name: aggregate_of(name, *(each[:3] for each in cases(name))).item() for name in METRICS}
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(expected, abs=1e-12)
