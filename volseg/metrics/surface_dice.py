"""Surface Dice: the share of two surfaces that lie on each other, read slice by slice."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import CumulativeIterationMetric

from volseg.checks import check_positive
from volseg.metrics.neighbour_codes import (
    border_of,
    check_pair,
    join_planes,
    mask_pair,
    plane_codes,
    streaming_order,
    to_array,
)
from volseg.metrics.structures import mean_over_cases, spacing_of_case, structures_of
from volseg.metrics.surface_area import compute_surface_area_table
from volseg.metrics.surface_dice_sweep import compute_surface_dice_sweep

__all__ = ["SurfaceDiceMetric", "compute_surface_dice"]

_Codes = npt.NDArray[np.uint8]
_Border = npt.NDArray[np.bool_]
_Offsets = npt.NDArray[np.int64]
_Counts = npt.NDArray[np.int64]


class _Layer(NamedTuple):
    """Neighbourhoods between two slices: their codes and where these hold a surface."""

    codes: tuple[_Codes, _Codes]  # prediction, truth
    borders: tuple[_Border, _Border]


class SurfaceDiceMetric(CumulativeIterationMetric):
    """Mean surface Dice over volumes; with `thresholds`, of probabilities at the best common threshold.

    Unlike MONAI's metric of this name it always weighs by marching-cube areas, takes the spacing from the
    data, and holds a few slices instead of about 150 bytes per voxel. `y_pred` is (B, C, x, y, z): masks of
    0 and 1, or probabilities when `thresholds` are given. `y` is of the same shape, or (B, 1, x, y, z) with
    class indices. Voxels where `y` is 255 are background in both: where whole slices are unlabelled, the
    score is that of the labelled slices alone. NaN probabilities raise ValueError; they never pass as
    background.

    The mean runs over the volumes of each class, then over the classes. A volume and class where both are
    empty scores `empty_value`; if that is nan it is left out of the mean and counted in `undefined_count`.
    Under `torch.distributed` all ranks give the result of all volumes.

    Args:
        spacing_mm: edge lengths of a voxel; None reads them from the affine of `y` or `y_pred` (MetaTensor).
        tolerance_mm: largest distance that counts as lying on each other; must be 0 with `thresholds`.
        thresholds: 1 to 255 rising numbers in (0, 1].
        include_background: score channel 0 too, where there is more than one.
        empty_value: score of two empty masks: nan, 0 (the SenNet challenge) or 1.

    Attributes:
        best_threshold: after `aggregate`, the threshold of the best mean (the lowest one of equals), or None.
        curve: after `aggregate`, (T,) mean at each threshold; one value without thresholds.
        missed_count: structures of the truth of which nothing is predicted (at `best_threshold`); each
            scores 0.
        spurious_count: predicted structures absent from the truth; each scores 0.
        undefined_count: pairs left out of the mean.

    Raises:
        ValueError: for a tolerance with thresholds; when called, for shapes that differ or an unknown
            spacing.

    Example:
        >>> metric = SurfaceDiceMetric(spacing_mm=(1.0, 1.0, 1.0))
        >>> cube = torch.zeros(1, 1, 5, 5, 5)
        >>> cube[..., 1:4, 1:4, 1:4] = 1
        >>> _ = metric(cube.roll(1, dims=2), cube)
        >>> round(metric.aggregate().item(), 6)
        0.659907
    """

    def __init__(
        self,
        spacing_mm: Sequence[float] | None = None,
        tolerance_mm: float = 0.0,
        thresholds: Sequence[float] | None = None,
        *,
        include_background: bool = False,
        empty_value: float = math.nan,
    ) -> None:
        super().__init__()
        if thresholds is not None and tolerance_mm != 0.0:
            raise ValueError(
                f"a threshold sweep has tolerance 0, got tolerance_mm={tolerance_mm}; drop one of them"
            )
        self.spacing_mm = spacing_mm
        self.tolerance_mm = tolerance_mm
        self.thresholds = None if thresholds is None else [float(threshold) for threshold in thresholds]
        self.include_background = include_background
        self.empty_value = empty_value
        self.reset()

    def reset(self) -> None:
        """Forget all volumes and the results of the last `aggregate`."""
        super().reset()
        self.best_threshold: float | None = None
        self.curve: torch.Tensor | None = None
        self.missed_count = self.spurious_count = self.undefined_count = 0

    def get_buffer(self) -> torch.Tensor | None:
        """Scores of all volumes on all ranks, (N, C), or (N, C, T) with thresholds; None before the first."""
        buffers = super().get_buffer()
        return None if buffers is None else buffers[0].squeeze(-1) if self.thresholds is None else buffers[0]

    def aggregate(self) -> torch.Tensor:
        """Mean score as a scalar tensor, nan when no pair is defined; also sets the attributes.

        Raises:
            ValueError: before any volume was scored.
        """
        buffers = super().get_buffer()
        if buffers is None:
            raise ValueError("SurfaceDiceMetric has scored no volume yet; call it with y_pred and y first")
        scores, in_pred, in_truth = buffers
        self.curve = mean_over_cases(scores)
        best = int(self.curve.nan_to_num(-1.0).argmax())
        self.best_threshold = None if self.thresholds is None else self.thresholds[best]
        self.missed_count = int((in_truth & ~in_pred)[..., best].sum())
        self.spurious_count = int((in_pred & ~in_truth)[..., best].sum())
        self.undefined_count = int(scores[..., best].isnan().sum())
        return self.curve[best]

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **_: Any) -> list[torch.Tensor]:
        rows = []
        for case, structures in enumerate(structures_of(y_pred, y, self.include_background)):
            spacing_mm = spacing_of_case(self.spacing_mm, (y, y_pred), case)
            rows.append([self._score(pred, truth, spacing_mm) for pred, truth in structures])
        return [torch.stack([torch.stack([parts[k] for parts in row]) for row in rows]) for k in range(3)]

    def _score(
        self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Per threshold the score of one structure, and whether it is in the prediction and in the truth."""
        peak = pred.max() / 255.0 if pred.dtype == torch.uint8 else pred.max()
        if self.thresholds is None:
            scores = np.array(
                [
                    compute_surface_dice(
                        pred,
                        truth,
                        spacing_mm=spacing_mm,
                        tolerance_mm=self.tolerance_mm,
                        empty_value=self.empty_value,
                    )
                ]
            )
            in_pred = [peak > 0]
        else:
            scores = compute_surface_dice_sweep(
                pred, truth, spacing_mm=spacing_mm, thresholds=self.thresholds, empty_value=self.empty_value
            )
            in_pred = [peak >= threshold for threshold in self.thresholds]
        as_columns = torch.as_tensor(scores, device=pred.device), torch.stack(in_pred)
        return (*as_columns, truth.any().repeat(len(in_pred)))


def compute_surface_dice(
    pred: Any,
    truth: Any,
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float = 0.0,
    empty_value: float = math.nan,
    ignore_value: int | None = None,
) -> float:
    """Surface Dice of two masks, equal to the reference definition by marching-cube areas.

    (area of pred's surface within the tolerance of truth's + the reverse) / (area of both surfaces). Surface
    elements sit between the voxels, one per 2x2x2 neighbourhood that is neither empty nor full; outside the
    volume is background. MONAI's `SurfaceDiceMetric` counts edge voxels by default, and holds about 150
    bytes per voxel where it does not; this function holds two slices, and 2 * ceil(tolerance / spacing) more.

    Args:
        pred: (x, y, z) mask; numpy array, memory map or torch tensor. Non-zero is foreground.
        truth: mask of the same shape.
        spacing_mm: edge lengths of a voxel along x, y, z.
        tolerance_mm: largest distance in mm at which two surface elements count as lying on each other.
        empty_value: score of two empty masks: nan (undefined), 0 (the SenNet challenge) or 1. One empty mask
            scores 0.
        ignore_value: voxels of this value in `truth` are background in both masks, so that slices which
            nobody has labelled cost and earn nothing.

    Returns:
        A number in [0, 1], or `empty_value`.

    Raises:
        ValueError: for other shapes, a spacing or tolerance out of range, masks with values between 0 and 1.

    Source:
        Nikolov et al., Deep learning to achieve clinically applicable segmentation, arXiv:1809.04430.

    Example:
        >>> cube = np.zeros((5, 5, 5), dtype=bool)
        >>> cube[1:4, 1:4, 1:4] = True
        >>> round(compute_surface_dice(np.roll(cube, 1, axis=0), cube, spacing_mm=(1, 1, 1)), 6)
        0.659907
    """
    check_positive("spacing_mm", spacing_mm)
    if not 0.0 <= tolerance_mm < math.inf:
        raise ValueError(f"tolerance_mm must be a finite length of at least 0, got {tolerance_mm}")
    masks = to_array(pred), to_array(truth)
    check_pair(*masks)
    order = streaming_order(masks[0])
    areas = compute_surface_area_table([spacing_mm[axis] for axis in order])
    layers = _layers(masks[0].transpose(order), masks[1].transpose(order), ignore_value)
    offsets = _offsets_within(tolerance_mm, spacing_mm, order)
    all_codes, near_codes = _count_codes(layers, offsets)
    whole = float(all_codes @ areas)
    return float(near_codes @ areas) / whole if whole > 0 else float(empty_value)


def _layers(
    pred: npt.NDArray[Any], truth: npt.NDArray[Any], ignore_value: int | None
) -> Iterator[_Layer | None]:
    """Yield the len(pred) + 1 layers between the slices, None where both are free of surface."""
    nothing = np.zeros((pred.shape[1] + 1, pred.shape[2] + 1), dtype=np.uint8)
    before: tuple[_Codes, _Codes] = nothing, nothing
    for k in range(len(pred) + 1):
        after: tuple[_Codes, _Codes] = nothing, nothing
        if k < len(pred):
            one, other = mask_pair(pred[k], truth[k], ignore_value)
            after = (
                (plane_codes(one) if one.any() else nothing),
                (plane_codes(other) if other.any() else nothing),
            )
        if all(codes is nothing for codes in before + after):
            yield None
        else:
            codes = join_planes(before[0], after[0]), join_planes(before[1], after[1])
            yield _Layer(codes, (border_of(codes[0]), border_of(codes[1])))
        before = after


def _count_codes(layers: Iterator[_Layer | None], offsets: _Offsets) -> tuple[_Counts, _Counts]:
    """Count each code among all surface elements, and among those with the other surface within reach."""
    everywhere, nearby = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64)
    halo = int(np.abs(offsets[:, 0]).max())
    margin = np.abs(offsets[:, 1:]).max(axis=0)
    window: deque[_Layer | None] = deque([None] * (2 * halo + 1), maxlen=2 * halo + 1)
    for layer in chain(layers, repeat(None, halo)):
        window.append(_with_margin(layer, margin))
        middle = window[halo]
        if middle is None:
            continue
        for own, other in ((0, 1), (1, 0)):
            codes = middle.codes[own]
            everywhere += np.bincount(codes[middle.borders[own]], minlength=256)
            near = middle.borders[own] & middle.borders[other]
            if len(offsets) > 1:
                reach = [None if each is None else each.borders[other] for each in window]
                near |= _reached(middle.borders[own] & ~near, reach, offsets)
            nearby += np.bincount(codes[near], minlength=256)
    return everywhere, nearby


def _reached(border: _Border, window: list[_Border | None], offsets: _Offsets) -> _Border:
    """Tell which surface elements find one of the other surface at any of the offsets."""
    halo, width = len(window) // 2, border.shape[1]
    reached = np.zeros(border.shape, dtype=bool)
    left = np.flatnonzero(border)
    for layer, row, column in offsets[1:]:
        other = window[halo + layer]
        if other is not None:
            found = other.ravel()[left + row * width + column]
            reached.ravel()[left[found]] = True
            left = left[~found]
    return reached


def _with_margin(layer: _Layer | None, margin: npt.NDArray[np.int64]) -> _Layer | None:
    """Widen a layer so that no offset leaves it."""
    if layer is None or not margin.any():
        return layer
    pad = [(int(width), int(width)) for width in margin]
    codes = np.pad(layer.codes[0], pad), np.pad(layer.codes[1], pad)
    borders = np.pad(layer.borders[0], pad), np.pad(layer.borders[1], pad)
    return _Layer(codes, borders)


def _offsets_within(
    tolerance_mm: float, spacing_mm: Sequence[float], order: tuple[int, int, int]
) -> _Offsets:
    """Steps (layer, row, column) between surface elements at most a tolerance apart, nearest first."""
    reach = [math.ceil(tolerance_mm / spacing) for spacing in spacing_mm]
    steps = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    # summed in the order x, y, z, as the reference does: the last bit decides ties with the tolerance
    squares = (steps * np.asarray(spacing_mm, dtype=np.float64)) ** 2
    distances = np.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])
    nearest_first = np.argsort(distances, kind="stable")
    return steps[nearest_first[distances[nearest_first] <= tolerance_mm]][:, list(order)]
