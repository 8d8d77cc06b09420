"""Axes, spacing and orientation of voxel grids."""

import numpy as np
import pytest
import SimpleITK

from volseg.geometry import MM_PER_UNIT, Geometry, affine_from_spacing, spacing_of, swap_ras_lps

SPACING = (0.5, 0.75, 3.0)


def oblique(spacing=SPACING, origin=(4.0, -7.0, 1e3)):
    """Affine of a grid turned by 20 degrees about z, then by 45 degrees about x."""
    about_z, about_x = np.deg2rad([20.0, 45.0])
    one = [[np.cos(about_z), -np.sin(about_z), 0], [np.sin(about_z), np.cos(about_z), 0], [0, 0, 1]]
    two = [[1, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(two) @ np.array(one) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def test_the_spacing_of_an_oblique_affine_is_that_before_it_was_turned():
    assert spacing_of(oblique()) == pytest.approx(SPACING, rel=1e-12)


def test_doubling_the_spacing_doubles_it_along_every_axis():
    doubled = oblique(tuple(2 * edge for edge in SPACING))
    assert spacing_of(doubled) == pytest.approx([2 * edge for edge in spacing_of(oblique())])


def test_the_spacing_is_positive_whatever_the_axes_point_at():
    assert spacing_of(oblique() @ np.diag([-1.0, 1.0, -1.0, 1.0])) == pytest.approx(SPACING)


def test_a_plane_has_two_edges():
    assert spacing_of(np.diag([0.5, -2.0, 1.0])) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("unit", "millimetres"), [("mm", 1.0), ("um", 0.001), ("m", 1000.0), ("unknown", 1.0)]
)
def test_units_become_millimetres(unit, millimetres):
    geometry = Geometry((3, 4, 5), oblique(), unit=unit)
    assert MM_PER_UNIT[unit] == millimetres
    assert geometry.spacing_mm == pytest.approx([millimetres * edge for edge in SPACING])
    assert geometry.affine[:3, 3] == pytest.approx(millimetres * np.array([4.0, -7.0, 1e3]))


def test_the_last_row_of_an_affine_has_no_unit():
    assert Geometry((3, 4, 5), oblique(), unit="um").affine[3].tolist() == [0, 0, 0, 1]


def test_swapping_twice_changes_nothing():
    assert np.array_equal(swap_ras_lps(swap_ras_lps(oblique())), oblique())


def test_swapping_turns_the_first_two_world_axes():
    point = np.array([2, 1, 3, 1])
    ras, lps = oblique() @ point, swap_ras_lps(oblique()) @ point
    assert lps.tolist() == [-ras[0], -ras[1], ras[2], 1]


def test_a_grid_from_spacing_lies_where_simpleitk_puts_it():
    image = SimpleITK.Image(3, 4, 5, SimpleITK.sitkUInt8)
    image.SetSpacing(SPACING)
    image.SetOrigin((7.0, -2.0, 9.0))
    place = image.TransformIndexToPhysicalPoint((2, 1, 4))
    ours = swap_ras_lps(affine_from_spacing(SPACING, (7.0, -2.0, 9.0))) @ [2, 1, 4, 1]
    assert ours[:3] == pytest.approx(place)


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, np.nan)], ids=str)
def test_a_spacing_that_is_no_length_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing_mm must be positive and finite"):
        affine_from_spacing(spacing)
