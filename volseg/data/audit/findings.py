"""What an audit finds: pairs of the same picture, contradicting masks, groups, leaks between splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["DuplicateGroup", "Findings", "FoundPair", "Histogram"]


@dataclass(frozen=True)
class FoundPair:
    """Two frames that show the same.

    Attributes:
        first: name of the one frame.
        second: name of the other.
        indices: of both in the store.
        is_same: whether the sum of absolute differences, after the turn, lies below the threshold; otherwise
            the textures are only similar.
        distance: that sum; None where sizes, types or an angle other than a quarter turn forbid it.
        correlation: of the textures; None for a pair that only the distance found.
        angle_degrees: by which `second` is turned clockwise to lie on `first`, after it was mirrored.
        mirrored: whether left and right of `second` are exchanged.
        mask_dice: of the masks, laid onto each other; None unless both are labelled.
        is_contradiction: the picture is the same, and the masks are not equal.
        keep: the case whose mask a resolution keeps.
        is_leak: whether the frames are on different sides of the split.
    """

    first: str
    second: str
    indices: tuple[int, int]
    is_same: bool
    distance: int | None
    correlation: float | None
    angle_degrees: float
    mirrored: bool
    mask_dice: float | None
    is_contradiction: bool
    keep: str | None
    is_leak: bool


@dataclass(frozen=True)
class DuplicateGroup:
    """Cases that show the same, directly or through others.

    Attributes:
        cases: their names, in order.
        declared_groups: groups that the data set says they belong to.
        sides: of the split; more than one is a leak.
    """

    cases: tuple[str, ...]
    declared_groups: tuple[str, ...]
    sides: tuple[str, ...]


@dataclass(frozen=True)
class Histogram:
    """Distances between frames of one size and type.

    Attributes:
        size: of the frames, as text.
        frames: number of frames, blank ones left out.
        pairs: number of all pairs.
        edges: distances at which the bins begin: 0, 1, 10, 100 ...
        found: exact number of pairs per bin among all pairs below the threshold.
        sampled: exact distances per bin of pairs drawn at random from all pairs.
    """

    size: str
    frames: int
    pairs: int
    edges: tuple[int, ...]
    found: tuple[int, ...]
    sampled: tuple[int, ...]


@dataclass(frozen=True)
class Findings:
    """Result of `volseg.data.audit.audit_frames`.

    Attributes:
        frames: number of frames.
        cases: number of cases.
        labelled: number of frames with a mask.
        empty_masks: number of masks that are background everywhere.
        blank: names of frames whose pixels are all equal; they are not compared.
        not_measured: number of frames whose type has no exact distance (floating point, more than 16 bit).
        faults: a message for each case that could not be read.
        threshold: pairs with a distance below it are the same.
        similarity: least correlation of a similar pair.
        pairs: contradictions first, the worst first; then by distance and correlation.
        duplicates: groups of more than one case.
        groups: for each case the name of the group that splits must keep together: declared groups, joined
            where they show the same.
        histograms: one for each size and type of frames.
    """

    frames: int
    cases: int
    labelled: int
    empty_masks: int
    blank: tuple[str, ...]
    not_measured: int
    faults: tuple[str, ...]
    threshold: int
    similarity: float
    pairs: tuple[FoundPair, ...]
    duplicates: tuple[DuplicateGroup, ...]
    groups: Mapping[str, str]
    histograms: tuple[Histogram, ...]

    @property
    def contradictions(self) -> list[FoundPair]:
        """Pairs of one picture with different masks, resolved or not."""
        return [pair for pair in self.pairs if pair.is_contradiction]

    @property
    def leaks(self) -> list[DuplicateGroup]:
        """Groups on more than one side of the split."""
        return [group for group in self.duplicates if len(group.sides) > 1]

    @property
    def is_clean(self) -> bool:
        """Whether every case was read, nothing leaks and every contradiction is resolved."""
        open_questions = [pair for pair in self.contradictions if pair.keep is None]
        return not (open_questions or self.leaks or self.faults)

    def as_document(self) -> dict[str, Any]:
        """Everything as JSON holds it."""
        document = asdict(self)
        for pair in document["pairs"]:
            del pair["indices"]
        counts = {
            "is_clean": self.is_clean,
            "same_pairs": sum(pair.is_same for pair in self.pairs),
            "similar_pairs": sum(not pair.is_same for pair in self.pairs),
            "contradictions": len(self.contradictions),
            "unresolved_contradictions": sum(pair.keep is None for pair in self.contradictions),
            "leaks": len(self.leaks),
            "group_count": len(set(self.groups.values())),
        }
        return {"format": "volseg-audit-1", **counts, **document}
