"""From checked pictures to a datalist: what all data sets of pictures share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from volseg import files
from volseg.data.datalist import DATALIST_NAME, CaseItem, Datalist, write_datalist
from volseg.data.datasets import CaseRow, PrepareReport
from volseg.data.datasets.folders import output_folder, raw_folder, relative_name
from volseg.data.datasets.picture_check import PictureCase, check_pictures
from volseg.data.hashes import add_hashes
from volseg.data.splits import assign_folds

__all__ = ["PictureList", "PictureSet"]

_MAX_FOLDS = 5


@dataclass(frozen=True)
class PictureSet:
    """What is known about a data set of pictures before it is looked at.

    Attributes:
        name: of the data set.
        description: one sentence for the datalist.
        classes: class index to name.
        channels: what the pictures must be readable as.
        has_grey_edges: whether resized masks hold grey values at the edges.
        may_be_empty: whether a mask without foreground is a normal case; it is told otherwise.
        object_of_group: what one group is, in words.
    """

    name: str
    description: str
    classes: Mapping[int, str]
    channels: Literal["rgb", "grey"] = "rgb"
    has_grey_edges: bool = False
    may_be_empty: bool = False
    object_of_group: str = "photograph"


class PictureList:
    """One run of an adapter: the folders, the faults, and in the end the datalist.

    Args:
        kind: the data set.
        raw: its folder.
        output_dir: folder for the datalist; `raw` by default.
        overwrite: replace an existing datalist.

    Raises:
        InputError: when `raw` is no folder, the datalist exists, or the output folder takes no files.
    """

    def __init__(
        self, kind: PictureSet, raw: str | Path, *, output_dir: str | Path | None, overwrite: bool
    ) -> None:
        self.kind = kind
        self.folder = raw_folder(raw)
        self.target = output_folder(output_dir, self.folder, overwrite)
        self.overwrite = overwrite
        self.report = PrepareReport(kind.name)
        files.check_writable(self.target)

    def check(self, cases: Sequence[PictureCase]) -> bool:
        """Read all pictures and masks; return whether there is no fault so far."""
        check_pictures(
            cases, root=self.folder, channels=self.kind.channels, has_grey_edges=self.kind.has_grey_edges
        )
        self.report.faults += [fault for case in cases for fault in case.faults]
        names = Counter(case.name for case in cases)
        self.report.faults += [
            f"{name}: expected a name of its own for each case, got {count} cases; rename their files"
            for name, count in names.items()
            if count > 1
        ]
        labelled = [case for case in cases if case.foreground is not None]
        empty = [case.name for case in labelled if case.foreground == 0]
        if labelled and len(empty) == len(labelled):
            self.report.faults.append(
                f"{self.folder}: expected a mask with foreground, got {len(empty)} masks, all empty; "
                "check the download"
            )
        elif empty and not self.kind.may_be_empty:
            self.report.warnings += [f"{name}: its mask is empty" for name in empty]
        return not self.report.faults

    def write(self, cases: Sequence[PictureCase], *, folds: int | None, seed: int) -> PrepareReport:
        """Give the labelled cases folds by group and write the datalist, unless there are faults.

        Args:
            cases: as checked.
            folds: number of folds; one per group, up to 5, by default.
            seed: of the assignment.
        """
        training = [case for case in cases if case.is_labelled and not case.is_test]
        test = [case for case in cases if case.is_test or not case.is_labelled]
        self._check_groups(training, test)
        assigned = self._folds(training, folds, seed)
        self.report.cases = [
            *(_row(case, fold) for case, fold in zip(training, assigned, strict=True)),
            *(_row(case, None) for case in test),
        ]
        if self.report.faults:
            return self.report
        sections = [
            [self._item(case, fold) for case, fold in zip(training, assigned, strict=True)],
            [self._item(case, None) for case in test],
        ]
        hashed = [add_hashes(items, self.folder) for items in sections]
        content = Datalist(
            self.kind.name,
            hashed[0],
            hashed[1],
            description=self.kind.description,
            root=None if self.target == self.folder else str(self.folder),
            classes=self.kind.classes,
        )
        write_datalist(self.target / DATALIST_NAME, content, self.overwrite)
        self.report.datalist = str(self.target / DATALIST_NAME)
        return self.report

    def _check_groups(self, training: Sequence[PictureCase], test: Sequence[PictureCase]) -> None:
        first_of: dict[str, PictureCase] = {}
        for case in training:
            first_of.setdefault(case.group, case)
        for case in test:
            twin = first_of.get(case.group)
            if twin is not None and case.is_labelled:
                names = [relative_name(path, self.folder) for path in (case.image, twin.image)]
                self.report.faults.append(
                    f"{names[0]}: expected a {self.kind.object_of_group} that is not trained on, "
                    f"got that of {names[1]}; remove one of them"
                )

    def _folds(self, training: Sequence[PictureCase], folds: int | None, seed: int) -> Sequence[int | None]:
        groups = [case.group for case in training]
        count = len(set(groups))
        none: list[int | None] = [None] * len(training)
        if count == 0:
            self.report.warnings.append("no training case has a mask: the datalist serves inference only")
            return none
        number = min(_MAX_FOLDS, count) if folds is None else folds
        if count == 1:
            self.report.faults.append(
                f"{self.folder}: expected at least two groups ({self.kind.object_of_group}s), "
                f"got {groups[0]!r} alone; validation needs another one"
            )
            return none
        if not 2 <= number <= count:
            self.report.faults.append(
                f"folds: expected 2 to {count}, the number of groups, got {number}; change it"
            )
            return none
        return assign_folds(groups, folds=number, seed=seed, strata=_strata(training))

    def _item(self, case: PictureCase, fold: int | None) -> CaseItem:
        item: CaseItem = {
            "image": relative_name(case.image, self.folder),
            "case": case.name,
            "group": case.group,
        }
        if case.label is not None:
            item["label"] = relative_name(case.label, self.folder)
            item["label_rule"] = case.label_rule
        if case.field_of_view is not None:
            item["field_of_view"] = relative_name(case.field_of_view, self.folder)
        if fold is not None:
            item["fold"] = fold
        return item


def _strata(training: Sequence[PictureCase]) -> list[str]:
    """Groups with more empty masks than the usual group, and the others."""
    empty = {
        group: sum(case.foreground == 0 for case in training if case.group == group) / count
        for group, count in Counter(case.group for case in training).items()
    }
    middle = median(empty.values())
    return ["mostly empty" if empty[case.group] > middle else "mostly filled" for case in training]


def _row(case: PictureCase, fold: int | None) -> CaseRow:
    return CaseRow(
        case=case.name,
        group=case.group,
        size=case.size,
        dtype=case.dtype,
        slices_labelled=int(case.is_labelled),
        foreground=case.foreground,
        fold=fold,
    )
