from __future__ import annotations

import pytest
import torch

from volseg.inferers.flips import views_of

PLANE = torch.arange(2 * 3 * 5).reshape(2, 3, 5)


@pytest.mark.parametrize("view", views_of("d4"), ids=str)
def test_undoing_a_view_restores_the_plane(view):
    assert torch.equal(view.undo(view.apply(PLANE)), PLANE)


@pytest.mark.parametrize("view", views_of("d4"), ids=str)
def test_seeing_an_undone_plane_again_restores_it(view):
    assert torch.equal(view.apply(view.undo(PLANE)), PLANE)


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("mirror", 2), ("flips", 4), ("d4", 8)])
def test_the_views_of_a_square_all_differ(tta, count):
    square = torch.arange(9).reshape(3, 3)
    seen = {tuple(view.apply(square).flatten().tolist()) for view in views_of(tta)}
    assert len(seen) == count


def test_the_eight_views_are_the_flips_of_the_quarter_turns():
    square = torch.arange(9).reshape(3, 3)
    turned = [torch.rot90(image, turns) for turns in range(4) for image in (square, square.flip(0))]
    expected = {tuple(image.flatten().tolist()) for image in turned}
    assert {tuple(view.apply(square).flatten().tolist()) for view in views_of("d4")} == expected


def test_a_mirror_swaps_left_and_right_of_a_picture():
    assert torch.equal(views_of("mirror")[1].apply(PLANE), PLANE.flip(-1))


def test_the_plain_view_comes_first():
    assert torch.equal(views_of("d4")[0].apply(PLANE), PLANE)


def test_an_unknown_augmentation_names_the_choices():
    with pytest.raises(
        ValueError, match="tta must be one of d4, flips, mirror, none, got 'flip'; did you mean 'flips'"
    ):
        views_of("flip")
