"""Losses on logits `(B, K*M, H, W)` and labels `(B, M, H, W)`, label 255 ignored; one loss per file."""

from __future__ import annotations

from volseg.losses.boundary_dou import BoundaryDoULoss
from volseg.losses.deep_supervision import DeepSupervisionLoss
from volseg.losses.dice_focal import MaskedDiceFocalLoss
from volseg.losses.exp_log_dice import ExpLogDiceLoss
from volseg.losses.f_beta import FBetaLoss
from volseg.losses.ignore import IgnoreMaskLoss
from volseg.losses.multi_task import MultiTaskLoss
from volseg.losses.pseudo_labels import coverage_threshold, hard_pseudo_labels, soft_pseudo_labels
from volseg.losses.rows import IGNORE
from volseg.losses.surface_cube import SurfaceCubeLoss
from volseg.losses.weighted_ce_dice import WeightedCeDiceLoss
from volseg.losses.weighted_sum import WeightedSumLoss

__all__ = [
    "BoundaryDoULoss",
    "DeepSupervisionLoss",
    "ExpLogDiceLoss",
    "FBetaLoss",
    "IGNORE",
    "IgnoreMaskLoss",
    "MaskedDiceFocalLoss",
    "MultiTaskLoss",
    "SurfaceCubeLoss",
    "WeightedCeDiceLoss",
    "WeightedSumLoss",
    "coverage_threshold",
    "hard_pseudo_labels",
    "soft_pseudo_labels",
]
