"""What the summary of a run says about one prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.geometry import Geometry

__all__ = ["count_labels", "warnings_about"]


def count_labels(labels: npt.NDArray[Any]) -> dict[str, int]:
    """Count voxels per label of a label map, or of each mask by its number from 1.

    Args:
        labels: (1, x, y, z) class indices or (K, x, y, z) masks.

    Example:
        >>> count_labels(np.array([[[[0, 2], [2, 2]]]]))
        {'0': 1, '2': 3}
    """
    if labels.shape[0] > 1:
        return {str(number): int(np.count_nonzero(mask)) for number, mask in enumerate(labels, start=1)}
    counts: dict[str, int] = {}
    for piece in np.moveaxis(labels[0], -1, 0):  # slice by slice: np.unique copies and sorts
        for value, count in zip(*np.unique(piece, return_counts=True), strict=True):
            counts[str(int(value))] = counts.get(str(int(value)), 0) + int(count)
    return dict(sorted(counts.items(), key=lambda pair: int(pair[0])))


def warnings_about(labels: npt.NDArray[Any], geometry: Geometry, non_finite_voxels: int) -> list[str]:
    """Say what a reader of a prediction should know about it.

    Args:
        labels: as it is written.
        geometry: of the image.
        non_finite_voxels: how many voxels of the image were NaN or infinite.
    """
    warnings = []
    if not labels.any():
        warnings.append("nothing was found")
    if not geometry.spacing_is_known:
        warnings.append("the image states no spacing; 1 mm was assumed")
    if non_finite_voxels:
        warnings.append(f"{non_finite_voxels} voxels are NaN or infinite; the mean took their place")
    return warnings
