"""The files that an evaluation leaves."""

import csv
import json
import logging
import math

import pytest
import torch
from ignite.engine import Engine, Events

from volseg.checks import InputError
from volseg.handlers import ScoreTable, score_table

CASES = ["a", "b, the second"]
DICE = torch.tensor([[0.5, 0.25], [math.nan, 0.75]])


def evaluate(folder, *, cases=CASES, details=None, batches=None, **options):
    """Run an evaluation whose scores are given; return how many cases it went through."""
    engine = Engine(lambda engine, batch: None)

    @engine.on(Events.EPOCH_COMPLETED)
    def score():
        engine.state.metric_details = {"dice": DICE} if details is None else details
        engine.state.metrics = {
            name: float(value.nanmean()) for name, value in engine.state.metric_details.items()
        }

    options = {"settings": {"threshold": 0.3}, **options}
    ScoreTable(folder, ["dice"], **options).attach(engine)
    try:
        engine.run(batches or [{"case": [case]} for case in cases], max_epochs=1)
    finally:
        evaluate.iterations = engine.state.iteration


def rows(folder):
    with open(folder / "scores.csv", newline="") as file:
        return {row["case"]: float(row["dice"]) for row in csv.DictReader(file)}


def test_the_table_has_a_row_per_case_and_their_mean(tmp_path):
    evaluate(tmp_path / "out")
    assert rows(tmp_path / "out") == {"a": 0.375, "b, the second": 0.75, "mean": 0.5}


def test_the_json_holds_the_same_numbers_and_the_settings(tmp_path):
    evaluate(tmp_path)
    assert json.loads((tmp_path / "scores.json").read_text()) == {
        "mean": {"dice": 0.5, "dice_class_1": 0.5, "dice_class_2": 0.5},
        "cases": [
            {"case": "a", "dice": 0.375, "dice_class_1": 0.5, "dice_class_2": 0.25},
            {"case": "b, the second", "dice": 0.75, "dice_class_1": None, "dice_class_2": 0.75},
        ],
        "settings": {"threshold": 0.3},
    }


def test_a_metric_of_one_class_has_one_column(tmp_path):
    evaluate(tmp_path, details={"dice": torch.tensor([[0.5], [0.25]])})
    assert (tmp_path / "scores.csv").read_text().splitlines()[0] == "case,dice"


def test_an_undefined_score_is_nan_in_the_table_and_null_in_json(tmp_path):
    evaluate(tmp_path, details={"dice": torch.tensor([[0.5], [math.nan]])})
    assert math.isnan(rows(tmp_path)["b, the second"])
    assert json.loads((tmp_path / "scores.json").read_text())["cases"][1]["dice"] is None


def test_a_case_that_two_ranks_scored_is_one_row(tmp_path):
    evaluate(tmp_path, cases=["a", "a"], details={"dice": torch.tensor([[0.5], [0.5]])})
    assert rows(tmp_path) == {"a": 0.5, "mean": 0.5}


@pytest.mark.parametrize(
    "batches",
    [[{"case": "a"}, {"case": "b"}], [{"case": ["a", "b"]}], [[{"case": "a"}, {"case": "b"}]]],
    ids=["plain", "collated", "decollated"],
)
def test_cases_are_named_in_every_form_of_a_batch(tmp_path, batches):
    evaluate(tmp_path, batches=batches)
    assert list(rows(tmp_path)) == ["a", "b", "mean"]


def test_the_table_is_in_the_log(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "volseg"):
        evaluate(tmp_path)
    assert caplog.records[0].message.split()[:3] == ["a", "dice", "0.3750"]
    assert caplog.records[-1].message.split()[:3] == ["mean", "dice", "0.5000"]


def test_a_metric_without_details_is_named(tmp_path):
    with pytest.raises(KeyError, match=r"no details of metric 'dice'; its handler needs save_details=True"):
        evaluate(tmp_path, details={"iou": DICE})


@pytest.mark.parametrize("name", ["scores.csv", "scores.json"])
def test_scores_of_an_earlier_evaluation_are_refused_before_the_first_case(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"{name}: expected no scores .* pass --overwrite true or another"):
        evaluate(tmp_path)
    assert evaluate.iterations == 0
    assert (tmp_path / name).read_text() == "mine"


def test_scores_of_an_earlier_evaluation_are_replaced_when_asked(tmp_path):
    evaluate(tmp_path)
    evaluate(tmp_path, details={"dice": torch.ones(2, 1)}, overwrite=True)
    assert rows(tmp_path)["mean"] == 1.0


def test_a_folder_that_takes_no_files_is_refused_before_the_first_case(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder that can be written"):
        evaluate(tmp_path / "file" / "out")
    assert evaluate.iterations == 0


def test_ranks_behind_the_first_write_nothing(tmp_path, monkeypatch):
    for name, value in {"is_available": True, "is_initialized": True, "get_rank": 1}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    monkeypatch.setattr(score_table, "string_list_all_gather", lambda names: names)
    evaluate(tmp_path)
    assert list(tmp_path.iterdir()) == []
