"""`volseg prepare`: a raw data set as downloaded becomes a checked datalist."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.checks import InputError, nearest, refuse

if TYPE_CHECKING:
    from volseg.data.datasets import PrepareReport

__all__ = ["prepare"]

_SHOWN_FAULTS = 10
# ADAPTERS of volseg.data.datasets, said here because --help is to import nothing heavy; a test compares them
_NAMES = (
    "The data set, or the one whose layout yours has: "
    "chase, drive, duke-dme, fundus, nerve, oct-edema, sennet, shapes."
)


def prepare(
    name: Annotated[str, typer.Argument(help=_NAMES)],
    raw: Annotated[Path, typer.Argument(help="The folder as downloaded and unpacked.")],
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for datalist.json, if not RAW itself.")
    ] = None,
    spacing_mm: Annotated[
        str | None, typer.Option(help="Edge length of a voxel in mm: one number, or x,y,z.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Number of folds; one per group, up to 5, by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the assignment to folds.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing datalist.")] = False,
    observer: Annotated[
        str | None, typer.Option(help="chase: whose masks are the labels, 1stHO (default) or 2ndHO.")
    ] = None,
    generate: Annotated[
        int | None, typer.Option(help="oct-edema, shapes: draw this many training cases into RAW first.")
    ] = None,
    generate_test: Annotated[
        int | None,
        typer.Option(help="Test cases to draw beside them; shapes: 10 by default, oct-edema: a quarter."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a raw data set and write its datalist.json with grouped folds.

    Every fault is reported, and with any of them nothing is written and the exit code is 1.

    Example: volseg prepare sennet ~/blood-vessel-segmentation --output-dir ~/kidneys

    Example: volseg prepare shapes ~/shapes --generate 100 --seed 1
    """
    from volseg.data.datasets import ADAPTERS, prepare_dataset

    if name not in ADAPTERS:
        refuse("NAME", f"one of {', '.join(sorted(ADAPTERS))}", repr(name), nearest(name, ADAPTERS))
    report = prepare_dataset(
        name,
        raw,
        output_dir=output_dir,
        spacing_mm=_edges(spacing_mm),
        folds=folds,
        seed=seed,
        overwrite=overwrite,
        observer=observer,
        generate=generate,
        generate_test=generate_test,
    )
    print(json_text.dumps(report.as_dict(), indent=2) if json else report.table())
    if report.faults:
        raise InputError(_told(report))
    if not json:
        print(f"wrote {report.datalist}")


def _edges(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        edges = [float(word) for word in text.split(",")]
    except ValueError:
        edges = []
    if len(edges) not in (1, 3) or not all(0 < edge < float("inf") for edge in edges):
        refuse("--spacing-mm", "one positive number or three", repr(text), "write 0.05 or 0.05,0.05,0.1")
    return edges * 3 if len(edges) == 1 else edges


def _told(report: PrepareReport) -> str:
    shown = [f"  {fault}" for fault in report.faults[:_SHOWN_FAULTS]]
    rest = len(report.faults) - len(shown)
    more = [f"  and {rest} more; --json lists all"] if rest else []
    count = "1 fault" if len(report.faults) == 1 else f"{len(report.faults)} faults"
    return "\n".join([f"{count} in {report.name} data, no datalist written:", *shown, *more])
