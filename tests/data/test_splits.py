from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.checks import InputError
from volseg.data.splits import assign_folds, check_groups_do_not_cross

GROUPS = st.lists(st.sampled_from("abcdefghij"), min_size=5, max_size=40).filter(lambda g: len(set(g)) >= 3)


@given(GROUPS, st.integers(0, 5))
def test_a_group_is_never_torn_apart(groups, seed):
    folds = assign_folds(groups, folds=3, seed=seed)
    assert len(set(zip(groups, folds, strict=True))) == len(set(groups))


@given(GROUPS, st.integers(0, 5))
def test_every_fold_is_used(groups, seed):
    assert set(assign_folds(groups, folds=3, seed=seed)) == {0, 1, 2}


@given(GROUPS)
def test_two_folds_differ_by_at_most_the_largest_group(groups):
    sizes = Counter(assign_folds(groups, folds=3))
    assert max(sizes.values()) - min(sizes.values()) <= max(Counter(groups).values())


@given(GROUPS, st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(groups, random):
    fold_of = dict(zip(groups, assign_folds(groups, folds=3), strict=True))
    shuffled = list(groups)
    random.shuffle(shuffled)
    assert dict(zip(shuffled, assign_folds(shuffled, folds=3), strict=True)) == fold_of


def test_the_seed_chooses_between_equal_splits():
    groups = [f"g{k}" for k in range(12)]
    splits = {tuple(assign_folds(groups, folds=3, seed=seed)) for seed in range(8)}
    assert len(splits) > 1
    assert assign_folds(groups, folds=3, seed=4) == assign_folds(groups, folds=3, seed=4)


def test_the_global_random_state_is_left_as_found():
    before = np.random.get_state()[1].copy()
    assign_folds(["a", "b", "c"], folds=2, seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_strata_are_spread_over_the_folds():
    groups = [f"g{k}" for k in range(12)]
    strata = ["sick"] * 4 + ["well"] * 8
    folds = assign_folds(groups, folds=4, strata=strata)
    assert sorted(folds[:4]) == [0, 1, 2, 3]
    assert set(Counter(folds).values()) == {3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"folds": 4}, "4 folds need 4 groups, got 3; use folds=3"),
        ({"folds": 2, "strata": ["x"]}, "strata must have one entry per item, got 1 for 3"),
    ],
)
def test_an_impossible_split_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        assign_folds(["a", "b", "c"], **arguments)


def test_a_group_in_two_folds_is_refused_by_name():
    items = [{"case": "k_dense", "group": "k", "fold": 0}, {"case": "k_sparse", "group": "k", "fold": 1}]
    with pytest.raises(InputError, match=r"group 'k' in one fold.*'k_dense' in fold 0, 'k_sparse' in 1"):
        check_groups_do_not_cross(items)


def test_an_item_without_fold_is_trained_on_and_may_not_share_a_group_with_a_fold():
    with pytest.raises(InputError, match="'a' in fold 0, 'b' in None"):
        check_groups_do_not_cross([{"case": "a", "group": "k", "fold": 0}, {"case": "b", "group": "k"}])


def test_parts_of_the_only_volume_may_lie_in_two_folds():
    check_groups_do_not_cross(
        [{"case": c, "group": "k", "fold": f, "same_volume": True} for c, f in ("a0", "b1")]
    )


def test_a_group_may_not_be_in_training_and_in_labelled_test_cases():
    training = [{"case": "a", "group": "g", "fold": 0}, {"case": "b", "group": "h", "fold": 1}]
    test = [{"case": "c", "group": "h", "label": "c.png"}]
    expected = (
        "group 'h' in training or in test, or the test score is no test, got case 'b' in training, 'c' in"
    )
    with pytest.raises(InputError, match=expected):
        check_groups_do_not_cross(training, test=test)


def test_a_test_case_without_label_may_share_a_group():
    check_groups_do_not_cross([{"case": "a", "group": "g", "fold": 0}], test=[{"case": "c", "group": "g"}])


def test_test_cases_may_share_a_group_with_each_other():
    test = [{"case": name, "group": "h", "label": f"{name}.png"} for name in "cd"]
    check_groups_do_not_cross([{"case": "a", "group": "g", "fold": 0}], test=test)
