"""Volumes of structures, and how far the predicted one is off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from volseg.checks import check_positive
from volseg.metrics.structures import StructureMetric, mask_pair_of

__all__ = ["VolumeDifferenceMetric", "compute_volume", "compute_volume_difference"]


class VolumeDifferenceMetric(StructureMetric):
    """Mean absolute volume difference in mm³ (mm² of pictures), see `StructureMetric`; smaller is better.

    It compares sizes and not places: a prediction elsewhere of the same size is perfect, and taking away a
    right part of too large a prediction improves it. Two empty masks differ by 0. A missed structure differs
    by its whole volume and is counted in `missed_count`.
    """

    needs_spacing = True

    def score(self, pred: torch.Tensor, truth: torch.Tensor, spacing_mm: Sequence[float]) -> float:
        """Absolute volume difference of one structure."""
        return compute_volume_difference(pred, truth, spacing_mm=spacing_mm)


def compute_volume(mask: Any, *, spacing_mm: Sequence[float]) -> float:
    """Volume of a mask in mm³, or area in mm² of a 2D one.

    Raises:
        ValueError: when there is not one positive spacing per axis.

    Example:
        >>> compute_volume(np.ones((2, 3, 1)), spacing_mm=(0.5, 0.5, 2.0))
        3.0
    """
    check_positive("spacing_mm", spacing_mm)
    voxels = torch.as_tensor(mask)
    if voxels.ndim != len(spacing_mm):
        raise ValueError(f"spacing_mm must hold {voxels.ndim} edge lengths, got {list(spacing_mm)}")
    return int(torch.count_nonzero(voxels)) * float(np.prod(spacing_mm))


def compute_volume_difference(pred: Any, truth: Any, *, spacing_mm: Sequence[float]) -> float:
    """Absolute difference of the volumes of two masks in mm³.

    Raises:
        ValueError: when the shapes differ, a spacing is wrong, or a mask holds values between 0 and 1.

    Example:
        >>> compute_volume_difference(np.ones((2, 2, 2)), np.zeros((2, 2, 2)), spacing_mm=(1, 1, 0.5))
        4.0
    """
    masks = mask_pair_of(pred, truth)
    return abs(
        compute_volume(masks[0], spacing_mm=spacing_mm) - compute_volume(masks[1], spacing_mm=spacing_mm)
    )
