"""Check a volume against its label, slice number by slice number, and collect every fault."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.checks import InputError
from volseg.data.datasets.folders import relative_name
from volseg.data.slice_folder import Gaps, list_slices
from volseg.data.volume_reader import read_numbered_header, read_volume
from volseg.geometry import Geometry

__all__ = ["VolumeCase", "check_volume"]

_SAMPLES = 5
_SHOWN_VALUES = 4

Array = npt.NDArray[Any]


@dataclass
class VolumeCase:
    """A volume with its label, and what `check_volume` found.

    Attributes:
        name: of the case.
        group: what must stay in one fold.
        image: folder of slices, or volume file.
        label: likewise; None for a case without labels.
        is_test: whether it is never trained on.
        label_offset: what the number of a label slice is above that of its image slice.
        geometry: of the image; None when it could not be read.
        dtype: of the image.
        depth: slices from the first to the last number of the image.
        foreground: slice of that grid to number of foreground voxels, for each labelled slice.
        fingerprints: hashes of sampled image slices that are not constant.
        warnings: sentences about the case.
    """

    name: str
    group: str
    image: Path
    label: Path | None = None
    is_test: bool = False
    label_offset: int = 0
    geometry: Geometry | None = None
    dtype: str = ""
    depth: int = 0
    foreground: dict[int, int] = field(default_factory=dict)
    fingerprints: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Stack:
    """A volume as read, with the number and the name of each of its slices."""

    place: str
    geometry: Geometry
    voxels: Array
    numbers: list[int] | None
    files: Sequence[str]


def check_volume(
    case: VolumeCase, *, root: Path, gaps: Gaps, values: Mapping[int, int] | None = None
) -> list[str]:
    """Read a volume and its label to the last byte and fill in what was found.

    Args:
        case: is filled in.
        root: what faults name files relative to.
        gaps: with "keep", slice numbers may be missing, and labels may exist for some slices only; with
            "refuse", every slice needs its label. Label numbers that are all one above, or one below, those
            of as many image slices are taken for another way to count.
        values: label value to class; None where any value but 0 is foreground.

    Returns:
        The faults, one sentence each.
    """
    faults: list[str] = []
    image = _attempt(lambda: _read(case.image, root, gaps), faults)
    label = None
    if case.label is not None:
        path = case.label
        label = _attempt(lambda: _read(path, root, gaps), faults)
    if image is None:
        return faults
    depth = image.geometry.shape[2]
    case.geometry, case.dtype = image.geometry, str(image.voxels.dtype)
    case.depth = depth if image.numbers is None else image.numbers[-1] - image.numbers[0] + 1
    case.fingerprints = _fingerprints(image.voxels)
    if label is not None:
        places, told = _pairing(case, image, label, may_miss=gaps == "keep")
        faults += told
        faults += _check_size(image, label) or _check_values(case, label, places, values)
    return faults


def _attempt(read: Callable[[], _Stack], faults: list[str]) -> _Stack | None:
    try:
        return read()
    except (InputError, OSError) as error:
        faults.append(str(error))
        return None


def _read(path: Path, root: Path, gaps: Gaps) -> _Stack:
    geometry, numbers = read_numbered_header(path, gaps=gaps)
    voxels, _ = read_volume(path, gaps=gaps)
    place = relative_name(path, root)
    if path.is_dir() and numbers is not None:
        names = [relative_name(file, root) for file in list_slices(path, gaps)[0]]
    else:
        names = [f"{place}, slice {index}" for index in range(geometry.shape[2])]
    return _Stack(place, geometry, voxels, numbers if path.is_dir() else None, names)


def _pairing(
    case: VolumeCase, image: _Stack, label: _Stack, *, may_miss: bool
) -> tuple[list[int], list[str]]:
    """Index on the image's grid of each label slice, and the faults; sets the label's offset."""
    counts = image.geometry.shape[2], label.geometry.shape[2]
    if image.numbers is None or label.numbers is None:
        fault = f"{label.place}: expected {counts[0]} slices as its image has, got {counts[1]}; restore them"
        return list(range(counts[1])), [fault] if counts[0] != counts[1] else []
    shift = label.numbers[0] - image.numbers[0]
    if abs(shift) == 1 and [number - shift for number in label.numbers] == image.numbers:
        case.label_offset = shift
    wanted = [number - case.label_offset for number in label.numbers]
    known = set(image.numbers)
    faults = [
        f"{file}: expected its image in {image.place}, got none; add it or remove the label"
        for number, file in zip(wanted, label.files, strict=True)
        if number not in known
    ]
    if not may_miss:
        faults += [
            f"{file}: expected its label in {label.place}, got none; add it"
            for number, file in zip(image.numbers, image.files, strict=True)
            if number not in set(wanted)
        ]
    return [number - image.numbers[0] for number in wanted], faults


def _check_size(image: _Stack, label: _Stack) -> list[str]:
    size, expected = label.geometry.shape[:2], image.geometry.shape[:2]
    if size == expected:
        return []
    remedy = (
        "labels must not be transposed" if size == expected[::-1] else "each label needs its image's size"
    )
    rows = [f"{height}x{width}" for width, height in (size, expected)]
    return [f"{label.place}: {rows[0]}, but its image is {rows[1]}; {remedy}"]


def _check_values(
    case: VolumeCase, label: _Stack, places: Sequence[int], values: Mapping[int, int] | None
) -> list[str]:
    """Count the foreground of each slice, and tell which values no rule names."""
    background = {0} if values is None else {value for value, index in values.items() if index == 0}
    strangers: list[tuple[str, Counter[float]]] = []
    for index, (place, file) in enumerate(zip(places, label.files, strict=True)):
        found, counts = np.unique(label.voxels[..., index], return_counts=True)
        counted = Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        unknown = {value: count for value, count in counted.items() if not _is_known(value, values)}
        if unknown:
            strangers.append((file, Counter(unknown)))
        case.foreground[place] = sum(count for value, count in counted.items() if value not in background)
    if not any(case.foreground.values()):
        case.warnings.append("its labels are all background")
    if not strangers:
        return []
    file, counter = strangers[0]
    shown = ", ".join(f"{value:g} ({count} pixels)" for value, count in counter.most_common(_SHOWN_VALUES))
    more = f", and such values in {len(strangers) - 1} more slices" if len(strangers) > 1 else ""
    allowed = (
        "whole numbers from 0" if values is None else f"the values {', '.join(map(str, sorted(values)))}"
    )
    return [f"{file}: expected {allowed}, got {shown}{more}; correct the label"]


def _is_known(value: float, values: Mapping[int, int] | None) -> bool:
    return value >= 0 and float(value).is_integer() if values is None else value in values


def _fingerprints(voxels: Array) -> set[str]:
    chosen = np.linspace(0, voxels.shape[2] - 1, min(_SAMPLES, voxels.shape[2]) + 2)[1:-1].round().astype(int)
    slices = [np.ascontiguousarray(voxels[..., index].T) for index in sorted({*chosen.tolist()})]
    return {
        hashlib.sha256(repr(one.shape).encode() + one.tobytes()).hexdigest()
        for one in slices
        if one.min() != one.max()
    }
