"""Complete sparse labels with what a network is surest of, as far as the stated coverage says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["coverage_threshold", "hard_pseudo_labels", "soft_pseudo_labels"]

_BINS = 1 << 16


def coverage_threshold(probabilities: npt.ArrayLike, labelled: npt.ArrayLike, coverage: float) -> float:
    """Threshold above which unlabelled voxels complete the labels to what the coverage says.

    n labelled voxels that are a share `coverage` of all foreground leave n / coverage - n to find: those with
    the highest probabilities. Read in pieces along the first axis, so both arrays may be memory-mapped;
    found to 1/65536.

    Args:
        probabilities: of foreground, in [0, 1].
        labelled: the same shape, foreground where not 0.
        coverage: labelled share of the foreground, in (0, 1].

    Returns:
        A threshold in [0, 1]; voxels strictly above it complete the labels. 1 when nothing is missing.

    Raises:
        ValueError: when shapes differ, coverage is no share, a probability is not in [0, 1], nothing is
            labelled, or more voxels are missing than there are.

    Source: the winning entries of the SenNet + HOA challenge set it so for sparsely labelled kidneys.

    Example:
        >>> probabilities = np.array([0.1, 0.9, 0.8, 0.3, 0.7, 0.2])
        >>> labelled = np.array([0, 1, 0, 0, 1, 0])
        >>> threshold = coverage_threshold(probabilities, labelled, 2 / 3)  # one voxel is missing
        >>> (probabilities > threshold).tolist()
        [False, True, True, False, False, False]
    """
    values, truth = np.asanyarray(probabilities), np.asanyarray(labelled)
    _check(values, truth, coverage)
    counts = np.zeros(_BINS, dtype=np.int64)
    labelled_count = 0
    for piece, marked in _pieces(values, truth):
        inside = marked != 0
        labelled_count += int(inside.sum())
        found = np.asarray(piece[~inside], dtype=np.float64)
        if found.size and not (found.min() >= 0 and found.max() <= 1):
            raise ValueError(
                "probabilities must lie between 0 and 1 and not be NaN; apply the activation first"
            )
        # Bin i holds (i / bins, (i + 1) / bins], so that "above i / bins" is exactly bins i, i + 1, ...
        bins = np.clip(np.ceil(found * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
        counts += np.bincount(bins[found > 0], minlength=_BINS)
    if labelled_count == 0:
        raise ValueError("labelled has no foreground, so its coverage tells nothing; check the label values")
    missing = round(labelled_count / coverage) - labelled_count
    if missing == 0:
        return 1.0
    above = np.cumsum(counts[::-1])[::-1]
    if missing > above[0]:
        raise ValueError(
            f"coverage {coverage} asks for {missing} more voxels, but {above[0]} have a probability above 0; "
            "check the coverage"
        )
    distance = np.abs(np.append(above, 0) - missing)
    return float(np.flatnonzero(distance == distance.min())[-1] / _BINS)


def hard_pseudo_labels(
    probabilities: npt.ArrayLike, labelled: npt.ArrayLike, coverage: float
) -> npt.NDArray[np.uint8]:
    """Labels completed to the stated coverage: 1 where labelled or above `coverage_threshold`.

    Args:
        probabilities: of foreground, in [0, 1].
        labelled: the same shape, foreground where not 0; never taken back.
        coverage: labelled share of the foreground, in (0, 1].

    Raises:
        ValueError: as `coverage_threshold`.

    Example:
        >>> hard_pseudo_labels([0.1, 0.9, 0.8, 0.3], [0, 0, 0, 1], 0.5).tolist()
        [0, 1, 0, 1]
    """
    threshold = coverage_threshold(probabilities, labelled, coverage)
    return ((np.asanyarray(labelled) != 0) | (np.asanyarray(probabilities) > threshold)).astype(np.uint8)


def soft_pseudo_labels(
    probabilities: npt.ArrayLike, labelled: npt.ArrayLike, coverage: float, *, weight: float = 1.0
) -> npt.NDArray[np.float32]:
    """Targets in [0, 1] for a loss of soft labels: 1 where labelled, elsewhere what the network thinks.

    The probability is bent by two straight lines so that `coverage_threshold` becomes 0.5, then blended with
    the background label: target = weight * bent probability.

    Args:
        probabilities: of foreground, in [0, 1].
        labelled: the same shape, foreground where not 0.
        coverage: labelled share of the foreground, in (0, 1].
        weight: trust in the network, in [0, 1]; 0 gives the labels back.

    Raises:
        ValueError: as `coverage_threshold`, or when `weight` is no share.

    Example:
        >>> soft_pseudo_labels([0.0, 1.0, 0.5, 0.3], [0, 0, 0, 1], 0.5, weight=0.5).round(2).tolist()[:2]
        [0.0, 0.5]
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must lie between 0 and 1, got {weight}")
    threshold = coverage_threshold(probabilities, labelled, coverage)
    bent = np.interp(np.asanyarray(probabilities), [0.0, threshold, 1.0], [0.0, 0.5, 1.0])
    return np.where(np.asanyarray(labelled) != 0, 1.0, weight * bent).astype(np.float32)


def _check(values: npt.NDArray[np.generic], truth: npt.NDArray[np.generic], coverage: float) -> None:
    if values.shape != truth.shape:
        raise ValueError(
            f"probabilities and labelled must have the same shape, got {values.shape} and {truth.shape}"
        )
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must be above 0 and at most 1, got {coverage}")


def _pieces(
    values: npt.NDArray[np.generic], truth: npt.NDArray[np.generic]
) -> Iterator[tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]]:
    if values.ndim == 1:
        yield values, truth
    else:
        yield from zip(values, truth, strict=True)
