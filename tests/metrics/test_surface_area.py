from __future__ import annotations

import numpy as np
import pytest
from surface_distance import lookup_tables

from volseg.metrics.surface_area import compute_surface_area_table

SPACINGS = [(1.0, 1.0, 1.0), (0.5, 0.7, 2.3), (3.0, 0.1, 1.0), (0.05, 0.05, 0.063)]


@pytest.mark.parametrize("spacing_mm", SPACINGS, ids=str)
def test_every_code_has_the_area_of_the_reference_package(spacing_mm):
    expected = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    np.testing.assert_allclose(compute_surface_area_table(spacing_mm), expected, rtol=1e-14, atol=0)


def test_a_code_and_its_complement_have_one_area():
    table = compute_surface_area_table((0.5, 0.7, 2.3))
    np.testing.assert_allclose(table, table[::-1], rtol=1e-14)


def test_doubling_the_spacing_quadruples_every_area():
    once, twice = (compute_surface_area_table((s, 0.7 * s, 2.3 * s)) for s in (1.0, 2.0))
    np.testing.assert_allclose(twice, 4 * once)


def test_only_empty_and_full_neighbourhoods_hold_no_surface():
    assert np.flatnonzero(compute_surface_area_table((1, 1, 1)) == 0).tolist() == [0, 255]


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, np.nan)], ids=str)
def test_a_spacing_that_is_not_three_positive_lengths_is_refused(spacing_mm):
    with pytest.raises(ValueError, match="spacing_mm must"):
        compute_surface_area_table(spacing_mm)
