"""Inference on whole volumes with 2D networks over slice stacks; the network is any callable."""

from volseg.inferers.ensemble import EnsembleInferer
from volseg.inferers.flips import View, views_of
from volseg.inferers.precision import has_native_bf16
from volseg.inferers.slice_detection import SliceDetectionInferer
from volseg.inferers.slice_stack import SliceStacks
from volseg.inferers.training import AutocastInferer
from volseg.inferers.tri_axis import TriAxisInferer

__all__ = [
    "AutocastInferer",
    "EnsembleInferer",
    "SliceDetectionInferer",
    "SliceStacks",
    "TriAxisInferer",
    "View",
    "has_native_bf16",
    "views_of",
]
