"""Adapters of data sets: from the layout on disk as downloaded to a checked `datalist.json`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from volseg.checks import check_choice

__all__ = ["ADAPTERS", "CaseRow", "PrepareReport", "prepare_dataset"]

ADAPTERS = {
    "sennet": "volseg.data.datasets.sennet:prepare_sennet",
}
"""Name of a data set to `module:function`; the module is imported when it is asked for."""

_COLUMNS = ("case", "size", "dtype", "spacing mm", "labelled", "foreground", "coverage", "fold")


@dataclass
class CaseRow:
    """What was found in one case.

    Attributes:
        case: its name.
        size: voxels (x, y, z); None where no slice could be read.
        dtype: of the image.
        spacing_mm: None where nothing states it.
        slices_labelled: number of slices along z with a label.
        foreground: share of labelled voxels that are foreground; None without labels.
        coverage: stated share of the foreground that is labelled.
        fold: None for test cases.
        warnings: sentences about this case.
    """

    case: str
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
        """One line for each case, and a line for each warning."""
        rows = [_COLUMNS, *(_cells(row) for row in self.cases)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
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

    Raises:
        ValueError: when the name is unknown.
        InputError: when `raw` is not such a data set. Faults of single files are in the report instead.
    """
    check_choice("name", name, ADAPTERS)
    module, function = ADAPTERS[name].split(":")
    adapter: Callable[..., PrepareReport] = getattr(importlib.import_module(module), function)
    return adapter(
        raw, output_dir=output_dir, spacing_mm=spacing_mm, folds=folds, seed=seed, overwrite=overwrite
    )


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
