"""The lines that a long run leaves in the log."""

import logging

import pytest
from ignite.engine import Engine

from volseg.handlers import CaseProgress, progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the engines below set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(caplog, clock, batches, seconds):
    durations = iter(seconds)

    def step(engine, batch):
        clock[0] += next(durations)
        if batch == "lost":
            engine.state.batch = []  # as CaseIteration leaves it

    engine = Engine(step)
    CaseProgress().attach(engine)
    with caplog.at_level(logging.INFO, "volseg"):
        engine.run(batches, max_epochs=1)
    return [record.message for record in caplog.records]


def test_every_case_is_told_with_its_seconds_and_the_time_to_go(caplog, clock):
    batches = [{"case": ["kidney_1"]}, {"case": ["kidney_2"]}, {"case": ["kidney_3"]}]
    assert lines(caplog, clock, batches, [4.0, 2.0, 6.0]) == [
        "case 1 of 3 (kidney_1): 4.0 s, 8 s to go",
        "case 2 of 3 (kidney_2): 2.0 s, 3 s to go",
        "case 3 of 3 (kidney_3): 6.0 s, 0 s to go",
    ]


@pytest.mark.parametrize(
    "batch", [{"case": "k"}, [{"case": "k"}], {"case": ["k"]}], ids=["plain", "decollated", "collated"]
)
def test_the_name_is_found_in_every_form_of_a_batch(caplog, clock, batch):
    assert lines(caplog, clock, [batch], [1.0]) == ["case 1 of 1 (k): 1.0 s, 0 s to go"]


@pytest.mark.parametrize("batch", ["lost", {"image": 1}], ids=["lost", "nameless"])
def test_a_case_without_a_name_is_counted(caplog, clock, batch):
    assert lines(caplog, clock, [batch], [1.0]) == ["case 1 of 1: 1.0 s, 0 s to go"]
