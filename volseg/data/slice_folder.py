"""A stack of slices: a folder of TIFF, PNG, BMP, JPEG, GIF, PGM or PPM files, or the pages of one TIFF.

Rules for a folder:

- its raster files are the slices; without any, those of its sub-folder `images` are.
- hidden files, `Thumbs.db`, `desktop.ini`, text, tables and sub-folders are ignored; any other is refused.
- file names differ in one number only; sorted by it (1, 2, 10), none may be missing or double. It may start
  anywhere. With `gaps="keep"` numbers may be missing: the slices that are there make the volume.
- all slices have one format, size and type; a page of a multi-page TIFF never mixes with single files.
- spacing: the argument, then `spacing.json` beside the slices (`{"spacing_mm": [x, y, z]}`; for a sub-folder
  `images` also beside it), then the file's own tags, then 1 mm, with `spacing_is_known` False.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volseg.checks import InputError, check_positive, refuse
from volseg.data.limits import byte_budget, check_budget
from volseg.data.raster import RASTER_SUFFIXES, Raster, decode_page, read_raster
from volseg.geometry import Geometry, affine_from_spacing

__all__ = [
    "IGNORED_SUFFIXES",
    "SPACING_FILE",
    "Gaps",
    "SliceSource",
    "check_spacing",
    "is_junk",
    "list_slices",
    "open_slices",
]

SPACING_FILE = "spacing.json"
"""Name of the file beside the slices that states their spacing."""

IGNORED_SUFFIXES = frozenset({
    ".txt", ".json", ".csv", ".tsv", ".xml", ".md", ".log", ".yaml", ".yml", ".ini", ".db", ".html", ".htm",
    ".pdf", ".lnk", ".bak", ".tmp",
})  # fmt: skip
"""Suffixes of files that may lie beside slices without being slices."""

Gaps = Literal["refuse", "keep"]
"""What to do with a folder in which slice numbers are missing."""

_SAME_SPACING = 1e-3


@dataclass(frozen=True)
class SliceSource:
    """A stack of slices whose headers were accepted.

    Attributes:
        path: the folder or file.
        rasters: one per file, in the order of z.
        numbers: the number of each slice.
        geometry: grid of the volume.
    """

    path: Path
    rasters: tuple[Raster, ...]
    numbers: tuple[int, ...]
    geometry: Geometry

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array that `read` returns."""
        return self.rasters[0].dtype

    def read(self, max_workers: int | None = None) -> npt.NDArray[Any]:
        """Decode all slices, several at a time, into one array; return it as an (x, y, z) view.

        Args:
            max_workers: threads; by default one per processor, at most 8.

        Raises:
            InputError: naming the first file whose pixels are damaged or coloured.
        """
        width, height, depth = self.geometry.shape
        slices = np.empty((depth, height, width), self.dtype)
        pages = [(raster, page) for raster in self.rasters for page in range(raster.page_count)]

        def decode(index: int) -> None:
            decode_page(*pages[index], slices[index])

        workers = max_workers or min(8, os.cpu_count() or 1)
        if workers == 1 or depth == 1:
            for index in range(depth):
                decode(index)
        else:
            with ThreadPoolExecutor(workers) as pool:
                try:
                    for _ in pool.map(decode, range(depth)):
                        pass
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        return slices.transpose(2, 1, 0)


def open_slices(
    path: Path,
    spacing_mm: Sequence[float] | None = None,
    max_bytes: int | None = None,
    *,
    gaps: Gaps = "refuse",
) -> SliceSource:
    """Check the headers of all slices of a folder, or of all pages of a file.

    Args:
        path: folder of slices, folder with a sub-folder `images`, or one file.
        spacing_mm: edge lengths (x, y, z) of a voxel; goes before whatever the files state.
        max_bytes: largest accepted size of the volume in bytes.
        gaps: "keep" accepts a folder in which slice numbers are missing.

    Raises:
        InputError: naming the file that does not fit.
        ValueError: when `spacing_mm` is not three positive numbers.
    """
    files, numbers = list_slices(path, gaps)
    rasters: list[Raster] = []
    for file in files:
        rasters.append(read_raster(file, max_bytes))
        _check_alike(rasters[0], rasters[-1], len(files))
    first = rasters[0]
    if first.page_count > 1:
        numbers = list(range(first.page_count))
    depth = first.page_count if len(files) == 1 else len(files)
    shape = (first.width, first.height, depth)
    slice_bytes = first.width * first.height * first.dtype.itemsize
    check_budget(path, slice_bytes * depth, max_bytes)
    _check_span(path, numbers, slice_bytes, max_bytes)
    if first.is_colour:
        # only the pixels tell whether colours are grey: one slice now saves reading the rest in vain
        decode_page(first, 0, np.empty((first.height, first.width), first.dtype))
    spacing, is_known = _spacing(path, files[0].parent, rasters, spacing_mm)
    geometry = Geometry(shape, affine_from_spacing(spacing), spacing_is_known=is_known)
    return SliceSource(path, tuple(rasters), tuple(numbers), geometry)


def list_slices(path: Path, gaps: Gaps = "refuse") -> tuple[list[Path], list[int]]:
    """List the slice files of a folder in natural order, with the number of each; a file is its own list.

    Args:
        path: folder or file.
        gaps: "keep" accepts missing numbers.

    Raises:
        InputError: for an empty folder, an unexpected file, and a missing, double or ambiguous number.
    """
    if path.is_file():
        return [path], [0]
    files = _slice_files(path)
    if not files and (path / "images").is_dir():
        files = _slice_files(path / "images")
    if not files:
        refuse(path, "slices", f"no file named {', '.join('*' + s for s in RASTER_SUFFIXES)}",
               "give the folder that holds the slices")  # fmt: skip
    formats = {_format(file): file for file in files}
    if len(formats) > 1:
        one, other = sorted(formats)[:2]
        refuse(formats[other], f"slices of one format, like {formats[one].name}", f"a {other} file",
               "keep one format per folder")  # fmt: skip
    if len(files) == 1:
        found = re.findall(r"[0-9]+", files[0].stem)
        return files, [int(found[-1]) if found else 0]
    return _in_order(files, gaps)


def check_spacing(spacing_mm: Sequence[float]) -> None:
    """Accept three positive edge lengths (x, y, z).

    Raises:
        ValueError: naming what came.
    """
    if len(spacing_mm) != 3:
        raise ValueError(
            f"spacing_mm must be three edge lengths (x, y, z), got {spacing_mm}; repeat one for a cube"
        )
    check_positive("spacing_mm", spacing_mm)


def is_junk(name: str) -> bool:
    """Tell whether a file beside slices or DICOM files is none of them by its name alone.

    Example:
        >>> [is_junk(name) for name in ("Thumbs.db", "._0001.tif", "0001.tif")]
        [True, True, False]
    """
    return name.startswith(".") or name.endswith("~") or Path(name).suffix.lower() in IGNORED_SUFFIXES


def _slice_files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not is_junk(entry.name) and not entry.is_dir())
    files = [folder / name for name in names if name.lower().endswith(RASTER_SUFFIXES)]
    if files and len(files) != len(names):
        odd = next(name for name in names if not name.lower().endswith(RASTER_SUFFIXES))
        refuse(folder / odd, "only slices and text files in a folder of slices", "another kind of file",
               "move it out of the folder")  # fmt: skip
    for file in files:
        if not file.is_file():
            refuse(file, "a regular file", "a broken link, pipe or device", "remove it or restore its target")
    return files


def _format(file: Path) -> str:
    suffix = file.suffix.lower()
    return {".tiff": "tif", ".jpeg": "jpg"}.get(suffix, suffix[1:])


def _in_order(files: list[Path], gaps: Gaps) -> tuple[list[Path], list[int]]:
    # "kidney_1_0007" -> ["kidney_", "1", "_", "0007", ""]: texts at even, numbers at odd positions
    parts = [re.split(r"([0-9]+)", file.stem) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part[::2] != parts[0][::2] or len(part) < 3:
            refuse(file, f"a number in a name built like {files[0].name}", file.name,
                   "name all slices alike, with one running number")  # fmt: skip
    varying = [k for k in range(1, len(parts[0]), 2) if len({int(part[k]) for part in parts}) > 1]
    if len(varying) > 1:
        refuse(files[0], "names that differ in one number", f"{len(varying)} running numbers",
               "name all slices alike, with one running number")  # fmt: skip
    position = varying[0] if varying else -2
    ordered = sorted(zip((int(part[position]) for part in parts), files, strict=True))
    for (number, file), (following, next_file) in pairwise(ordered):
        if following == number:
            refuse(
                next_file,
                "one file per slice number",
                f"number {number} also in {file.name}",
                "keep one of them",
            )
        if following != number + 1 and gaps == "refuse":
            refuse(file.parent, f"slice {number + 1} behind {file.name}", next_file.name,
                   "restore the missing slice, or rename the slices if none is missing")  # fmt: skip
    return [file for _, file in ordered], [number for number, _ in ordered]


def _check_span(path: Path, numbers: Sequence[int], slice_bytes: int, max_bytes: int | None) -> None:
    """Refuse numbers so far apart that the grid from the first to the last one exceeds the budget."""
    span = numbers[-1] - numbers[0] + 1
    if span > len(numbers) and span * slice_bytes > byte_budget(max_bytes):
        got = f"{numbers[0]} to {numbers[-1]} for {len(numbers)} files"
        refuse(path, "slice numbers that count slices", got,
               "rename the slices after their places in the volume")  # fmt: skip


def _check_alike(first: Raster, raster: Raster, count: int) -> None:
    if count > 1 and raster.page_count > 1:
        refuse(raster.path, "one page per slice file", f"{raster.page_count} pages",
               "keep either single slices or one multi-page file in a folder")  # fmt: skip
    size, first_size = f"{raster.width}x{raster.height}", f"{first.width}x{first.height}"
    if size != first_size:
        refuse(
            raster.path, f"{first_size} pixels like {first.path.name}", size, "all slices must have one size"
        )
    if raster.dtype != first.dtype or raster.is_colour != first.is_colour:
        refuse(raster.path, f"{_type_name(first)} like {first.path.name}", _type_name(raster),
               "all slices must have one type")  # fmt: skip


def _type_name(raster: Raster) -> str:
    return f"{raster.dtype}{' colours' if raster.is_colour else ''}"


def _spacing(
    path: Path, folder: Path, rasters: list[Raster], spacing_mm: Sequence[float] | None
) -> tuple[tuple[float, ...], bool]:
    if spacing_mm is not None:
        check_spacing(spacing_mm)
        return tuple(float(length) for length in spacing_mm), True
    if path.is_dir():
        for place in dict.fromkeys((folder, path)):
            if (place / SPACING_FILE).exists():
                return _sidecar_spacing(place / SPACING_FILE), True
    first = rasters[0]
    for raster in rasters:
        stated, other = (np.array(r.spacing_mm or (1.0, 1.0)) for r in (first, raster))
        if (abs(stated - other) > _SAME_SPACING * stated).any():
            refuse(raster.path, f"pixels of {stated.tolist()} mm like {first.path.name}", other.tolist(),
                   f"state the spacing by spacing_mm or {SPACING_FILE}")  # fmt: skip
    x_mm, y_mm = first.spacing_mm or (1.0, 1.0)
    is_known = first.spacing_mm is not None and first.slice_spacing_mm is not None
    return (x_mm, y_mm, first.slice_spacing_mm or 1.0), is_known


def _sidecar_spacing(file: Path) -> tuple[float, ...]:
    try:
        spacing = json.loads(file.read_bytes())["spacing_mm"]
        if not isinstance(spacing, list) or len(spacing) != 3:
            raise ValueError("spacing_mm is no list of three numbers")
        check_positive("spacing_mm", spacing)
        return tuple(float(length) for length in spacing)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        refuse(
            file,
            '{"spacing_mm": [x, y, z]} in mm',
            str(error) or type(error).__name__,
            "correct or remove it",
        )
