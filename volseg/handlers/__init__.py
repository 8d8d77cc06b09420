"""Handlers that MONAI and ignite lack."""

from volseg.handlers.case_iteration import CaseIteration
from volseg.handlers.case_previews import CaseCompanions, CasePreviews
from volseg.handlers.checkpoints import CheckpointHandler, load_threshold
from volseg.handlers.class_masks import class_masks
from volseg.handlers.early_stop import EarlyStop
from volseg.handlers.field_of_view import FieldOfViewHandler
from volseg.handlers.guards import EpochSeed, FiniteLoss
from volseg.handlers.learning_rate import LearningRateSteps
from volseg.handlers.monitoring import CaseImages, CaseScores, RunScalars, open_writer
from volseg.handlers.progress import CaseProgress
from volseg.handlers.score_table import ScoreTable
from volseg.handlers.slice_detection import DetectionAUCHandler, SliceDetection

__all__ = [
    "CaseCompanions",
    "CaseImages",
    "CaseIteration",
    "CasePreviews",
    "CaseProgress",
    "CaseScores",
    "CheckpointHandler",
    "DetectionAUCHandler",
    "EarlyStop",
    "EpochSeed",
    "FieldOfViewHandler",
    "FiniteLoss",
    "LearningRateSteps",
    "RunScalars",
    "ScoreTable",
    "SliceDetection",
    "class_masks",
    "load_threshold",
    "open_writer",
]
