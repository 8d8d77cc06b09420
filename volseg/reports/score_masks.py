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
from volseg.data import picture_geometry, read_header, read_picture, read_volume
from volseg.data.raster import RASTER_SUFFIXES
from volseg.data.volume_reader import read_numbered_header
from volseg.geometry import Geometry
from volseg.reports.score_files import MaskPair
from volseg.reports.score_slices import ScoredSlices, scored_slices
from volseg.transforms.label_rules import classes_by_rule, is_by_colour

__all__ = ["CaseGrid", "LabelRule", "grid_of", "read_on_grid", "read_truth", "slabs_of"]

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
            refuse(source, expected, _listed(found - self.classes - {0}), "map them, or correct the classes")
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
        slices: slices that are scored by their numbers, or None where no numbers tell.
    """

    geometry: Geometry
    spacing_mm: tuple[float, ...]
    spacing_is_known: bool
    labelled_range: tuple[int, int] | None = None
    slices: ScoredSlices | None = None

    @property
    def is_volume(self) -> bool:
        """Whether the case has more than one slice."""
        return self.geometry.shape[2] > 1

    @property
    def has_surfaces(self) -> bool:
        """Whether its slices are neighbours, so that surfaces run from one to the next."""
        return self.is_volume and (self.slices is None or self.slices.are_neighbours)

    def chosen(self, path: Path, depth: int, truth: Path) -> slice | list[int] | None:
        """Slices of a volume of the case that are scored, or None for all.

        Raises:
            InputError: when they cannot be told, or are not in it.
        """
        if self.slices is not None:
            return self.slices.places_in(path, depth, truth)
        if self.labelled_range is None or depth <= self.geometry.shape[2]:
            return None
        return slice(*self.labelled_range)


def grid_of(pair: MaskPair, spacing_mm: tuple[float, ...] | None) -> CaseGrid:
    """Find the grid of a case from headers alone, and that all its masks lie on it.

    Args:
        pair: the case.
        spacing_mm: as the caller states it; None takes what the files state.

    Raises:
        InputError: naming the file that describes another grid.
    """
    has_colours = pair.label_rule is not None and is_by_colour(pair.label_rule)
    numbers = None
    if has_colours:
        geometry = picture_geometry(pair.truth)
    else:
        geometry, numbers = read_numbered_header(pair.truth, gaps="keep")
    stated = geometry if geometry.spacing_is_known else read_header(pair.pred, gaps="keep")
    edges = spacing_mm or (None if geometry.spacing_is_known else pair.spacing_mm)
    if spacing_mm is not None and geometry.spacing_is_known:
        _check_spacing(pair.truth, geometry.spacing_mm, spacing_mm)
    known = edges is not None or stated.spacing_is_known
    if edges is None:
        edges = stated.spacing_mm if stated.spacing_is_known else (1.0, 1.0, 1.0)
    slices, labelled_range = scored_slices(pair, numbers), pair.labelled_range
    if slices is not None:
        geometry, labelled_range = replace(geometry, shape=(*geometry.shape[:2], len(slices.places))), None
    elif labelled_range is not None:
        geometry = _labelled_geometry(geometry, pair)
    grid = CaseGrid(geometry, tuple(edges), known, labelled_range, slices)
    for path in (pair.pred, pair.other, pair.view):
        if path is not None:
            _fit(path, read_header(path, gaps="keep"), grid, pair.truth)
    return grid


def read_truth(pair: MaskPair, rule: LabelRule, grid: CaseGrid) -> _Array:
    """Read the truth of a case as class indices of the labelled slices.

    The rule that a datalist states for the case goes before `rule`.

    Raises:
        InputError: naming the file, for what is wrong with it.
    """
    if pair.label_rule is not None and is_by_colour(pair.label_rule):
        colours = np.moveaxis(read_picture(pair.truth, "rgb"), -1, 0)
        return classes_by_rule(colours, pair.label_rule, str(pair.truth))[0].T[..., None]
    array, _ = read_volume(pair.truth, gaps="keep")
    if grid.slices is not None and array.shape[2] != len(grid.slices.places):
        array = array[..., list(grid.slices.places)]
    if grid.labelled_range is not None and array.shape != grid.geometry.shape:
        array = array[..., slice(*grid.labelled_range)]
    if array.shape != grid.geometry.shape:
        _refuse_shape(pair.truth, array.shape, pair.truth, grid.geometry.shape)
    if pair.label_rule is not None:
        return classes_by_rule(array[None], pair.label_rule, str(pair.truth))[0]
    return rule.indices(array, pair.truth)


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
    array, geometry = read_volume(path, gaps="keep")
    order, flips, chosen = _fit(path, geometry, grid, truth)
    array = array.transpose(order)
    if flips:
        array = np.flip(array, flips).copy(order="K")  # torch takes no negative strides
    if chosen is not None:
        array = array[..., chosen]
    is_same = order == (0, 1, 2) and not flips
    return array, "" if is_same else f"turned to the truth's axes {order}, flipped {flips}"


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


def _labelled_geometry(geometry: Geometry, pair: MaskPair) -> Geometry:
    """Cut the grid of a truth to the slices that are labelled."""
    first, end = pair.labelled_range or (0, 0)
    depth = geometry.shape[2]
    if depth != end - first and depth < end:
        remedy = "correct labelled_range in the datalist"
        refuse(pair.truth, f"{end - first} slices, or those of the whole image", str(depth), remedy)
    affine = geometry.file_affine
    # a stack of pictures has no place in the world: its first slice is the image's slice `first`
    is_stack = pair.truth.is_dir() or pair.truth.name.lower().endswith(RASTER_SUFFIXES)
    if is_stack or depth != end - first:
        affine = _shifted(affine, first)
    return replace(geometry, shape=(*geometry.shape[:2], end - first), file_affine=affine)


def _check_spacing(truth: Path, stated: tuple[float, ...], given: tuple[float, ...]) -> None:
    if not np.allclose(stated, given, rtol=_SAME_SPACING):
        texts = ["x".join(f"{edge:g}" for edge in edges) for edges in (given, stated)]
        refuse(truth, f"voxels of {texts[0]} mm", f"{texts[1]} mm in the file", "leave the spacing out")


def _shifted(affine: npt.NDArray[np.float64], slices: int) -> npt.NDArray[np.float64]:
    moved = affine.copy()
    moved[:3, 3] += slices * affine[:3, 2]
    return moved


def _fit(
    path: Path, geometry: Geometry, grid: CaseGrid, truth: Path
) -> tuple[tuple[int, ...], tuple[int, ...], slice | list[int] | None]:
    """Say how a volume is brought onto a grid: order of axes, axes to flip then, slices to take then.

    Raises:
        InputError: when it cannot be.
    """
    order: tuple[int, ...] = (0, 1, 2)
    flips: tuple[int, ...] = ()
    known = geometry.spacing_is_known and grid.geometry.spacing_is_known
    if known:
        order, flips = _turn_between(geometry.affine, grid.geometry.affine)
    shape = tuple(geometry.shape[axis] for axis in order)
    affine = geometry.affine.copy()
    affine[:3, :3] = affine[:3, list(order)]
    for axis in flips:
        affine[:3, 3] += (shape[axis] - 1) * affine[:3, axis]
        affine[:3, axis] *= -1
    target, chosen = grid.geometry, None
    if shape[:2] == target.shape[:2]:
        chosen = grid.chosen(path, shape[2], truth)
    if isinstance(chosen, slice):
        shape, affine = (
            (*shape[:2], min(chosen.stop, shape[2]) - chosen.start),
            _shifted(affine, chosen.start),
        )
    elif chosen is not None:
        # scattered slices are no grid: only their planes and the step to the next slice can be compared
        shape, target = target.shape, replace(target, shape=(*target.shape[:2], min(2, target.shape[2])))
    if shape != grid.geometry.shape:
        _refuse_shape(path, shape, truth, grid.geometry.shape)
    if known:
        _check_place(path, affine, truth, target)
    return order, flips, chosen


def _turn_between(
    affine: npt.NDArray[np.float64], target: npt.NDArray[np.float64]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Order and flips of axes after which they run as those of `target`; nothing where none do."""
    turn = np.rint(np.linalg.solve(target[:3, :3], affine[:3, :3]))
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        return (0, 1, 2), ()
    order = tuple(int(np.argmax(np.abs(row))) for row in turn)
    return order, tuple(axis for axis in range(3) if turn[axis, order[axis]] < 0)


def _check_place(path: Path, affine: npt.NDArray[np.float64], truth: Path, grid: Geometry) -> None:
    last = np.subtract(grid.shape, 1)
    corners = np.array([[*np.multiply(corner, last), 1] for corner in np.ndindex(2, 2, 2)])
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
