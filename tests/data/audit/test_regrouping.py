import pytest

from volseg.checks import InputError
from volseg.data import Datalist, write_datalist
from volseg.data.audit import regroup


def item(name, group, fold=None):
    more = {} if fold is None else {"fold": fold}
    return {"case": name, "group": group, "image": f"{name}.png", "label": f"{name}_mask.png", **more}


def folds_of(datalist):
    return {each["case"]: each.get("fold") for each in datalist.training}


def test_a_joined_group_goes_to_the_fold_of_most_of_its_cases():
    items = [item("a", "a", 0), item("b", "b", 1), item("c", "b", 1), item("d", "d", 0), item("e", "e", 2)]
    result = regroup(Datalist("set", items), {"a": "b", "b": "b", "c": "b"})
    assert folds_of(result) == {"a": 1, "b": 1, "c": 1, "d": 0, "e": 2}
    assert [each["group"] for each in result.training] == ["b", "b", "b", "d", "e"]


def test_folds_are_drawn_anew_when_one_would_be_empty(tmp_path):
    items = [item("a", "a", 0), item("b", "b", 1), item("c", "c", 1), item("d", "d", 1)]
    result = regroup(Datalist("set", items), {"a": "a", "b": "a", "c": "a"})
    folds = folds_of(result)
    assert set(folds.values()) == {0, 1}
    assert folds["a"] == folds["b"] == folds["c"] != folds["d"]
    write_datalist(tmp_path / "audited.json", result)


def test_a_group_with_a_case_outside_the_folds_is_always_trained_on():
    items = [item("a", "a"), item("b", "b", 1), item("c", "c", 0), item("d", "d", 1)]
    assert folds_of(regroup(Datalist("set", items), {"a": "a", "b": "a"})) == {
        "a": None,
        "b": None,
        "c": 0,
        "d": 1,
    }


def test_a_case_whose_mask_is_not_kept_is_left_out():
    items = [item("a", "a"), item("b", "b"), item("c", "c")]
    result = regroup(Datalist("set", items), {}, resolutions={frozenset(("a", "b")): "b"})
    assert [each["case"] for each in result.training] == ["b", "c"]


def test_a_group_in_training_and_test_is_refused_when_written(tmp_path):
    result = regroup(Datalist("set", [item("a", "a")], [item("b", "b")]), {"a": "a", "b": "a"})
    with pytest.raises(InputError, match="in training or in test"):
        write_datalist(tmp_path / "audited.json", result)


def test_the_given_datalist_is_not_changed():
    items = [item("a", "a", 0), item("b", "b", 0), item("c", "c", 1)]
    regroup(Datalist("set", items), {"a": "x", "b": "x"})
    assert items == [item("a", "a", 0), item("b", "b", 0), item("c", "c", 1)]


def test_fewer_groups_than_folds_are_refused():
    items = [item("a", "a", 0), item("b", "b", 1)]
    with pytest.raises(InputError, match="a group for each of 2 folds, got 1 groups after joining"):
        regroup(Datalist("set", items), {"a": "x", "b": "x"})
