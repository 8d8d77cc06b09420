from __future__ import annotations

import numpy as np
import pytest
import torch

from volseg.inferers.fusion import AxisFusion, activate, activate_, check_fusion

SHAPE = (2, 3, 17, 4, 5)  # more slices than one slab


def axis_maps(count: int = 3) -> list[torch.Tensor]:
    return list(torch.randn((count, *SHAPE), generator=torch.Generator().manual_seed(0)))


def fuse(fusion: AxisFusion, maps: list[torch.Tensor], weights: list[float] | None = None) -> torch.Tensor:
    for axis_map, weight in zip(maps, weights or [1 / len(maps)] * len(maps), strict=True):
        fusion.add(axis_map, weight)
    return fusion.result()


def test_the_mean_is_weighted():
    maps = axis_maps()
    fused = fuse(AxisFusion("mean"), maps, [0.5, 0.25, 0.25])
    torch.testing.assert_close(fused, maps[0] / 2 + maps[1] / 4 + maps[2] / 4)


def test_the_activation_follows_a_mean_of_logits():
    maps = axis_maps()
    torch.testing.assert_close(
        fuse(AxisFusion("logit_mean", "softmax"), maps), torch.stack(maps).mean(0).softmax(1)
    )


def test_the_largest_value_wins_even_when_all_are_negative():
    maps = [axis_map - 10 for axis_map in axis_maps()]
    assert torch.equal(fuse(AxisFusion("max"), maps), torch.stack(maps).amax(0))


def test_a_union_is_true_where_any_axis_is():
    masks = [(axis_map > 0).float() for axis_map in axis_maps()]
    assert torch.equal(fuse(AxisFusion("union"), masks), torch.stack(masks).amax(0))


def test_a_vote_is_true_where_two_of_three_axes_are():
    masks = [(axis_map > 0).float() for axis_map in axis_maps()]
    assert torch.equal(fuse(AxisFusion("vote"), masks), (torch.stack(masks).sum(0) >= 2).float())


def test_half_of_the_weight_is_no_majority():
    yes, no = torch.ones(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1)
    assert fuse(AxisFusion("vote"), [yes, no]).item() == 0
    assert fuse(AxisFusion("vote"), [yes, no, no], [0.5, 0.25, 0.25]).item() == 0
    assert fuse(AxisFusion("vote"), [yes, no, no], [0.6, 0.2, 0.2]).item() == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_disagreement_is_the_standard_deviation_between_axes(count):
    maps = axis_maps(count)
    disagreement = fuse(AxisFusion("mean", has_disagreement=True), maps)[:, SHAPE[1] :]
    np.testing.assert_allclose(disagreement, np.std(torch.stack(maps).numpy(), axis=0), atol=1e-6)


def test_axes_that_say_the_same_do_not_disagree():
    same = axis_maps(1) * 3
    assert not fuse(AxisFusion("mean", has_disagreement=True), same)[:, SHAPE[1] :].any()


def test_logits_are_compared_as_probabilities():
    maps = axis_maps()
    disagreement = fuse(AxisFusion("logit_mean", "sigmoid", has_disagreement=True), maps)[:, SHAPE[1] :]
    np.testing.assert_allclose(disagreement, np.std(torch.stack(maps).sigmoid().numpy(), axis=0), atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", None])
def test_activating_in_place_equals_activating(activation):
    (logits,) = axis_maps(1)
    expected = activate(logits, activation)
    activate_(logits, activation)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("maen", None, None), "fusion must be one of .*, got 'maen'; did you mean 'mean'"),
        (("mean", "relu", None), "activation must be one of sigmoid, softmax, got 'relu'"),
        (("mean", None, (1, 2)), r"axis_weights must be one per axis \(3\), got 2"),
        (("mean", None, (1, 0, 1)), "axis_weights must be positive and finite"),
        (("max", None, (1, 1, 1)), "axis_weights must be None for fusion 'max', got"),
        (("union", None, (1, 1, 1)), "axis_weights must be None for fusion 'union', got"),
    ],
    ids=["fusion", "activation", "count", "zero", "max", "union"],
)
def test_arguments_without_a_meaning_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_fusion(*arguments, axes=3)
