"""Folds of volumes: by group, or along z where a single group has all labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from volseg.data.datalist import CaseItem
from volseg.data.datasets import PrepareReport
from volseg.data.splits import assign_folds

__all__ = ["with_folds"]

_MAX_FOLDS = 5
_FIRST_SHARE, _GAP_SLICES = 0.7, 2
_Case = TypeVar("_Case")


def with_folds(
    training: Sequence[tuple[CaseItem, _Case]],
    depth_of: Callable[[_Case], int],
    *,
    folds: int | None,
    seed: int,
    report: PrepareReport,
) -> list[tuple[CaseItem, _Case]]:
    """Give every training item a fold; a group stays in one.

    A single group cannot fill two folds: each of its volumes is then cut along z into two items, the first
    70 % of its labelled slices (fold 1) and the rest (fold 0), two slices apart.

    Args:
        training: items, each with whatever the adapter knows about its case.
        depth_of: number of slices along z of a case.
        folds: number of folds; one per group, up to 5, by default.
        seed: of the assignment.
        report: takes faults and warnings.

    Returns:
        Copies of the items with `fold`; the items themselves after a fault.
    """
    pairs = list(training)
    groups = [item["group"] for item, _ in pairs]
    count = len(set(groups))
    if count == 0:
        report.warnings.append("no case has labels: the datalist serves inference only")
        return pairs
    if count == 1:
        return _cut_along_z(pairs, depth_of, report)
    number = min(_MAX_FOLDS, count) if folds is None else folds
    if not 2 <= number <= count:
        report.faults.append(f"folds: expected 2 to {count}, the number of groups, got {number}; change it")
        return pairs
    assigned = assign_folds(groups, folds=number, seed=seed)
    return [({**item, "fold": fold}, case) for (item, case), fold in zip(pairs, assigned, strict=True)]


def _cut_along_z(
    training: list[tuple[CaseItem, _Case]], depth_of: Callable[[_Case], int], report: PrepareReport
) -> list[tuple[CaseItem, _Case]]:
    # labelled slices of the only volume, cut at 70 %:  [first first first first] . . [last last]
    def labelled(item: CaseItem, case: _Case) -> tuple[int, int]:
        first, end = item.get("labelled_range", (0, depth_of(case)))
        return first, end

    cut_items: list[tuple[CaseItem, _Case]] = []
    for item, case in training:
        ranges = [labelled(*pair) for pair in training if pair[0]["image"] == item["image"]]
        first, end = min(start for start, _ in ranges), max(stop for _, stop in ranges)
        cut = first + round(_FIRST_SHARE * (end - first))
        start, stop = labelled(item, case)
        parts = {"first": (start, min(stop, cut), 1), "last": (max(start, cut + _GAP_SLICES), stop, 0)}
        for name, (part_start, part_stop, fold) in parts.items():
            if part_start < part_stop:
                place = {"labelled_range": [part_start, part_stop], "fold": fold, "same_volume": True}
                cut_items.append(({**item, "case": f"{item['case']}_{name}", **place}, case))
    name, group = training[0][0]["case"], training[0][0]["group"]
    if {item["fold"] for item, _ in cut_items} != {0, 1}:
        if not report.faults:
            report.faults.append(
                f"{name}: too few labelled slices to cut in two; 9 are enough, or add a case"
            )
        return training
    report.warnings.append(
        f"all labels belong to one group, {group}: training and validation come from one volume, "
        f"cut along z {_GAP_SLICES} slices apart, and the validation score will be too good"
    )
    return cut_items
