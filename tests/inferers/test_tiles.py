from __future__ import annotations

import pytest
import torch

from volseg.inferers.tiles import plan_tiles, window_starts

PLANES = [((1, 1), (4, 4)), ((7, 11), (4, 5)), ((17, 3), (8, 8)), ((9, 9), None), ((8, 12), (4, 4))]


@pytest.mark.parametrize("blend", ["constant", "gaussian"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(("plane", "roi_size"), PLANES, ids=str)
def test_weights_of_all_windows_sum_to_one_in_every_pixel(plane, roi_size, overlap, blend):
    total = torch.zeros(plane)
    for tile in plan_tiles(plane, roi_size, overlap, blend):
        total[tile.rows.inside, tile.columns.inside] += tile.weights(total.device)
    torch.testing.assert_close(total, torch.ones(plane))


@pytest.mark.parametrize(("plane", "roi_size"), PLANES, ids=str)
def test_every_window_has_the_size_asked_for(plane, roi_size):
    for tile in plan_tiles(plane, roi_size):
        padded = [
            span.inside.stop - span.inside.start + sum(span.padding) for span in (tile.rows, tile.columns)
        ]
        assert tuple(padded) == (roi_size or plane)
        assert tile.pixels == padded[0] * padded[1]


def test_the_gaussian_blend_trusts_the_centre_of_a_window_most():
    first = plan_tiles((1, 12), (1, 8), overlap=0.5, blend="gaussian")[0].columns.weights
    assert first[:4].tolist() == [1, 1, 1, 1]  # no other window there
    assert (first[4:].diff() < 0).all()


def test_a_plane_shorter_than_the_window_is_padded_on_both_sides():
    (tile,) = plan_tiles((3, 8), (8, 8))
    assert tile.rows.padding == (2, 3)
    assert tile.columns.padding == (0, 0)
    assert tile.is_padded


def test_the_last_window_is_shifted_into_the_plane():
    assert window_starts(10, 5, 3) == (0, 3, 5)
    assert window_starts(11, 5, 3) == (0, 3, 6)


def test_a_step_of_zero_is_refused():
    with pytest.raises(ValueError, match="size, window and step must be positive"):
        window_starts(10, 5, 0)


def test_an_unknown_blend_names_the_choices():
    with pytest.raises(ValueError, match="blend must be one of constant, gaussian, got 'gauss'"):
        plan_tiles((4, 4), None, blend="gauss")
