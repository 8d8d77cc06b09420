"""Axes, spacing and orientation of a voxel grid; the only place that knows RAS from LPS.

A volume is indexed (x, y, z): x runs along a row of a slice, y down its rows, z through the slices. World
coordinates are RAS millimetres, as in NIfTI and MONAI; DICOM and ITK use LPS, which turns the first two
signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from volseg.checks import check_positive

__all__ = ["Geometry", "MM_PER_UNIT", "affine_from_spacing", "spacing_of", "swap_ras_lps"]

MM_PER_UNIT = {"mm": 1.0, "um": 1e-3, "m": 1e3, "unknown": 1.0}
"""Length of one NIfTI spatial unit in millimetres; a header without a unit is taken as millimetres."""


@dataclass(frozen=True)
class Geometry:
    """The voxel grid of one image file, as a prediction made from it must carry it.

    Attributes:
        shape: spatial size (x, y, z), without channel or trailing singleton axes.
        file_affine: (4, 4) voxel index to RAS in the file's own unit.
        unit: key of `MM_PER_UNIT`.
        sform_code: NIfTI code; 0 where the file is no NIfTI or does not set it.
        qform_code: NIfTI code; 0 likewise.
        spacing_is_known: False where the file states no spacing and 1 mm was assumed.
        nifti_header: raw NIfTI-1/2 header of the source, in its own byte order, or None.
    """

    shape: tuple[int, ...]
    file_affine: npt.NDArray[np.float64]
    unit: str = "mm"
    sform_code: int = 1
    qform_code: int = 1
    spacing_is_known: bool = True
    nifti_header: bytes | None = field(default=None, repr=False)

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """(4, 4) voxel index to RAS in millimetres."""
        scale = np.diag([*[MM_PER_UNIT[self.unit]] * 3, 1.0])
        return scale @ self.file_affine

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Edge lengths of a voxel in millimetres, one per axis."""
        return spacing_of(self.affine)


def spacing_of(affine: npt.ArrayLike) -> tuple[float, ...]:
    """Edge lengths of a voxel: the column norms of an affine, in the affine's unit.

    Example:
        >>> spacing_of(np.diag([-0.5, 2.0, 3.0, 1.0]))
        (0.5, 2.0, 3.0)
    """
    matrix = np.asarray(affine, dtype=np.float64)
    return tuple(float(norm) for norm in np.linalg.norm(matrix[:-1, :-1], axis=0))


def affine_from_spacing(
    spacing_mm: Sequence[float], origin_lps_mm: Sequence[float] = (0.0, 0.0, 0.0)
) -> npt.NDArray[np.float64]:
    """RAS affine of a grid whose axes run along L, P and S, as ITK assumes for a stack of plain pictures.

    Args:
        spacing_mm: three edge lengths.
        origin_lps_mm: centre of voxel (0, 0, 0).

    Raises:
        ValueError: when a spacing is not positive and finite.

    Example:
        >>> affine_from_spacing((0.5, 0.5, 2.0)).diagonal().tolist()
        [-0.5, -0.5, 2.0, 1.0]
    """
    check_positive("spacing_mm", spacing_mm)
    lps = np.diag([*map(float, spacing_mm), 1.0])
    lps[:3, 3] = origin_lps_mm
    return swap_ras_lps(lps)


def swap_ras_lps(affine: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Turn an affine from RAS to LPS or back; applying it twice changes nothing."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)
