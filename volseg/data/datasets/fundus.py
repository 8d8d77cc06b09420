"""Vessels in colour fundus photographs, several versions of each: `{train,test}/{image,mask}/NN.png`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from volseg.checks import refuse
from volseg.data.datasets import PrepareReport
from volseg.data.datasets.folders import index_pictures, unpaired_pictures
from volseg.data.datasets.picture_check import PictureCase
from volseg.data.datasets.picture_list import PictureList, PictureSet

__all__ = ["prepare_fundus"]

_SET = PictureSet(
    name="fundus",
    description="Blood vessels in colour fundus photographs; all versions of a photograph are one group.",
    classes={0: "background", 1: "vessel"},
    has_grey_edges=True,
)
_ANY_NAME = re.compile(r"(.+)")


def prepare_fundus(
    raw: str | Path,
    *,
    output_dir: str | Path | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    group: Callable[[Sequence[Path]], Sequence[int]] | None = None,
) -> PrepareReport:
    """Check `{train,test}/{image,mask}` and write a datalist in which versions of a photograph stay together.

    The download holds each photograph several times, flipped and turned, under unrelated names. A group is
    therefore found by looking at the pictures; it is named after its first case.

    Args:
        raw: the folder that holds `train`, or `train` itself.
        output_dir: folder for the datalist; `raw` by default.
        folds: number of folds; one per group, up to 5, by default.
        seed: of the assignment to folds.
        overwrite: replace an existing datalist.
        group: gives each picture the index of its group; `volseg.data.audit.group_pictures` by default.

    Returns:
        The report; with faults in it nothing was written.

    Raises:
        InputError: when `raw` is no such data set, or a datalist exists and `overwrite` is False.
    """
    run = PictureList(_SET, raw, output_dir=output_dir, overwrite=overwrite)
    cases = _find(run)
    if run.check(cases) and cases:
        indices = (group or _default_group())([case.image for case in cases])
        first_of: dict[int, str] = {}
        for case, index in zip(cases, indices, strict=True):
            case.group = first_of.setdefault(index, case.name)
    return run.write(cases, folds=folds, seed=seed)


def _default_group() -> Callable[[Sequence[Path]], Sequence[int]]:
    from volseg.data.audit import group_pictures

    return group_pictures


def _find(run: PictureList) -> list[PictureCase]:
    places = {name: run.folder / name for name in ("train", "test") if (run.folder / name / "image").is_dir()}
    if not places and (run.folder / "image").is_dir():
        places = {"train": run.folder}
    if not places:
        expected = "train/image and train/mask"
        refuse(run.folder, expected, "no folder image", "give the folder that holds train/")
    cases = []
    for section, place in places.items():
        example = f"{section}/image/07.png"
        images, faults = index_pictures(place / "image", _ANY_NAME, root=run.folder, example=example)
        masks, mask_faults = index_pictures(place / "mask", _ANY_NAME, root=run.folder, example=example)
        run.report.faults += faults + mask_faults
        if masks or section == "train":  # test pictures may come without masks, all or none
            run.report.faults += unpaired_pictures(
                images, masks, kind="mask", place=place / "mask", root=run.folder
            )
        for stem, path in images.items():
            name = f"{section}_{stem}"
            cases.append(PictureCase(name, name, path, label=masks.get(stem), is_test=section == "test"))
    return cases
