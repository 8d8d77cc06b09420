"""When a run ends early; that a resumed one does too is tested with the schedules."""

import math

import pytest
from ignite.engine import Engine, Events

from volseg.checks import InputError
from volseg.handlers import EarlyStop


def run(scores, patience, *, state=None, **options):
    """Train with these scores; return the number of epochs and the handler."""
    trainer, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    stop = EarlyStop(patience, evaluator=evaluator, key_metric="dice", **options)
    if state is not None:
        stop.load_state_dict(state)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate():
        if scores[trainer.state.epoch - 1] is not None:
            evaluator.state.metrics["dice"] = scores[trainer.state.epoch - 1]
            evaluator.run([0])

    @evaluator.on(Events.EPOCH_COMPLETED)
    def score():
        evaluator.state.metrics["dice"] = scores[trainer.state.epoch - 1]

    stop.attach(trainer)
    trainer.run([0], max_epochs=len(scores))
    return trainer.state.epoch, stop


@pytest.mark.parametrize(
    ("scores", "epochs"),
    [
        ([0.1, 0.2, 0.3, 0.4], 4),
        ([0.4, 0.3, 0.2, 0.1], 3),
        ([0.4, 0.4, 0.4, 0.4], 3),
        ([0.4, 0.3, 0.5, 0.1, 0.2, 0.3], 5),
        ([math.nan, 0.3, math.inf, math.nan, 0.4], 4),
        ([math.nan, math.nan, 0.5], 2),
        ([0.4, None, 0.3, None, 0.2, 0.5], 5),
    ],
    ids=["rising", "falling", "equal", "later best", "undefined", "never defined", "rarer validations"],
)
def test_patience_counts_validations_without_a_better_score(scores, epochs):
    assert run(scores, 2)[0] == epochs


def test_a_small_gain_is_none():
    assert run([0.4, 0.45, 0.49, 0.9], 2, min_delta=0.1)[0] == 3


def test_without_patience_a_run_never_stops():
    epochs, stop = run([0.4, 0.3, 0.2, 0.1], None)
    assert (epochs, stop.waited, stop.best) == (4, 3, 0.4)


def test_the_state_continues_the_waiting():
    state = run([0.4, 0.3], 3)[1].state_dict()
    assert state == {"best": 0.4, "waited": 1}
    assert run([0.3, 0.2, 0.9], 3, state=state)[0] == 2


def test_a_run_at_the_end_of_its_patience_is_refused():
    with pytest.raises(
        InputError,
        match=r"early stop: expected a score better than 0\.4000 within 2 validations, got none; this run "
        r"ended after epoch 0; raise --patience to train on, or pass --overwrite true",
    ):
        run([0.9], 2, state={"best": 0.4, "waited": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience must be positive and finite, got 0"),
        ({"patience": 1.5}, "patience must be a whole number of validations or None, got 1.5"),
        ({"patience": 2, "min_delta": -0.1}, "min_delta must be finite and at least 0, got -0.1"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(reversed(value)),
)
def test_an_argument_without_a_meaning_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EarlyStop(evaluator=Engine(lambda engine, batch: None), key_metric="dice", **options)
