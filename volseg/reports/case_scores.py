"""All numbers of one case: a row for each class, from one pass over the voxels and one over the surfaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.metrics import compute_confusion_measure, compute_surface_dice, compute_surface_distance
from volseg.reports.score_masks import CaseGrid, slabs_of

__all__ = ["COUNTS", "MEASURES", "SURFACE_MEASURES", "empty_row", "score_classes", "score_thresholds"]

_Array = npt.NDArray[Any]
_Row = dict[str, Any]

SURFACE_MEASURES = ("surface_dice", "hd95_mm", "assd_mm")
"""Measures of volumes that `--fast` leaves out."""

MEASURES = ("dice", "iou", "precision", "recall", *SURFACE_MEASURES)
"""Measures that have a mean and an interval."""


COUNTS = ("tp", "fp", "fn", "tn", "n_pred", "n_ref", "volume_pred_mm3", "volume_ref_mm3")
"""Sizes of a structure; their means weigh a large case more."""


def score_classes(
    pred: _Array, truth: _Array, grid: CaseGrid, *, tolerance_mm: float = 0.0, surfaces: bool = True
) -> dict[int, _Row]:
    """Score every foreground class that the prediction or the truth of a case has.

    Args:
        pred: (x, y, z) class indices.
        truth: likewise, of the same shape.
        grid: where they lie.
        tolerance_mm: of the surface Dice.
        surfaces: measure surface Dice and distances, of volumes whose slices are neighbours.
    """
    classes, matrix = _confusion(pred, truth)
    rows = {}
    for place, index in enumerate(classes[1:], start=1):
        hit = int(matrix[place, place])
        of_truth, of_pred = int(matrix[place].sum()), int(matrix[:, place].sum())
        row = _row(hit, of_pred - hit, of_truth - hit, int(matrix.sum()), grid)
        if surfaces and grid.has_surfaces:
            row |= _surface_scores(pred == index, truth == index, grid.spacing_mm, tolerance_mm)
        rows[index] = row
    return rows


def empty_row(voxels: int, grid: CaseGrid) -> _Row:
    """Return the row of a class that neither mask of a case has: everything but the counts is undefined."""
    return _row(0, 0, 0, voxels, grid)


def score_thresholds(probability: _Array, truth: _Array, thresholds: Sequence[float]) -> list[float]:
    """Dice of `probability >= t` for each rising threshold, from one pass; nan where both masks are empty.

    Example:
        >>> score_thresholds(np.array([[0.9, 0.4]]), np.array([[True, False]]), [0.3, 0.5])
        [0.6666666666666666, 1.0]
    """
    steps = np.asarray(thresholds, probability.dtype if probability.dtype.kind == "f" else np.float64)
    levels = np.zeros((2, len(steps) + 1), np.int64)
    for soft, mask in slabs_of(probability, truth):
        level = np.searchsorted(steps, soft, side="right")
        cells = np.bincount(((mask != 0) * (len(steps) + 1) + level).ravel(), minlength=levels.size)
        levels += cells.reshape(levels.shape)
    at_least = levels[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]  # voxels at or above each threshold
    areas = at_least.sum(axis=0) + levels[1].sum()
    pairs = zip(at_least[1], areas, strict=True)
    return [2 * int(hit) / int(area) if area else math.nan for hit, area in pairs]


def _confusion(pred: _Array, truth: _Array) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Return the classes with 0 first, and (K, K) voxel counts: row = truth, column = prediction."""
    found = {0}
    for slabs in slabs_of(truth, pred):
        for slab in slabs:
            found.update(np.flatnonzero(np.bincount(slab.astype(np.uint16, copy=False).ravel())).tolist())
    classes = sorted(found)
    table = np.zeros(classes[-1] + 1, np.int64)
    table[classes] = np.arange(len(classes))
    matrix = np.zeros(len(classes) ** 2, np.int64)
    for real, given in slabs_of(truth, pred):
        cells = table[real.astype(np.uint16, copy=False)] * len(classes)
        cells += table[given.astype(np.uint16, copy=False)]
        matrix += np.bincount(cells.ravel(), minlength=len(matrix))
    return classes, matrix.reshape(len(classes), len(classes))


def _row(hit: int, false: int, lost: int, voxels: int, grid: CaseGrid) -> _Row:
    empty = voxels - hit - false - lost
    pooled = [[empty, false], [lost, hit]]
    area = 2 * hit + false + lost
    row: _Row = {
        "dice": 2 * hit / area if area else math.nan,
        "iou": hit / (hit + false + lost) if area else math.nan,
        "precision": compute_confusion_measure(pooled, "precision"),
        "recall": compute_confusion_measure(pooled, "recall"),
        **dict.fromkeys(SURFACE_MEASURES, math.nan),
        "tp": hit,
        "fp": false,
        "fn": lost,
        "tn": empty,
        "n_pred": hit + false,
        "n_ref": hit + lost,
    }
    voxel = float(np.prod(grid.spacing_mm)) if grid.is_volume and grid.spacing_is_known else math.nan
    row |= {"volume_pred_mm3": row["n_pred"] * voxel, "volume_ref_mm3": row["n_ref"] * voxel}
    return row | {"missed": lost > 0 and not hit + false, "spurious": false > 0 and not hit + lost}


def _surface_scores(
    pred: _Array, truth: _Array, spacing_mm: tuple[float, ...], tolerance_mm: float
) -> dict[str, float]:
    if pred.any() and truth.any():
        pred, truth = _cropped(pred, truth)
    return {
        "surface_dice": compute_surface_dice(pred, truth, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm),
        "hd95_mm": compute_surface_distance(pred, truth, spacing_mm=spacing_mm, distance="hd95"),
        "assd_mm": compute_surface_distance(pred, truth, spacing_mm=spacing_mm, distance="assd"),
    }


def _cropped(pred: _Array, truth: _Array) -> tuple[_Array, _Array]:
    # the surfaces lie inside; outside an array is background for them, as it is outside the box
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        held = np.flatnonzero(pred.any(axis=others) | truth.any(axis=others))
        box.append(slice(max(int(held[0]) - 1, 0), int(held[-1]) + 2))
    return pred[tuple(box)], truth[tuple(box)]
