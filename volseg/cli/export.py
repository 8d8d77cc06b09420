"""`volseg export`: predictions in the formats that others ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from volseg.checks import refuse

__all__ = ["export"]

export = typer.Typer(help="Write predictions in another format.", no_args_is_help=True)

_SUFFIX = "_seg.nii.gz"


@export.callback()
def _formats() -> None:
    """Write predictions in another format."""


@export.command("rle")
def export_rle(
    pred_dir: Annotated[Path, typer.Argument(help="Folder of predictions <case>/<case>_seg.nii.gz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The CSV to write.")],
    dataset_dir: Annotated[
        Path | None,
        typer.Option(
            help="The data set (datalist.json, or folders of slices) whose file names number the slices; "
            "they count from 0 without it."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing CSV.")] = False,
) -> None:
    """Write the run-length CSV of the SenNet + HOA challenge: one row id,rle for each z slice.

    Example: volseg export rle predictions -o submission.csv --dataset-dir ~/kidneys
    """
    from volseg.data.rle import write_rle_csv

    predictions = _find_predictions(pred_dir)
    numbers = {} if dataset_dir is None else _slice_numbers(dataset_dir, list(predictions))
    rows = (row for case, path in predictions.items() for row in _rows(case, path, numbers.get(case)))
    write_rle_csv(output, rows, overwrite=overwrite)
    print(f"wrote {output}: {len(predictions)} {'case' if len(predictions) == 1 else 'cases'}")


def _find_predictions(pred_dir: Path) -> Mapping[str, Path]:
    """Case to file, in the order of the names."""
    if not pred_dir.is_dir():
        refuse(pred_dir, "a folder of predictions", "none", "give the output_dir of an inference run")
    paths = sorted(path for path in pred_dir.glob("*/*") if path.name.endswith(_SUFFIX))
    found = {path.parent.name: path for path in paths if path.name == path.parent.name + _SUFFIX}
    if not found:
        refuse(pred_dir, f"predictions <case>/<case>{_SUFFIX}", "none", "run inference first")
    return found


def _slice_numbers(dataset_dir: Path, cases: Sequence[str]) -> Mapping[str, Sequence[int]]:
    """Case to the numbers in its slices' file names."""
    from volseg import files
    from volseg.data import slice_numbers
    from volseg.data.cases import find_cases
    from volseg.data.datalist import DATALIST_NAME, load_cases

    is_prepared = (dataset_dir / DATALIST_NAME).is_file()
    items = find_cases(dataset_dir)
    if is_prepared:
        items += load_cases(dataset_dir, "all", must_exist=())
    images = {files.safe_name(item["case"]): Path(item["image"]) for item in items}
    for case in cases:
        if case not in images:
            refuse(dataset_dir, f"the case {case!r} of the predictions", "none", "check --dataset-dir")
    return {case: slice_numbers(images[case]) for case in cases}


def _rows(case: str, path: Path, numbers: Sequence[int] | None) -> Iterator[tuple[str, str]]:
    from volseg.data import read_volume
    from volseg.data.rle import encode_rle

    labels, _ = read_volume(path)
    if labels.ndim != 3 or labels.dtype.kind not in "ui":
        got = f"shape {labels.shape} of {labels.dtype}"
        refuse(path, "a label volume (x, y, z) of whole numbers", got, "export the _seg file of a 3D case")
    if labels.min() < 0 or labels.max() > 1:
        got = f"values from {labels.min()} to {labels.max()}"
        refuse(path, "the labels 0 and 1, which this CSV can hold", got, "export a binary prediction")
    depth = labels.shape[2]
    if numbers is not None and len(numbers) != depth:
        refuse(path, f"the {len(numbers)} slices of its image", f"{depth}", "check --dataset-dir")
    for index in range(depth):
        number = index if numbers is None else numbers[index]
        yield f"{case}_{number:04d}", encode_rle(labels[:, :, index].T)
