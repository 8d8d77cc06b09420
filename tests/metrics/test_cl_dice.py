from __future__ import annotations

import pytest
import torch

from volseg.metrics.cl_dice import compute_cl_dice, skeleton_of


def tube(width, shape=(11, 13)):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[5 - width // 2 : 6 + width // 2] = True
    return mask


def test_the_skeleton_of_a_tube_is_its_centre_line():
    rows = skeleton_of(tube(5))[:, 4:9].any(dim=1)  # away from the ends, where a skeleton forks
    assert rows.nonzero().flatten().tolist() == [5]


def test_the_skeleton_lies_inside():
    mask = torch.rand(7, 9, 8, generator=torch.Generator().manual_seed(0)) < 0.6
    skeleton = skeleton_of(mask)
    assert skeleton.any()
    assert not (skeleton & ~mask).any()


def test_a_thinner_tube_scores_one_and_dice_does_not_see_it():
    assert compute_cl_dice(tube(3), tube(5)) > 0.85


def test_tubes_apart_score_zero():
    assert compute_cl_dice(tube(1), tube(1).roll(3, 0)) == 0.0


def test_other_axes_are_refused():
    with pytest.raises(ValueError, match="a skeleton needs a 2D or 3D mask, got 1 axes"):
        compute_cl_dice([1, 1], [1, 1])
