"""SenNet + HOA: kidneys as folders of TIFF slices with vessel labels, and any data in the same layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from volseg.checks import InputError, refuse
from volseg.data.datalist import DATALIST_NAME, CaseItem, Datalist, write_datalist
from volseg.data.datasets import CaseRow, PrepareReport
from volseg.data.datasets.folders import output_folder, raw_folder, relative_name
from volseg.data.datasets.sennet_layout import KIDNEY, KidneyCase, find_kidneys
from volseg.data.datasets.stack_check import LabelSlice, check_folders, check_stack, number_slices
from volseg.data.datasets.stack_folds import with_folds
from volseg.data.datasets.volume_list import three_edges
from volseg.data.rle import decode_rle

__all__ = ["prepare_sennet"]

_SPACING_MM = 0.05
# kidney_1_voi is a small part of kidney 1, scanned again at 5.2 µm
_SPACING_MM_OF = {"kidney_6": 0.06308, "kidney_1_voi": 0.0052}
_COVERAGE_OF = {"kidney_2": 0.65, "kidney_3_sparse": 0.85}
_DESCRIPTION = "Blood vessels in 3D kidney scans, one TIFF per z slice (SenNet + HOA layout)."


_Pair = tuple[CaseItem, KidneyCase]


def prepare_sennet(
    raw: str | Path,
    *,
    output_dir: str | Path | None = None,
    spacing_mm: float | Sequence[float] | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> PrepareReport:
    """Check kidneys in the challenge's layout, or plain `images` + `labels` folders, and write a datalist.

    All slices of a kidney share one group. `kidney_3_dense` takes its images from `kidney_3_sparse`. Where
    label folders are missing, `train_rles.csv` is decoded into `<output_dir>/labels/<kidney>`. Cases without
    labels become the test section. A single group cannot fill two folds: each of its volumes is then cut
    along z into two items, the first 70 % of its labelled slices (fold 1) and the rest (fold 0), two slices
    apart.

    Args:
        raw: the unpacked download, its `train` folder, or a folder of cases.
        output_dir: folder for the datalist and decoded labels; `raw` by default.
        spacing_mm: edge length of a voxel, or three; by default 0.05, for `kidney_6` 0.06308, for
            `kidney_1_voi` 0.0052; other names have no default.
        folds: number of folds; one per group, up to 5, by default.
        seed: of the assignment to folds.
        overwrite: replace an existing datalist and decoded labels.

    Returns:
        The report; with faults in it nothing was written.

    Raises:
        InputError: when `raw` is no such data set, or a datalist exists and `overwrite` is False.
    """
    from volseg import files

    folder = raw_folder(raw)
    target = output_folder(output_dir, folder, overwrite)
    spacing = three_edges(spacing_mm)
    cases, faults = find_kidneys(folder)
    files.check_writable(target)
    report = PrepareReport("sennet", faults=faults)
    for case in cases:
        _check(case, report)
    _check_duplicates(cases, report)
    pairs = [(_item(case, folder, target, spacing), case) for case in cases if case.images is not None]
    training = [pair for pair in pairs if pair[1].is_labelled and not pair[1].is_test]
    test = [pair for pair in pairs if not pair[1].is_labelled or pair[1].is_test]
    training = with_folds(training, _depth, folds=folds, seed=seed, report=report)
    report.cases = [_row(item, case) for item, case in [*training, *test]]
    if report.faults:
        return report
    for case in cases:
        _write_labels(case, target, overwrite)
    root = None if target == folder else str(folder)
    items = [[item for item, _ in section] for section in (training, test)]
    classes = {0: "background", 1: "vessel"}
    content = Datalist("sennet", items[0], items[1], description=_DESCRIPTION, root=root, classes=classes)
    write_datalist(target / DATALIST_NAME, content, overwrite)
    report.datalist = str(target / DATALIST_NAME)
    return report


def _check(case: KidneyCase, report: PrepareReport) -> None:
    if case.images is None:
        report.faults.append(
            f"{case.name}: expected a folder images, got labels alone; download the images too"
        )
        return
    labels: dict[int, LabelSlice] = dict(case.run_lengths)
    faults: list[str] = []
    if case.label_folder is not None:
        numbered, faults = number_slices(case.label_folder, f"{case.name}/labels")
        labels.update(numbered)
        if not numbered:
            faults.append(
                f"{case.name}/labels: expected label slices, got an empty folder; fill or remove it"
            )
    case.findings = check_stack(case.name, case.images, labels, is_part_labelled=case.borrows_images)
    faults += case.findings.faults
    if not faults:
        faults = check_folders(folder for folder in (case.images, case.label_folder) if folder is not None)
    # the images of kidney_3_sparse are checked for two cases; each fault is told once
    report.faults += [fault for fault in faults if fault not in report.faults]


def _check_duplicates(cases: Sequence[KidneyCase], report: PrepareReport) -> None:
    for index, case in enumerate(cases):
        for other in cases[:index]:
            if case.images == other.images or not case.findings.fingerprints & other.findings.fingerprints:
                continue
            told = f"{case.name}: has image slices that {other.name} has too"
            if case.group == other.group or not (case.is_labelled and other.is_labelled):
                report.warnings.append(told)
            else:
                report.faults.append(f"{told}; give both the same group in groups.json, or remove one")


def _item(case: KidneyCase, folder: Path, target: Path, spacing: list[float] | None) -> CaseItem:
    kidney = KIDNEY.match(case.name)
    default = _SPACING_MM_OF.get(kidney.group(), _SPACING_MM) if kidney else None
    edge = _SPACING_MM_OF.get(case.name, default)
    known = spacing or _stated_spacing(case.images or folder) or ([edge] * 3 if edge is not None else None)
    item: CaseItem = {
        "image": relative_name(case.images or folder, folder),
        "case": case.name,
        "group": case.group,
    }
    if case.is_labelled:
        item["label"] = relative_name(case.label_folder or target / "labels" / case.name, folder)
        item["label_coverage"] = _COVERAGE_OF.get(case.name, 1.0)
        if case.borrows_images and case.findings.labelled_range is not None:
            item["labelled_range"] = list(case.findings.labelled_range)
    if known:
        item["spacing_mm"] = known
    return item


def _stated_spacing(images: Path) -> list[float] | None:
    from volseg.data import read_header

    try:
        geometry = read_header(images)
    except InputError:
        return None  # what is wrong with it stands in the report
    return list(geometry.spacing_mm) if geometry.spacing_is_known else None


def _labelled(item: CaseItem, case: KidneyCase) -> tuple[int, int]:
    first, end = item.get("labelled_range", (0, _depth(case)))
    return first, end


def _depth(case: KidneyCase) -> int:
    return len(case.findings.numbers)


def _row(item: CaseItem, case: KidneyCase) -> CaseRow:
    first, end = _labelled(item, case)
    spacing, coverage = item.get("spacing_mm"), item.get("label_coverage", 1.0)
    warnings = []
    if spacing is None:
        warnings.append("its spacing is unknown; state it with --spacing-mm")
    if coverage < 1:
        warnings.append(f"about {100 * (1 - coverage):.0f} % of its vessels are not labelled")
    return CaseRow(
        case=item["case"],
        group=item["group"],
        size=case.findings.size,
        dtype=case.findings.dtype,
        spacing_mm=spacing,
        slices_labelled=sum(first <= index < end for index in case.findings.foreground),
        foreground=case.findings.foreground_share(first, end),
        coverage=coverage,
        fold=item.get("fold"),
        warnings=warnings,
    )


def _write_labels(case: KidneyCase, target: Path, overwrite: bool) -> None:
    """Decode run lengths into slices named like the image's, 0 and 255."""
    from volseg import files

    if not case.run_lengths or case.images is None or case.findings.size is None:
        return
    width, height, _ = case.findings.size
    images, _ = number_slices(case.images, case.name)
    for number, text in case.run_lengths.items():
        path = target / "labels" / case.name / f"{images[number].stem}.tif"
        mask = decode_rle(text, (height, width)) * np.uint8(255)
        if overwrite or not path.exists():
            files.write_atomically(path, partial(_write_slice, mask=mask), overwrite=overwrite)
        elif not np.array_equal(_read_rows(path), mask):
            refuse(
                path, "the label that train_rles.csv describes", "another one", "remove it or use --overwrite"
            )


def _write_slice(path: Path, *, mask: npt.NDArray[np.uint8]) -> None:
    import tifffile

    tifffile.imwrite(path, mask, compression="zlib", photometric="minisblack")


def _read_rows(path: Path) -> npt.NDArray[np.uint8]:
    from volseg.data import read_volume

    array, _ = read_volume(path)
    return array.reshape(array.shape[:2]).T
