"""Adapters of data sets: from the layout on disk as downloaded to a checked `datalist.json`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from volseg.checks import check_choice, refuse

__all__ = ["ADAPTERS", "CaseRow", "PrepareReport", "prepare_dataset"]

ADAPTERS = {
    "chase": "volseg.data.datasets.chase:prepare_chase",
    "drive": "volseg.data.datasets.drive:prepare_drive",
    "duke-dme": "volseg.data.datasets.duke_dme:prepare_duke_dme",
    "fundus": "volseg.data.datasets.fundus:prepare_fundus",
    "nerve": "volseg.data.datasets.nerve:prepare_nerve",
    "oct-edema": "volseg.data.datasets.oct_edema:prepare_oct_edema",
    "sennet": "volseg.data.datasets.sennet:prepare_sennet",
    "shapes": "volseg.data.datasets.shapes:prepare_shapes",
}
"""Name of a data set to `module:function`; the module is imported when it is asked for."""

_COLUMNS = ("case", "size", "dtype", "spacing mm", "labelled", "foreground", "coverage", "fold")
_PART_COLUMNS = ("part", "cases", "groups", "without mask", "empty masks", "foreground")


@dataclass
class CaseRow:
    """What was found in one case.

    Attributes:
        case: its name.
        group: what stays in one fold.
        size: voxels (x, y, z), or (rows, columns) of a picture; None where nothing could be read.
        dtype: of the image.
        spacing_mm: None where nothing states it.
        slices_labelled: number of slices along z with a label; 1 or 0 for a picture.
        foreground: share of labelled voxels that are foreground; None without labels.
        coverage: stated share of the foreground that is labelled.
        fold: None for test cases.
        warnings: sentences about this case.
    """

    case: str
    group: str = ""
    size: tuple[int, ...] | None = None
    dtype: str = ""
    spacing_mm: list[float] | None = None
    slices_labelled: int = 0
    foreground: float | None = None
    coverage: float = 1.0
    fold: int | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class PrepareReport:
    """Outcome of preparing a data set.

    Attributes:
        name: of the data set.
        datalist: path of the written list; None when there are faults.
        cases: one row for each case item.
        faults: every fault found, one sentence each; with any of them no datalist is written.
        warnings: what the user should know although it stops nothing.
    """

    name: str
    datalist: str | None = None
    cases: list[CaseRow] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)

    def table(self) -> str:
        """One line for each volume, or for each fold of pictures; then one for each warning."""
        if any(row.size is not None and len(row.size) == 2 for row in self.cases):
            rows = [_PART_COLUMNS, *_parts(self.cases)]
        else:
            rows = [_COLUMNS, *(_cells(row) for row in self.cases)]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        notes = [f"{row.case}: {warning}" for row in self.cases for warning in row.warnings]
        return "\n".join(
            [*(line.rstrip() for line in lines), *map("warning: {}".format, notes + self.warnings)]
        )


def prepare_dataset(
    name: str,
    raw: str | Path,
    *,
    output_dir: str | Path | None = None,
    spacing_mm: float | Sequence[float] | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    observer: str | None = None,
    generate: int | None = None,
    generate_test: int | None = None,
) -> PrepareReport:
    """Check a raw data set and write its datalist by the adapter called `name`.

    Args:
        name: key of `ADAPTERS`.
        raw: the data set as downloaded and unpacked.
        output_dir: folder for the datalist; `raw` itself by default.
        spacing_mm: edge length of a voxel, where the adapter's own knowledge is to be overruled.
        folds: number of folds; as many as there are groups, up to 5, by default.
        seed: of the assignment to folds.
        overwrite: replace an existing datalist.
        observer: whose masks are the labels, where a data set has several.
        generate: number of training images to generate into `raw`, where the data set can be generated.
        generate_test: number of test images to generate.

    Raises:
        ValueError: when the name is unknown.
        InputError: when `raw` is not such a data set, or the data set knows no such argument. Faults of
            single files are in the report instead.
    """
    check_choice("name", name, ADAPTERS)
    module, function = ADAPTERS[name].split(":")
    adapter: Callable[..., PrepareReport] = getattr(importlib.import_module(module), function)
    stated = {
        "spacing_mm": spacing_mm,
        "observer": observer,
        "generate": generate,
        "generate_test": generate_test,
    }
    given = {key: value for key, value in stated.items() if value is not None}
    known = inspect.signature(adapter).parameters
    for key in given:
        if key not in known:
            option = f"--{key.replace('_', '-')}"
            refuse(option, f"an option that {name} has", "one of other data sets", "leave it out")
    return adapter(raw, output_dir=output_dir, folds=folds, seed=seed, overwrite=overwrite, **given)


def _cells(row: CaseRow) -> tuple[str, ...]:
    slices = row.size[2] if row.size is not None and len(row.size) == 3 else None
    return (
        row.case.replace("\n", "\\n"),
        "x".join(map(str, row.size)) if row.size is not None else "?",
        row.dtype or "?",
        "x".join(f"{edge:g}" for edge in row.spacing_mm) if row.spacing_mm is not None else "unknown",
        f"{row.slices_labelled}/{slices}" if slices is not None else str(row.slices_labelled),
        f"{100 * row.foreground:.3f} %" if row.foreground is not None else "-",
        f"{100 * row.coverage:.0f} %",
        str(row.fold) if row.fold is not None else "test",
    )


def _parts(cases: Sequence[CaseRow]) -> list[tuple[str, ...]]:
    """A line for each fold, one for the test section, and the sum where there are several."""
    folds = sorted({row.fold for row in cases if row.fold is not None})
    parts = {f"fold {fold}": [row for row in cases if row.fold == fold] for fold in folds}
    parts["test"] = [row for row in cases if row.fold is None]
    parts = {name: rows for name, rows in parts.items() if rows}
    if len(parts) > 1:
        parts["all"] = list(cases)
    return [(name, *_part_cells(rows)) for name, rows in parts.items()]


def _part_cells(rows: Sequence[CaseRow]) -> tuple[str, ...]:
    shares = [row.foreground for row in rows if row.foreground is not None]
    return (
        str(len(rows)),
        str(len({row.group for row in rows})),
        str(len(rows) - len(shares)),
        str(sum(share == 0 for share in shares)),
        f"{100 * sum(shares) / len(shares):.3f} %" if shares else "-",
    )
