"""Run-length encoded masks, as segmentation challenges exchange them in CSV files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from volseg.checks import InputError, check_choice, refuse

__all__ = ["decode_rle", "encode_rle", "read_rle_csv", "write_rle_csv"]

Order = Literal["C", "F"]
# SenNet writes an empty mask as one run of length 0, the nerve challenge as an empty cell.
_EMPTY = {"C": "1 0", "F": ""}


def encode_rle(mask: npt.ArrayLike, *, order: Order = "C", empty: str | None = None) -> str:
    """Write a mask as `start length start length …`, starts counted from 1.

    Args:
        mask: (H, W); every value other than 0 is foreground.
        order: "C" counts along rows (SenNet + HOA), "F" along columns (ultrasound nerve).
        empty: the text of a mask without foreground; `1 0` for "C" and an empty text for "F" by default.

    Raises:
        ValueError: when the mask is not two-dimensional or `order` is unknown.

    Example:
        >>> encode_rle([[0, 1, 1], [1, 0, 0]]), encode_rle([[0, 1, 1], [1, 0, 0]], order="F")
        ('2 3', '2 2 5 1')
    """
    check_choice("order", order, _EMPTY)
    array = np.asarray(mask)
    if array.ndim != 2:
        raise ValueError(f"a run-length mask needs two axes (H, W), got shape {array.shape}; pass one slice")
    foreground = np.concatenate(([False], (array != 0).ravel(order=order), [False]))
    edges = np.flatnonzero(foreground[1:] != foreground[:-1])
    if edges.size == 0:
        return _EMPTY[order] if empty is None else empty
    starts, ends = edges[::2], edges[1::2]
    numbers = np.stack((starts + 1, ends - starts), axis=1).ravel()
    return " ".join(map(str, numbers.tolist()))


def decode_rle(
    text: str, size: Sequence[int], *, order: Order = "C", empty: str | None = None
) -> npt.NDArray[np.uint8]:
    """Read `start length …` back into a mask; the inverse of `encode_rle`.

    Args:
        text: the runs, sorted by start and free of overlaps.
        size: (H, W) of the mask.
        order: as in `encode_rle`.
        empty: the text that stands for a mask without foreground, as in `encode_rle`.

    Returns:
        (H, W) uint8, 0 and 1.

    Raises:
        InputError: when the text is no run-length code of a mask of this size.

    Example:
        >>> decode_rle("2 3", (2, 3)).tolist()
        [[0, 1, 1], [1, 0, 0]]
    """
    check_choice("order", order, _EMPTY)
    height, width = size
    flat = np.zeros(height * width, dtype=np.uint8)
    if text.strip() != (_EMPTY[order] if empty is None else empty).strip():
        starts, ends = _runs_of(text, flat.size)
        steps = np.zeros(flat.size + 1, dtype=np.int8)
        np.add.at(steps, starts, 1)
        np.add.at(steps, ends, -1)
        flat[:] = np.cumsum(steps[:-1], dtype=np.int8)
    return flat.reshape((height, width), order=order)


def _runs_of(text: str, voxels: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First voxel and end (exclusive) of every run, counted from 0."""
    words = text.split()
    # 18 digits always fit into int64; a longer number is out of range anyway
    bad = next((word for word in words if not (word.isascii() and word.isdigit() and len(word) <= 18)), None)
    if bad is not None:
        refuse("run-length code", "whole numbers", repr(bad[:40]), "check the CSV for damaged cells")
    if not words or len(words) % 2:
        refuse("run-length code", "pairs of start and length", f"{len(words)} numbers", "look for a cut line")
    numbers = np.array(words, dtype=np.int64).reshape(-1, 2)
    starts, lengths = numbers[:, 0] - 1, numbers[:, 1]
    ends = starts + lengths
    if (lengths < 1).any():
        refuse(
            "run-length code", "runs of at least one pixel", "a run of length 0", "see the `empty` argument"
        )
    if starts.min() < 0 or ends.max() > voxels:
        got = f"a run from {starts.min() + 1} to {ends.max()}"
        refuse("run-length code", f"runs within 1 to {voxels}", got, "check the size of the image")
    if (starts[1:] < ends[:-1]).any():
        first = int(np.flatnonzero(starts[1:] < ends[:-1])[0])
        got = f"a run at {starts[first + 1] + 1} after one that ends at {ends[first]}"
        refuse("run-length code", "sorted runs without overlap", got, "sort the runs by their start")
    return starts, ends


def read_rle_csv(path: str | Path, columns: Sequence[str] = ("id", "rle")) -> list[dict[str, str]]:
    """Read the rows of a run-length CSV; all but the last column together name a mask.

    Args:
        path: the CSV; its first line names the columns.
        columns: the expected names, in their order.

    Raises:
        InputError: when the file is no such CSV, or names a mask twice.
    """
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: expected a readable CSV, got {error}; check the file") from error
    expected = ",".join(columns)
    header = [word.strip().strip('"') for word in (lines[0] if lines else "").split(",")]
    if header != list(columns):
        refuse(source, f"the columns {expected}", repr((lines or [""])[0][:80]), "check which CSV this is")
    rows: list[dict[str, str]] = []
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(lines[1:], start=2):
        # not the csv module: a run-length cell exceeds its field limit, which is global state
        cells = [cell.strip().strip('"') for cell in line.split(",")]
        if len(cells) != len(columns):
            refuse(
                f"{source}, line {number}", f"{len(columns)} cells", f"{len(cells)}", "look for a cut line"
            )
        if tuple(cells[:-1]) in seen:
            refuse(
                f"{source}, line {number}", "each mask once", f"{cells[:-1]} again", "remove one of the two"
            )
        seen.add(tuple(cells[:-1]))
        rows.append(dict(zip(columns, cells, strict=True)))
    return rows


def write_rle_csv(
    path: str | Path,
    rows: Iterable[Sequence[str]],
    *,
    columns: Sequence[str] = ("id", "rle"),
    overwrite: bool = False,
) -> None:
    """Write rows of (name, …, runs) as a challenge's CSV, one after the other and atomically.

    Args:
        path: the CSV to write.
        rows: one sequence of cells for each mask, in the order of `columns`; may be a generator.
        columns: the first line.
        overwrite: replace an existing file.

    Raises:
        ValueError: when a row has another number of cells, or a cell holds a comma, a quote or a line end.
    """
    from volseg import files

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as stream:
            stream.write(",".join(columns) + "\n")
            for row in rows:
                stream.write(",".join(_checked(row, columns)) + "\n")

    files.write_atomically(path, write, overwrite=overwrite)


def _checked(row: Sequence[str], columns: Sequence[str]) -> Sequence[str]:
    if len(row) != len(columns) or any(mark in cell for cell in row for mark in ',"\n\r'):
        raise ValueError(
            f"a row of this CSV needs {len(columns)} cells without commas, quotes or line ends, "
            f"got {[cell[:40] for cell in row]}; rename the case"
        )
    return row
