"""Folds that never separate what belongs together: the frames of a patient, the pieces of a kidney."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volseg.checks import refuse

__all__ = ["assign_folds", "check_groups_do_not_cross"]


def assign_folds(
    groups: Sequence[str], *, folds: int = 5, seed: int = 0, strata: Sequence[object] | None = None
) -> list[int]:
    """Give every item a fold so that a group stays together and folds are of nearly equal size.

    The fold of a group depends on the groups, their sizes and the seed, not on the order of the items.

    Args:
        groups: the group of each item.
        folds: number of folds, at most the number of groups.
        seed: breaks ties between groups of equal size.
        strata: a property of each item to spread over the folds; a group counts as its most frequent one.

    Returns:
        For each item a fold from 0 to `folds - 1`; every fold is used.

    Raises:
        ValueError: when there are fewer groups than folds, less than two folds, or strata of another length.

    Example:
        >>> folds = assign_folds(["a", "a", "b", "c"], folds=2)
        >>> folds[0] == folds[1], folds[2] == folds[3], folds[0] != folds[2]
        (True, True, True)
    """
    sizes = Counter(groups)
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}; use 2 or more")
    if len(sizes) < folds:
        raise ValueError(
            f"{folds} folds need {folds} groups, got {len(sizes)}; use folds={len(sizes)} or less"
        )
    if strata is not None and len(strata) != len(groups):
        raise ValueError(f"strata must have one entry per item, got {len(strata)} for {len(groups)} items")
    stratum_of = _strata_of_groups(groups, strata)
    names = sorted(sizes)
    np.random.default_rng(seed).shuffle(names)
    # largest first into the emptiest fold: two folds differ by at most one group
    names.sort(key=lambda name: -sizes[name])
    filled = [0] * folds
    filled_by_stratum: Counter[tuple[int, str]] = Counter()
    fold_of: dict[str, int] = {}
    for left, name in zip(range(len(names), 0, -1), names, strict=True):
        unused = [fold for fold in range(folds) if filled[fold] == 0]
        choices = unused if len(unused) >= left else range(folds)
        stratum = stratum_of[name]
        fold = min(choices, key=lambda k, s=stratum: (filled_by_stratum[k, s], filled[k], k))
        fold_of[name] = fold
        filled[fold] += sizes[name]
        filled_by_stratum[fold, stratum] += sizes[name]
    return [fold_of[name] for name in groups]


def _strata_of_groups(groups: Sequence[str], strata: Sequence[object] | None) -> dict[str, str]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for group, stratum in zip(groups, strata or [""] * len(groups), strict=True):
        counts[group][str(stratum)] += 1
    return {group: min(count, key=lambda s: (-count[s], s)) for group, count in counts.items()}


def check_groups_do_not_cross(
    items: Iterable[Mapping[str, Any]],
    *,
    test: Iterable[Mapping[str, Any]] = (),
    source: str | Path = "datalist",
) -> None:
    """Refuse case items of one group on both sides of a split: a score would be of data that was trained on.

    An item without `fold` is always trained on and counts as a fold of its own. Items that say
    `"same_volume": true` are let through: they are parts of the only volume there is. So are test items
    without label: nothing is scored on them.

    Args:
        items: case items with `case` and `group`, and `fold` where they have one.
        test: the items of the test section.
        source: what the message names.

    Raises:
        InputError: naming the group and one case on either side.
    """
    first_of: dict[str, Mapping[str, Any]] = {}
    for item in items:
        if item.get("same_volume", False):
            continue
        first = first_of.setdefault(item["group"], item)
        if first.get("fold") != item.get("fold"):
            expected = f"group {item['group']!r} in one fold, or it leaks from training into validation"
            got = (
                f"case {first['case']!r} in fold {first.get('fold')}, {item['case']!r} in {item.get('fold')}"
            )
            refuse(source, expected, got, "give both the same fold")
    for item in test:
        if "label" in item and item["group"] in first_of:
            expected = f"group {item['group']!r} in training or in test, or the test score is no test"
            got = f"case {first_of[item['group']]['case']!r} in training, {item['case']!r} in test"
            refuse(source, expected, got, "remove one of the two")
