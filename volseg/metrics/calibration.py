"""Expected calibration error: how far a probability is from the share of times it is right."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric

from volseg.metrics.neighbour_codes import IGNORE
from volseg.metrics.structures import structures_of

__all__ = ["CalibrationErrorMetric", "compute_calibration_error", "compute_calibration_table"]


class CalibrationErrorMetric(CumulativeIterationMetric):
    """Expected calibration error over the voxels of all cases, from one table of bins; smaller is better.

    MONAI's `CalibrationErrorMetric` averages over cases; pooling the bins keeps nearly empty cases from
    counting as much as full ones. It judges probabilities, not masks: taking predictions away may improve it.

    `y_pred` is (B, C, ...) probabilities, `y` of the same shape or (B, 1, ...) class indices, 255 left out.

    Args:
        bins: number of equal bins between 0 and 1.
        include_background: judge channel 0 too, where there is more than one.
    """

    def __init__(self, bins: int = 15, *, include_background: bool = False) -> None:
        super().__init__()
        self.bins = bins
        self.include_background = include_background

    def aggregate(self) -> torch.Tensor:
        """The error as a scalar tensor; nan when no voxel is labelled.

        Raises:
            ValueError: before any case was scored.
        """
        tables = self.get_buffer()
        if tables is None:
            raise ValueError("CalibrationErrorMetric has scored no case yet; call it with y_pred and y first")
        return torch.tensor(_error_of(tables.sum(dim=0)), dtype=torch.float64)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **_: Any) -> torch.Tensor:
        tables = []
        for case, structures in enumerate(structures_of(y_pred, y, self.include_background)):
            labelled = y[case] != IGNORE
            pairs = [
                (probability[kept], truth[kept])
                for (probability, truth), kept in zip(
                    structures, _repeat(labelled, len(structures)), strict=True
                )
            ]
            classes = [compute_calibration_table(*pair, bins=self.bins) for pair in pairs]
            tables.append(torch.stack(classes).sum(dim=0))
        return torch.stack(tables)


def _repeat(labelled: torch.Tensor, classes: int) -> torch.Tensor:
    return labelled.all(dim=0, keepdim=True).expand(classes, *labelled.shape[1:])


def compute_calibration_error(probability: Any, truth: Any, *, bins: int = 15) -> float:
    """Expected calibration error: mean over voxels of |mean probability - share of foreground| of their bin.

    Args:
        probability: numbers in [0, 1] of any shape.
        truth: mask of the same shape.
        bins: number of equal bins.

    Returns:
        A number in [0, 1]; nan without voxels.

    Raises:
        ValueError: as `compute_calibration_table`.

    Source:
        Guo et al., On calibration of modern neural networks, ICML 2017, equation 3.

    Example:
        >>> compute_calibration_error([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 0])
        0.0
    """
    return _error_of(compute_calibration_table(probability, truth, bins=bins))


def compute_calibration_table(probability: Any, truth: Any, *, bins: int = 15) -> torch.Tensor:
    """Voxels, sum of probabilities and foreground voxels of each bin, (bins, 3) float64; tables add up.

    Raises:
        ValueError: when the shapes differ, a probability is NaN or outside [0, 1], or there is no bin.
    """
    soft, real = torch.as_tensor(probability), torch.as_tensor(truth)
    if soft.shape != real.shape:
        shapes = f"{tuple(soft.shape)} and {tuple(real.shape)}"
        raise ValueError(f"probability and truth must have one shape, got {shapes}; bring them onto one grid")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    soft = soft.double().flatten()
    if not bool(((soft >= 0) & (soft <= 1)).all()):
        raise ValueError("probability must lie in [0, 1], got others; apply sigmoid and look for NaN")
    place = (soft * bins).long().clamp(max=bins - 1)
    columns = (torch.ones_like(soft), soft, (real.flatten() != 0).double())
    return torch.stack([torch.bincount(place, weights=column, minlength=bins) for column in columns], dim=1)


def _error_of(table: torch.Tensor) -> float:
    return float((table[:, 1] - table[:, 2]).abs().sum() / table[:, 0].sum())
