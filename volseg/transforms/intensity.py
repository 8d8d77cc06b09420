"""Intensities clipped at percentiles, standardised and softly clipped, by statistics of the whole volume."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from volseg.transforms.volume import Array, bare_array, name_of, replaced_array, slabs

__all__ = ["IntensityStatisticsd", "NormalizeByStatisticsd", "intensity_statistics", "soft_clip"]

MAX_SAMPLE = 10_000_000
MAX_LEVELS = 1 << 18


class IntensityStatisticsd(MapTransform):
    """Store percentiles, mean and standard deviation of a volume under `<key>_statistics`, once per volume.

    MONAI's `NormalizeIntensityd` and `ScaleIntensityRangePercentilesd` compute them anew from every crop, so
    that the same tissue changes its value from sample to sample.

    Args:
        keys: image keys.
        lower: percentile that `NormalizeByStatisticsd` clips at from below.
        upper: percentile that it clips at from above.
        channel_wise: whether each channel has its own, as red, green and blue need; else all share them.
        without_extremes: leave out the voxels of the smallest and of the largest value, which scanners pad
            with: the white and black margins of OCT would tell the brightness of the retina otherwise.
        allow_missing_keys: skip a key that the item lacks.

    Raises:
        ValueError: unless 0 <= lower < upper <= 100.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        lower: float = 0.1,
        upper: float = 99.9,
        *,
        channel_wise: bool = False,
        without_extremes: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"percentiles must satisfy 0 <= lower < upper <= 100, got {lower} and {upper}")
        self.lower = lower
        self.upper = upper
        self.channel_wise = channel_wise
        self.without_extremes = without_extremes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with a float32 tensor per key, (lower, upper, mean, std) or (C, 4) of them."""
        item = dict(data)
        for key in self.key_iterator(item):
            array = bare_array(item[key])
            parts = array if self.channel_wise else array[None]
            each = [
                intensity_statistics(part, self.lower, self.upper, without_extremes=self.without_extremes)
                for part in parts
            ]
            statistics = np.stack(each) if self.channel_wise else each[0]
            item[f"{key}_statistics"] = torch.from_numpy(statistics)
        return item


class NormalizeByStatisticsd(MapTransform):
    """Clip at the stored percentiles, standardise with the stored mean and deviation, clip softly.

    Works alike on a volume and on a stack cut from it. Non-finite voxels become the mean, 0.

    Args:
        keys: image keys; each needs `<key>_statistics` from `IntensityStatisticsd`.
        soft_clip: standard deviations (lowest, highest) beyond which `soft_clip` saturates; None for no soft
            clip.
        allow_missing_keys: skip a key that the item lacks.

    Raises:
        ValueError: when the soft clip's limits are not increasing.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        soft_clip: Sequence[float] | None = (-3.0, 5.0),
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if soft_clip is not None and not (len(soft_clip) == 2 and soft_clip[0] < soft_clip[1]):
            raise ValueError(
                f"soft_clip must be (lowest, highest), got {tuple(soft_clip)}; use (-3, 5) or None"
            )
        self.limits = None if soft_clip is None else (float(soft_clip[0]), float(soft_clip[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with new float32 images; slab by slab, so that memory peaks at the result.

        Raises:
            ValueError: when the statistics are missing, or of another number of channels.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            if f"{key}_statistics" not in item:
                remedy = "put IntensityStatisticsd before NormalizeByStatisticsd"
                raise ValueError(f"{name_of(item, key)}: expected {key}_statistics, got none; {remedy}")
            array = bare_array(item[key])
            statistics = torch.as_tensor(item[f"{key}_statistics"]).reshape(-1, 4).tolist()
            if len(statistics) not in (1, len(array)):
                got = f"{len(statistics)} rows of {key}_statistics for {len(array)} channels"
                raise ValueError(
                    f"{name_of(item, key)}: expected one per channel, got {got}; measure it anew"
                )
            normal = torch.empty(array.shape, dtype=torch.float32)
            channels = np.array_split(np.arange(len(array)), len(statistics))
            for chosen, (lower, upper, *scale) in zip(channels, statistics, strict=True):
                first, end = int(chosen[0]), int(chosen[-1]) + 1
                for rows, part in slabs(array[first:end]):
                    normal[first:end, rows] = self._normalized(part, lower, upper, (scale[0], scale[1]))
            item[key] = replaced_array(item[key], normal)
        return item

    def _normalized(
        self, part: Array, lower: float, upper: float, scale: tuple[float, float]
    ) -> torch.Tensor:
        kind = np.float64 if part.dtype == np.float64 else np.float32
        values = torch.from_numpy(np.array(part, dtype=kind, order="C"))
        if part.dtype.kind == "f":
            values[~torch.isfinite(values)] = scale[0]
        values = values.clamp_(lower, upper).sub_(scale[0]).div_(scale[1]).to(torch.float32)
        return values if self.limits is None else soft_clip(values, *self.limits)


def soft_clip(values: torch.Tensor, lowest: float, highest: float) -> torch.Tensor:
    """Leave values in [lowest, highest] as they are and bend the others towards lowest - 1 and highest + 1.

    y = c + tanh(x - c) with c = min(max(x, lowest), highest): smooth to the first derivative, strictly
    increasing.

    Example:
        >>> soft_clip(torch.tensor([-3.0, 0.5, 5.0, 100.0]), -3.0, 5.0).tolist()
        [-3.0, 0.5, 5.0, 6.0]
    """
    core = values.clamp(lowest, highest)
    return (values - core).tanh_().add_(core)


def intensity_statistics(
    volume: Array, lower: float, upper: float, *, without_extremes: bool = False
) -> npt.NDArray[np.float32]:
    """Percentiles of a volume, and mean and standard deviation of its voxels clipped at them.

    Exact for integers (from a histogram); for floats from at most ten million voxels on a regular lattice.
    Percentiles are the nearest voxel values on the inner side, so that a single outlier, however large, is
    beyond them. Where they coincide, the extremes take their place. Non-finite voxels are left out.

    Args:
        volume: any shape and real dtype.
        lower: percentile in [0, 100).
        upper: percentile in (lower, 100].
        without_extremes: leave out the smallest and the largest value, where three or more are there.

    Returns:
        float32 (lower value, upper value, mean, std); std is 1 for a constant volume, all is (0, 0, 0, 1)
        without any finite voxel.

    Example:
        >>> intensity_statistics(np.arange(1001, dtype=np.uint16), 0.1, 99.9).tolist()[:3]
        [1.0, 999.0, 500.0]
    """
    values, counts = _levels(volume)
    if not values.size:
        return np.array([0, 0, 0, 1], np.float32)
    if without_extremes and values.size > 2:
        values, counts = values[1:-1], counts[1:-1]
    cumulative = np.cumsum(counts)
    last = int(cumulative[-1]) - 1
    ranks = [math.ceil(lower / 100 * last), math.floor(upper / 100 * last)]
    low, high = sorted(float(values[np.searchsorted(cumulative, rank, side="right")]) for rank in ranks)
    if low == high:
        low, high = float(values[0]), float(values[-1])
    clipped = np.clip(values.astype(np.float64), low, high)
    mean = float(np.average(clipped, weights=counts))
    std = float(np.sqrt(np.average((clipped - mean) ** 2, weights=counts)))
    limit = float(np.finfo(np.float32).max)
    return np.clip([low, high, mean, std if std > 0 else 1.0], -limit, limit).astype(np.float32)


def _levels(volume: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    flat = volume.ravel(order="K")  # statistics do not care for the order, and memory order needs no copy
    if volume.dtype.kind in "iub" and flat.size:
        low, high = int(flat.min()), int(flat.max())
        if high - low < MAX_LEVELS:
            counts = np.zeros(high - low + 1, np.int64)
            for first in range(0, flat.size, 1 << 22):
                part = flat[first : first + (1 << 22)].astype(np.int64) - low
                counts += np.bincount(part, minlength=counts.size)
            values = np.flatnonzero(counts)
            return values + low, counts[values]
    sample = flat[:: _stride(flat.size, volume.shape)].astype(np.float64)
    values, counts = np.unique(sample[np.isfinite(sample)], return_counts=True)
    return values, counts


def _stride(size: int, shape: Sequence[int]) -> int:
    # a stride that shares a factor with a row length would look at the same columns of every row
    stride = max(1, -(-size // MAX_SAMPLE))
    while stride > 1 and any(math.gcd(stride, extent) > 1 for extent in shape if extent > 1):
        stride += 1
    return stride
