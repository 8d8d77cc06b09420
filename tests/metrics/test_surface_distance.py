from __future__ import annotations

import numpy as np
import pytest

from volseg.metrics.surface_distance import SurfaceDistanceMetric, compute_surface_distance

SPACING = (0.5, 1.3, 2.7)


def plate(z):
    mask = np.zeros((5, 7, 9), dtype=bool)
    mask[:, :, z] = True
    return mask


@pytest.mark.parametrize("distance", ["hd95", "assd"])
def test_parallel_plates_are_as_far_apart_as_they_are(distance):
    assert compute_surface_distance(
        plate(2), plate(5), spacing_mm=SPACING, distance=distance
    ) == pytest.approx(8.1)


@pytest.mark.parametrize("distance", ["hd95", "assd"])
def test_doubling_the_spacing_doubles_the_distance(distance):
    rng = np.random.default_rng(0)
    masks = rng.random((2, 5, 7, 9)) < 0.05
    once, twice = (
        compute_surface_distance(*masks, spacing_mm=np.multiply(SPACING, s), distance=distance)
        for s in (1, 2)
    )
    assert twice == pytest.approx(2 * once, rel=1e-6)


def test_a_missed_structure_costs_the_diagonal():
    diagonal = np.linalg.norm(np.multiply((5, 7, 9), SPACING))
    empty = np.zeros((5, 7, 9), dtype=bool)
    assert compute_surface_distance(empty, plate(2), spacing_mm=SPACING) == pytest.approx(diagonal)


def test_two_empty_masks_score_the_stated_value():
    empty = np.zeros((5, 7, 9), dtype=bool)
    assert compute_surface_distance(empty, empty, spacing_mm=SPACING, empty_value=0.0) == 0.0


def test_an_unknown_distance_is_refused():
    with pytest.raises(ValueError, match="did you mean 'hd95'"):
        SurfaceDistanceMetric("hd9")


def test_a_spacing_for_other_axes_is_refused():
    with pytest.raises(ValueError, match="spacing_mm must hold 3 edge lengths"):
        compute_surface_distance(plate(1), plate(1), spacing_mm=(1, 1))
