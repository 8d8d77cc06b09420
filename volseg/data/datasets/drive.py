"""DRIVE: `images/21_training.tif`, `1st_manual/21_manual1.gif`, and fields of view in `mask`."""

from __future__ import annotations

import re
from pathlib import Path

from volseg.checks import refuse
from volseg.data.datasets import PrepareReport
from volseg.data.datasets.folders import index_pictures, unpaired_pictures
from volseg.data.datasets.picture_check import PictureCase
from volseg.data.datasets.picture_list import PictureList, PictureSet

__all__ = ["prepare_drive"]

_SET = PictureSet(
    name="drive",
    description="Blood vessels in colour fundus photographs with field of view masks (DRIVE).",
    classes={0: "background", 1: "vessel"},
)
_NUMBERED = re.compile(r"([0-9]+)_.+")


def prepare_drive(
    raw: str | Path,
    *,
    output_dir: str | Path | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> PrepareReport:
    """Check DRIVE's `training` and `test` folders and write a datalist; the number in front pairs the files.

    Args:
        raw: the folder that holds `training`, or one that holds `images` itself.
        output_dir: folder for the datalist; `raw` by default.
        folds: number of folds; one per photograph, up to 5, by default.
        seed: of the assignment to folds.
        overwrite: replace an existing datalist.

    Returns:
        The report; with faults in it nothing was written.

    Raises:
        InputError: when `raw` is no such data set, or a datalist exists and `overwrite` is False.
    """
    run = PictureList(_SET, raw, output_dir=output_dir, overwrite=overwrite)
    names = ("training", "test")
    places = {name: run.folder / name for name in names if (run.folder / name / "images").is_dir()}
    if not places and (run.folder / "images").is_dir():
        places = {"training": run.folder}
    if not places:
        expected = "training/images, training/1st_manual and training/mask"
        refuse(run.folder, expected, "no folder images", "give the folder that holds training/")
    cases = [case for section, place in places.items() for case in _cases(run, section, place)]
    run.check(cases)
    return run.write(cases, folds=folds, seed=seed)


def _cases(run: PictureList, section: str, place: Path) -> list[PictureCase]:
    parts = {
        "images": f"21_{section}.tif",
        "1st_manual": "21_manual1.gif",
        "mask": f"21_{section}_mask.gif",
    }
    found: dict[str, dict[str, Path]] = {}
    for part, example in parts.items():
        found[part], faults = index_pictures(place / part, _NUMBERED, root=run.folder, example=example)
        run.report.faults += faults
    images, masks, fields = found.values()
    if masks or section == "training":
        run.report.faults += unpaired_pictures(
            images, masks, kind="mask", place=place / "1st_manual", root=run.folder
        )
    if fields:
        run.report.faults += unpaired_pictures(
            images, fields, kind="field of view", place=place / "mask", root=run.folder
        )
    else:
        run.report.warnings.append(
            f"{section}: no field of view masks; scores count the black border as background"
        )
    return [
        PictureCase(
            name=number,
            group=number,
            image=path,
            label=masks.get(number),
            field_of_view=fields.get(number),
            is_test=section == "test",
        )
        for number, path in images.items()
    ]
