"""Synthetic shapes: `images/Img_0.png` with colour masks `masks/Mask_0.png`, downloaded or generated."""

from __future__ import annotations

import re
from pathlib import Path

from volseg.checks import refuse
from volseg.data.datasets import PrepareReport
from volseg.data.datasets.folders import index_pictures, unpaired_pictures
from volseg.data.datasets.picture_check import PictureCase
from volseg.data.datasets.picture_list import PictureList, PictureSet
from volseg.data.phantoms.shapes import SHAPE_COLOURS, write_shapes

__all__ = ["prepare_shapes"]

_SET = PictureSet(
    name="shapes",
    description="Synthetic lines and ellipses on noise, with masks in colours.",
    classes={0: "background", 1: "line", 2: "ellipse"},
    object_of_group="image",
)
_RULE = {colour: index for index, colour in enumerate(SHAPE_COLOURS) if index}
_IMAGE, _MASK = re.compile(r"Img_([0-9]+)"), re.compile(r"Mask_([0-9]+)")
_SECTIONS = {"images_train": "train", "images_test": "test"}


def prepare_shapes(
    raw: str | Path,
    *,
    output_dir: str | Path | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    generate: int | None = None,
    generate_test: int | None = None,
) -> PrepareReport:
    """Check images and colour masks and write a datalist; each image is a group of its own.

    Args:
        raw: the folder that holds `images_train` and perhaps `images_test`, or one that holds `images`.
        output_dir: folder for the datalist; `raw` by default.
        folds: number of folds; one per image, up to 5, by default.
        seed: of the assignment to folds, and of what is generated.
        overwrite: replace an existing datalist, and generated pictures.
        generate: number of training images to draw into `raw` first.
        generate_test: number of test images to draw; 10 by default where `generate` is given.

    Returns:
        The report; with faults in it no datalist was written.

    Raises:
        InputError: when `raw` is no such data set, a datalist exists and `overwrite` is False, or pictures
            that would be mixed with the generated ones are there.
    """
    if generate is not None:
        _generate(raw, (generate, 10 if generate_test is None else generate_test), seed, overwrite)
    elif generate_test is not None:
        refuse("--generate-test", "--generate beside it", "--generate-test alone", "add --generate 100")
    run = PictureList(_SET, raw, output_dir=output_dir, overwrite=overwrite)
    places = {run.folder / name: section for name, section in _SECTIONS.items()}
    places = {place: section for place, section in places.items() if (place / "images").is_dir()}
    if not places and (run.folder / "images").is_dir():
        places = {run.folder: "train"}
    if not places:
        expected = "images_train/images and images_train/masks"
        refuse(run.folder, expected, "no folder images", "give the folder that holds images_train/")
    cases = [case for place, section in places.items() for case in _cases(run, place, section)]
    run.check(cases)
    return run.write(cases, folds=folds, seed=seed)


def _generate(raw: str | Path, counts: tuple[int, int], seed: int, overwrite: bool) -> None:
    for option, count in zip(("--generate", "--generate-test"), counts, strict=True):
        if count < 1:
            refuse(option, "one image or more", count, "ask for 100 training and 10 test images")
    if not str(raw).strip():
        refuse("RAW", "a folder for the pictures", "an empty text", "name a new folder")
    for section, (name, count) in enumerate(zip(_SECTIONS, counts, strict=True)):
        write_shapes(Path(raw) / name, count, seed=(seed, section), overwrite=overwrite)


def _cases(run: PictureList, place: Path, section: str) -> list[PictureCase]:
    images, faults = index_pictures(place / "images", _IMAGE, root=run.folder, example="images/Img_0.png")
    masks, mask_faults = index_pictures(place / "masks", _MASK, root=run.folder, example="masks/Mask_0.png")
    run.report.faults += faults + mask_faults
    run.report.faults += unpaired_pictures(images, masks, kind="mask", place=place / "masks", root=run.folder)
    return [
        PictureCase(
            name=f"{section}_{number}",
            group=f"{section}_{number}",
            image=path,
            label=masks.get(number),
            label_rule=_RULE,
            is_test=section == "test",
        )
        for number, path in images.items()
    ]
