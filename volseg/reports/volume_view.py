"""A volume with its prediction and truth as a person looks through it: slice by slice, unstretched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from volseg.checks import check_positive
from volseg.reports.colours import UNLABELLED
from volseg.reports.overlays import Picture, intensity_window, windowed

__all__ = ["VolumeView"]

_SAMPLES = 1_000_000  # voxels that decide on the brightness
_LEAST_COVER = 63  # of 255: a fourth of a pixel, so that a thin structure stays visible in a small picture

Size = tuple[int, int]


class VolumeView:
    """Slices across the last axis, x to the right and y down, pixels stretched by the spacing.

    The brightness is that of the whole volume, so that slices can be compared.

    Args:
        image: (x, y, z) of any range; one of another size than `pred` is shown over the same place.
        pred: (x, y, z) class indices below 255, or a mask.
        truth: the same, 255 where nobody labelled; or None.
        spacing_mm: edge lengths of a voxel of `pred`, of which x and y are used; None is a cube.
        class_names: by label; others are called "class 3" and so on.

    Raises:
        ValueError: when an array is not three-dimensional or empty, truth and prediction differ in size, or
            a label exceeds 255.
    """

    def __init__(
        self,
        image: npt.NDArray[Any],
        pred: npt.NDArray[Any],
        truth: npt.NDArray[Any] | None = None,
        *,
        spacing_mm: Sequence[float] | None = None,
        class_names: Mapping[int, str] | None = None,
    ) -> None:
        self.image = _volume("image", image)
        self.pred = _labels("pred", pred)
        self.truth = None if truth is None else _labels("truth", truth)
        if self.truth is not None and self.truth.shape != self.pred.shape:
            got = f"{self.truth.shape} and {self.pred.shape}"
            raise ValueError(f"truth and pred must have one shape, got {got}; undo the resampling first")
        self.spacing_mm = (1.0, 1.0, 1.0) if spacing_mm is None else tuple(map(float, spacing_mm))
        check_positive("spacing_mm", self.spacing_mm)
        self.depth = self.pred.shape[2]
        self._counts = [_counts(labels) for labels in (self.pred, self.truth) if labels is not None]
        self.names = self._all_names(class_names or {})
        steps = tuple(slice(None, None, max(1, round(size / _SAMPLES ** (1 / 3)))) for size in image.shape)
        self._window = intensity_window(self.image[steps].astype(np.float32))

    def panel_size(self, longest_side: int) -> Size:
        """Columns and rows of a panel whose longest side is given, in the proportions of the tissue."""
        check_positive("longest_side", longest_side)
        edges = [size * edge for size, edge in zip(self.pred.shape[:2], self.spacing_mm, strict=False)]
        columns, rows = (max(1, round(longest_side * edge / max(edges))) for edge in edges)
        return columns, rows

    def grey(self, index: int, size: Size) -> Picture:
        """Slice of the image in a panel of (columns, rows): (rows, columns), 0 to 255."""
        nearest = int((index + 0.5) * self.image.shape[2] / self.depth)
        levels = windowed(self.image[:, :, nearest].astype(np.float32), self._window).round()
        picture = Image.fromarray(np.ascontiguousarray(levels.T.astype(np.uint8)))
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))

    def labels(self, volume: npt.NDArray[np.uint8], index: int, size: Size) -> Picture:
        """Slice of `pred` or `truth` in a panel of (columns, rows): (rows, columns) of labels."""
        plane = np.ascontiguousarray(volume[:, :, index].T)
        shown = np.zeros(size[::-1], np.uint8)
        best = np.full(size[::-1], _LEAST_COVER, np.uint8)
        for label in np.flatnonzero(np.bincount(plane.ravel())[1:]) + 1:
            region = Image.fromarray((plane == label) * np.uint8(255))
            cover = np.asarray(region.resize(size, Image.Resampling.BOX))
            shown[cover > best] = label
            best = np.maximum(best, cover)
        return shown

    def spread(self, most: int) -> list[int]:
        """At most so many slices, evenly spread over the volume, with those where a class is largest."""
        return self._with_the_fullest(_evenly(range(self.depth), most))

    def most_telling(self, most: int) -> list[int]:
        """At most so many slices, evenly spread over those that hold a class, and then over the others."""
        held = sum(counts[:, 1:UNLABELLED].sum(axis=1) for counts in self._counts) > 0
        chosen = _evenly(np.flatnonzero(held).tolist(), most)
        if len(chosen) < most:
            return sorted([*chosen, *_evenly(np.flatnonzero(~held).tolist(), most - len(chosen))])
        return self._with_the_fullest(chosen)

    def _with_the_fullest(self, chosen: list[int]) -> list[int]:
        kept: set[int] = set()
        for index in self._fullest()[: len(chosen)]:
            if index not in chosen:
                movable = [place for place, other in enumerate(chosen) if other not in kept]
                chosen[min(movable, key=lambda place: abs(chosen[place] - index))] = index
            kept.add(index)
        return sorted(chosen)

    def _fullest(self) -> list[int]:
        """Slice with most of all classes, each measured by its own extent, then that of each class."""
        pred, truth = self._counts[0], self._counts[-1]
        shares = []
        for label in range(1, UNLABELLED):
            counts = truth[:, label] if truth[:, label].any() else pred[:, label]
            if counts.any():
                shares.append(counts / counts.sum())
        if not shares:
            return []
        places = [int(share.argmax()) for share in [np.sum(shares, axis=0), *shares]]
        return list(dict.fromkeys(places))

    def _all_names(self, given: Mapping[int, str]) -> dict[int, str]:
        found = {int(label) for counts in self._counts for label in np.flatnonzero(counts.any(axis=0))}
        labels = sorted((found | given.keys()) - {0, UNLABELLED})
        names = {label: given.get(label, f"class {label}") for label in labels}
        return names | ({UNLABELLED: "not labelled"} if UNLABELLED in found else {})


def _volume(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"{name} must be a volume (x, y, z), got {array.shape}; select a channel")
    return array


def _labels(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    array = _volume(name, values)
    if array.max() > UNLABELLED or array.min() < 0:
        got = f"{array.min()} to {array.max()}"
        raise ValueError(f"{name} must hold labels from 0 to {UNLABELLED}, got {got}; renumber them")
    return array.astype(np.uint8, copy=False)


def _counts(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """(z, 256): how often each label is in each slice."""
    planes = np.moveaxis(labels, -1, 0)
    return np.stack([np.bincount(plane.ravel(), minlength=UNLABELLED + 1) for plane in planes])


def _evenly(places: Sequence[int], most: int) -> list[int]:
    if len(places) <= most:
        return list(places)
    # 3 of 8:  [0 x 2] [3 x 5] [6 x]  <- the middle of each part
    return [places[int((part + 0.5) * len(places) / most)] for part in range(most)]
