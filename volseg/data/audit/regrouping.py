"""A datalist whose groups and folds respect what an audit found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from volseg.checks import refuse
from volseg.data.audit.resolutions import Resolutions
from volseg.data.datalist import CaseItem, Datalist
from volseg.data.splits import assign_folds

__all__ = ["regroup"]

_ALWAYS = -1  # stands for "no fold"


def regroup(
    datalist: Datalist, groups: Mapping[str, str], *, resolutions: Resolutions | None = None
) -> Datalist:
    """Give every case its joined group, and leave out the cases whose mask a resolution does not keep.

    A group in several folds goes to the one that holds most of its cases, so that the other folds stay as
    they are; should that empty a fold, all folds are drawn anew. A group in training and in the labelled
    test cases cannot be mended here: `write_datalist` refuses it.

    Args:
        datalist: as read.
        groups: case to group, from `Findings`; cases that it does not name keep theirs.
        resolutions: decisions about contradicting masks.

    Raises:
        InputError: when fewer groups are left than there are folds.
    """
    rejected = {name for pair, keep in (resolutions or {}).items() for name in pair if name != keep}
    training, test = (
        [
            {**item, "group": groups.get(item["case"], item["group"])}
            for item in items
            if item["case"] not in rejected
        ]
        for items in (datalist.training, datalist.test)
    )
    return replace(datalist, training=_refold(training, datalist.name), test=test)


def _refold(items: list[CaseItem], source: str) -> list[CaseItem]:
    folds = {item["fold"] for item in items if "fold" in item}
    if not folds:
        return items
    votes: dict[str, Counter[int]] = {}
    for item in items:
        votes.setdefault(item["group"], Counter())[item.get("fold", _ALWAYS)] += 1
    fold_of = {group: _elected(count) for group, count in votes.items()}
    if folds - set(fold_of.values()):
        names = [item["group"] for item in items if fold_of[item["group"]] != _ALWAYS]
        if len(set(names)) < len(folds):
            got = f"{len(set(names))} groups after joining"
            refuse(
                source, f"a group for each of {len(folds)} folds", got, "prepare the data with fewer folds"
            )
        drawn = [sorted(folds)[fold] for fold in assign_folds(names, folds=len(folds))]
        fold_of.update(zip(names, drawn, strict=True))
    plain = [{key: value for key, value in item.items() if key != "fold"} for item in items]
    placed = [(item, fold_of[item["group"]]) for item in plain]
    return [item if fold == _ALWAYS else {**item, "fold": fold} for item, fold in placed]


def _elected(votes: Counter[int]) -> int:
    # a case without fold is always trained on, and so is then its whole group
    return _ALWAYS if _ALWAYS in votes else min(votes, key=lambda fold: (-votes[fold], fold))
