from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from volseg.checks import InputError
from volseg.data.detection_table import detection_csv, read_detection


def test_what_was_written_is_read_back_slice_by_slice(tmp_path):
    scores = torch.rand(3, 7, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "a_detection.csv"
    path.write_bytes(detection_csv(scores, ["REA", "SRF", "PED"]))
    assert np.array_equal(read_detection(path).astype(np.float32), scores.T.numpy())


def test_scores_of_a_very_sure_head_keep_their_order(tmp_path):
    scores = torch.tensor([[16.0, 15.0, -16.0, -17.0]]).sigmoid()
    path = tmp_path / "a.csv"
    path.write_bytes(detection_csv(scores))
    assert read_detection(path)[:, 0].argsort().tolist() == [3, 2, 1, 0]


def test_names_may_hold_commas_and_other_alphabets(tmp_path):
    names = ["fluid, all", "отёк"]
    path = tmp_path / "a.csv"
    path.write_bytes(detection_csv(np.zeros((2, 4)), names))
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["slice", *names]
    assert [row["slice"] for row in rows] == ["0", "1", "2", "3"]
    assert read_detection(path).shape == (4, 2)


def test_classes_without_names_are_numbered():
    assert detection_csv(np.zeros((2, 0))) == b"slice,class 1,class 2\n"


def test_same_scores_same_bytes():
    scores = torch.rand(2, 5, dtype=torch.float16, generator=torch.Generator().manual_seed(1))
    assert detection_csv(scores) == detection_csv(scores.numpy())


@pytest.mark.parametrize(
    "text",
    ["", "slice\n0\n", "row,a\n0,0.5\n", "slice,a\n1,0.5\n", "slice,a\n0,0.5,1\n", "slice,a\n0,high\n"],
    ids=["empty", "no class", "other titles", "not from 0", "ragged", "no number"],
)
def test_what_is_no_such_table_is_refused(tmp_path, text):
    path = tmp_path / "a_detection.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a_detection\.csv: expected a (table|line)"):
        read_detection(path)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"scores must be \(K, S\)"):
        detection_csv(np.zeros(3))
    with pytest.raises(ValueError, match="class_names must be 2 different names"):
        detection_csv(np.zeros((2, 3)), ["fluid", "fluid"])
    with pytest.raises(ValueError, match="class_names must be 1 different names"):
        detection_csv(np.zeros((1, 3)), ["slice"])
