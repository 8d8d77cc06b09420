"""Dictionary transforms: slice stacks, labels, intensity and spacing; MONAI's own for everything else."""

from __future__ import annotations

from volseg.transforms.contrast import ChooseChanneld, LimitContrastd
from volseg.transforms.decide import DecideLabelsd
from volseg.transforms.definition import definition_of
from volseg.transforms.field_of_view import FieldOfViewd
from volseg.transforms.foreground import ForegroundIndicesd
from volseg.transforms.intensity import IntensityStatisticsd, NormalizeByStatisticsd
from volseg.transforms.labels import IGNORE, MapLabelsd, MaskUnlabelledd, PlaceSparseLabeld
from volseg.transforms.paired import CheckPaird
from volseg.transforms.rand_slice_stack import RandSliceStackd
from volseg.transforms.size import MatchSized
from volseg.transforms.slice_gaps import GatherSlicesd, MatchSlicesd, SpreadSlicesd
from volseg.transforms.slice_stack import stack_slices, unstack_slices
from volseg.transforms.spacing import AssignSpacingd, MatchSpacingd, RestoreShaped

__all__ = [
    "IGNORE",
    "AssignSpacingd",
    "CheckPaird",
    "ChooseChanneld",
    "DecideLabelsd",
    "FieldOfViewd",
    "ForegroundIndicesd",
    "GatherSlicesd",
    "IntensityStatisticsd",
    "LimitContrastd",
    "MapLabelsd",
    "MaskUnlabelledd",
    "MatchSized",
    "MatchSlicesd",
    "MatchSpacingd",
    "NormalizeByStatisticsd",
    "PlaceSparseLabeld",
    "RandSliceStackd",
    "RestoreShaped",
    "SpreadSlicesd",
    "definition_of",
    "stack_slices",
    "unstack_slices",
]
