"""Schedules chosen in a bundle's JSON, in whole and in killed and resumed runs."""

import math

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from torch.optim import lr_scheduler as schedules

from volseg.checks import InputError
from volseg.handlers import LearningRateSteps

EPOCHS, ITERATIONS = 6, 3

CONFIG = {
    "imports": ["$import torch", "$import volseg", "$import volseg.handlers"],
    "epochs": EPOCHS,
    "patience": None,
    "val_interval": 1,
    "lr_every": "epoch",
    "key_metric": "val_dice",
    "network": {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 1},
    "optimizer": {"_target_": "torch.optim.AdamW", "params": "$@network.parameters()", "lr": 0.1},
    "loss": {"_target_": "torch.nn.MSELoss"},
    "images": "$torch.arange(48.0).div(48).reshape(3, 4, 4)",
    "batches": "$[{'image': image, 'label': image.sum(1, keepdim=True)} for image in @images]",
    "early_stop": {
        "_target_": "volseg.handlers.EarlyStop",
        "patience": "@patience",
        "evaluator": "@evaluator",
        "key_metric": "@key_metric",
    },
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "cpu",
        "val_data_loader": "$@batches[:1]",
        "network": "@network",
    },
    "trainer": {
        "_target_": "SupervisedTrainer",
        "max_epochs": "@epochs",
        "device": "cpu",
        "train_data_loader": "@batches",
        "network": "@network",
        "loss_function": "@loss",
        "optimizer": "@optimizer",
        "train_handlers": [
            {"_target_": "volseg.handlers.EpochSeed", "seed": 0},
            {"_target_": "ValidationHandler", "validator": "@evaluator", "interval": "@val_interval"},
            {
                "_target_": "volseg.handlers.LearningRateSteps",
                "lr_scheduler": "@lr_scheduler",
                "every": "@lr_every",
                "evaluator": "@evaluator",
                "key_metric": "@key_metric",
            },
            "@early_stop",
            {
                "_target_": "volseg.handlers.CheckpointHandler",
                "ckpt_dir": "@ckpt_dir",
                "network": "@network",
                "state": {
                    "optimizer": "@optimizer",
                    "lr_scheduler": "@lr_scheduler",
                    "early_stop": "@early_stop",
                },
                "evaluator": "@evaluator",
                "key_metric": "@key_metric",
            },
        ],
    },
}

PLATEAU = {
    "lr_every": "validation",
    "lr_scheduler": {
        "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau",
        "optimizer": "@optimizer",
        "mode": "max",
        "factor": 0.5,
        "patience": 1,
    },
}
ONE_CYCLE = {
    "lr_every": "iteration",
    "lr_scheduler": {
        "_target_": "torch.optim.lr_scheduler.OneCycleLR",
        "optimizer": "@optimizer",
        "max_lr": 0.1,
        "total_steps": "$@epochs * len(@batches)",
    },
}
STEPS = {
    "lr_scheduler": {
        "_target_": "torch.optim.lr_scheduler.StepLR",
        "optimizer": "@optimizer",
        "step_size": 2,
        "gamma": 0.1,
    },
}
SCORES = [0.5, 0.4, 0.6, math.nan, 0.3, 0.6]


class Killed(BaseException):
    """What no handler catches, like the signal."""


def train(folder, changes=(), *, scores=SCORES, killed_in=None):
    """Train by the config; return what its parser made, and the learning rate of each iteration."""
    torch.manual_seed(0)
    parser = ConfigParser({**CONFIG, **dict(changes), "ckpt_dir": str(folder)})
    evaluator, trainer = (parser.get_parsed_content(name) for name in ("evaluator", "trainer"))
    optimizer, rates = parser.get_parsed_content("optimizer"), []

    @evaluator.on(Events.EPOCH_COMPLETED)
    def score():
        evaluator.state.metrics["val_dice"] = scores[evaluator.state.epoch - 1]

    @trainer.on(Events.ITERATION_STARTED)
    def note():
        if trainer.state.epoch == killed_in:
            raise Killed
        rates.append(optimizer.param_groups[0]["lr"])

    trainer.run()
    return parser, rates


def weights(parser):
    return parser.get_parsed_content("network").weight.detach()


def test_a_plateau_follows_the_scores_of_the_validations(tmp_path):
    _, rates = train(tmp_path, PLATEAU)
    # after 0.6 come nan and 0.3: more than one validation without a better score
    assert rates[::ITERATIONS] == [0.1, 0.1, 0.1, 0.1, 0.1, 0.05]


def test_a_plateau_counts_validations_and_not_epochs(tmp_path):
    _, rates = train(tmp_path, {**PLATEAU, "val_interval": 2}, scores=[math.nan, 0.5] * 3)
    assert set(rates) == {0.1}


def test_a_single_cycle_advances_with_every_iteration(tmp_path):
    parser, rates = train(tmp_path, ONE_CYCLE)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    cycle = schedules.OneCycleLR(optimizer, max_lr=0.1, total_steps=EPOCHS * ITERATIONS)
    expected = []
    for _ in range(EPOCHS * ITERATIONS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cycle.step()
    assert rates == expected
    assert parser.get_parsed_content("lr_scheduler").last_epoch == EPOCHS * ITERATIONS


def test_epochs_are_the_default(tmp_path):
    _, rates = train(tmp_path, STEPS)
    assert rates[::ITERATIONS] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("schedule", [PLATEAU, ONE_CYCLE, STEPS], ids=["plateau", "one cycle", "steps"])
@pytest.mark.parametrize("epoch", [2, 4, 6])
def test_a_killed_run_ends_as_the_undisturbed_one(tmp_path, schedule, epoch):
    whole, rates = train(tmp_path / "whole", schedule)
    with pytest.raises(Killed):
        train(tmp_path / "killed", schedule, killed_in=epoch)
    resumed, later = train(tmp_path / "killed", schedule)
    assert later == rates[(epoch - 1) * ITERATIONS :]
    assert torch.equal(weights(whole), weights(resumed))
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "killed")]
    tensors = [(state["network"], state["state"].pop("optimizer")) for state in states]
    torch.testing.assert_close(*tensors, rtol=0, atol=0)
    assert states[0]["state"] == states[1]["state"]
    assert states[0]["best"] == states[1]["best"]


def test_more_epochs_stretch_a_single_cycle(tmp_path):
    train(tmp_path, ONE_CYCLE)
    parser, rates = train(tmp_path, {**ONE_CYCLE, "epochs": 2 * EPOCHS}, scores=2 * SCORES)
    assert len(rates) == EPOCHS * ITERATIONS
    assert parser.get_parsed_content("lr_scheduler").total_steps == 2 * EPOCHS * ITERATIONS
    _, whole = train(tmp_path / "long", {**ONE_CYCLE, "epochs": 2 * EPOCHS}, scores=2 * SCORES)
    # the optimiser keeps the rate that it was saved with until the schedule's next step
    assert rates[1:] == whole[EPOCHS * ITERATIONS + 1 :]


def test_a_run_without_a_better_score_stops_early_and_stays_stopped(tmp_path):
    changes = {**STEPS, "patience": 2}
    scores = [0.5, 0.6, 0.6, 0.1, 0.9, 0.9]
    parser, _ = train(tmp_path, changes, scores=scores)
    assert parser.get_parsed_content("trainer").state.epoch == 4
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(
        InputError, match=r"early stop: .* better than 0\.6000 within 2 .* ended after epoch 4"
    ):
        train(tmp_path, changes, scores=scores)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert torch.load(tmp_path / "last.pt", weights_only=True)["state"]["early_stop"] == {
        "best": 0.6,
        "waited": 2,
    }


def test_more_patience_trains_a_stopped_run_on(tmp_path):
    scores = [0.5, 0.6, 0.6, 0.1, 0.9, 0.9]
    train(tmp_path, {**STEPS, "patience": 2}, scores=scores)
    parser, rates = train(tmp_path, {**STEPS, "patience": 3}, scores=scores)
    assert parser.get_parsed_content("trainer").state.epoch == EPOCHS
    assert len(rates) == 2 * ITERATIONS


@pytest.mark.parametrize("epoch", [2, 3, 4])
def test_a_killed_run_stops_early_in_the_same_epoch(tmp_path, epoch):
    changes, scores = {**STEPS, "patience": 3}, [0.6, 0.5, 0.6, 0.1, 0.9, 0.9]
    whole, _ = train(tmp_path / "whole", changes, scores=scores)
    with pytest.raises(Killed):
        train(tmp_path / "killed", changes, scores=scores, killed_in=epoch)
    resumed, _ = train(tmp_path / "killed", changes, scores=scores)
    assert resumed.get_parsed_content("trainer").state.epoch == 4
    assert torch.equal(weights(whole), weights(resumed))


def plateau(mode="max"):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    return schedules.ReduceLROnPlateau(optimizer, mode=mode)


def steps():
    return schedules.StepLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), step_size=1)


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (steps(), {"every": "batch"}, "every must be one of epoch, iteration, validation, got 'batch'"),
        (steps(), {"every": "validation"}, "StepLR cannot step every 'validation'; set lr_every to 'epoch'"),
        (plateau(), {}, "ReduceLROnPlateau cannot step every 'epoch'; set lr_every to 'validation'"),
        (
            plateau(),
            {"every": "validation"},
            "needs the scores of validations; give evaluator and key_metric",
        ),
        (
            plateau("min"),
            {"every": "validation", "evaluator": Engine(lambda engine, batch: None), "key_metric": "dice"},
            "must have mode 'max', because a larger score is better, got 'min'",
        ),
    ],
    ids=["every", "no plateau", "plateau", "no evaluator", "mode"],
)
def test_a_schedule_that_cannot_step_so_is_refused(schedule, options, message):
    with pytest.raises(ValueError, match=message):
        LearningRateSteps(schedule, **options)
