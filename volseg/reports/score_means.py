"""Means over cases, classes and groups of the rows of cases, their intervals, and two folders compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.reports.bootstrap import (
    mean_of_scores,
    percentile_interval,
    resampled_means,
    signed_rank_p,
)
from volseg.reports.case_scores import COUNTS, MEASURES

__all__ = ["compare", "means_by_class", "means_by_group", "means_with_intervals", "sweep_of"]

_Row = dict[str, Any]
_Rows = Sequence[Mapping[int, _Row]]  # per case: class index to row
_Counts = npt.NDArray[np.int64]


def means_by_class(rows: _Rows, classes: Sequence[int]) -> dict[int, _Row]:
    """Mean of each measure over cases, nan left out, and the counts of what such a mean hides.

    Counts of voxels are means over cases too, as in nnU-Net's summary.
    """
    result = {}
    for index in classes:
        own = [row[index] for row in rows]
        means = {name: mean_of_scores(_table(rows, [index], name)) for name in (*MEASURES, *COUNTS)}
        result[index] = {
            **means,
            "cases": len(own),
            "undefined": sum(math.isnan(row["dice"]) for row in own),
            "missed": sum(row["missed"] for row in own),
            "spurious": sum(row["spurious"] for row in own),
        }
    return result


def means_with_intervals(
    rows: _Rows, classes: Sequence[int], counts: _Counts
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Mean of each measure over cases, then classes, and the 95 % interval over the draws in `counts`.

    Args:
        rows: per case.
        classes: foreground indices.
        counts: (R, N) of `resample_counts`; R = 0 gives intervals of nan.
    """
    means, intervals = {}, {}
    for name in MEASURES:
        table = _table(rows, classes, name)
        means[name] = mean_of_scores(table)
        intervals[name] = percentile_interval(resampled_means(table, counts))
    return means, intervals


def means_by_group(rows: _Rows, classes: Sequence[int], groups: Sequence[str]) -> dict[str, _Row]:
    """Mean of each measure within each group, over its cases, then over classes."""
    result: dict[str, _Row] = {}
    for group in dict.fromkeys(groups):
        own = [row for row, name in zip(rows, groups, strict=True) if name == group]
        result[group] = {"cases": len(own)}
        for name in MEASURES:
            result[group][name] = mean_of_scores(_table(own, classes, name))
        for name in ("missed", "spurious"):
            result[group][name] = sum(row[index][name] for row in own for index in classes)
    return result


def compare(
    rows: _Rows, others: _Rows, classes: Sequence[int], *, counts: _Counts, units: Sequence[str]
) -> dict[str, _Row]:
    """Compare two predictions of the same cases, measure by measure.

    Args:
        rows: of the first prediction.
        others: of the second.
        classes: foreground indices.
        counts: (R, N) of `resample_counts`; both predictions are resampled by the same draws.
        units: what counts as one pair for the signed-rank test: the group or the case.

    Returns:
        measure to `other` (its mean), `difference` (first minus second), `interval` (95 %), `p_value`
        (Wilcoxon signed-rank on the differences per unit, classes averaged) and `pairs`.
    """
    result = {}
    for name in MEASURES:
        first, second = _table(rows, classes, name), _table(others, classes, name)
        change = resampled_means(first, counts) - resampled_means(second, counts)
        per_unit = _unit_means(first - second, units)
        result[name] = {
            "other": mean_of_scores(second),
            "difference": mean_of_scores(first) - mean_of_scores(second),
            "interval": percentile_interval(change),
            "p_value": signed_rank_p(per_unit),
            "pairs": int((~np.isnan(per_unit)).sum()),
        }
    return result


def sweep_of(curves: Mapping[str, Sequence[Any]], thresholds: Sequence[float]) -> _Row:
    """Mean curve of each measure over cases, and its best threshold, the lowest of equals."""
    result: _Row = {"thresholds": list(thresholds)}
    for name, per_case in curves.items():
        table = np.asarray(per_case, np.float64)
        mean = [mean_of_scores(table[:, [step]]) for step in range(len(thresholds))]
        known = np.nan_to_num(mean, nan=-1.0)
        best = int(known.argmax())
        result[name] = {"mean": mean, "best_threshold": thresholds[best], "best": mean[best]}
    return result


def _table(rows: _Rows, classes: Sequence[int], name: str) -> npt.NDArray[np.float64]:
    return np.array([[row[index][name] for index in classes] for row in rows], np.float64)


def _unit_means(table: npt.NDArray[np.float64], units: Sequence[str]) -> npt.NDArray[np.float64]:
    names = np.asarray(units)
    return np.array([mean_of_scores(table[names == unit]) for unit in dict.fromkeys(units)])
