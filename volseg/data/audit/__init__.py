"""Near-duplicates and leaks: what a data set holds twice, and which splits would know their validation."""

from volseg.data.audit.absolute_difference import (
    SAME_DISTANCE,
    ClosePairs,
    find_close_pairs,
    measure_distance,
    sample_distances,
)
from volseg.data.audit.comparison import audit_frames
from volseg.data.audit.findings import DuplicateGroup, Findings, FoundPair, Histogram
from volseg.data.audit.frames import Frame, FrameStore
from volseg.data.audit.groups import find_same_pictures, group_pictures, join_pairs
from volseg.data.audit.regrouping import regroup
from volseg.data.audit.resolutions import (
    RESOLUTIONS_NAME,
    read_resolutions,
    record_resolutions,
    resolution_document,
)
from volseg.data.audit.similarity import (
    SAME_PICTURE,
    SimilarPair,
    describe_picture,
    find_similar_pairs,
    turn_picture,
)
from volseg.data.audit.sources import find_audit_cases

__all__ = [
    "RESOLUTIONS_NAME",
    "SAME_DISTANCE",
    "SAME_PICTURE",
    "ClosePairs",
    "DuplicateGroup",
    "Findings",
    "FoundPair",
    "Frame",
    "FrameStore",
    "Histogram",
    "SimilarPair",
    "audit_frames",
    "describe_picture",
    "find_audit_cases",
    "find_close_pairs",
    "find_same_pictures",
    "find_similar_pairs",
    "group_pictures",
    "join_pairs",
    "measure_distance",
    "read_resolutions",
    "record_resolutions",
    "regroup",
    "resolution_document",
    "sample_distances",
    "turn_picture",
]
