from __future__ import annotations

import math
import os
import tracemalloc
import warnings

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.metrics import compute_surface_dice as monai_surface_dice

from volseg.metrics.surface_dice import SurfaceDiceMetric, compute_surface_dice

SPACING = (0.5, 1.3, 2.7)


def reference(pred, truth, spacing_mm, tolerance_mm):
    with warnings.catch_warnings():  # the package imports scipy's old names
        warnings.simplefilter("ignore", DeprecationWarning)
        distances = surface_distance.compute_surface_distances(truth, pred, spacing_mm)
    return surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm)


def random_pair(seed, shape=(7, 11, 9)):
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.4
    return truth ^ (rng.random(shape) < 0.1), truth


def cube(start, edge=3, shape=(8, 9, 7)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(s, s + edge) for s in start)] = True
    return mask


@pytest.mark.parametrize("tolerance_mm", [0.0, 0.4, 0.5, 1.0, 1.4, 3.0])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), SPACING], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_random_masks_score_as_the_reference_package(tolerance_mm, spacing_mm, order):
    for seed in range(3):
        pred, truth = (np.asarray(mask, order=order) for mask in random_pair(seed))
        ours = compute_surface_dice(pred, truth, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
        assert ours == pytest.approx(reference(pred, truth, spacing_mm, tolerance_mm), abs=1e-9)


@pytest.mark.parametrize("start", [(0, 0, 0), (5, 6, 4), (2, 0, 4), (3, 3, 2)], ids=str)
@pytest.mark.parametrize("tolerance_mm", [0.0, 0.05, 0.15])
def test_cubes_that_touch_borders_score_as_the_reference_package(start, tolerance_mm):
    pred, truth, spacing_mm = cube(start), cube((2, 3, 2)), (0.05, 0.05, 0.05)
    ours = compute_surface_dice(pred, truth, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
    assert ours == pytest.approx(reference(pred, truth, spacing_mm, tolerance_mm), abs=1e-9)


@pytest.mark.parametrize("tolerance_mm", [0.0, 1.0])
def test_spheres_score_as_monai_with_subvoxels(tolerance_mm):
    x, y, z = np.ogrid[:15, :17, :13]
    spheres = [(x - 7) ** 2 + (y - 8) ** 2 + (z - 6) ** 2 <= r for r in (23, 30)]
    one_hot = [torch.from_numpy(sphere)[None, None] for sphere in spheres]
    theirs = monai_surface_dice(
        *one_hot, [tolerance_mm], include_background=True, spacing=SPACING, use_subvoxels=True
    )
    ours = compute_surface_dice(*spheres, spacing_mm=SPACING, tolerance_mm=tolerance_mm)
    assert ours == pytest.approx(theirs.item(), abs=1e-6)  # MONAI computes in single precision


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.floats(0, 3))
@settings(max_examples=25, deadline=None)
def test_every_small_pair_scores_as_the_reference_package(seed, x, y, z, tolerance_mm):
    pred, truth = random_pair(seed, (x, y, z))
    ours = compute_surface_dice(pred, truth, spacing_mm=SPACING, tolerance_mm=tolerance_mm)
    if pred.any() and truth.any():
        assert ours == pytest.approx(reference(pred, truth, SPACING, tolerance_mm), abs=1e-9)
    else:
        assert ours == 0.0 or (math.isnan(ours) and not pred.any() and not truth.any())


def test_permuting_axes_with_their_spacings_changes_nothing():
    pred, truth = random_pair(5)
    score = compute_surface_dice(pred, truth, spacing_mm=SPACING, tolerance_mm=1.0)
    permuted = [np.ascontiguousarray(mask.transpose(2, 0, 1)) for mask in (pred, truth)]
    spacing_mm = (SPACING[2], SPACING[0], SPACING[1])
    assert compute_surface_dice(*permuted, spacing_mm=spacing_mm, tolerance_mm=1.0) == pytest.approx(
        score, abs=1e-12
    )


def test_flipping_both_masks_changes_nothing():
    pred, truth = random_pair(6)
    flipped = pred[::-1, :, ::-1], truth[::-1, :, ::-1]
    scores = [compute_surface_dice(*pair, spacing_mm=SPACING) for pair in ((pred, truth), flipped)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-12)


def test_swapping_prediction_and_truth_changes_nothing():
    pred, truth = random_pair(7)
    scores = [compute_surface_dice(*pair, spacing_mm=SPACING) for pair in ((pred, truth), (truth, pred))]
    assert scores[0] == scores[1]


def test_a_perfect_prediction_scores_one():
    _, truth = random_pair(8)
    assert compute_surface_dice(truth, truth, spacing_mm=SPACING) == 1.0


def test_one_voxel_at_the_border_is_a_structure():
    voxel = np.zeros((3, 4, 5), dtype=bool)
    voxel[0, 0, 0] = True
    assert compute_surface_dice(voxel, voxel, spacing_mm=SPACING) == 1.0


@pytest.mark.parametrize("empty_value", [0.0, 1.0])
def test_two_empty_masks_score_the_stated_value(empty_value):
    empty = np.zeros((3, 4, 5), dtype=bool)
    assert compute_surface_dice(empty, empty, spacing_mm=SPACING, empty_value=empty_value) == empty_value


def test_two_empty_masks_score_nan_by_default():
    empty = np.zeros((3, 4, 5), dtype=bool)
    assert math.isnan(compute_surface_dice(empty, empty, spacing_mm=SPACING))


@pytest.mark.parametrize("missed", [True, False], ids=["missed", "spurious"])
def test_a_missed_and_a_spurious_structure_score_zero(missed):
    pair = [cube((2, 2, 2)), np.zeros((8, 9, 7), dtype=bool)]
    scores = compute_surface_dice(*(pair[::-1] if missed else pair), spacing_mm=SPACING, tolerance_mm=9.0)
    assert scores == 0.0


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.bfloat16], ids=str)
def test_tensors_score_as_arrays(dtype):
    pred, truth = random_pair(9)
    tensors = [torch.from_numpy(mask).to(dtype) for mask in (pred, truth)]
    expected = compute_surface_dice(pred, truth, spacing_mm=SPACING)
    assert compute_surface_dice(*tensors, spacing_mm=SPACING) == expected


def test_labels_of_0_and_255_are_masks():
    pred, truth = random_pair(10)
    score = compute_surface_dice(pred, truth.astype(np.uint8) * np.uint8(255), spacing_mm=SPACING)
    assert score == compute_surface_dice(pred, truth, spacing_mm=SPACING)


def test_unlabelled_slices_cost_and_earn_nothing():
    pred, truth = random_pair(11)
    labels = truth.astype(np.uint8)
    labels[..., :2] = labels[..., 6:] = 255
    score = compute_surface_dice(pred, labels, spacing_mm=SPACING, ignore_value=255)
    assert score == compute_surface_dice(pred[..., 2:6], truth[..., 2:6], spacing_mm=SPACING)


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_mapped_volumes_are_read_a_few_slices_at_a_time(tmp_path, order):
    shape = (192, 96, 96) if order == "C" else (96, 96, 192)
    volumes = []
    for name in ("pred", "truth"):
        volume = np.lib.format.open_memmap(
            tmp_path / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape, fortran_order=order == "F"
        )
        volume[20:60, 20:60, 20:60] = 1
        volumes.append(volume)
    tracemalloc.start()
    assert compute_surface_dice(*volumes, spacing_mm=SPACING) == 1.0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 97 * 97  # bytes for a few dozen planes; the volumes hold 192


def test_fractional_masks_are_refused():
    with pytest.raises(ValueError, match=r"pred must be a mask of 0 and 1.*threshold it first"):
        compute_surface_dice(np.full((2, 3, 4), 0.5), np.ones((2, 3, 4)), spacing_mm=SPACING)


def test_nan_is_refused():
    truth = np.ones((2, 3, 4))
    truth[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="truth must be a mask"):
        compute_surface_dice(np.ones((2, 3, 4)), truth, spacing_mm=SPACING)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3, 4), (2, 3, 5)), ((1, 2, 3, 4),) * 2], ids=str)
def test_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"two volumes of one shape \(x, y, z\)"):
        compute_surface_dice(np.ones(shapes[0]), np.ones(shapes[1]), spacing_mm=SPACING)


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.inf, math.nan])
def test_an_impossible_tolerance_is_refused(tolerance_mm):
    with pytest.raises(ValueError, match="tolerance_mm must be a finite length"):
        compute_surface_dice(*random_pair(0), spacing_mm=SPACING, tolerance_mm=tolerance_mm)


def as_batch(*masks):
    return torch.stack([torch.from_numpy(mask)[None].float() for mask in masks])


def test_the_metric_is_the_mean_over_volumes():
    pairs = [random_pair(seed) for seed in range(3)]
    metric = SurfaceDiceMetric(spacing_mm=SPACING, tolerance_mm=0.5)
    metric(as_batch(pairs[0][0], pairs[1][0]), as_batch(pairs[0][1], pairs[1][1]))
    metric([torch.from_numpy(pairs[2][0])[None]], [torch.from_numpy(pairs[2][1])[None]])
    scores = [compute_surface_dice(*pair, spacing_mm=SPACING, tolerance_mm=0.5) for pair in pairs]
    assert metric.aggregate().item() == pytest.approx(np.mean(scores), abs=1e-12)
    assert metric.get_buffer().shape == (3, 1)


def test_the_metric_reads_the_spacing_of_each_volume():
    pred, truth = random_pair(1)
    metric = SurfaceDiceMetric(tolerance_mm=0.6)
    for spacing_mm in ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0)):
        affine = torch.diag(torch.tensor([-spacing_mm[0], *spacing_mm[1:], 1.0]))
        metric(as_batch(pred), [MetaTensor(torch.from_numpy(truth)[None], affine=affine)])
    expected = [compute_surface_dice(pred, truth, spacing_mm=(s, s, s), tolerance_mm=0.6) for s in (0.5, 1.0)]
    assert metric.get_buffer()[:, 0].tolist() == pytest.approx(expected)


def test_the_metric_needs_a_spacing():
    with pytest.raises(ValueError, match=r"the spacing is unknown.*pass spacing_mm"):
        SurfaceDiceMetric()(as_batch(*random_pair(0)[:1]), as_batch(*random_pair(0)[1:]))


def test_missed_spurious_and_undefined_volumes_are_counted_apart():
    full, empty = cube((2, 2, 2)), np.zeros((8, 9, 7), dtype=bool)
    metric = SurfaceDiceMetric(spacing_mm=SPACING)
    metric(as_batch(full, empty, full, empty), as_batch(full, full, empty, empty))
    assert metric.aggregate().item() == pytest.approx(1 / 3)
    assert (metric.missed_count, metric.spurious_count, metric.undefined_count) == (1, 1, 1)


def test_nothing_but_undefined_volumes_is_nan():
    empty = np.zeros((3, 4, 5), dtype=bool)
    metric = SurfaceDiceMetric(spacing_mm=SPACING)
    metric(as_batch(empty), as_batch(empty))
    assert math.isnan(metric.aggregate().item())


def test_classes_are_scored_apart_and_the_background_left_out():
    labels = np.zeros((8, 9, 7), dtype=np.uint8)
    labels[1:4, 1:4, 1:4], labels[5:7, 5:7, 5:7] = 1, 2
    one_hot = as_batch(labels)[0] == torch.arange(3)[:, None, None, None]
    pred = one_hot.clone()
    pred[2] = False
    metric = SurfaceDiceMetric(spacing_mm=SPACING)
    metric(pred[None].float(), torch.from_numpy(labels)[None, None])
    metric(pred[None].float(), one_hot[None])
    assert metric.get_buffer().tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert metric.missed_count == 0  # counted by aggregate
    metric.aggregate()
    assert metric.missed_count == 2


def test_the_best_common_threshold_is_found():
    truths = [cube((2, 2, 2)), cube((1, 3, 2))]
    soft = [
        np.where(truth, np.float32(peak), np.float32(0.1))
        for truth, peak in zip(truths, (0.9, 0.5), strict=True)
    ]
    metric = SurfaceDiceMetric(spacing_mm=SPACING, thresholds=[0.05, 0.3, 0.7])
    metric(as_batch(*soft), as_batch(*truths))
    assert metric.aggregate().item() == 1.0
    assert metric.best_threshold == 0.3
    assert metric.curve[1:].tolist() == [1.0, 0.5]
    assert metric.missed_count == 0


def test_the_sweep_of_the_metric_leaves_out_unlabelled_voxels():
    pred, truth = random_pair(2)
    labels = torch.from_numpy(truth.astype(np.uint8))[None, None]
    labels[..., 5:] = 255
    metric = SurfaceDiceMetric(spacing_mm=SPACING, thresholds=[0.5])
    metric(as_batch(pred), labels)
    expected = compute_surface_dice(pred[..., :5], truth[..., :5], spacing_mm=SPACING)
    assert metric.aggregate().item() == pytest.approx(expected, abs=1e-12)


def test_reset_forgets_everything():
    metric = SurfaceDiceMetric(spacing_mm=SPACING, thresholds=[0.5])
    metric(as_batch(cube((2, 2, 2))), as_batch(cube((2, 2, 2))))
    metric.aggregate()
    metric.reset()
    assert (metric.get_buffer(), metric.curve, metric.best_threshold) == (None, None, None)
    with pytest.raises(ValueError, match="scored no volume yet"):
        metric.aggregate()


def test_a_tolerance_with_thresholds_is_refused():
    with pytest.raises(ValueError, match="a threshold sweep has tolerance 0"):
        SurfaceDiceMetric(tolerance_mm=1.0, thresholds=[0.5])


@pytest.mark.parametrize(
    "shapes", [((1, 1, 2, 3, 4), (2, 1, 2, 3, 4)), ((1, 1, 2, 3, 4), (1, 1, 2, 3, 5))], ids=str
)
def test_the_metric_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match=r"must be \(B, C, ...\) on one grid"):
        SurfaceDiceMetric(spacing_mm=SPACING)(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_the_metric_refuses_channels_that_do_not_match():
    with pytest.raises(ValueError, match="y must have 1 or 3 channels, got 2"):
        SurfaceDiceMetric(spacing_mm=SPACING)(torch.zeros(1, 3, 2, 2, 2), torch.zeros(1, 2, 2, 2, 2))


def test_the_metric_works_as_an_ignite_key_metric():
    from ignite.engine import Engine  # its import warns, which must not keep the other tests from running
    from monai.handlers import IgniteMetricHandler

    pred, truth = random_pair(3)
    engine = Engine(lambda _, batch: batch)
    handler = IgniteMetricHandler(metric_fn=SurfaceDiceMetric(spacing_mm=SPACING, thresholds=[0.25, 0.5]))
    handler.attach(engine, "val_surface_dice")
    engine.run([([torch.from_numpy(pred)[None].float()], [torch.from_numpy(truth)[None]])])
    expected = compute_surface_dice(pred, truth, spacing_mm=SPACING)
    assert engine.state.metrics["val_surface_dice"] == pytest.approx(expected, abs=1e-12)


def score_on_rank(rank, folder):
    os.environ["LOCAL_RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    metric = SurfaceDiceMetric(spacing_mm=SPACING, thresholds=[0.25, 0.5])
    for seed in range(3)[rank::2]:
        pred, truth = random_pair(seed)
        metric(as_batch(pred), as_batch(truth))
    torch.save((metric.aggregate(), metric.curve, len(metric)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_the_result_of_one(tmp_path):
    metric = SurfaceDiceMetric(spacing_mm=SPACING, thresholds=[0.25, 0.5])
    for seed in range(3):
        pred, truth = random_pair(seed)
        metric(as_batch(pred), as_batch(truth))
    context = torch.multiprocessing.get_context("fork")
    ranks = [context.Process(target=score_on_rank, args=(rank, tmp_path)) for rank in range(2)]
    [rank.start() for rank in ranks]
    [rank.join(60) for rank in ranks]
    for rank in range(2):
        mean, curve, volumes = torch.load(tmp_path / f"{rank}.pt")
        assert mean.item() == pytest.approx(metric.aggregate().item(), abs=1e-12)
        torch.testing.assert_close(curve, metric.curve)
        assert volumes == 3
