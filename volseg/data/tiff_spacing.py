"""Voxel size that a TIFF page states: resolution tags as ITK reads them, and ImageJ's description.

ITK takes 25.4/resolution for inches, 10/resolution for centimetres and 1 mm otherwise; a picture that a
drawing program marked with 72 dpi is 0.353 mm wide per pixel by that rule. ImageJ writes its unit as
text, which ITK does not read; here it counts, because ImageJ shows and measures by it.
"""

from __future__ import annotations

import math
import re

from volseg.data.tiff_pages import TiffPage

__all__ = ["MM_PER_IMAGEJ_UNIT", "in_plane_spacing_mm", "slice_spacing_mm"]

MM_PER_IMAGEJ_UNIT = {
    "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1e3, "inch": 25.4, "nm": 1e-6, "um": 1e-3, "micron": 1e-3,
    "microns": 1e-3, "µm": 1e-3, "μm": 1e-3, "\\u00b5m": 1e-3, "\\u00B5m": 1e-3, "micrometer": 1e-3,
}  # fmt: skip
"""Millimetres per unit of length as ImageJ writes them."""

_MM_PER_RESOLUTION_UNIT = {2: 25.4, 3: 10.0}


def in_plane_spacing_mm(page: TiffPage) -> tuple[float, float] | None:
    """Edge lengths (x, y) of a pixel in mm, or None where the page states none."""
    scale = _imagej_scale_mm(page) or _MM_PER_RESOLUTION_UNIT.get(page.resolution_unit)
    if page.resolution is None or scale is None:
        return None
    x_mm, y_mm = scale / page.resolution[0], scale / page.resolution[1]
    return (x_mm, y_mm) if math.isfinite(x_mm) and math.isfinite(y_mm) and min(x_mm, y_mm) > 0 else None


def slice_spacing_mm(page: TiffPage) -> float | None:
    """Distance of slices in mm by ImageJ's `spacing` and `unit`, or None."""
    scale = _imagej_scale_mm(page)
    found = _imagej_value(page, "spacing")
    if scale is None or found is None:
        return None
    try:
        spacing_mm = abs(float(found)) * scale
    except ValueError:
        return None
    return spacing_mm if math.isfinite(spacing_mm) and spacing_mm > 0 else None


def _imagej_scale_mm(page: TiffPage) -> float | None:
    unit = _imagej_value(page, "unit")
    return None if unit is None else MM_PER_IMAGEJ_UNIT.get(unit)


def _imagej_value(page: TiffPage, key: str) -> str | None:
    if not page.description.startswith("ImageJ="):
        return None
    found = re.search(rf"^{key}=(.*?)\s*$", page.description, re.MULTILINE)
    return found.group(1) if found else None
