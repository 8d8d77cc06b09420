"""Published scoring protocols, quirks included, each with what its quirk hides reported beside the score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from volseg.checks import check_choice, refuse
from volseg.metrics.confusion import compute_confusion_matrix, compute_confusion_measure
from volseg.metrics.continuity import compute_continuity
from volseg.metrics.detection_auc import compute_detection_auc
from volseg.metrics.dice import compute_dice
from volseg.metrics.field_of_view import FieldOfViewScores, compute_field_of_view_scores
from volseg.metrics.iou import compute_iou
from volseg.metrics.lesions import LesionCounts, compute_lesion_counts
from volseg.metrics.surface_dice import compute_surface_dice
from volseg.metrics.volume import compute_volume_difference

_Row = dict[str, Any]

__all__ = ["PRESETS", "PresetReport", "ScoredCase", "score_preset"]


@dataclass(frozen=True)
class ScoredCase:
    """One case as a preset scores it.

    Attributes:
        case: unique name.
        pred: class indices (x, y, z) or (x, y); memory maps are read slice by slice by "sennet".
        truth: class indices of the same shape; a mask may have any non-zero value.
        spacing_mm: edge lengths of a voxel; "sennet" reports the score in mm beside when it is given.
        probability: foreground probability (x, y), for "drive"; without it the mask is scored.
        detection: (slices, lesion classes) scores, for "aic-edema" and "oct"; without it the predicted voxels
            of a slice.
        field_of_view: mask (x, y), for "drive"; without it all pixels count.
    """

    case: str
    pred: Any
    truth: Any
    spacing_mm: Sequence[float] | None = None
    probability: Any = None
    detection: Any = None
    field_of_view: Any = None


@dataclass(frozen=True)
class PresetReport:
    """What a preset found.

    Attributes:
        preset: its name.
        score: the published number; nan where the protocol leaves nothing to score.
        beside: what the score hides, and the other published numbers, by name.
        cases: one row per case, none left out; nan where the protocol leaves the case out.
    """

    preset: str
    score: float
    beside: dict[str, float]
    cases: list[dict[str, Any]] = field(default_factory=list)


def score_preset(preset: str, cases: Iterable[ScoredCase]) -> PresetReport:
    """Score cases by a published protocol.

    - "sennet": mean over volumes of surface Dice at tolerance 0 on cubic voxels; two empty volumes score 0.
    - "aic-edema": Dice per lesion class on whole volumes, left out where the truth lacks the class, mean over
      volumes, then over classes; AUC of the slices.
    - "oct": the same lesions judged strictly: Dice of every class and volume, 1 where both are empty and 0
      for a false alarm; single lesions, volumes and continuity.
    - "nerve": mean over images of Dice, 1 where both are empty.
    - "drive": mean IoU over images, all pixels; AUC, accuracy, sensitivity and specificity inside the field
      of view.
    - "shapes": mean IoU of three classes from one pooled confusion matrix.

    Args:
        preset: a key of `PRESETS`.
        cases: read once, one at a time.

    Raises:
        ValueError: for an unknown preset.
        InputError: naming the case whose shapes differ, or when there is no case.
    """
    check_choice("preset", preset, PRESETS)
    return PRESETS[preset](preset, _checked(preset, cases))


def _checked(preset: str, cases: Iterable[ScoredCase]) -> Iterable[ScoredCase]:
    empty = True
    for case in cases:
        empty = False
        if np.shape(case.pred) != np.shape(case.truth):
            shapes = f"{np.shape(case.pred)} for {np.shape(case.truth)}"
            refuse(case.case, "a prediction of the truth's shape", shapes, "predict on the grid of the image")
        yield case
    if empty:
        refuse(preset, "at least one case", "none", "check the folders of predictions and truths")


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _flags(pred: Any, truth: Any) -> _Row:
    found, real = bool(np.any(pred)), bool(np.any(truth))
    return {"missed": real and not found, "spurious": found and not real, "empty": not real and not found}


def _counts(rows: Sequence[_Row]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) for name in ("missed", "spurious", "empty")}


def _score_sennet(preset: str, cases: Iterable[ScoredCase]) -> PresetReport:
    rows: list[_Row] = []
    for case in cases:
        row: _Row = {"case": case.case, **_flags(case.pred, case.truth)}
        row["surface_dice"] = compute_surface_dice(
            case.pred, case.truth, spacing_mm=(1, 1, 1), empty_value=0.0
        )
        row["surface_dice_mm"] = math.nan
        if case.spacing_mm is not None:
            row["surface_dice_mm"] = compute_surface_dice(case.pred, case.truth, spacing_mm=case.spacing_mm)
        rows.append(row)
    kept = [row["surface_dice"] for row in rows if not row["empty"]]
    beside = {
        "surface_dice_without_empty": _mean(kept),
        "surface_dice_mm": _mean([row["surface_dice_mm"] for row in rows]),
        "worst_volume": min(row["surface_dice"] for row in rows),
    }
    score = _mean([row["surface_dice"] for row in rows])
    return PresetReport(preset, score, beside | _counts(rows), rows)


_LESIONS = {1: "REA", 2: "SRF", 3: "PED"}


def _score_edema(preset: str, cases: Iterable[ScoredCase]) -> PresetReport:
    rows: list[_Row] = []
    slices: dict[str, list[tuple[Any, Any]]] = {name: [] for name in _LESIONS.values()}
    for case in cases:
        pred, truth = np.asarray(case.pred), np.asarray(case.truth)
        for index, name in _LESIONS.items():
            masks = pred == index, truth == index
            row: _Row = {"case": case.case, "class": name, **_flags(*masks)}
            row["dice"] = compute_dice(*masks, spurious_value=math.nan)
            row["dice_with_false_alarms"] = compute_dice(*masks)
            rows.append(row | _continuity(*masks))
            slices[name].append(_slice_scores(case, index, masks))
    beside: dict[str, float] = {}
    for name, pairs in slices.items():
        own = [row for row in rows if row["class"] == name]
        beside[f"dice_{name}"] = _mean([row["dice"] for row in own])
        beside[f"dice_with_false_alarms_{name}"] = _mean([row["dice_with_false_alarms"] for row in own])
        beside[f"auc_{name}"] = compute_detection_auc(*map(np.concatenate, zip(*pairs, strict=True)))
        beside |= {f"{key}_{name}": _mean([row[key] for row in own]) for key in _CONTINUITY}
    names = list(slices)
    for key in ("dice_with_false_alarms", "auc", *_CONTINUITY):
        beside[key] = _mean([beside[f"{key}_{name}"] for name in names])
    score = _mean([beside[f"dice_{name}"] for name in names])
    return PresetReport(preset, score, beside | _counts(rows), rows)


_CONTINUITY = ("unbroken", "components_per_lesion", "slice_consistency")


def _continuity(pred: Any, truth: Any) -> _Row:
    found = compute_continuity(pred, truth)._asdict()
    return {name: found[name] for name in _CONTINUITY}


def _slice_scores(case: ScoredCase, index: int, masks: Sequence[Any]) -> tuple[Any, Any]:
    """How sure a case is of a class in each slice, and whether it is there."""
    scores = masks[0].sum(axis=(0, 1)) if case.detection is None else case.detection[:, index - 1]
    return scores, masks[1].any(axis=(0, 1))


_STRICT = ("dice", "dice_where_present", "lesion_f1", "volume_difference_mm3", *_CONTINUITY)


def _score_oct(preset: str, cases: Iterable[ScoredCase]) -> PresetReport:
    found: list[dict[int, tuple[_Row, tuple[Any, Any]]]] = []
    names: list[tuple[str, int]] = []
    for case in cases:
        pred, truth = np.asarray(case.pred), np.asarray(case.truth)
        present = {int(index) for side in (pred, truth) for index in np.unique(side) if index}
        # heads know classes that neither mask has, and these have slices to be judged by too
        present |= set(range(1, 1 if case.detection is None else 1 + case.detection.shape[1]))
        masks = {index: (pred == index, truth == index) for index in present}
        found.append(
            {k: (_strict_row(case, *pair), _slice_scores(case, k, pair)) for k, pair in masks.items()}
        )
        names.append((case.case, pred.shape[-1]))
    classes = sorted(set().union(*found)) or [1]
    rows, beside = [], dict.fromkeys(_STRICT, math.nan)
    for index in classes:
        own, pairs = [], []
        for (name, slices), known in zip(names, found, strict=True):
            row, pair = known.get(index, (_EMPTY_ROW, (np.zeros(slices), np.zeros(slices, bool))))
            own.append({"case": name, "class": index, **row})
            pairs.append(pair)
        rows += own
        beside |= {f"{key}_{index}": _mean([row[key] for row in own]) for key in _STRICT}
        beside |= _lesions_beside(own, index)
        beside[f"auc_{index}"] = compute_detection_auc(*map(np.concatenate, zip(*pairs, strict=True)))
    for key in (*_STRICT, "lesion_recall", "spurious_lesions_per_volume", "auc"):
        beside[key] = _mean([beside[f"{key}_{index}"] for index in classes])
    return PresetReport(preset, beside.pop("dice"), beside | _counts(rows), rows)


_EMPTY_ROW: _Row = {
    **_flags(0, 0),
    "dice": 1.0,
    "dice_where_present": math.nan,
    **{f"lesions_{name}": 0 for name in LesionCounts._fields},
    "lesion_f1": math.nan,
    "volume_difference_mm3": 0.0,
    **dict.fromkeys(_CONTINUITY, math.nan),
}


def _strict_row(case: ScoredCase, pred: Any, truth: Any) -> _Row:
    flags = _flags(pred, truth)
    if flags["empty"]:
        return _EMPTY_ROW
    dice, lesions = compute_dice(pred, truth), compute_lesion_counts(pred, truth)
    difference = math.nan
    if case.spacing_mm is not None:
        difference = compute_volume_difference(pred, truth, spacing_mm=case.spacing_mm)
    return {
        **flags,
        "dice": dice,
        "dice_where_present": math.nan if flags["spurious"] else dice,
        **{f"lesions_{name}": count for name, count in lesions._asdict().items()},
        "lesion_f1": 2 * lesions.found / (2 * lesions.found + lesions.missed + lesions.spurious),
        "volume_difference_mm3": difference,
        **_continuity(pred, truth),
    }


def _lesions_beside(rows: Sequence[_Row], index: int) -> dict[str, float]:
    """Recall of the single lesions of all volumes, and how many spurious ones a volume has."""
    found, missed, spurious = (sum(row[f"lesions_{name}"] for row in rows) for name in LesionCounts._fields)
    recall = found / (found + missed) if found + missed else math.nan
    return {f"lesion_recall_{index}": recall, f"spurious_lesions_per_volume_{index}": spurious / len(rows)}


def _score_nerve(preset: str, cases: Iterable[ScoredCase]) -> PresetReport:
    rows: list[_Row] = []
    for case in cases:
        pred, truth = np.asarray(case.pred) != 0, np.asarray(case.truth) != 0
        row: _Row = {
            "case": case.case,
            **_flags(pred, truth),
            "dice": compute_dice(pred, truth, empty_value=1.0),
        }
        areas = {"hit_pixels": pred & truth, "false_pixels": pred & ~truth, "missed_pixels": truth & ~pred}
        rows.append({**row, **{name: int(area.sum()) for name, area in areas.items()}})
    hit, false, missed = (sum(row[f"{name}_pixels"] for row in rows) for name in ("hit", "false", "missed"))
    pooled = [[0, false], [missed, hit]]
    beside = {
        "empty_submission": float(np.mean([row["empty"] or row["spurious"] for row in rows])),
        "dice_of_frames_with_nerve": _mean([r["dice"] for r in rows if not (r["empty"] or r["spurious"])]),
        "precision": compute_confusion_measure(pooled, "precision"),
        "recall": compute_confusion_measure(pooled, "recall"),
        "f1": compute_confusion_measure(pooled, "f_beta"),
        "false_positive_pixels": false,
        "false_negative_pixels": missed,
    }
    return PresetReport(preset, _mean([row["dice"] for row in rows]), beside | _counts(rows), rows)


def _score_drive(preset: str, cases: Iterable[ScoredCase]) -> PresetReport:
    rows: list[_Row] = []
    for case in cases:
        pred, truth = np.asarray(case.pred) != 0, np.asarray(case.truth) != 0
        inside = np.ones_like(truth) if case.field_of_view is None else np.asarray(case.field_of_view) != 0
        soft = pred.astype(np.float32) if case.probability is None else case.probability
        row: _Row = {"case": case.case, **_flags(pred, truth), "iou": compute_iou(pred, truth)}
        row |= {"dice": compute_dice(pred, truth), "iou_in_view": compute_iou(pred & inside, truth & inside)}
        row |= {"pixels_predicted_out_of_view": int((pred & ~inside).sum())}
        rows.append(row | compute_field_of_view_scores(soft, truth, inside)._asdict())
    names = ("dice", "iou_in_view", *FieldOfViewScores._fields)
    beside = {name: _mean([row[name] for row in rows]) for name in names}
    beside["pixels_predicted_out_of_view"] = sum(row["pixels_predicted_out_of_view"] for row in rows)
    return PresetReport(preset, _mean([row["iou"] for row in rows]), beside | _counts(rows), rows)


_SHAPES = {0: "background", 1: "line", 2: "ellipse"}


def _score_shapes(preset: str, cases: Iterable[ScoredCase]) -> PresetReport:
    rows: list[_Row] = []
    pooled = torch.zeros(len(_SHAPES), len(_SHAPES), dtype=torch.int64)
    for case in cases:
        matrix = compute_confusion_matrix(np.asarray(case.pred), np.asarray(case.truth), classes=len(_SHAPES))
        pooled += matrix
        row: _Row = {"case": case.case, **_flags(case.pred, case.truth)}
        rows.append({**row, "mean_iou": compute_confusion_measure(matrix, "mean_iou")})
    iou = pooled.diagonal() / (pooled.sum(dim=0) + pooled.sum(dim=1) - pooled.diagonal())
    beside = {f"iou_{name}": float(iou[index]) for index, name in _SHAPES.items()}
    beside["mean_iou_without_background"] = float(iou[1:].nanmean())
    beside["mean_iou_over_images"] = _mean([row["mean_iou"] for row in rows])
    return PresetReport(preset, compute_confusion_measure(pooled, "mean_iou"), beside | _counts(rows), rows)


PRESETS: dict[str, Callable[[str, Iterable[ScoredCase]], PresetReport]] = {
    "sennet": _score_sennet,
    "aic-edema": _score_edema,
    "oct": _score_oct,
    "nerve": _score_nerve,
    "drive": _score_drive,
    "shapes": _score_shapes,
}
"""The protocols by name; `score_preset` says what each computes."""
