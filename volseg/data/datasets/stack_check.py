"""Check a folder of image slices against its label slices and collect every fault."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from volseg.checks import InputError
from volseg.data.rle import decode_rle

__all__ = ["LabelSlice", "StackFindings", "check_folders", "check_stack", "number_slices"]

LabelSlice = Path | str
"""A label slice: its file, or its row-major run-length code."""

_SUFFIXES = (".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")
_LABEL_VALUES = ({0, 1}, {0, 255})
_SAMPLES = 5
_THREADS = min(8, os.cpu_count() or 1)
_Result = TypeVar("_Result")


@dataclass
class StackFindings:
    """What `check_stack` found.

    Attributes:
        size: (x, y, z) voxels, None when no slice could be read.
        dtype: of the first image slice.
        numbers: the slice numbers of the image, sorted; index k of the volume is slice `numbers[k]`.
        labelled_range: first and end index along z that are labelled; None without labels.
        foreground: index along z to number of foreground voxels.
        fingerprints: hashes of sampled image slices that are not constant.
        faults: one sentence each.
    """

    size: tuple[int, int, int] | None = None
    dtype: str = ""
    numbers: list[int] = field(default_factory=list)
    labelled_range: tuple[int, int] | None = None
    foreground: dict[int, int] = field(default_factory=dict)
    fingerprints: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def foreground_share(self, first: int, end: int) -> float | None:
        """Share of foreground among the voxels of the labelled slices from `first` to before `end`."""
        counts = [count for index, count in self.foreground.items() if first <= index < end]
        if self.size is None or not counts:
            return None
        return sum(counts) / (len(counts) * self.size[0] * self.size[1])


def number_slices(folder: Path, name: str) -> tuple[dict[int, Path], list[str]]:
    """Number the pictures of a folder by the last digits of their stems.

    Args:
        folder: the slice folder.
        name: what faults call it.

    Returns:
        Slice number to file, sorted, and the faults: no number, a number twice.
    """
    slices: dict[int, Path] = {}
    faults = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.suffix.lower() not in _SUFFIXES:
            continue
        digits = re.search(r"([0-9]+)$", entry.stem)
        if digits is None:
            faults.append(f"{name}/{entry.name}: expected a slice number at the end of the name; rename it")
            continue
        number = int(digits.group(1))
        if number in slices:
            faults.append(f"{name}: slice {number} is there twice, {slices[number].name} and {entry.name}")
        slices.setdefault(number, entry)
    return dict(sorted(slices.items())), faults


def check_stack(
    name: str, images: Path, labels: Mapping[int, LabelSlice], *, is_part_labelled: bool = False
) -> StackFindings:
    """Check a stack's numbering, sizes, colours and label values; no fault stops the search for others.

    Args:
        name: the case, as faults call it.
        images: folder of image slices.
        labels: slice number to label; empty for a case without labels.
        is_part_labelled: whether labels may cover only a connected range of the image.
    """
    findings = StackFindings()
    slices, faults = number_slices(images, f"{name}/images")
    findings.faults += faults
    if not slices:
        findings.faults.append(
            f"{name}/images: expected slices ({' '.join(_SUFFIXES)}), found none in {images}"
        )
        return findings
    findings.numbers = list(slices)
    findings.faults += _gaps(f"{name}/images", findings.numbers)
    findings.faults += _unpaired(name, findings.numbers, sorted(labels), is_part_labelled)
    sizes = _check_images(name, slices, findings)
    if labels and sizes:
        _check_labels(name, labels, sizes, findings)
    return findings


def check_folders(folders: Iterable[Path]) -> list[str]:
    """Faults of whole folders: slices right one by one may not make one volume, as with mixed depth."""
    results = [_attempt(_header_size, folder) for folder in folders]
    return [result for result in results if isinstance(result, str)]


def _gaps(name: str, numbers: Sequence[int]) -> list[str]:
    holes = [(a + 1, b - 1) for a, b in pairwise(numbers) if b > a + 1]
    return [
        f"{name}: slice {a} is missing" if a == b else f"{name}: slices {a} to {b} are missing"
        for a, b in holes
    ]


def _unpaired(name: str, images: Sequence[int], labels: Sequence[int], is_part: bool) -> list[str]:
    if not labels:
        return []
    extra = sorted(set(labels) - set(images))
    faults = [f"{name}/labels: slice {number} has no image; remove it or add the image" for number in extra]
    first, last = (labels[0], labels[-1]) if is_part else (images[0], images[-1])
    missing = sorted(number for number in set(images) - set(labels) if first <= number <= last)
    return faults + [f"{name}/labels: slice {number} has no label; add it" for number in missing]


def _check_images(
    name: str, slices: Mapping[int, Path], findings: StackFindings
) -> dict[int, tuple[int, int]]:
    """Fill in size and dtype; return (W, H) of every slice that can be read."""
    results = _in_threads(_header_size, list(slices.values()), f"{name} images")
    sizes = {n: result for n, result in zip(slices, results, strict=True) if not isinstance(result, str)}
    findings.faults += [result for result in results if isinstance(result, str)]
    if not sizes:
        return {}
    common = max(set(sizes.values()), key=list(sizes.values()).count)
    for number, size in sizes.items():
        if size != common:
            hint = "slices must not be transposed" if size == common[::-1] else "one stack has one size"
            file = f"{name}/images/{slices[number].name}"
            findings.faults.append(f"{file}: {_rows(size)}, but other slices are {_rows(common)}; {hint}")
    findings.size = (*common, len(slices))
    positions = np.linspace(0, len(slices) - 1, min(_SAMPLES, len(slices)) + 2)[1:-1].round().astype(int)
    chosen = [list(slices.values())[k] for k in sorted({*positions.tolist()})]
    for sample in (_attempt(_read_slice, path) for path in chosen):
        if isinstance(sample, str):
            findings.faults += [sample] if sample not in findings.faults else []
            continue
        findings.dtype = findings.dtype or str(sample.dtype)
        if sample.min() != sample.max():
            findings.fingerprints.add(
                hashlib.sha256(repr(sample.shape).encode() + sample.tobytes()).hexdigest()
            )
    return sizes


def _check_labels(
    name: str, labels: Mapping[int, LabelSlice], sizes: Mapping[int, tuple[int, int]], findings: StackFindings
) -> None:
    index_of = {number: index for index, number in enumerate(findings.numbers)}
    jobs = [(number, label, sizes[number]) for number, label in labels.items() if number in sizes]
    results = _in_threads(_label_facts, jobs, f"{name} labels")
    values: set[int] = set()
    for (number, label, size), facts in zip(jobs, results, strict=True):
        file = (
            f"{name}/labels/{label.name}"
            if isinstance(label, Path)
            else f"{name}, run lengths of slice {number}"
        )
        if isinstance(facts, str):
            findings.faults.append(facts if isinstance(label, Path) else f"{file}: {facts}")
            continue
        label_size, found, findings.foreground[index_of[number]] = facts
        if label_size != size:
            hint = (
                "labels must not be transposed"
                if label_size == size[::-1]
                else "each label needs its image's size"
            )
            findings.faults.append(f"{file}: {_rows(label_size)}, but its image is {_rows(size)}; {hint}")
        if not any(found <= allowed for allowed in _LABEL_VALUES):
            shown = ", ".join(map(str, sorted(found)[:6]))
            findings.faults.append(
                f"{file}: expected the values 0 and 1, or 0 and 255, got {shown}; map them first"
            )
        elif not any(values | found <= allowed for allowed in _LABEL_VALUES):
            findings.faults.append(
                f"{file}: its foreground is {max(found)}, but {max(values)} in slices before it"
            )
        else:
            values |= found
    known = [index_of[number] for number in labels if number in index_of]
    if known:
        findings.labelled_range = (min(known), max(known) + 1)
    if len(findings.foreground) == len(labels) and not any(findings.foreground.values()):
        findings.faults.append(f"{name}/labels: all {len(labels)} slices are empty; check the download")


def _label_facts(job: tuple[int, LabelSlice, tuple[int, int]]) -> tuple[tuple[int, int], set[int], int]:
    """(W, H), values and number of foreground voxels of one label slice."""
    _, label, (width, height) = job
    if isinstance(label, str):
        array: npt.NDArray[Any] = decode_rle(label, (height, width)).T
    else:
        array = _read_slice(label)
    inside = array[array != 0]
    found = np.unique(inside).tolist()
    # at least a zero is allowed in every label, so that a slice full of vessel is one value and no fault
    return (array.shape[0], array.shape[1]), {0, *found}, inside.size


def _header_size(path: Path) -> tuple[int, int]:
    from volseg.data import read_header

    shape = read_header(path).shape
    if path.is_file() and shape[2:] not in ((), (1,)):
        raise InputError(f"{path}: expected one page, got an image of shape {shape}; split it into slices")
    return shape[0], shape[1]


def _read_slice(path: Path) -> npt.NDArray[Any]:
    """(W, H) values of one slice file."""
    from volseg.data import read_volume

    array, _ = read_volume(path)
    if array.shape[2:] not in ((), (1,)):
        raise InputError(f"{path}: expected a grey page, got an image of shape {array.shape}; convert it")
    return array.reshape(array.shape[:2])


def _rows(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"  # rows x columns, as TIFF viewers say it


def _attempt(read: Callable[[Any], _Result], argument: Any) -> _Result | str:
    """The result, or the sentence of the refusal."""
    try:
        return read(argument)
    except (InputError, OSError) as error:
        return str(error)


def _in_threads(read: Callable[[Any], _Result], arguments: Sequence[Any], name: str) -> list[_Result | str]:
    from tqdm import tqdm

    with ThreadPoolExecutor(_THREADS) as pool:
        results = pool.map(lambda argument: _attempt(read, argument), arguments)
        # disable=None: no bar where stderr is no terminal
        return list(tqdm(results, desc=name, total=len(arguments), unit="slice", leave=False, disable=None))
