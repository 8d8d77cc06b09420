"""A volume written as one TIFF per z slice, as ITK's series reader takes it, and one label slice as a PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from volseg.checks import check_positive, refuse
from volseg.files import write_atomically, write_json

__all__ = ["write_label_picture", "write_slice_folder"]


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


def write_label_picture(path: Path, labels: npt.NDArray[Any], inspect: Callable[[Path], None]) -> None:
    """Write class indices as a grey PNG, read back before it gets its name; an existing one is replaced.

    Args:
        path: of the picture.
        labels: (x, y) whole numbers from 0 to 65535.
        inspect: called with the written temporary.

    Raises:
        InputError: when the picture does not read back as it was written.
    """
    grey = labels.astype(np.uint8 if labels.max() < 256 else np.uint16).T
    picture = Image.fromarray(np.ascontiguousarray(grey))

    def verify(temporary: Path) -> None:
        with Image.open(temporary, formats=["PNG"]) as written:
            if not np.array_equal(np.asarray(written), grey):
                refuse(path, "the picture as written", "another when read back", "check the disk")
        inspect(temporary)

    write_atomically(
        path, lambda temporary: picture.save(temporary, format="PNG"), overwrite=True, verify=verify
    )


def _write_picture(path: Path, *, picture: npt.NDArray[np.generic], compression: str | None) -> None:
    import tifffile

    tifffile.imwrite(path, picture, photometric="minisblack", compression=compression, metadata=None)
