"""Random 2.5D training samples, drawn from a volume that stays in memory as it is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from volseg.checks import check_fraction, check_odd, check_positive
from volseg.transforms.labels import IGNORE
from volseg.transforms.slice_stack import check_axis_zoom, neighbour_rows
from volseg.transforms.tilted_plane import plane_positions, sample_linear, sample_nearest, tilted_frame
from volseg.transforms.volume import Array, bare_array, name_of, shape_text

__all__ = ["RandSliceStackd", "SliceDraw"]


@dataclass(frozen=True)
class SliceDraw:
    """Where one sample lies.

    Attributes:
        axis: axis across which the slices are cut.
        centre: voxel in the middle of the sample, before windows are shifted into the volume.
        scale: voxels of the volume per pixel of the sample.
        tilt: angle in radians between the plane's normal and the axis; 0 is a straight slice.
        direction: angle in radians, within the slice, of the line that the plane is turned about.
        is_mirrored: whether left and right change places.
    """

    axis: int
    centre: tuple[int, int, int]
    scale: float = 1.0
    tilt: float = 0.0
    direction: float = 0.0
    is_mirrored: bool = False


class RandSliceStackd(Randomizable, MapTransform):
    """Draw one stack of neighbouring slices, in a window, from a random axis or a tilted plane of a volume.

    MONAI's crops cut 3D boxes or single slices of a copy; this reads just the window's voxels, from a tensor
    or memory-mapped array in its own dtype, along any axis. The result is fit for MONAI's 2D dictionary
    transforms. A window that would leave the volume is shifted inside; where the volume is smaller than the
    window the image repeats its edge and the label is `IGNORE`. The tilt turns voxel axes, so it suits nearly
    isotropic volumes.

    Args:
        keys: what to cut; the key that is `label_key` is a label, the others are images.
        image_key: its shape decides where samples lie.
        label_key: `<label_key>_foreground` and `<label_key>_rows` from `ForegroundIndicesd` guide the draw
            when present.
        in_slices: S of the image, odd.
        out_slices: slices of the label: 1, the middle one, or `in_slices`.
        axes: axes to draw from.
        axis_weights: one non-negative weight per axis; all equal if None.
        roi_size: (h, w) of a sample; None means the whole slice, without scale and tilt.
        foreground_fraction: share of samples whose centre is a foreground voxel.
        max_tilt_degrees: largest angle of a tilted plane.
        tilt_probability: share of samples from tilted planes.
        scale_range: voxels per pixel, drawn log-uniformly: a window of `roi_size * scale` is resized to
            `roi_size`.
        mirror_probability: share of samples in which left and right change places, never up and down, which
            the volume has along its axis 1: x is reversed, or z in planes across x.
        upright: turn planes across axis 0 from (y, z) to (z, y), as in `TriAxisInferer`.
        axis_zoom: for each of `axes`, pixels per voxel of its planes, in the order of the volume's axes, as
            in `TriAxisInferer`; straight slices in a `roi_size` only.
        allow_missing_keys: skip a key that the item lacks.

    Raises:
        ValueError: for arguments out of range.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        *,
        image_key: str = "image",
        label_key: str = "label",
        in_slices: int = 3,
        out_slices: int = 1,
        axes: Sequence[int] = (0, 1, 2),
        axis_weights: Sequence[float] | None = None,
        roi_size: Sequence[int] | None = (256, 256),
        foreground_fraction: float = 0.5,
        max_tilt_degrees: float = 0.0,
        tilt_probability: float = 0.0,
        scale_range: Sequence[float] = (1.0, 1.0),
        mirror_probability: float = 0.0,
        upright: bool = False,
        axis_zoom: Sequence[Sequence[float]] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.image_key = image_key
        self.label_key = label_key
        self.in_slices = check_odd("in_slices", in_slices)
        self.out_slices = _checked_out_slices(out_slices, in_slices)
        self.axes = _checked_axes(axes)
        self.axis_weights = _checked_weights(axis_weights, len(self.axes))
        self.roi_size = _checked_roi(roi_size)
        self.foreground_fraction = check_fraction("foreground_fraction", foreground_fraction)
        self.max_tilt = math.radians(_checked_tilt(max_tilt_degrees))
        self.tilt_probability = check_fraction("tilt_probability", tilt_probability)
        self.scale_range = _checked_scale(scale_range)
        self.mirror_probability = check_fraction("mirror_probability", mirror_probability)
        self.upright = upright
        self.zooms = dict(zip(self.axes, check_axis_zoom(axis_zoom, len(self.axes)), strict=True))
        if axis_zoom is not None and (self.roi_size is None or self.tilt_probability > 0):
            raise ValueError(
                "axis_zoom needs a roi_size and a tilt_probability of 0; tilted planes keep voxels"
            )

    def randomize(
        self,
        shape: Sequence[int],
        foreground: npt.NDArray[np.int64] | None = None,
        rows: Sequence[npt.NDArray[np.int64]] | None = None,
    ) -> SliceDraw:
        """Draw where a sample lies.

        Args:
            shape: spatial size (D0, D1, D2).
            foreground: flat positions of foreground voxels, if known.
            rows: indices along each axis among which the other centres lie; the volume if None.
        """
        axis = self.axes[int(self.R.choice(len(self.axes), p=self.axis_weights))]
        choices = [len(row) for row in rows] if rows is not None else list(shape)
        drawn = [int(self.R.randint(count)) for count in choices]
        centre = tuple(drawn if rows is None else [int(row[i]) for row, i in zip(rows, drawn, strict=True)])
        if self.R.rand() < self.foreground_fraction and foreground is not None and len(foreground):
            flat = int(foreground[self.R.randint(len(foreground))])
            centre = tuple(int(position) for position in np.unravel_index(flat, tuple(shape)))
        low, high = np.log(self.scale_range)
        scale = float(np.exp(self.R.uniform(low, high))) if low < high else float(self.scale_range[0])
        is_tilted = self.R.rand() < self.tilt_probability
        tilt = float(self.R.uniform(-self.max_tilt, self.max_tilt)) if is_tilted else 0.0
        direction = float(self.R.uniform(0, np.pi)) if is_tilted else 0.0
        is_mirrored = self.mirror_probability > 0 and self.R.rand() < self.mirror_probability
        return SliceDraw(axis, (centre[0], centre[1], centre[2]), scale, tilt, direction, is_mirrored)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its volumes (C, D0, D1, D2) replaced by one sample.

        Image: (C*S, h, w) float32, channel index c*S + s. Label: (out_slices, h, w) uint8.

        Raises:
            ValueError: when a volume has no channel axis, or another shape than the image.
        """
        item = dict(data)
        volumes = {key: bare_array(item[key]) for key in self.key_iterator(item)}
        shape = tuple(item[self.image_key].shape[1:])
        for key, volume in volumes.items():
            if volume.ndim != 4 or volume.shape[1:] != shape:
                got, expected = shape_text(volume.shape), f"Cx{shape_text(shape)}"
                raise ValueError(
                    f"{name_of(item, key)}: {key} must be {expected}, got {got}; check it with CheckPaird"
                )
        foreground, rows = (item.get(f"{self.label_key}_{name}") for name in ("foreground", "rows"))
        draw = self.randomize(
            shape,
            None if foreground is None else bare_array(foreground),
            None if rows is None else [bare_array(row) for row in rows],
        )
        for key, volume in volumes.items():
            item[key] = self.cut(volume, draw, is_label=key == self.label_key)
        return item

    def cut(self, volume: Array, draw: SliceDraw, *, is_label: bool) -> torch.Tensor:
        """Cut the sample at `draw` out of (C, D0, D1, D2); draws nothing.

        Returns:
            (C*S, h, w) float32 of an image, (C*out_slices, h, w) uint8 of a label.
        """
        slices = self.out_slices if is_label else self.in_slices
        is_tilted = bool(draw.tilt) and self.roi_size is not None
        cut_plane = self._cut_tilted if is_tilted else self._cut_straight
        sample = cut_plane(volume, draw, slices, is_label)
        sample = sample.flip(-1 if draw.axis == 0 else -2) if draw.is_mirrored else sample
        return sample.transpose(-1, -2).contiguous() if self._is_turned(draw) else sample

    def _cut_straight(self, volume: Array, draw: SliceDraw, slices: int, is_label: bool) -> torch.Tensor:
        moved = np.moveaxis(volume, draw.axis + 1, 1)
        rows = neighbour_rows([draw.centre[draw.axis]], moved.shape[1], slices)[0]
        view = moved[:, rows[0] : rows[-1] + 1]
        margins = [(0, 0), (0, 0)]
        if self.roi_size is not None:
            starts = self._starts(volume.shape[1:], draw)
            for dim, (start, size) in enumerate(zip(starts, self._window(draw), strict=True), start=2):
                stop, extent = start + size, view.shape[dim]
                margins[dim - 2] = (max(0, -start), max(0, stop - extent))
                view = np.moveaxis(np.moveaxis(view, dim, 0)[max(0, start) : stop], 0, dim)
        view = view if view.shape[1] == slices else view[:, rows - rows[0]]
        dtype = np.dtype(np.uint8) if is_label else np.dtype(np.float32)
        cut: Array = np.array(view, dtype=dtype, order="C").reshape(-1, *view.shape[2:])
        if any(map(any, margins)):
            cut = _padded(cut, [(0, 0), *margins], is_label)
        return self._resized(torch.from_numpy(cut), draw, is_label)

    def _cut_tilted(self, volume: Array, draw: SliceDraw, slices: int, is_label: bool) -> torch.Tensor:
        roi_size = self._plane_size(draw)
        others = [other for other in range(3) if other != draw.axis]
        centre = np.array(draw.centre, np.float64)
        for axis, start, size in zip(
            others, self._starts(volume.shape[1:], draw), self._window(draw), strict=True
        ):
            centre[axis] = start + (size - 1) / 2
        frame = tilted_frame(draw.axis, draw.tilt, draw.direction)
        positions = plane_positions(centre, frame, slices, roi_size, draw.scale)
        if is_label:
            nearest = sample_nearest(volume, positions, outside=IGNORE)
            return torch.from_numpy(nearest.astype(np.uint8).reshape(-1, *roi_size))
        return torch.from_numpy(sample_linear(volume, positions).reshape(-1, *roi_size))

    def _is_turned(self, draw: SliceDraw) -> bool:
        return self.upright and draw.axis == 0

    def _plane_size(self, draw: SliceDraw) -> tuple[int, int]:
        """Pixels of a sample along the two axes of its plane, before it is turned."""
        height, width = self.roi_size or (1, 1)
        return (width, height) if self._is_turned(draw) else (height, width)

    def _window(self, draw: SliceDraw) -> tuple[int, int]:
        height, width = self._plane_size(draw)
        zoom = self.zooms[draw.axis]
        return max(1, round(height * draw.scale / zoom[0])), max(1, round(width * draw.scale / zoom[1]))

    def _starts(self, shape: Sequence[int], draw: SliceDraw) -> list[int]:
        # 10 voxels, window 4, centre 9:  0 1 2 3 4 5 [6 7 8 9]   <- shifted, not padded
        # 2 voxels, window 4:           [. 0 1 .]                 <- padded on both sides
        starts = []
        others = [other for other in range(3) if other != draw.axis]
        for other, size in zip(others, self._window(draw), strict=True):
            room = shape[other] - size
            starts.append(min(max(draw.centre[other] - size // 2, 0), room) if room >= 0 else -((-room) // 2))
        return starts

    def _resized(self, cut: torch.Tensor, draw: SliceDraw, is_label: bool) -> torch.Tensor:
        size = self._plane_size(draw)
        if self.roi_size is None or tuple(cut.shape[1:]) == size:
            return cut
        if is_label:
            return F.interpolate(cut[None], size=size, mode="nearest-exact")[0]
        return F.interpolate(cut[None], size=size, mode="bilinear", antialias=True)[0]


def _padded(cut: Array, widths: list[tuple[int, int]], is_label: bool) -> Array:
    return np.pad(cut, widths, constant_values=IGNORE) if is_label else np.pad(cut, widths, mode="edge")


def _checked_out_slices(out_slices: int, in_slices: int) -> int:
    if out_slices not in (1, in_slices):
        raise ValueError(f"out_slices must be 1 or in_slices ({in_slices}), got {out_slices}")
    return out_slices


def _checked_axes(axes: Sequence[int]) -> tuple[int, ...]:
    if not axes or not set(axes) <= {0, 1, 2} or len(set(axes)) != len(axes):
        raise ValueError(f"axes must be distinct and among 0, 1 and 2, got {tuple(axes)}; use (0, 1, 2)")
    return tuple(axes)


def _checked_weights(weights: Sequence[float] | None, count: int) -> npt.NDArray[np.float64] | None:
    if weights is None:
        return None
    values = np.asarray(weights, np.float64)
    if values.shape != (count,) or not np.isfinite(values).all() or (values < 0).any() or not values.sum():
        raise ValueError(
            f"axis_weights must be {count} numbers >= 0 with a positive sum, got {tuple(weights)}"
        )
    return values / values.sum()


def _checked_roi(roi_size: Sequence[int] | None) -> tuple[int, int] | None:
    if roi_size is None:
        return None
    check_positive("roi_size", roi_size)
    if len(roi_size) != 2:
        raise ValueError(f"roi_size must be (h, w), got {tuple(roi_size)}; a sample is a 2D window")
    return int(roi_size[0]), int(roi_size[1])


def _checked_tilt(degrees: float) -> float:
    if not 0 <= degrees <= 45:
        raise ValueError(
            f"max_tilt_degrees must lie between 0 and 45, got {degrees}; beyond 45 draw from another axis"
        )
    return float(degrees)


def _checked_scale(scale_range: Sequence[float]) -> tuple[float, float]:
    check_positive("scale_range", scale_range)
    if len(scale_range) != 2 or scale_range[0] > scale_range[1]:
        raise ValueError(f"scale_range must be (lowest, highest), got {tuple(scale_range)}")
    return float(scale_range[0]), float(scale_range[1])
