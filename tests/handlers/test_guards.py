"""The seed of every epoch, and the losses that stop a run."""

import math
import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from volseg.checks import InputError
from volseg.handlers import EpochSeed, FiniteLoss


def draws(seed, epochs, *, first=1):
    """What each global generator gives in each epoch of a run that starts with epoch `first`."""
    found = []

    def step(engine, batch):
        found.append((random.random(), float(np.random.rand()), torch.rand(1).item()))

    engine = Engine(step)
    EpochSeed(seed).attach(engine)
    engine.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "epoch", first - 1))
    engine.run([0], max_epochs=first - 1 + epochs)
    return found


def test_a_resumed_run_draws_what_the_undisturbed_one_draws():
    assert draws(3, 2, first=3) == draws(3, 4)[2:]


def test_no_two_epochs_draw_the_same():
    assert len({value for epoch in draws(3, 4) for value in epoch}) == 12


def test_another_seed_draws_other_numbers():
    assert draws(3, 1) != draws(4, 1)


def test_every_rank_draws_other_numbers(monkeypatch):
    first = draws(3, 1)
    monkeypatch.setenv("RANK", "1")
    assert draws(3, 1) != first


def run_with_loss(value, *, wrapped=False, **options):
    output = {"loss": torch.tensor(value)}
    engine = Engine(lambda engine, batch: [output] if wrapped else output)
    FiniteLoss(**options).attach(engine)
    return engine.run([0], max_epochs=1)


@pytest.mark.parametrize("wrapped", [False, True], ids=["mapping", "decollated"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2e6, -2e6], ids=str)
def test_a_loss_that_is_no_number_or_exploded_stops_the_run(value, wrapped):
    with pytest.raises(
        InputError, match=r"epoch 1, iteration 1: expected a finite loss, got .*--learning_rate"
    ):
        run_with_loss(value, wrapped=wrapped)


@pytest.mark.parametrize("value", [0.0, -0.5, 1e6], ids=str)
def test_finite_losses_pass(value):
    assert run_with_loss(value).epoch == 1


def test_the_limit_is_an_argument():
    with pytest.raises(InputError, match="finite loss"):
        run_with_loss(3.0, limit=2.0)
