"""Ultrasound nerve: TIFF frames with masks or run lengths, or JPEG frames in `images` and `masks`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from volseg import files
from volseg.checks import InputError, refuse
from volseg.data.datasets import PrepareReport
from volseg.data.datasets.folders import index_pictures, unpaired_pictures
from volseg.data.datasets.picture_check import PictureCase
from volseg.data.datasets.picture_list import PictureList, PictureSet
from volseg.data.rle import decode_rle, read_rle_csv

__all__ = ["prepare_nerve"]

_SET = PictureSet(
    name="nerve",
    description="Brachial plexus in ultrasound frames of the neck; the frames of a subject are one group.",
    classes={0: "background", 1: "nerve"},
    channels="grey",
    may_be_empty=True,
    object_of_group="subject",
)
_FRAME = re.compile(r"([0-9]+)_([0-9]+)")
_FRAME_OR_MASK = re.compile(r"([0-9]+)_([0-9]+)(?:_(mask))?")
_MASK = re.compile(r"([0-9]+)_([0-9]+)_mask")
_NUMBER = re.compile(r"([0-9]+)")
_RUN_LENGTHS = "train_masks.csv"
_COLUMNS = ("subject", "img", "pixels")

_FindPairs = Callable[[Sequence[Path]], Iterable[tuple[int, int]]]


def prepare_nerve(
    raw: str | Path,
    *,
    output_dir: str | Path | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    find_pairs: _FindPairs | None = None,
) -> PrepareReport:
    """Check frames and masks and write a datalist in which a subject's frames stay together.

    Two layouts are known: `train/<subject>_<frame>.tif` beside `<subject>_<frame>_mask.tif`, and `images` and
    `masks` with a file each. Where the first lacks mask files, `train_masks.csv` is decoded into
    `<output_dir>/labels`. Frames of `test` become the test section. Masks stored as JPEG count above 127.
    Folds get equal shares of subjects with many empty masks. Subjects that share a frame are one group, or a
    split would leak; the report warns of them.

    Args:
        raw: the unpacked download, or its `train` folder.
        output_dir: folder for the datalist and decoded masks; `raw` by default.
        folds: number of folds; one per subject, up to 5, by default.
        seed: of the assignment to folds.
        overwrite: replace an existing datalist and decoded masks.
        find_pairs: gives pairs of indices of pictures that are the same;
            `volseg.data.audit.find_same_pictures` by default.

    Returns:
        The report; with faults in it nothing was written.

    Raises:
        InputError: when `raw` is no such data set, or a datalist exists and `overwrite` is False.
    """
    run = PictureList(_SET, raw, output_dir=output_dir, overwrite=overwrite)
    cases = _frames_and_masks(run) if (run.folder / "images").is_dir() else _challenge(run)
    if run.check(cases):
        run.report.warnings += _join_subjects([case for case in cases if not case.is_test], find_pairs)
        for case in cases:
            _write_mask(case, run)
    return run.write(cases, folds=folds, seed=seed)


def _frames_and_masks(run: PictureList) -> list[PictureCase]:
    images, faults = index_pictures(run.folder / "images", _FRAME, root=run.folder, example="10_1.jpg")
    place = run.folder / "masks"
    masks, mask_faults = index_pictures(place, _MASK, root=run.folder, example="10_1_mask.jpg")
    run.report.faults += faults + mask_faults
    if not images:
        refuse(run.folder / "images", "frames named like 10_1.jpg", "none", "check the download")
    run.report.faults += unpaired_pictures(images, masks, kind="mask", place=place, root=run.folder)
    return [_case(key, path, masks.get(key)) for key, path in images.items()]


def _challenge(run: PictureList) -> list[PictureCase]:
    place = run.folder / "train" if (run.folder / "train").is_dir() else run.folder
    example = "1_1.tif or 1_1_mask.tif"
    found, faults = index_pictures(place, _FRAME_OR_MASK, root=run.folder, example=example)
    run.report.faults += faults
    images = {key: path for key, path in found.items() if not key.endswith("_mask")}
    masks = {key.removesuffix("_mask"): path for key, path in found.items() if key.endswith("_mask")}
    if not images:
        expected = "frames named like train/1_1.tif or images/1_1.jpg"
        refuse(run.folder, expected, "none", "give the folder that holds train/ or images/")
    run_lengths = {} if set(images) <= set(masks) else _read_run_lengths(run, images)
    known = {*masks, *run_lengths}
    run.report.faults += unpaired_pictures(images, known, kind="mask", place=place, root=run.folder)
    cases = [_case(key, path, masks.get(key)) for key, path in images.items()]
    for case in cases:
        case.run_lengths = run_lengths.get(case.name) if case.label is None else None
    tests, faults = index_pictures(run.folder / "test", _NUMBER, root=run.folder, example="test/1.tif")
    run.report.faults += faults
    return cases + [
        PictureCase(f"test_{number}", f"test_{number}", path, is_test=True) for number, path in tests.items()
    ]


def _case(key: str, image: Path, label: Path | None) -> PictureCase:
    is_lossy = label is not None and label.suffix.lower() in (".jpg", ".jpeg")
    subject = f"subject_{int(key.partition('_')[0])}"
    return PictureCase(key, subject, image, label=label, label_rule="above:127" if is_lossy else "nonzero")


def _join_subjects(cases: Sequence[PictureCase], find_pairs: _FindPairs | None) -> list[str]:
    """Give subjects that share frames one group, and tell so in a sentence for each group."""
    from volseg.data.audit import find_same_pictures, join_pairs

    subjects = list(dict.fromkeys(case.group for case in cases))
    place = {subject: index for index, subject in enumerate(subjects)}
    found = (find_pairs or find_same_pictures)([case.image for case in cases])
    pairs = [(place[cases[first].group], place[cases[second].group]) for first, second in found]
    numbers = join_pairs(len(subjects), pairs)
    shared = Counter(numbers[first] for first, second in pairs if first != second)
    warnings = []
    for number, count in sorted(shared.items()):
        names = [subject for subject in subjects if numbers[place[subject]] == number]
        group = "subject_" + "+".join(name.removeprefix("subject_") for name in names)
        for case in cases:
            case.group = group if case.group in names else case.group
        warnings.append(
            f"{' and '.join(names)} share frames ({count} pair{'s' * (count > 1)} of the same picture): "
            f"they are one group, {group}"
        )
    return warnings


def _read_run_lengths(run: PictureList, images: Mapping[str, Path]) -> dict[str, str]:
    places = [folder / _RUN_LENGTHS for folder in (run.folder, run.folder.parent)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return {}
    try:
        rows = read_rle_csv(path, _COLUMNS)
    except InputError as error:
        run.report.faults.append(str(error))
        return {}
    return {f"{row['subject']}_{row['img']}": row["pixels"] for row in rows}


def _write_mask(case: PictureCase, run: PictureList) -> None:
    """Decode run lengths into a mask file, 0 and 255."""
    if case.run_lengths is None or case.size is None:
        return
    case.label = run.target / "labels" / f"{case.name}_mask.tif"
    mask = decode_rle(case.run_lengths, case.size, order="F") * np.uint8(255)
    files.write_atomically(case.label, partial(_write_tiff, mask=mask), overwrite=run.overwrite)


def _write_tiff(path: Path, *, mask: npt.NDArray[np.uint8]) -> None:
    import tifffile

    tifffile.imwrite(path, mask, compression="zlib", photometric="minisblack")
