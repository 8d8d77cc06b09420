"""Scores of saved predictions: two folders of masks in, numbers per case, class and group out."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from volseg.checks import check_choice, check_positive, refuse
from volseg.data.detection_table import read_detection
from volseg.data.slice_folder import check_spacing
from volseg.metrics import PRESETS, PresetReport, ScoredCase, compute_surface_dice_sweep, score_preset
from volseg.reports.bootstrap import resample_counts
from volseg.reports.case_scores import empty_row, score_classes, score_thresholds
from volseg.reports.score_files import (
    MaskPair,
    Matching,
    Section,
    detection_path,
    match_masks,
    probability_path,
)
from volseg.reports.score_masks import CaseGrid, LabelRule, grid_of, read_on_grid, read_truth
from volseg.reports.score_means import compare, means_by_class, means_by_group, means_with_intervals, sweep_of

__all__ = ["THRESHOLDS", "ScoreOptions", "ScoreReport", "score_folders"]

logger = logging.getLogger(__name__)

_Array = npt.NDArray[Any]
_Row = dict[str, Any]

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""The thresholds of a sweep."""

_VALUE_MAPS = {name: {0: 0, 255: 1, 191: 2, 128: 3} for name in ("aic-edema", "oct")}
_NAMES = {"aic-edema": {1: "REA", 2: "SRF", 3: "PED"}, "shapes": {1: "line", 2: "ellipse"}}
_MASKS_ABOVE = {"nerve": 127, "drive": 0}  # lossy JPEG masks; masks with grey edges
_VOLUME_PRESETS = ("sennet", "aic-edema", "oct")
_DETECTION_PRESETS = ("aic-edema", "oct")


@dataclass(frozen=True)
class ScoreOptions:
    """The arguments of `score_folders` that the numbers depend on, beside the files.

    Raises:
        ValueError: for a value out of range.
    """

    preset: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    tolerance_mm: float = 0.0
    mask_above: int | None = None
    threshold_sweep: bool = False
    surfaces: bool = True
    seed: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        if self.preset is not None:
            check_choice("preset", self.preset, PRESETS)
        if self.spacing_mm is not None:
            check_spacing(self.spacing_mm)
        if not 0 <= self.tolerance_mm < math.inf:
            raise ValueError(f"tolerance_mm must be 0 or more, got {self.tolerance_mm}")
        check_positive("resamples", self.resamples)


@dataclass(frozen=True)
class ScoreReport:
    """What was found; `volseg.reports.score_tables` writes it down.

    Attributes:
        pred: place of the predictions.
        truth: place of the truth.
        cases: one record per case: names, files, grid, and what was done to the prediction.
        rows: for each of `cases` class index to its numbers; nan where one is undefined.
        classes: foreground class index to name.
        per_class: class index to the means over cases, and to the counts of what the means hide.
        mean: measure to its mean over cases, then over classes.
        intervals: measure to its 95 % bootstrap interval; nan where fewer than two units are resampled.
        groups: group to its means and its number of cases; empty without groups.
        preset: report of the protocol, or None.
        sweep: curves over `THRESHOLDS`, or None.
        versus: comparison with the second folder, or None.
        options: as given.
    """

    pred: Path
    truth: Path
    cases: list[_Row]
    rows: list[dict[int, _Row]]
    classes: dict[int, str]
    per_class: dict[int, _Row]
    mean: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    groups: dict[str, _Row]
    preset: PresetReport | None
    sweep: _Row | None
    versus: _Row | None
    options: ScoreOptions


def score_folders(
    pred: str | Path,
    truth: str | Path,
    *,
    preset: str | None = None,
    classes: Mapping[int, str] | None = None,
    spacing_mm: Sequence[float] | None = None,
    tolerance_mm: float = 0.0,
    mask_above: int | None = None,
    threshold_sweep: bool = False,
    surfaces: bool = True,
    other: str | Path | None = None,
    view: str | Path | None = None,
    groups: Mapping[str, str] | str | None = None,
    section: Section | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> ScoreReport:
    """Score a folder of predictions against a folder of masks, one case in memory at a time.

    Args:
        pred: folder of predictions, as inference writes it or flat, or one file.
        truth: folder of masks or of slice folders, a prepared folder with its datalist, or one file.
        preset: protocol of `volseg.metrics.score_preset` to report beside the general numbers.
        classes: foreground index to name; other values are refused. None takes those of the preset or the
            datalist, or every value that occurs.
        spacing_mm: edge lengths (x, y, z) for files that state none.
        tolerance_mm: of the surface Dice.
        mask_above: grey values above it are foreground, in files that are not plainly 0/1 or 0/255; None is
            127 for the preset "nerve", 0 for "drive".
        threshold_sweep: also score the probability maps beside the predictions at `THRESHOLDS`.
        surfaces: surface Dice and distances of volumes; they take most of the time.
        other: second folder of predictions, compared case by case.
        view: folder of field-of-view masks, for the preset "drive".
        groups: case to group, or a regular expression whose first bracket finds the group in the name; None
            takes those of the datalist. Groups are resampled as a whole.
        section: of the datalist; None is its test section where that has labels, else every labelled case.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        InputError: when a case is missing, too many, damaged, of unexpected values, or on another grid.
        ValueError: for an argument out of range.
    """
    edges = None if spacing_mm is None else tuple(map(float, spacing_mm))
    options = ScoreOptions(
        preset, edges, tolerance_mm, mask_above, threshold_sweep, surfaces, seed, resamples
    )
    if view is not None and preset != "drive":
        raise ValueError(f"view is for the preset 'drive', got preset {preset!r}; drop one of them")
    as_volumes = preset in _VOLUME_PRESETS
    matching = match_masks(
        pred, truth, other=other, view=view, groups=groups, section=section, as_volumes=as_volumes
    )
    named = dict(classes or _NAMES.get(preset or "") or matching.classes)
    named.pop(0, None)
    run = _Run(matching, options, frozenset(named) or None)
    places = Path(pred), Path(truth)
    if preset is not None:
        return _report(run, places, named, score_preset(preset, run.scored_cases()))
    for _ in run.scored_cases():
        pass
    return _report(run, places, named, None)


class _Run:
    """One pass over all cases; a preset pulls them one by one while the general rows are collected."""

    def __init__(self, matching: Matching, options: ScoreOptions, classes: frozenset[int] | None) -> None:
        self.matching = matching
        self.options = options
        sides = ("truth", "prediction", "second prediction")
        preset = options.preset or ""
        above = options.mask_above if options.mask_above is not None else _MASKS_ABOVE.get(preset)
        self.rules = [LabelRule(side, _VALUE_MAPS.get(preset), above, classes) for side in sides]
        self.cases: list[_Row] = []
        # all headers first: a case on another grid is refused before the work
        self.grids = [grid_of(pair, options.spacing_mm) for pair in matching.pairs]
        self.found: list[list[dict[int, _Row]]] = [[], []]  # of the prediction, of the other one
        self.curves: dict[str, list[Any]] = {}
        self.is_soft = options.threshold_sweep
        # scores of a head and sizes of predictions are not comparable: all cases have a table, or none
        paths = [detection_path(pair.pred) for pair in matching.pairs]
        self.has_tables = options.preset in _DETECTION_PRESETS and any(path.exists() for path in paths)

    def scored_cases(self) -> Iterator[ScoredCase]:
        pairs = list(zip(self.matching.pairs, self.grids, strict=True))
        for number, pair in enumerate(tqdm(pairs, desc="score", unit="case", disable=None), start=1):
            logger.info("%d of %d: %s", number, len(pairs), pair[0].case)
            yield self._score(*pair)

    def _score(self, pair: MaskPair, grid: CaseGrid) -> ScoredCase:
        truth = read_truth(pair, self.rules[0], grid)
        pred, note = self._prediction(pair.pred, grid, pair, side=1)
        self.found[0].append(self._rows(pred, truth, grid))
        if pair.other is not None:
            other, _ = self._prediction(pair.other, grid, pair, side=2)
            self.found[1].append(self._rows(other, truth, grid))
            del other
        self.cases.append(_record(pair, grid, note))
        probability = self._probability(pair, grid)
        if self.options.threshold_sweep and probability is not None:
            self._sweep(probability, truth, grid, pair)
        view = None if pair.view is None else read_on_grid(pair.view, grid, pair.truth)[0]
        spacing_mm = grid.spacing_mm if grid.spacing_is_known else None
        detection = self._detection(pair, grid, note, truth.shape[-1]) if self.has_tables else None
        return ScoredCase(pair.case, pred, truth, spacing_mm, probability, detection, view)

    def _detection(self, pair: MaskPair, grid: CaseGrid, note: str, slices: int) -> _Array:
        path = detection_path(pair.pred)
        remedy = "predict all cases with one network, or remove the tables"
        if note:
            refuse(path, "slices in the order of the truth", f"a prediction that is {note}", remedy)
        table = read_detection(path)
        chosen = grid.chosen(pair.pred, len(table), pair.truth)
        table = table if chosen is None else table[chosen]
        if len(table) != slices:
            refuse(path, f"{slices} slices", len(table), remedy)
        return table

    def _prediction(self, path: Path, grid: CaseGrid, pair: MaskPair, *, side: int) -> tuple[_Array, str]:
        array, note = read_on_grid(path, grid, pair.truth)
        return self.rules[side].indices(array, path), note

    def _rows(self, pred: _Array, truth: _Array, grid: CaseGrid) -> dict[int, _Row]:
        options = self.options
        return score_classes(pred, truth, grid, tolerance_mm=options.tolerance_mm, surfaces=options.surfaces)

    def _probability(self, pair: MaskPair, grid: CaseGrid) -> _Array | None:
        path = probability_path(pair.pred)
        is_first = len(self.cases) == 1
        if self.options.preset == "drive" and is_first and path.exists():
            self.is_soft = True  # from the first case on: all have a map, or none has
        if not self.is_soft:
            return None
        if not path.exists():
            remedy = "run inference with --save_probability true"
            refuse(path, "a probability map beside each prediction", "none", remedy)
        array, _ = read_on_grid(path, grid, pair.truth)
        if array.dtype.kind != "f" or not bool(((array >= 0) & (array <= 1)).all()):
            got = f"{array.dtype} values" if array.dtype.kind != "f" else "others, or NaN"
            refuse(path, "probabilities from 0 to 1", got, "save the map after the sigmoid, unscaled")
        return array

    def _sweep(self, probability: _Array, truth: _Array, grid: CaseGrid, pair: MaskPair) -> None:
        if int(truth.max()) > 1:
            got = f"class {int(truth.max())}"
            refuse(pair.truth, "a mask of one class, to sweep thresholds", got, "leave the sweep out")
        self.curves.setdefault("dice", []).append(score_thresholds(probability, truth, THRESHOLDS))
        if self.options.surfaces and grid.has_surfaces:
            is_sennet = self.options.preset == "sennet"
            curve = compute_surface_dice_sweep(
                probability,
                truth,
                spacing_mm=(1.0, 1.0, 1.0) if is_sennet else grid.spacing_mm,
                thresholds=THRESHOLDS,
                empty_value=0.0 if is_sennet else math.nan,
            )
            self.curves.setdefault("surface_dice_at_tolerance_0", []).append(curve)


def _record(pair: MaskPair, grid: CaseGrid, note: str) -> _Row:
    return {
        "case": pair.case,
        "group": pair.group,
        "prediction_file": str(pair.pred),
        "reference_file": str(pair.truth),
        "shape": list(grid.geometry.shape),
        "spacing_mm": list(grid.spacing_mm),
        "spacing_is_known": grid.spacing_is_known,
        "note": note,
    }


def _filled(run: _Run, side: int, classes: Sequence[int]) -> list[dict[int, _Row]]:
    """Rows for all classes of all cases: a class that neither mask has is a row too."""
    return [
        {index: rows.get(index) or empty_row(int(np.prod(grid.geometry.shape)), grid) for index in classes}
        for rows, grid in zip(run.found[side], run.grids, strict=True)
    ]


def _report(
    run: _Run, places: tuple[Path, Path], named: Mapping[int, str], preset: PresetReport | None
) -> ScoreReport:
    options, has_groups = run.options, run.matching.has_groups
    found = {index for side in run.found for rows in side for index in rows}
    classes = sorted(found | set(named)) or [1]  # nothing but empty masks: one class, undefined everywhere
    rows = _filled(run, 0, classes)
    groups = [pair.group for pair in run.matching.pairs]
    # the mean of one unit has no spread to show
    draws = options.resamples if len(set(groups)) > 1 else 0
    counts = resample_counts(groups, draws, options.seed)
    mean, intervals = means_with_intervals(rows, classes, counts)
    versus = None
    if run.found[1]:
        versus = compare(rows, _filled(run, 1, classes), classes, counts=counts, units=groups)
    return ScoreReport(
        *places,
        cases=run.cases,
        rows=rows,
        classes={index: named.get(index, str(index)) for index in classes},
        per_class=means_by_class(rows, classes),
        mean=mean,
        intervals=intervals,
        groups=means_by_group(rows, classes, groups) if has_groups else {},
        preset=preset,
        sweep=sweep_of(run.curves, THRESHOLDS) if run.curves else None,
        versus=versus,
        options=options,
    )
