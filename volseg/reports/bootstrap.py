"""How far a mean over cases can be trusted: seeded percentile bootstrap and paired signed ranks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["mean_of_scores", "percentile_interval", "resample_counts", "resampled_means", "signed_rank_p"]

_Doubles = npt.NDArray[np.float64]

_TIE = 1e-6  # the distances are single precision; the same masks in another storage order differ by rounding


def resample_counts(units: Sequence[str], resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw cases with replacement, those of one unit always together.

    Args:
        units: the unit of each of N cases: its group, or the case itself.
        resamples: number of draws, R.
        seed: of the draws; the global random state is not touched.

    Returns:
        (R, N) how often each case is in each draw.

    Example:
        >>> resample_counts(["a", "a", "b"], 2, seed=0).tolist()
        [[0, 0, 2], [1, 1, 1]]
    """
    names, index = np.unique(np.asarray(units), return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    cells = drawn + np.arange(resamples)[:, None] * len(names)
    counts = np.bincount(cells.ravel(), minlength=resamples * len(names)).reshape(resamples, len(names))
    return counts[:, index]


def mean_of_scores(scores: _Doubles) -> float:
    """Mean of (N, C) scores over cases, then over classes; nan is left out, nan if nothing is left."""
    return float(resampled_means(scores, np.ones((1, len(scores)), np.int64))[0])


def resampled_means(scores: _Doubles, counts: npt.NDArray[np.int64]) -> _Doubles:
    """Mean over cases, then over classes, of every draw.

    Args:
        scores: (N, C), nan where undefined.
        counts: (R, N) of `resample_counts`.

    Returns:
        (R,) nan where a draw holds no defined score.

    Example:
        >>> scores = np.array([[1.0, 0.0], [0.0, np.nan]])
        >>> resampled_means(scores, np.array([[1, 1], [2, 0], [0, 1]])).tolist()
        [0.25, 0.5, 0.0]
    """
    defined = ~np.isnan(scores)
    weights = counts @ defined.astype(np.float64)
    sums = counts @ np.where(defined, scores, 0.0)
    with np.errstate(invalid="ignore"):
        means = sums / weights  # 0 / 0 is the nan of a class that no drawn case has
        kept = ~np.isnan(means)
        result: _Doubles = np.where(kept, means, 0.0).sum(axis=1) / kept.sum(axis=1)
    return result


def percentile_interval(values: _Doubles, level: float = 0.95) -> tuple[float, float]:
    """Central interval of resampled values; (nan, nan) where none is defined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return math.nan, math.nan
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def signed_rank_p(differences: _Doubles) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 where all differences are 0, nan without any.

    Differences below a millionth are rounding, and count as 0.

    Source: Wilcoxon 1945; zeros are left out before ranking, the exact distribution is used for few pairs.
    """
    from scipy.stats import wilcoxon

    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return math.nan
    defined = defined[np.abs(defined) >= _TIE]
    if not len(defined):
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # older scipy warns that few pairs are approximated
        return float(wilcoxon(defined).pvalue)
