"""Compare every frame with every other, and their masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.checks import check_fraction
from volseg.data.audit.absolute_difference import (
    SAME_DISTANCE,
    find_close_pairs,
    measure_distance,
    sample_distances,
)
from volseg.data.audit.findings import DuplicateGroup, Findings, FoundPair, Histogram
from volseg.data.audit.frames import Frame, FrameStore, is_measurable
from volseg.data.audit.groups import join_pairs
from volseg.data.audit.masks import foreground_dice
from volseg.data.audit.resolutions import Resolutions
from volseg.data.audit.similarity import (
    SAME_PICTURE,
    SimilarPair,
    find_similar_pairs,
    is_quarter_turn,
    turn_picture,
)

__all__ = ["audit_frames"]

_SAMPLE = 2000
_DECADES = 12


def audit_frames(
    store: FrameStore,
    *,
    threshold: int = SAME_DISTANCE,
    similarity: float = SAME_PICTURE,
    resolutions: Resolutions | None = None,
) -> Findings:
    """Compare all frames with all others.

    Two slices of one volume count only when they are the same; neighbours are always similar.

    Args:
        store: the frames, opened.
        threshold: pairs whose sum of absolute differences is less are the same picture.
        similarity: least correlation of textures for two pictures to show the same.
        resolutions: which mask is kept of pairs with contradicting masks.

    Raises:
        ValueError: for a threshold below 1 or a similarity that is no fraction.
    """
    check_fraction("similarity", similarity)
    close, histograms, not_measured = _close_pairs(store, threshold)
    pairs = _all_pairs(store, close, _similar_pairs(store, similarity), threshold, resolutions or {})
    duplicates, groups = _groups(store.frames, pairs)
    return Findings(
        frames=len(store.frames),
        cases=len({frame.case for frame in store.frames}),
        labelled=sum(frame.has_mask for frame in store.frames),
        empty_masks=sum(frame.is_empty for frame in store.frames),
        blank=tuple(frame.name for frame in store.frames if frame.is_blank),
        not_measured=not_measured,
        faults=tuple(store.faults),
        threshold=threshold,
        similarity=similarity,
        pairs=tuple(sorted(pairs, key=_urgency)),
        duplicates=tuple(duplicates),
        groups=groups,
        histograms=tuple(histograms),
    )


def _close_pairs(
    store: FrameStore, threshold: int
) -> tuple[dict[tuple[int, int], int], list[Histogram], int]:
    close: dict[tuple[int, int], int] = {}
    histograms, measured = [], 0
    for indices, stack in store.measurable_stacks():
        measured += len(indices)
        if len(indices) < 2:
            continue
        found = find_close_pairs(stack, below=threshold)
        for first, second, distance in zip(*found, strict=True):
            close[int(indices[first]), int(indices[second])] = int(distance)
        histograms.append(_histogram(stack, found.distance))
    return close, histograms, sum(not frame.is_blank for frame in store.frames) - measured


def _histogram(stack: npt.NDArray[Any], found: npt.NDArray[np.int64]) -> Histogram:
    edges = np.array([0, *(10**power for power in range(_DECADES))])
    counts = [np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=len(edges))
              for values in (found, sample_distances(stack, _SAMPLE))]  # fmt: skip
    height, width = stack.shape[1:3]
    kind = f"{stack.dtype}{', colours' if stack.ndim == 4 else ''}"
    return Histogram(
        size=f"{width}x{height} {kind}",
        frames=len(stack),
        pairs=len(stack) * (len(stack) - 1) // 2,
        edges=tuple(int(edge) for edge in edges),
        found=tuple(int(count) for count in counts[0]),
        sampled=tuple(int(count) for count in counts[1]),
    )


def _similar_pairs(store: FrameStore, above: float) -> list[SimilarPair]:
    frames = store.frames
    return [
        pair
        for pair in find_similar_pairs(store.descriptors, above=above)
        if not (frames[pair.first].is_slice and frames[pair.first].case == frames[pair.second].case)
    ]


def _all_pairs(
    store: FrameStore,
    close: Mapping[tuple[int, int], int],
    similar: Iterable[SimilarPair],
    threshold: int,
    resolutions: Resolutions,
) -> list[FoundPair]:
    """Join what the distance and what the texture found, and compare the masks."""
    known = {(pair.first, pair.second): pair for pair in similar}
    found = []
    for first, second in sorted({*close, *known}):
        distance = close.get((first, second))
        pair = known.get((first, second))
        if distance is not None or pair is None:  # they lie on each other as they are
            correlation = None if pair is None else pair.correlation
            angle, mirrored = 0.0, False
        else:
            correlation, angle, mirrored = pair.correlation, pair.angle_degrees, pair.mirrored
            distance = _turned_distance(store, pair)
        is_same = distance is not None and distance < threshold
        frames = store.frames[first], store.frames[second]
        dice = _mask_dice(store, (first, second), angle, mirrored)
        found.append(
            FoundPair(
                first=frames[0].name,
                second=frames[1].name,
                indices=(first, second),
                is_same=is_same,
                distance=distance,
                correlation=correlation,
                angle_degrees=angle,
                mirrored=mirrored,
                mask_dice=dice,
                is_contradiction=is_same and dice is not None and dice < 1,
                keep=resolutions.get(frozenset((frames[0].name, frames[1].name))),
                is_leak=frames[0].side != frames[1].side,
            )
        )
    return found


def _turned_distance(store: FrameStore, pair: SimilarPair) -> int | None:
    if not is_quarter_turn(pair.angle_degrees):
        return None
    first, second = store.pixels(pair.first), store.pixels(pair.second)
    turned = turn_picture(second, angle_degrees=pair.angle_degrees, mirrored=pair.mirrored)
    if not is_measurable(first.dtype) or (first.shape, first.dtype) != (turned.shape, turned.dtype):
        return None
    return measure_distance(first, turned)


def _mask_dice(store: FrameStore, pair: tuple[int, int], angle: float, mirrored: bool) -> float | None:
    if not all(store.frames[index].has_mask for index in pair):
        return None
    first, second = (store.mask(index) for index in pair)
    if first is None or second is None:
        return None
    turned = turn_picture(second, angle_degrees=angle, mirrored=mirrored)
    return foreground_dice(first, turned) if first.shape == turned.shape else None


def _groups(
    frames: Sequence[Frame], pairs: Sequence[FoundPair]
) -> tuple[list[DuplicateGroup], dict[str, str]]:
    """Join cases by the pairs alone, and by the pairs and the groups that the data set declares."""
    first_of = {frame.case: frame for frame in reversed(frames)}
    cases = list(dict.fromkeys(frame.case for frame in frames))
    place = {case: index for index, case in enumerate(cases)}
    joined = [(place[frames[i].case], place[frames[j].case]) for i, j in (pair.indices for pair in pairs)]
    duplicates = []
    for members in _members(join_pairs(len(cases), joined)):
        if len(members) > 1:
            chosen = [first_of[cases[index]] for index in members]
            duplicates.append(
                DuplicateGroup(
                    cases=tuple(frame.case for frame in chosen),
                    declared_groups=tuple(dict.fromkeys(frame.group for frame in chosen)),
                    sides=tuple(sorted({frame.side for frame in chosen})),
                )
            )
    first_in: dict[str, int] = {}
    declared = [(first_in.setdefault(first_of[case].group, place[case]), place[case]) for case in cases]
    groups: dict[str, str] = {}
    for members in _members(join_pairs(len(cases), [*joined, *declared])):
        name = first_of[cases[members[0]]].group
        groups.update({cases[index]: name for index in members})
    return duplicates, {case: groups[case] for case in cases}


def _members(numbers: Sequence[int]) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(max(numbers, default=-1) + 1)]
    for index, number in enumerate(numbers):
        members[number].append(index)
    return members


def _urgency(pair: FoundPair) -> tuple[Any, ...]:
    dice = 2.0 if pair.mask_dice is None else pair.mask_dice
    distance = float("inf") if pair.distance is None else float(pair.distance)
    return (not pair.is_contradiction, dice if pair.is_contradiction else 0.0, not pair.is_leak,
            not pair.is_same, distance, -(pair.correlation or 0.0), pair.indices)  # fmt: skip
