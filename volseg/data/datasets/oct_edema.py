"""Retinal edema in OCT volumes (AI Challenger 2018): for each case a folder of BMP B-scans, or a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from volseg.checks import refuse
from volseg.data.datasets import PrepareReport
from volseg.data.datasets.folders import PICTURES, relative_name
from volseg.data.datasets.volume_check import VolumeCase
from volseg.data.datasets.volume_list import VOLUME_SUFFIXES, VolumeList, VolumeSet
from volseg.data.phantoms.oct_edema_phantom import write_oct_edema

__all__ = ["prepare_oct_edema"]

_FIELD_MM = (6.0, 2.0, 6.0)
_IMAGES, _LABELS = "original_images", "label_images"
_MAX_DEPTH = 3
# P0089_MacularCube512x128_4-25-2013_9-32-13_OD_sn2218_cube_z: one visit of patient P0089
_PATIENT = re.compile(r"(.+?)_MacularCube")
_LABEL_END = re.compile(r"_label(Mark|s)?$", re.IGNORECASE)


def _nominal_mm(size: tuple[int, int, int]) -> list[float]:
    # rounded to a nanometre: 2 mm / 1024 needs no 17 digits
    return [round(length / count, 6) for length, count in zip(_FIELD_MM, size, strict=True)]


_SET = VolumeSet(
    name="oct-edema",
    description="Retinal edema in OCT volumes, three lesions (AI Challenger 2018 layout).",
    classes={0: "background", 1: "REA", 2: "SRF", 3: "PED"},
    label_rule={"0": 0, "255": 1, "191": 2, "128": 3},
    nominal_mm=_nominal_mm,
    object_of_group="patient",
)


def prepare_oct_edema(
    raw: str | Path,
    *,
    output_dir: str | Path | None = None,
    spacing_mm: float | Sequence[float] | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    generate: int | None = None,
    generate_test: int | None = None,
) -> PrepareReport:
    """Check OCT volumes with lesion labels in the challenge's layout and write a datalist.

    A set is a folder with `original_images/<case>/<n>.bmp` and `label_images/<case>/<n>.bmp`; the case
    folders may end in `.img` and `_labelMark`, as downloaded, and MetaImage, NRRD or NIfTI files may stand in
    their places. Cases of sets whose name contains `test` become the test section, where labels may be
    missing; all others are trained on. Labels numbered one above or below their images are recorded as
    `label_offset`. All visits of a patient are one group where the names tell, as those of the challenge do
    (`<patient>_MacularCube...`); else each case is one. A single group is cut along z, see `prepare_sennet`.

    The files of the challenge state no voxel size. The nominal field of the macular cube is assumed, 6 mm
    along a B-scan (x), 2 mm in depth (y) and 6 mm across the B-scans (z), divided by the size of the volume:
    0.0117 x 0.00195 x 0.0469 mm for 128 B-scans of 1024 rows and 512 columns.

    Args:
        raw: one set, or a folder that holds sets, at most three folders deep.
        output_dir: folder for the datalist; `raw` by default.
        spacing_mm: edge length of a voxel, or three (x, y, z); volume files that state theirs keep it.
        folds: number of folds; one per group, up to 5, by default.
        seed: of the assignment to folds, and of what is generated.
        overwrite: replace an existing datalist, and generated volumes.
        generate: number of training volumes to draw into `raw`/train first, each with its own look.
        generate_test: number of test volumes to draw into `raw`/test; a quarter of `generate` by default.

    Returns:
        The report; with faults in it no datalist was written.

    Raises:
        InputError: when `raw` is no such data set, a datalist exists and `overwrite` is False, or files that
            would be mixed with the generated ones are there.
    """
    if generate is not None:
        _generate(
            raw, (generate, -(-generate // 4) if generate_test is None else generate_test), seed, overwrite
        )
    elif generate_test is not None:
        refuse("--generate-test", "--generate beside it", "--generate-test alone", "add --generate 16")
    run = VolumeList(_SET, raw, output_dir=output_dir, spacing_mm=spacing_mm, overwrite=overwrite)
    places = _sets(run.folder)
    if not places:
        refuse(run.folder, f"a folder {_IMAGES}", "none", f"give the folder that holds {_IMAGES}/ or sets")
    cases = [case for place in places for case in _cases(place, run)]
    repeated = {name for name, count in Counter(case.name for case in cases).items() if count > 1}
    for case in cases:
        if case.name in repeated:
            case.name = f"{case.image.parent.parent.name}_{case.name}"
    run.check(cases)
    return run.write(cases, folds=folds, seed=seed)


def _generate(raw: str | Path, counts: tuple[int, int], seed: int, overwrite: bool) -> None:
    for option, count in zip(("--generate", "--generate-test"), counts, strict=True):
        if count < 1:
            refuse(option, "one volume or more", count, "ask for 16 training and 4 test volumes")
    if not str(raw).strip():
        refuse("RAW", "a folder for the volumes", "an empty text", "name a new folder")
    for section, (name, count) in enumerate(zip(("train", "test"), counts, strict=True)):
        write_oct_edema(Path(raw) / name, count, seed=(seed, section), name=name, overwrite=overwrite)


def _sets(folder: Path, depth: int = 0) -> list[Path]:
    """Folders that hold `original_images`, in the order of their names."""
    if (folder / _IMAGES).is_dir():
        return [folder]
    if depth == _MAX_DEPTH:
        return []
    children = sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] not in "._")
    return [place for child in children for place in _sets(child, depth + 1)]


def _cases(place: Path, run: VolumeList) -> list[VolumeCase]:
    images, labels = (_volumes(place / part, run) for part in (_IMAGES, _LABELS))
    is_test = "test" in place.name.lower()
    for name, path in labels.items():
        if name not in images:
            told = f"{relative_name(path, run.folder)}: expected a case {name!r} in {_IMAGES}, got none"
            run.report.faults.append(f"{told}; add it or remove the label")
    cases = []
    for name, path in images.items():
        if name not in labels and not is_test:
            told = f"{relative_name(path, run.folder)}: expected labels in {_LABELS}, got none"
            run.report.faults.append(f"{told}; add them, or put the case into a set called test")
        patient = _PATIENT.match(name)
        group = patient.group(1) if patient else name
        cases.append(VolumeCase(name, group, path, labels.get(name), is_test))
    if not images:
        told = f"{relative_name(place / _IMAGES, run.folder)}: expected a folder or volume file for each case"
        run.report.faults.append(f"{told}, got none; give the unpacked download")
    return cases


def _volumes(folder: Path, run: VolumeList) -> dict[str, Path]:
    """Case name to slice folder or volume file."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        shown = relative_name(path, run.folder)
        suffix = next((suffix for suffix in VOLUME_SUFFIXES if path.name.lower().endswith(suffix)), None)
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_file() and path.suffix.lower() in PICTURES:
            run.report.faults.append(f"{shown}: expected a folder for each case, got a picture; sort it in")
            return found
        if not path.is_dir() and suffix is None:
            continue
        stem = path.name.removesuffix(".img") if suffix is None else path.name[: -len(suffix)]
        name = _LABEL_END.sub("", stem) if folder.name == _LABELS else stem
        if name in found:
            told = f"{shown}: expected one volume called {name!r}, got {found[name].name} too"
            run.report.faults.append(f"{told}; remove one")
        found.setdefault(name, path)
    return found
