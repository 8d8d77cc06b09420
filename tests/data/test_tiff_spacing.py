from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import tifffile

from volseg.data.tiff_pages import read_tiff_pages
from volseg.data.tiff_spacing import in_plane_spacing_mm, slice_spacing_mm

PIXELS = np.zeros((5, 7), np.uint8)


def _page(path, **options):
    tifffile.imwrite(path, PIXELS, **options)
    return read_tiff_pages(path)[0]


@pytest.mark.parametrize("unit", [1, 2, 3])
@pytest.mark.parametrize("resolution", [(200, 100), (1, 1), (72, 72), ((0, 1), (0, 1)), ((1, 3), (2, 7))])
def test_resolution_tags_mean_what_itk_reads(tmp_path, unit, resolution):
    page = _page(tmp_path / "a.tif", resolution=resolution, resolutionunit=unit)
    expected = SimpleITK.ReadImage(str(tmp_path / "a.tif")).GetSpacing()
    assert (in_plane_spacing_mm(page) or (1.0, 1.0)) == pytest.approx(expected)
    assert slice_spacing_mm(page) is None


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("mm", 1), ("um", 1e-3), ("micron", 1e-3), ("\\u00B5m", 1e-3), ("cm", 10), ("nm", 1e-6)],
)
def test_imagej_units_become_millimetres(tmp_path, unit, scale):
    page = _page(
        tmp_path / "a.tif",
        imagej=True,
        resolution=(4, 2),
        metadata={"unit": unit, "spacing": 3, "axes": "YX"},
    )
    assert in_plane_spacing_mm(page) == pytest.approx((0.25 * scale, 0.5 * scale))
    assert slice_spacing_mm(page) == pytest.approx(3 * scale)


@pytest.mark.parametrize(("unit", "spacing"), [("pixel", 3), ("mm", "wide"), ("mm", 0), ("mm", "nan")])
def test_an_imagej_text_that_is_no_length_states_nothing(tmp_path, unit, spacing):
    page = _page(tmp_path / "a.tif", imagej=True, metadata={"unit": unit, "spacing": spacing, "axes": "YX"})
    assert slice_spacing_mm(page) is None
