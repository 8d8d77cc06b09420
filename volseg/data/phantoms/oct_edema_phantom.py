"""OCT phantoms in the layout of the retinal edema challenge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from volseg import files
from volseg.checks import refuse
from volseg.data.phantoms.oct import draw_oct_volume
from volseg.data.phantoms.oct_settings import OctSettings

__all__ = ["OCT_EDEMA_GREYS", "write_oct_edema"]

OCT_EDEMA_GREYS = (0, 255, 191, 128)
"""Grey of each class in a label: background, retinal edema area, subretinal fluid, epithelial detachment."""

_SIZE = (128, 192, 48)
_PARTS = ("original_images", "label_images")


def write_oct_edema(
    folder: str | Path,
    count: int,
    *,
    seed: int | Sequence[int],
    name: str = "phantom",
    size: tuple[int, int, int] = _SIZE,
    settings: OctSettings | None = None,
    overwrite: bool = False,
) -> None:
    """Write volumes as `original_images/<case>/<n>.bmp` and `label_images/<case>/<n>.bmp`, n from 1.

    Every file is whole under its name or not there at all. Labels are grey: 0, 255 (class 1), 191 (class 2)
    and 128 (class 3). Files by other names are refused, for a data set reads all that lies in its folders.

    Args:
        folder: created where missing.
        count: number of volumes.
        seed: same seed, same bytes; every volume continues it with its number.
        name: of the cases: phantom_000, phantom_001, ...
        size: (x, y, z): width and depth of a B-scan, and the number of B-scans.
        settings: look of all volumes, as if from one scanner; drawn anew for each if None.
        overwrite: replace slices of these names.

    Raises:
        InputError: when files are there that would be mixed with the new ones, or of these names and
            `overwrite` is False.
        ValueError: when `count` is not positive, or the size too small.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}; ask for one volume or more")
    root, cases = Path(folder), [f"{name}_{number:03d}" for number in range(count)]
    slices = [f"{k}.bmp" for k in range(1, size[2] + 1)]
    for part in _PARTS:
        _check_only(root / part, cases)
        for case in cases:
            _check_only(root / part / case, slices if overwrite else [])
    seeds = [seed] if isinstance(seed, int) else list(seed)
    greys = np.array(OCT_EDEMA_GREYS, np.uint8)
    for number, case in enumerate(cases):
        image, label = draw_oct_volume(size, seed=[*seeds, number], settings=settings)
        for part, volume in zip(_PARTS, (image, greys[label]), strict=True):
            for k, slice_name in enumerate(slices):
                write = partial(_write_bmp, np.ascontiguousarray(volume[:, :, k].T))
                files.write_atomically(root / part / case / slice_name, write, overwrite=overwrite)


def _check_only(folder: Path, names: Sequence[str]) -> None:
    known = set(names)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name not in known:
            remedy = "use --overwrite for phantoms of the same size, or choose an empty folder"
            refuse(path, "a folder for generated volumes alone", "another file", remedy)


def _write_bmp(picture: npt.NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(picture).save(path, format="BMP")
