"""Scores of a prediction against the truth: one `compute_<name>` and one MONAI metric per file."""

from __future__ import annotations

from volseg.metrics.calibration import (
    CalibrationErrorMetric,
    compute_calibration_error,
    compute_calibration_table,
)
from volseg.metrics.cl_dice import ClDiceMetric, compute_cl_dice
from volseg.metrics.confusion import ConfusionMetric, compute_confusion_matrix, compute_confusion_measure
from volseg.metrics.continuity import Continuity, ContinuityMetric, compute_continuity
from volseg.metrics.detection_auc import DetectionAUCMetric, compute_detection_auc
from volseg.metrics.dice import DiceMetric, compute_dice
from volseg.metrics.field_of_view import FieldOfViewMetric, FieldOfViewScores, compute_field_of_view_scores
from volseg.metrics.iou import IoUMetric, compute_iou
from volseg.metrics.lesions import LesionCounts, LesionF1Metric, compute_lesion_counts, compute_lesion_f1
from volseg.metrics.overlap import OverlapCounts, OverlapMetric, compute_overlap_sweep
from volseg.metrics.presets import PRESETS, PresetReport, ScoredCase, score_preset
from volseg.metrics.structures import StructureMetric
from volseg.metrics.surface_area import compute_surface_area_table
from volseg.metrics.surface_dice import SurfaceDiceMetric, compute_surface_dice
from volseg.metrics.surface_dice_sweep import compute_surface_dice_sweep
from volseg.metrics.surface_distance import SurfaceDistanceMetric, compute_surface_distance
from volseg.metrics.volume import VolumeDifferenceMetric, compute_volume, compute_volume_difference

__all__ = [
    "PRESETS",
    "CalibrationErrorMetric",
    "ClDiceMetric",
    "ConfusionMetric",
    "Continuity",
    "ContinuityMetric",
    "DetectionAUCMetric",
    "DiceMetric",
    "FieldOfViewMetric",
    "FieldOfViewScores",
    "IoUMetric",
    "LesionCounts",
    "LesionF1Metric",
    "OverlapCounts",
    "OverlapMetric",
    "PresetReport",
    "ScoredCase",
    "StructureMetric",
    "SurfaceDiceMetric",
    "SurfaceDistanceMetric",
    "VolumeDifferenceMetric",
    "compute_calibration_error",
    "compute_calibration_table",
    "compute_cl_dice",
    "compute_confusion_matrix",
    "compute_confusion_measure",
    "compute_continuity",
    "compute_detection_auc",
    "compute_dice",
    "compute_field_of_view_scores",
    "compute_iou",
    "compute_lesion_counts",
    "compute_lesion_f1",
    "compute_overlap_sweep",
    "compute_surface_area_table",
    "compute_surface_dice",
    "compute_surface_dice_sweep",
    "compute_surface_distance",
    "compute_volume",
    "compute_volume_difference",
    "score_preset",
]
