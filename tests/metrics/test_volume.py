from __future__ import annotations

import numpy as np
import pytest
import torch

from volseg.metrics.volume import VolumeDifferenceMetric, compute_volume, compute_volume_difference


def test_doubling_every_spacing_makes_eight_times_the_volume():
    mask = np.random.default_rng(0).random((3, 4, 5)) < 0.4
    once, twice = (compute_volume(mask, spacing_mm=(s, 0.7 * s, 2.3 * s)) for s in (1.0, 2.0))
    assert twice == pytest.approx(8 * once)


def test_the_difference_has_no_sign():
    masks = np.ones((2, 3)), np.zeros((2, 3))
    for pair in (masks, masks[::-1]):
        assert compute_volume_difference(*pair, spacing_mm=(0.5, 2.0)) == 6.0


def test_a_missed_structure_is_counted():
    metric = VolumeDifferenceMetric(spacing_mm=(1.0, 1.0, 0.5))
    metric(torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2))
    assert (metric.aggregate().item(), metric.missed_count) == (4.0, 1)


def test_a_spacing_for_other_axes_is_refused():
    with pytest.raises(ValueError, match="spacing_mm must hold 2 edge lengths"):
        compute_volume(np.ones((2, 3)), spacing_mm=(1, 1, 1))
