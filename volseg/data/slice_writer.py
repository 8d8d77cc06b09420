"""A volume written as one TIFF per z slice, the layout that slice readers and ITK's series reader read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from volseg.checks import check_positive
from volseg.files import write_atomically, write_json

__all__ = ["write_slice_folder"]


def write_slice_folder(
    folder: str | Path,
    volume: npt.ArrayLike,
    *,
    spacing_mm: Sequence[float] | None = None,
    first: int = 0,
    compression: Literal["deflate", "lzw"] | None = "deflate",
    digits: int = 4,
) -> list[Path]:
    """Write a volume as `0000.tif`, `0001.tif`, ...: one picture of y rows and x columns per z slice.

    Args:
        folder: created where missing; an existing slice of the same name is refused.
        volume: (x, y, z) uint8 or uint16.
        spacing_mm: (x, y, z); written to `spacing.json` beside the slices, which plain TIFFs cannot carry.
        first: number of the first slice.
        compression: TIFF compression, or None.
        digits: width of the slice number in a file name.

    Returns:
        The paths of the slices in z order.

    Raises:
        ValueError: when the volume is not three-dimensional uint8 or uint16, or a spacing is not positive.
        InputError: when a file of that name is there.
    """
    array = np.asarray(volume)
    if array.ndim != 3 or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"a slice folder takes a 3D volume of uint8 or uint16, got {array.ndim}D {array.dtype}; "
            "select a channel and convert it"
        )
    if spacing_mm is not None:
        check_positive("spacing_mm", spacing_mm)
        if len(spacing_mm) != 3:
            raise ValueError(
                f"spacing_mm must hold three edge lengths, got {len(spacing_mm)}; give x, y and z"
            )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{first + k:0{digits}d}.tif" for k in range(array.shape[2])]
    for k, path in enumerate(paths):
        picture = np.ascontiguousarray(array[:, :, k].T)
        write_atomically(path, partial(_write_picture, picture=picture, compression=compression))
    if spacing_mm is not None:
        write_json(target / "spacing.json", {"spacing_mm": [float(edge) for edge in spacing_mm]})
    return paths


def _write_picture(path: Path, *, picture: npt.NDArray[np.generic], compression: str | None) -> None:
    import tifffile

    tifffile.imwrite(path, picture, photometric="minisblack", compression=compression, metadata=None)
