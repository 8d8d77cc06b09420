import json

import pytest

from volseg.checks import InputError
from volseg.data.audit import read_resolutions, record_resolutions

PAIR = frozenset(("a", "b"))


def written(path, *entries):
    path.write_text(json.dumps({"format": "volseg-resolutions-1", "resolutions": list(entries)}))
    return path


def test_what_is_recorded_is_read_again(tmp_path):
    path = tmp_path / "resolutions.json"
    record_resolutions(path, {PAIR: "b"})
    assert read_resolutions(path) == {PAIR: "b"}


def test_a_later_decision_replaces_its_own_pair_only(tmp_path):
    path = tmp_path / "resolutions.json"
    record_resolutions(path, {PAIR: "b", frozenset(("c", "d")): "c"})
    assert record_resolutions(path, {PAIR: "a"}) == {PAIR: "a", frozenset(("c", "d")): "c"}


def test_a_pair_without_decision_is_left_open(tmp_path):
    path = written(tmp_path / "r.json", {"pair": ["a", "b"], "keep": None})
    assert read_resolutions(path) == {}


def test_an_unknown_case_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(InputError, match="names of cases, got 'frame_l'; did you mean 'frame_1'"):
        record_resolutions(tmp_path / "r.json", {frozenset(("frame_l", "x")): "x"}, known={"frame_1", "x"})
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"pair": ["a", "b"], "keep": "c"},
        {"pair": ["a", "a"], "keep": "a"},
        {"pair": ["a", "b", "c"], "keep": "a"},
        {"pair": [1, 2], "keep": 1},
        {"pair": ["a", "b"]},
        "a",
    ],
    ids=["stranger", "twice", "three", "numbers", "no keep", "text"],
)
def test_a_wrong_entry_is_refused(tmp_path, entry):
    with pytest.raises(InputError, match="expected entries like"):
        read_resolutions(written(tmp_path / "r.json", entry))


def test_two_decisions_for_a_pair_are_refused(tmp_path):
    path = written(tmp_path / "r.json", {"pair": ["a", "b"], "keep": "a"}, {"pair": ["b", "a"], "keep": "b"})
    with pytest.raises(InputError, match="one decision for each pair"):
        read_resolutions(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=r"r\.json: expected"):
        read_resolutions(tmp_path / "r.json")
