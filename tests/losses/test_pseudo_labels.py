"""Sparse labels completed to their stated coverage."""

import numpy as np
import pytest

from volseg.losses import coverage_threshold, hard_pseudo_labels, soft_pseudo_labels


@pytest.fixture
def volume(rng):
    probabilities = rng.random((7, 12, 9)).astype(np.float32)
    labelled = (rng.random((7, 12, 9)) < 0.1).astype(np.uint8) * 255
    return probabilities, labelled


@pytest.mark.parametrize("coverage", [0.3, 0.65, 0.85, 1.0])
def test_completed_labels_have_the_stated_coverage(volume, coverage):
    probabilities, labelled = volume
    completed = hard_pseudo_labels(probabilities, labelled, coverage)
    assert (labelled != 0).sum() / completed.sum() == pytest.approx(coverage, rel=0.02)


def test_labels_are_never_taken_back_and_the_surest_come_first(volume):
    probabilities, labelled = volume
    completed = hard_pseudo_labels(probabilities, labelled, 0.5)
    assert (completed[labelled != 0] == 1).all()
    open_ = labelled == 0
    assert probabilities[open_ & (completed == 1)].min() > probabilities[open_ & (completed == 0)].max()


def test_full_coverage_adds_nothing_even_where_the_network_is_sure(volume):
    _, labelled = volume
    assert coverage_threshold(np.ones(labelled.shape), labelled, 1.0) == 1.0
    assert (hard_pseudo_labels(np.ones(labelled.shape), labelled, 1.0) == (labelled != 0)).all()


def test_less_coverage_never_raises_the_threshold(volume):
    thresholds = [coverage_threshold(*volume, coverage) for coverage in (1.0, 0.9, 0.6, 0.4, 0.2)]
    assert thresholds == sorted(thresholds, reverse=True)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_soft_labels_cross_half_the_weight_where_hard_labels_begin(volume, weight):
    probabilities, labelled = volume
    soft = soft_pseudo_labels(probabilities, labelled, 0.5, weight=weight)
    hard = hard_pseudo_labels(probabilities, labelled, 0.5)
    assert soft.dtype == np.float32
    assert (soft[labelled != 0] == 1).all()
    open_ = labelled == 0
    if weight == 0:
        assert (soft[open_] == 0).all()
    else:
        assert ((soft > weight / 2) == (hard == 1))[open_].all()


def test_memory_mapped_volumes_give_the_same_threshold(volume, tmp_path):
    np.save(tmp_path / "probabilities.npy", volume[0])
    mapped = np.load(tmp_path / "probabilities.npy", mmap_mode="r")
    assert coverage_threshold(mapped, volume[1], 0.5) == coverage_threshold(*volume, 0.5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (([0.1, 0.2], [1], 0.5), r"same shape, got \(2,\) and \(1,\)"),
        (([0.1, 0.2], [1, 0], 0.0), "coverage must be above 0 and at most 1, got 0.0"),
        (([0.1, 0.2], [0, 0], 0.5), "labelled has no foreground"),
        (([0.1, 0.2], [1, 0], 0.1), "asks for 9 more voxels, but 1 have a probability above 0"),
        (([0.1, 7.0], [1, 0], 0.5), "probabilities must lie between 0 and 1"),
        (([0.1, np.nan], [1, 0], 0.5), "probabilities must lie between 0 and 1 and not be NaN"),
    ],
    ids=["shape", "coverage", "unlabelled", "too few", "logits", "NaN"],
)
def test_what_cannot_be_completed_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        hard_pseudo_labels(*arguments)


def test_a_weight_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match="weight must lie between 0 and 1, got 2"):
        soft_pseudo_labels([0.5], [1], 1.0, weight=2)
