"""Masks as they are scored: class indices by a stated rule, the prediction on the truth's voxel grid."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.checks import refuse
from volseg.data import read_header, read_volume
from volseg.data.raster import RASTER_SUFFIXES
from volseg.geometry import Geometry
from volseg.reports.score_files import MaskPair

__all__ = ["CaseGrid", "LabelRule", "read_on_grid", "read_truth", "slabs_of"]

_Array = npt.NDArray[Any]
_LARGEST = 65535
_LOSSY = (".jpg", ".jpeg")
_SAME_VOXEL = 0.01  # share of the smallest edge that two grids may be apart
_SINGLE = 2.0**-22  # rounding of coordinates that a file holds in single precision
_SAME_SPACING = 0.01


@dataclass
class LabelRule:
    """How the values of the files of one side become class indices.

    0 and 255 alone are a mask; any other whole numbers are class indices. As 255 is 1 in the first and a
    class in the second, one side must not hold both kinds.

    Attributes:
        side: "prediction" or "truth", for messages.
        values: value in the file to class index, for files that hold no class indices; None without.
        mask_above: pixels above it are foreground, in files that are not plainly 0/1 or 0/255.
        classes: the allowed indices; None allows any.
    """

    side: str
    values: Mapping[int, int] | None = None
    mask_above: int | None = None
    classes: frozenset[int] | None = None
    _white: Path | None = None
    _indexed: Path | None = None

    def indices(self, array: _Array, source: Path) -> _Array:
        """Turn the values of a file into class indices.

        Raises:
            InputError: for NaN, fractional, negative and unexpected values.
        """
        found = _values_in(array, source)
        if self.mask_above is not None and not self._is_plain_mask(found, source):
            return array > self.mask_above
        if self.values is not None:
            return self._mapped(array, found, source)
        if found <= {0, 255} and 255 in found:
            self._white = self._white or source
            mapped = array > 0
            self._check_kind(source)
            return mapped
        self._check_indices(found, source)
        return _in_smallest_type(array, max(found))

    def _is_plain_mask(self, found: set[int], source: Path) -> bool:
        # a JPEG has no plain 0 and 1: these are the noise around black
        return found <= {0, 255} or (found <= {0, 1} and not _is_lossy(source))

    def _mapped(self, array: _Array, found: set[int], source: Path) -> _Array:
        rules = dict(self.values or {})
        if found <= set(rules.values()):
            return _in_smallest_type(array, max(found))
        if not found <= rules.keys():
            expected = f"label values {_listed(rules)}, or {_listed(rules.values())}"
            refuse(source, expected, _listed(found), "repair the file, or score without the preset")
        table = np.zeros(max(rules) + 1, np.uint8)
        table[list(rules)] = list(rules.values())
        return table[array.astype(np.uint16)]

    def _check_indices(self, found: set[int], source: Path) -> None:
        if 255 in found or (not found <= {0} and _is_lossy(source)):
            expected = "class indices, or a mask of 0 and 255"
            remedy = "--mask-above 0 (or 127 for a JPEG) makes a mask of grey values; a preset maps its own"
            refuse(source, expected, f"grey values {_listed(found)}", remedy)
        if self.classes is not None and not found <= self.classes | {0}:
            expected = f"label values {_listed(self.classes | {0})}"
            refuse(source, expected, _listed(found - self.classes), "map them, or correct the classes")
        if not found <= {0, 1}:
            self._indexed = self._indexed or source
            self._check_kind(source)

    def _check_kind(self, source: Path) -> None:
        if self._white and self._indexed:
            other = self._white if source == self._indexed else self._indexed
            got = f"0 and 255 in {self._white.name}, class indices in {self._indexed.name}"
            remedy = f"store all files of the {self.side} like {other.name}"
            refuse(source, f"one kind of label values in the whole {self.side}", got, remedy)


@dataclass(frozen=True)
class CaseGrid:
    """The grid on which a case is scored.

    Attributes:
        geometry: of the truth; of the whole image where the truth labels a range of slices.
        spacing_mm: edge lengths of a voxel; 1 mm where nothing states them.
        spacing_is_known: whether a file, a list or the caller states the spacing.
        labelled_range: slices that are scored, or None for all.
    """

    geometry: Geometry
    spacing_mm: tuple[float, ...]
    spacing_is_known: bool
    labelled_range: tuple[int, int] | None = None

    @property
    def is_volume(self) -> bool:
        """Whether the case has more than one slice."""
        return self.geometry.shape[2] > 1


def read_truth(
    pair: MaskPair, rule: LabelRule, spacing_mm: tuple[float, ...] | None
) -> tuple[_Array, CaseGrid]:
    """Read the truth of a case as class indices, and the grid that its prediction must have.

    Args:
        pair: the case.
        rule: of the truth's side.
        spacing_mm: as the caller states it; None takes what the files state.

    Raises:
        InputError: naming the file, for what is wrong with it.
    """
    array, geometry = read_volume(pair.truth)
    stated = geometry if geometry.spacing_is_known else read_header(pair.pred)
    edges = spacing_mm or (pair.spacing_mm if not geometry.spacing_is_known else None)
    if spacing_mm is not None and geometry.spacing_is_known:
        if not np.allclose(geometry.spacing_mm, spacing_mm, rtol=_SAME_SPACING):
            own = "x".join(f"{edge:g}" for edge in geometry.spacing_mm)
            given = "x".join(f"{edge:g}" for edge in spacing_mm)
            refuse(pair.truth, f"voxels of {given} mm", f"{own} mm in the file", "leave the spacing out")
    known = edges is not None or stated.spacing_is_known
    if edges is None:
        edges = stated.spacing_mm if stated.spacing_is_known else (1.0, 1.0, 1.0)
    chosen = pair.labelled_range
    if chosen is not None:
        array, geometry = _labelled_slices(array, geometry, pair)
    return rule.indices(array, pair.truth), CaseGrid(geometry, tuple(edges), known, chosen)


def read_on_grid(path: Path, grid: CaseGrid, truth: Path) -> tuple[_Array, str]:
    """Read a mask or map, turned to the storage order of the truth where both lie in one place.

    Args:
        path: file or folder.
        grid: of the truth.
        truth: its path, for messages.

    Returns:
        The (x, y, z) array, and what was done to it; "" for nothing.

    Raises:
        InputError: when it describes another grid.
    """
    array, geometry = read_volume(path)
    known = geometry.spacing_is_known and grid.geometry.spacing_is_known
    note = ""
    if known:
        array, geometry, note = _turned(array, geometry, grid.geometry.affine)
    if grid.labelled_range is not None and array.shape[2] != grid.geometry.shape[2]:
        first, end = grid.labelled_range
        place = _shifted(geometry.file_affine, first)
        array, geometry = array[..., first:end], replace(geometry, file_affine=place)
    if array.shape != grid.geometry.shape:
        _refuse_shape(path, array.shape, truth, grid.geometry.shape)
    if known:
        _check_place(path, geometry.affine, truth, grid.geometry)
    return array, note


def slabs_of(*arrays: _Array) -> Iterator[tuple[_Array, ...]]:
    """Yield arrays of one shape slab by slab, along the axis that lies slowest in the first one's memory."""
    axis = int(np.argmax(np.abs(arrays[0].strides)))
    yield from zip(*(np.moveaxis(array, axis, 0) for array in arrays), strict=True)


def _in_smallest_type(array: _Array, largest: int) -> _Array:
    wanted = np.uint8 if largest < 256 else np.int32
    return array if array.dtype in (np.bool_, wanted) else array.astype(wanted)


def _is_lossy(source: Path) -> bool:
    names = os.listdir(source) if source.is_dir() else [source.name]
    return any(name.lower().endswith(_LOSSY) for name in names)


def _values_in(array: _Array, source: Path) -> set[int]:
    counts = np.zeros(_LARGEST + 1, np.int64)
    remedy = "labels are whole class numbers from 0 up; repair the file"
    for (slab,) in slabs_of(array):
        if array.dtype.kind not in "buif":
            refuse(source, "whole label values", f"{array.dtype} values", remedy)
        if array.dtype.kind == "f":
            if not np.isfinite(slab).all():
                refuse(source, "whole label values", "NaN or infinity", remedy)
            broken = slab != np.rint(slab)
            if broken.any():
                refuse(source, "whole label values", f"{slab[broken][0]:g}", f"threshold it first: {remedy}")
        if slab.min() < 0 or slab.max() > _LARGEST:
            worst = slab.min() if slab.min() < 0 else slab.max()
            refuse(source, f"label values from 0 to {_LARGEST}", f"{worst:g}", remedy)
        part = np.bincount(slab.astype(np.uint16, copy=False).ravel())
        counts[: len(part)] += part
    return set(np.flatnonzero(counts).tolist())


def _labelled_slices(array: _Array, geometry: Geometry, pair: MaskPair) -> tuple[_Array, Geometry]:
    """Cut a truth to the slices that are labelled, its affine with it."""
    first, end = pair.labelled_range or (0, 0)
    depth = array.shape[2]
    if depth != end - first and depth < end:
        remedy = "correct labelled_range in the datalist"
        refuse(pair.truth, f"{end - first} slices, or those of the whole image", str(depth), remedy)
    is_whole = depth != end - first
    array = array[..., first:end] if is_whole else array
    affine = geometry.file_affine
    # a stack of pictures has no place in the world: its first slice is the image's slice `first`
    if is_whole or pair.truth.is_dir() or pair.truth.name.lower().endswith(RASTER_SUFFIXES):
        affine = _shifted(affine, first)
    return array, replace(geometry, shape=array.shape, file_affine=affine)


def _shifted(affine: npt.NDArray[np.float64], slices: int) -> npt.NDArray[np.float64]:
    moved = affine.copy()
    moved[:3, 3] += slices * affine[:3, 2]
    return moved


def _turned(
    array: _Array, geometry: Geometry, target: npt.NDArray[np.float64]
) -> tuple[_Array, Geometry, str]:
    """Permute and flip axes so that they run as those of `target`; other grids come back unchanged."""
    steps = np.linalg.solve(target[:3, :3], geometry.affine[:3, :3])
    turn = np.rint(steps)
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        return array, geometry, ""
    order = [int(np.argmax(np.abs(row))) for row in turn]
    flips = [axis for axis in range(3) if turn[axis, order[axis]] < 0]
    affine = geometry.file_affine.copy()
    affine[:3, :3] = geometry.file_affine[:3, order]
    array = array.transpose(order)
    for axis in flips:
        affine[:3, 3] += (array.shape[axis] - 1) * affine[:3, axis]
        affine[:3, axis] *= -1
    if flips:
        array = np.flip(array, flips).copy(order="K")  # torch takes no negative strides
    is_same = order == [0, 1, 2] and not flips
    note = "" if is_same else f"turned to the truth's axes {tuple(order)}, flipped {tuple(flips)}"
    return array, replace(geometry, shape=array.shape, file_affine=affine), note


def _check_place(path: Path, affine: npt.NDArray[np.float64], truth: Path, grid: Geometry) -> None:
    corners = np.array(
        [[*np.multiply(index, np.subtract(grid.shape, 1)), 1] for index in np.ndindex(2, 2, 2)]
    )
    wanted, found = corners @ grid.affine[:3].T, corners @ affine[:3].T
    apart = float(np.linalg.norm(wanted - found, axis=1).max())
    if apart > _SAME_VOXEL * min(grid.spacing_mm) + _SINGLE * float(np.abs(wanted).max()):
        expected = f"the voxel grid of {truth}"
        remedy = "write the prediction with the affine of its image; nothing is resampled here"
        refuse(path, expected, f"one whose voxels lie up to {apart:.3g} mm off", remedy)


def _refuse_shape(path: Path, got: tuple[int, ...], truth: Path, expected: tuple[int, ...]) -> None:
    is_transposed = sorted(got) == sorted(expected)
    remedy = "a mask must not be transposed" if is_transposed else "predict on the grid of the image"
    refuse(path, f"{_by(expected)} voxels as {truth}", _by(got), remedy)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _listed(values: Any) -> str:
    shown = sorted(int(value) for value in values)
    return ", ".join(map(str, shown[:6])) + (", ..." if len(shown) > 6 else "")
