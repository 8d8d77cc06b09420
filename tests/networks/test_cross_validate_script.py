"""Cross-validation shows what a careless split claims, and how far its own mean can be trusted."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from volseg.data import Datalist, read_datalist, write_datalist

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("cross_validate")


@pytest.fixture
def ran(script, monkeypatch):
    """Overrides of each workflow; a case of subject s scores s / 10, one by one."""
    calls = []

    def bundle(_name, workflow, overrides):
        values = script.named(overrides)
        calls.append((workflow, values))
        if workflow == "evaluate":
            items = read_datalist(Path(values["dataset_dir"]) / "datalist.json").training
            held_out = [item["case"] for item in items if item["fold"] == int(values["fold"])]
            cases = [{"case": case, "dice": int(case[0]) / 10, "iou": 0.0} for case in held_out]
            folder = Path(values["output_dir"])
            folder.mkdir(parents=True)
            (folder / "scores.json").write_text(json.dumps({"cases": cases}))
            (folder / "scores.csv").write_text("case,dice,iou\n")

    monkeypatch.setattr(script, "bundle", bundle)
    return calls


@pytest.fixture
def prepared(tmp_path):
    """Four subjects of three frames, two of them in each fold."""
    items = [
        {
            "image": f"{case}.png",
            "label": f"{case}_mask.png",
            "case": case,
            "group": case[0],
            "fold": int(subject in (4, 8)),
        }
        for subject in (2, 4, 6, 8)
        for case in (f"{subject}_{frame}" for frame in range(3))
    ]
    folder = tmp_path / "prepared"
    write_datalist(folder / "datalist.json", Datalist(name="frames", training=items, root=str(tmp_path)))
    return folder


def run(script, prepared, monkeypatch, *own, behind=()):
    page = prepared.parent / "page.md"
    arguments = [
        "ultrasound_nerve",
        "--dataset_dir",
        str(prepared),
        "--output_dir",
        str(prepared.parent / "runs"),
    ]
    argv = ["cross_validate.py", *arguments, "--write", str(page), *own, "--", *behind]
    monkeypatch.setattr(sys, "argv", argv)
    script.main()
    return page.read_text().splitlines()


def test_the_interval_is_drawn_over_subjects(script, ran, prepared, monkeypatch):
    lines = run(script, prepared, monkeypatch)
    assert "| grouped | 0 | 6 | 0.4000 |" in lines
    assert "| grouped | 1 | 6 | 0.6000 |" in lines
    # all draws of four subjects: the 2.5 % quantile is 0.3 or below, over twelve frames it would be 0.37
    last = lines[-1].split("|")
    assert last[1:4] == [" **grouped** ", " 2 folds ", " 12 "]
    interval = last[4].partition("(")[2]
    assert interval.endswith(" over 4 groups) ")
    low, high = interval.partition(" over ")[0].split(" to ")
    assert last[4].startswith(" **0.5000** ")
    assert float(low) <= 0.3 < 0.7 <= float(high)
    assert [workflow for workflow, _ in ran] == ["train", "evaluate"] * 2


def test_fewer_leaking_folds_than_grouped_ones(script, ran, prepared, monkeypatch):
    lines = run(script, prepared, monkeypatch, "--leaking", "1")
    assert [line.split("|")[1:3] for line in lines if line.startswith("| **")] == [
        [" **grouped** ", " 2 folds "],
        [" **random, leaking** ", " 1 fold "],
    ]
    assert sum(line.startswith("| random, leaking | ") for line in lines) == 1
    assert len(ran) == 6


def test_overrides_of_the_network_reach_the_evaluation_and_those_of_the_schedule_do_not(
    script, ran, prepared, monkeypatch
):
    run(script, prepared, monkeypatch, "--folds", "1", behind=["--network_def::dropout", "0.3", "--epochs=2"])
    (_, training), (_, evaluation) = ran
    assert (training["network_def::dropout"], training["epochs"]) == ("0.3", "2")
    assert (evaluation["network_def::dropout"], evaluation["threshold"]) == ("0.3", "0.5")
    assert "epochs" not in evaluation
