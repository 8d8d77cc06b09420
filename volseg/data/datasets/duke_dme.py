"""Duke DME: OCT volumes of eyes with diabetic macular edema, of whose 61 B-scans 11 are labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from volseg.checks import refuse
from volseg.data.datasets import PrepareReport
from volseg.data.datasets.folders import relative_name
from volseg.data.datasets.volume_check import VolumeCase
from volseg.data.datasets.volume_list import VolumeList, VolumeSet

__all__ = ["prepare_duke_dme"]

# the publication states 11.07 to 11.59 µm, 3.87 µm and 118 to 128 µm
_NOMINAL_MM = (0.0113, 0.00387, 0.123)
_MAX_DEPTH = 3

_SET = VolumeSet(
    name="duke-dme",
    description="Fluid in OCT volumes of eyes with diabetic macular edema (Duke DME, Chiu et al. 2015).",
    classes={0: "background", 1: "fluid"},
    label_rule="nonzero",
    nominal_mm=lambda _: _NOMINAL_MM,
    object_of_group="subject",
    gaps="keep",
)


def prepare_duke_dme(
    raw: str | Path,
    *,
    output_dir: str | Path | None = None,
    spacing_mm: float | Sequence[float] | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> PrepareReport:
    """Check OCT volumes of which some B-scans are labelled and write a datalist.

    A subject is a folder with `images/NNN.png` and `labels/NNN.png`, paired by number; a label's foreground
    is what is not 0. Images may be all 61 B-scans or only the labelled ones: with `gaps="keep"`,
    `volseg.data.VolumeReader` reads what is there. B-scans without a label are not background:
    `volseg.transforms.MatchSlicesd` lets the loss ignore them. Subjects without labels, and those below a
    folder `test`, become the test section. Each subject is one group; a single one is cut along z, see
    `prepare_sennet`.

    The files state no voxel size. A nominal one of the Spectralis volumes is assumed: 0.0113 mm along a
    B-scan (x), 0.00387 mm in depth (y), 0.123 mm from B-scan to B-scan (z). From subject to subject x varies
    from 0.01107 to 0.01159 mm and z from 0.118 to 0.128 mm (Chiu et al. 2015, section 3).

    Args:
        raw: one subject, or a folder that holds subjects, at most three folders deep.
        output_dir: folder for the datalist; `raw` by default.
        spacing_mm: edge length of a voxel, or three (x, y, z).
        folds: number of folds; one per subject, up to 5, by default.
        seed: of the assignment to folds.
        overwrite: replace an existing datalist.

    Returns:
        The report; with faults in it no datalist was written.

    Raises:
        InputError: when `raw` is no such data set, or a datalist exists and `overwrite` is False.
    """
    run = VolumeList(_SET, raw, output_dir=output_dir, spacing_mm=spacing_mm, overwrite=overwrite)
    places = _subjects(run.folder)
    if not places:
        refuse(run.folder, "subject folders with images and labels", "none", "give the unpacked download")
    repeated = {name for name, count in Counter(place.name for place in places).items() if count > 1}
    for place in places:
        if not (place / "images").is_dir():
            run.report.faults.append(
                f"{relative_name(place, run.folder)}: expected a folder images, got labels alone; add it"
            )
    cases = [_case(place, run.folder, repeated) for place in places if (place / "images").is_dir()]
    run.check(cases)
    return run.write(cases, folds=folds, seed=seed)


def _subjects(folder: Path, depth: int = 0) -> list[Path]:
    if (folder / "images").is_dir() or (folder / "labels").is_dir():
        return [folder]
    if depth == _MAX_DEPTH:
        return []
    children = sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] not in "._")
    return [place for child in children for place in _subjects(child, depth + 1)]


def _case(place: Path, root: Path, repeated: set[str]) -> VolumeCase:
    parts = place.relative_to(root).parts
    name = "_".join(parts) if place.name in repeated else place.name
    label = place / "labels" if (place / "labels").is_dir() else None
    is_test = label is None or any(part.lower() == "test" for part in parts[:-1])
    return VolumeCase(name, name, place / "images", label, is_test)
