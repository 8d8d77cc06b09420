"""When the learning rate schedule of a run advances: each epoch, iteration or validation."""

from __future__ import annotations

from typing import Any, Literal, get_args

from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from volseg.checks import check_choice

__all__ = ["LearningRateSteps"]

Every = Literal["epoch", "iteration", "validation"]


class LearningRateSteps:
    """Advance a learning rate schedule by epochs, iterations or validation scores.

    MONAI's `LrScheduleHandler` steps on the engine that it is attached to: on the trainer it sees the score
    of the validation before, and where validations are rarer than epochs the same score again. Here a plateau
    is told each score once, as soon as it is known and before the epoch is saved. The state is the schedule's
    own: name the schedule in the `state` of `CheckpointHandler`.

    Args:
        lr_scheduler: of torch or MONAI; `ReduceLROnPlateau` needs mode "max" where a larger score is better.
        every: "epoch", "iteration" (OneCycleLR) or "validation" (ReduceLROnPlateau, which gets the score).
        evaluator: the validation engine, for "validation".
        key_metric: name of the score in its `state.metrics`.

    Raises:
        ValueError: for another `every`, "validation" without an evaluator and a metric, a plateau without
            "validation" or with mode "min", or another schedule with it.
    """

    def __init__(
        self,
        lr_scheduler: LRScheduler,
        every: Every = "epoch",
        *,
        evaluator: Engine | None = None,
        key_metric: str | None = None,
    ) -> None:
        check_choice("every", every, get_args(Every))
        name = type(lr_scheduler).__name__
        if isinstance(lr_scheduler, ReduceLROnPlateau) != (every == "validation"):
            remedy = "epoch" if every == "validation" else "validation"
            raise ValueError(f"{name} cannot step every {every!r}; set lr_every to {remedy!r}")
        if every == "validation" and (evaluator is None or key_metric is None):
            raise ValueError(f"{name} needs the scores of validations; give evaluator and key_metric")
        if isinstance(lr_scheduler, ReduceLROnPlateau) and lr_scheduler.mode != "max":
            raise ValueError(
                f"{name} must have mode 'max', because a larger score is better, got {lr_scheduler.mode!r}"
            )
        self.lr_scheduler = lr_scheduler
        self.every = every
        self.evaluator = evaluator
        self.key_metric = key_metric

    def attach(self, engine: Engine) -> None:
        """Register on the trainer, and for "validation" on the evaluator instead."""
        if self.every == "validation" and self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self)
        elif self.every == "iteration":
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        else:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Advance the schedule by one step.

        Raises:
            KeyError: when the validation has no score of that name.
        """
        score: list[Any] = (
            [float(engine.state.metrics[self.key_metric])] if self.every == "validation" else []
        )
        self.lr_scheduler.step(*score)
