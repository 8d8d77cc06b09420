from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from volseg.reports.bootstrap import (
    mean_of_scores,
    percentile_interval,
    resample_counts,
    resampled_means,
    signed_rank_p,
)


def test_the_means_of_draws_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    scores = rng.random((7, 3))
    scores[rng.random(scores.shape) < 0.2] = np.nan
    counts = resample_counts(list("abcdefg"), 20, seed=1)
    for means, draw in zip(resampled_means(scores, counts), counts, strict=True):
        drawn = np.repeat(scores, draw, axis=0)
        columns = [np.nanmean(column) for column in drawn.T if not np.isnan(column).all()]
        assert means == pytest.approx(np.mean(columns))


def test_every_draw_has_as_many_units_and_keeps_groups_together():
    counts = resample_counts(["a", "b", "a", "c", "b"], 50, seed=0)
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(counts[:, 0], counts[:, 2])
    np.testing.assert_array_equal(counts[:, 1], counts[:, 4])


def test_drawing_leaves_the_global_state_alone():
    before = np.random.get_state()[1].copy()
    resample_counts(["a", "b"], 10, seed=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_the_interval_of_many_cases_is_that_of_theory():
    scores = np.random.default_rng(0).normal(0.7, 0.1, (400, 1))
    counts = resample_counts(list(map(str, range(400))), 2000, seed=0)
    low, high = percentile_interval(resampled_means(scores, counts))
    error = scores.std() / 20
    # 2000 draws know an end to about 5 % of the standard error
    assert low == pytest.approx(scores.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(scores.mean() + 1.96 * error, abs=0.15 * error)


def test_nothing_defined_gives_nan():
    nothing = np.full((3, 2), np.nan)
    assert np.isnan(mean_of_scores(nothing))
    assert np.isnan(percentile_interval(np.array([]))).all()
    assert np.isnan(signed_rank_p(nothing[:, 0]))


def test_signed_ranks_are_scipys_and_equal_sides_give_1():
    differences = np.array([0.1, np.nan, -0.3, 0.5, 0.0, 0.7, 0.9])
    assert signed_rank_p(differences) == wilcoxon([0.1, -0.3, 0.5, 0.7, 0.9]).pvalue
    assert signed_rank_p(np.zeros(4)) == 1


def test_rounding_is_no_evidence():
    assert signed_rank_p(np.full(100, 1e-8)) == 1
    assert signed_rank_p(np.r_[0.1, np.full(100, 1e-8)]) == 1  # one pair that differs
