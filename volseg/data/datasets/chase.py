"""CHASE_DB1: both eyes of children, `Image_01L.jpg` with `Image_01L_1stHO.png` and `Image_01L_2ndHO.png`."""

from __future__ import annotations

import re
from pathlib import Path

from volseg.checks import nearest, refuse
from volseg.data.datasets import PrepareReport
from volseg.data.datasets.folders import index_pictures, unpaired_pictures
from volseg.data.datasets.picture_check import PictureCase
from volseg.data.datasets.picture_list import PictureList, PictureSet

__all__ = ["prepare_chase"]

_SET = PictureSet(
    name="chase",
    description="Blood vessels in colour fundus photographs of both eyes (CHASE_DB1).",
    classes={0: "background", 1: "vessel"},
    object_of_group="subject",
)
_OBSERVERS = ("1stHO", "2ndHO")
_NAME = re.compile(r"(Image_[0-9]+[LR])(?:_(1stHO|2ndHO))?")
_FOLDERS = (".", "images", "labels", "masks")


def prepare_chase(
    raw: str | Path,
    *,
    output_dir: str | Path | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    observer: str = "1stHO",
) -> PrepareReport:
    """Check the photographs against one observer's masks and write a datalist; both eyes are one group.

    Args:
        raw: the folder of all files, or one that holds `images` and `labels`.
        output_dir: folder for the datalist; `raw` by default.
        folds: number of folds; one per subject, up to 5, by default.
        seed: of the assignment to folds.
        overwrite: replace an existing datalist.
        observer: whose masks are the labels, "1stHO" or "2ndHO".

    Returns:
        The report; with faults in it nothing was written.

    Raises:
        InputError: when `raw` is no such data set, the observer is unknown, or a datalist exists and
            `overwrite` is False.
    """
    if observer not in _OBSERVERS:
        refuse("--observer", f"one of {', '.join(_OBSERVERS)}", repr(observer), nearest(observer, _OBSERVERS))
    run = PictureList(_SET, raw, output_dir=output_dir, overwrite=overwrite)
    found: dict[str, Path] = {}
    for name in _FOLDERS:
        pictures, faults = index_pictures(
            run.folder / name, _NAME, root=run.folder, example="Image_01L.jpg or Image_01L_1stHO.png"
        )
        run.report.faults += faults
        run.report.faults += [
            f"{name}/{path.name}: expected one picture called {key!r}, got one elsewhere too; remove one"
            for key, path in pictures.items()
            if key in found
        ]
        found = {**pictures, **found}
    images = {key: path for key, path in found.items() if not key.endswith(_OBSERVERS)}
    ending = f"_{observer}"
    masks = {key.removesuffix(ending): path for key, path in found.items() if key.endswith(ending)}
    if not images:
        expected = "photographs named like Image_01L.jpg"
        refuse(run.folder, expected, "none", "give the folder that holds them, or images/ and labels/")
    place = next(iter(masks.values())).parent if masks else run.folder
    run.report.faults += unpaired_pictures(
        images, masks, kind=f"{observer} mask", place=place, root=run.folder
    )
    cases = [
        PictureCase(name=key, group=key.rstrip("LR"), image=path, label=masks.get(key))
        for key, path in sorted(images.items())
    ]
    run.check(cases)
    return run.write(cases, folds=folds, seed=seed)
