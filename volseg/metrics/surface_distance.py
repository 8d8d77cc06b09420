"""Distances between surfaces in mm: 95th percentile of Hausdorff, and their symmetric average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from volseg.checks import check_choice, check_positive
from volseg.metrics.structures import StructureMetric, mask_pair_of

__all__ = ["SurfaceDistance", "SurfaceDistanceMetric", "compute_surface_distance"]

SurfaceDistance = Literal["hd95", "assd"]


class SurfaceDistanceMetric(StructureMetric):
    """Mean surface distance in mm over structures, see `StructureMetric`; smaller is better.

    MONAI's metrics give nan or infinity for a missed structure, drop it, and report 0.0, a perfect score,
    for a model that finds nothing. Here a missed or spurious structure costs the diagonal of the image, and
    is counted.

    Args:
        distance: "hd95" or "assd".
        spacing_mm: edge lengths of a voxel; None reads them from the affine of `y` or `y_pred` (MetaTensor).
        include_background: score channel 0 too, where there is more than one.
    """

    needs_spacing = True

    def __init__(
        self,
        distance: SurfaceDistance = "hd95",
        *,
        spacing_mm: Sequence[float] | None = None,
        include_background: bool = False,
    ) -> None:
        super().__init__(spacing_mm=spacing_mm, include_background=include_background)
        self.distance: SurfaceDistance = distance
        check_choice("distance", distance, get_args(SurfaceDistance))

    def score(self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]) -> float:
        """Distance of one structure."""
        return compute_surface_distance(pred, truth, spacing_mm=spacing_mm, distance=self.distance)


def compute_surface_distance(
    pred: Any,
    truth: Any,
    *,
    spacing_mm: Sequence[float],
    distance: SurfaceDistance = "hd95",
    empty_value: float = math.nan,
) -> float:
    """Distance in mm between the edge voxels of two masks, as MONAI measures it.

    Taking away a structure that is right never improves it. What distances cannot tell: a false component
    beside a missed structure shortens the way to it, and the 95th percentile overlooks what holds less than
    a twentieth of a surface. Read them beside `compute_lesion_counts`, which counts both.

    Args:
        pred: 2D or 3D mask; array or tensor, non-zero is foreground.
        truth: mask of the same shape.
        spacing_mm: edge lengths of a voxel, one per axis.
        distance: "hd95", the larger of the two directed 95th percentiles; "assd", the mean of all distances
            from either surface to the other.
        empty_value: score of two empty masks. Where one is empty the distance is the diagonal of the image,
            more than any two voxels can be apart.

    Raises:
        ValueError: when the shapes differ, a spacing is wrong, or a mask holds values between 0 and 1.

    Example:
        >>> mask = torch.zeros(5, 5)
        >>> mask[2, 2] = 1
        >>> compute_surface_distance(mask, mask.roll(1, 0), spacing_mm=(2.0, 1.0))
        2.0
    """
    check_choice("distance", distance, get_args(SurfaceDistance))
    check_positive("spacing_mm", spacing_mm)
    masks = mask_pair_of(pred, truth)
    if masks[0].ndim != len(spacing_mm):
        raise ValueError(f"spacing_mm must hold {masks[0].ndim} edge lengths, got {list(spacing_mm)}")
    found = [bool(mask.any()) for mask in masks]
    if not any(found):
        return float(empty_value)
    if not all(found):
        return math.hypot(*(size * step for size, step in zip(masks[0].shape, spacing_mm, strict=True)))
    batches = [torch.as_tensor(mask.numpy(force=True))[None, None] for mask in masks]
    options: dict[str, Any] = {"include_background": True, "spacing": list(map(float, spacing_mm))}
    if distance == "hd95":
        return compute_hausdorff_distance(*batches, percentile=95, **options).item()
    return compute_average_surface_distance(*batches, symmetric=True, **options).item()
