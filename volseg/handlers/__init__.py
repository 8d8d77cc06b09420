"""Handlers that MONAI and ignite lack."""

from volseg.handlers.case_iteration import CaseIteration
from volseg.handlers.checkpoints import CheckpointHandler, load_threshold
from volseg.handlers.guards import EpochSeed, FiniteLoss
from volseg.handlers.monitoring import CaseImages, CaseScores, RunScalars, open_writer
from volseg.handlers.progress import CaseProgress
from volseg.handlers.score_table import ScoreTable

__all__ = [
    "CaseImages",
    "CaseIteration",
    "CaseProgress",
    "CaseScores",
    "CheckpointHandler",
    "EpochSeed",
    "FiniteLoss",
    "RunScalars",
    "ScoreTable",
    "load_threshold",
    "open_writer",
]
