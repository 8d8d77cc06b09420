"""Datalists of volumes whose cases an adapter has found: check them all, assign folds, write the list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg import files
from volseg.checks import check_positive, refuse
from volseg.data.datalist import DATALIST_NAME, CaseItem, Datalist, write_datalist
from volseg.data.datasets import CaseRow, PrepareReport
from volseg.data.datasets.folders import output_folder, raw_folder, relative_name
from volseg.data.datasets.stack_folds import with_folds
from volseg.data.datasets.volume_check import VolumeCase, check_volume
from volseg.data.hashes import add_hashes
from volseg.data.slice_folder import Gaps

__all__ = ["VOLUME_SUFFIXES", "VolumeList", "VolumeSet", "three_edges"]

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr")
"""Suffixes of files that may stand in the place of a folder of slices."""

_Pair = tuple[CaseItem, VolumeCase]


@dataclass(frozen=True)
class VolumeSet:
    """What one data set of volumes is.

    Attributes:
        name: of the data set.
        description: one sentence for the datalist.
        classes: class index to name.
        label_rule: how label values become classes, as in a datalist.
        nominal_mm: edge lengths (x, y, z) of a voxel by the size (x, y, z) of the grid, where nothing states
            them.
        object_of_group: what a group is, for messages.
        gaps: "keep" where slices or labels of slices may be missing.
    """

    name: str
    description: str
    classes: Mapping[int, str]
    label_rule: str | Mapping[str, int]
    nominal_mm: Callable[[tuple[int, int, int]], Sequence[float]]
    object_of_group: str
    gaps: Gaps = "refuse"


class VolumeList:
    """One run of an adapter of volumes: places first, then `check`, then `write`.

    Args:
        kind: the data set.
        raw: its folder as downloaded.
        output_dir: folder for the datalist; `raw` by default.
        spacing_mm: edge length of a voxel, or three; of folders it goes before whatever they state.
        overwrite: replace an existing datalist.

    Attributes:
        folder: the raw folder, absolute.
        report: what was found so far.

    Raises:
        InputError: when `raw` is no folder, a datalist exists and `overwrite` is False, or the output folder
            cannot be written.
        ValueError: when `spacing_mm` is neither one nor three positive numbers.
    """

    def __init__(
        self,
        kind: VolumeSet,
        raw: str | Path,
        *,
        output_dir: str | Path | None,
        spacing_mm: float | Sequence[float] | None,
        overwrite: bool,
    ) -> None:
        self.kind = kind
        self.spacing_mm = three_edges(spacing_mm)
        self.folder = raw_folder(raw)
        self.target = output_folder(output_dir, self.folder, overwrite)
        self.overwrite = overwrite
        self.report = PrepareReport(kind.name)
        files.check_writable(self.target)

    def check(self, cases: Sequence[VolumeCase]) -> None:
        """Read every case; faults go into the report.

        Raises:
            InputError: when there is no case at all.
        """
        from tqdm import tqdm

        if not cases and not self.report.faults:
            refuse(self.folder, "cases", "none", "give the unpacked download")
        rule = self.kind.label_rule
        values = None if isinstance(rule, str) else {int(value): index for value, index in rule.items()}
        # disable=None: no bar where stderr is no terminal
        for case in tqdm(cases, desc=self.kind.name, unit="case", leave=False, disable=None):
            self.report.faults += check_volume(case, root=self.folder, gaps=self.kind.gaps, values=values)
        self._check_twins(cases)
        for offset, side in ((1, "above"), (-1, "below")):
            names = [case.name for case in cases if case.label_offset == offset]
            if names:
                self.report.warnings.append(
                    f"label numbers lie one {side} those of their images in {len(names)} of {len(cases)} "
                    f"cases, first {names[0]}; their slices are paired in order"
                )

    def write(self, cases: Sequence[VolumeCase], *, folds: int | None, seed: int) -> PrepareReport:
        """Assign folds, fill the rows of the report and write the datalist, unless there are faults."""
        pairs = [(self._item(case), case) for case in cases]
        training = [pair for pair in pairs if not pair[1].is_test]
        test = [pair for pair in pairs if pair[1].is_test]
        self._check_groups(training, test)
        training = with_folds(training, _depth_of, folds=folds, seed=seed, report=self.report)
        self.report.cases = [_row(item, case) for item, case in [*training, *test]]
        unlabelled = [
            row.case for row in self.report.cases if row.fold is not None and not row.slices_labelled
        ]
        if unlabelled and not self.report.faults:
            self.report.faults.append(f"{unlabelled[0]}: expected labelled slices, got none; add a case")
        if self.report.faults:
            return self.report
        items = [add_hashes([item for item, _ in section], self.folder) for section in (training, test)]
        content = Datalist(
            self.kind.name,
            items[0],
            items[1],
            description=self.kind.description,
            root=None if self.target == self.folder else str(self.folder),
            classes=self.kind.classes,
        )
        write_datalist(self.target / DATALIST_NAME, content, self.overwrite)
        self.report.datalist = str(self.target / DATALIST_NAME)
        return self.report

    def _check_twins(self, cases: Sequence[VolumeCase]) -> None:
        for index, case in enumerate(cases):
            for other in cases[:index]:
                if not case.fingerprints & other.fingerprints:
                    continue
                told = f"{case.name}: has image slices that {other.name} has too"
                is_harmless = case.group == other.group or case.label is None or other.label is None
                if is_harmless:
                    self.report.warnings.append(told)
                else:
                    self.report.faults.append(f"{told}; remove one of them")

    def _check_groups(self, training: Sequence[_Pair], test: Sequence[_Pair]) -> None:
        first_of: dict[str, VolumeCase] = {}
        for _, case in training:
            first_of.setdefault(case.group, case)
        for _, case in test:
            twin = first_of.get(case.group)
            if twin is not None and case.label is not None:
                self.report.faults.append(
                    f"{case.name}: expected a {self.kind.object_of_group} that is not trained on, "
                    f"got that of {twin.name}; remove one of them"
                )

    def _item(self, case: VolumeCase) -> CaseItem:
        item: CaseItem = {
            "image": relative_name(case.image, self.folder),
            "case": case.name,
            "group": case.group,
        }
        if case.label is not None:
            rule: Any = self.kind.label_rule
            item["label"] = relative_name(case.label, self.folder)
            item["label_rule"] = rule if isinstance(rule, str) else dict(rule)
            if case.label_offset:
                item["label_offset"] = case.label_offset
        if (spacing := self._spacing(case)) is not None:
            item["spacing_mm"] = spacing
        return item

    def _spacing(self, case: VolumeCase) -> list[float] | None:
        if case.geometry is None:
            return None  # what is wrong with it stands in the report
        stated = list(case.geometry.spacing_mm) if case.geometry.spacing_is_known else None
        if stated is not None and case.image.is_file():
            if self.spacing_mm is not None:
                case.warnings.append("its file states its own spacing and keeps it")
            return stated
        shape = case.geometry.shape
        nominal = self.kind.nominal_mm((shape[0], shape[1], case.depth))
        return self.spacing_mm or stated or [float(edge) for edge in nominal]


def three_edges(spacing_mm: float | Sequence[float] | None) -> list[float] | None:
    """Three edge lengths from one or three.

    Raises:
        ValueError: for another count, or a length that is not positive.

    Example:
        >>> three_edges(0.05)
        [0.05, 0.05, 0.05]
    """
    if spacing_mm is None:
        return None
    edges = [spacing_mm] * 3 if isinstance(spacing_mm, int | float) else list(spacing_mm)
    check_positive("spacing_mm", edges)
    if len(edges) != 3:
        raise ValueError(f"spacing_mm must be one number or three, got {len(edges)}; give x, y and z")
    return [float(edge) for edge in edges]


def _depth_of(case: VolumeCase) -> int:
    return case.depth


def _row(item: CaseItem, case: VolumeCase) -> CaseRow:
    first, end = item.get("labelled_range", (0, case.depth))
    counts = [count for place, count in case.foreground.items() if first <= place < end]
    size = None if case.geometry is None else case.geometry.shape
    voxels = len(counts) * size[0] * size[1] if size is not None else 0
    return CaseRow(
        case=item["case"],
        group=item["group"],
        size=size,
        dtype=case.dtype,
        spacing_mm=item.get("spacing_mm"),
        slices_labelled=len(counts),
        foreground=sum(counts) / voxels if voxels else None,
        fold=item.get("fold"),
        warnings=list(case.warnings),
    )
