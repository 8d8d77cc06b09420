"""End a run that has stopped getting better, also across restarts."""

from __future__ import annotations

import logging
import math
from typing import Any

from ignite.engine import Engine, Events

from volseg.checks import check_positive, refuse

__all__ = ["EarlyStop"]

logger = logging.getLogger(__name__)


class EarlyStop:
    """Stop the training after `patience` validations without a better score.

    MONAI's `EarlyStopHandler` keeps no state: a resumed run would wait anew. This one has a `state_dict` for
    the `state` of `CheckpointHandler`; a run that has stopped is not trained on when it is started again.
    Under `torch.distributed` all ranks see the same score, and stop together.

    Args:
        patience: how many validations in a row may bring no better score; None never stops.
        evaluator: the validation engine.
        key_metric: name of the score in its `state.metrics`; larger is better, NaN and infinity never are.
        min_delta: by how much a score must exceed the best to count as better.

    Attributes:
        best: highest score so far.
        waited: validations since then.

    Raises:
        ValueError: for a patience that is no positive integer, or a negative `min_delta`.
    """

    def __init__(
        self, patience: int | None, *, evaluator: Engine, key_metric: str, min_delta: float = 0.0
    ) -> None:
        if patience is not None:
            check_positive("patience", patience)
            if isinstance(patience, bool) or patience != int(patience):
                raise ValueError(f"patience must be a whole number of validations or None, got {patience}")
        if not 0.0 <= min_delta < math.inf:
            raise ValueError(f"min_delta must be finite and at least 0, got {min_delta}")
        self.patience = patience
        self.evaluator = evaluator
        self.key_metric = key_metric
        self.min_delta = min_delta
        self.best = -math.inf
        self.waited = 0
        self._trainer: Engine | None = None

    @property
    def is_over(self) -> bool:
        """Whether the patience is at its end."""
        return self.patience is not None and self.waited >= self.patience

    def attach(self, engine: Engine) -> None:
        """Register on the trainer; before a handler that saves the state of the epoch."""
        self._trainer = engine
        engine.add_event_handler(Events.EPOCH_STARTED, self._check)
        self.evaluator.add_event_handler(Events.COMPLETED, self)

    def _check(self, engine: Engine) -> None:
        if self.is_over:
            refuse(
                "early stop",
                f"a score better than {self.best:.4f} within {self.patience} validations",
                f"none; this run ended after epoch {engine.state.epoch - 1}",
                "raise --patience to train on, or pass --overwrite true to start anew",
            )

    def __call__(self, engine: Engine) -> None:
        """Take in the score of a validation, and stop the trainer when the patience is at its end.

        Raises:
            KeyError: when the validation has no score of that name.
        """
        score = float(engine.state.metrics[self.key_metric])
        if math.isfinite(score) and score > self.best + self.min_delta:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.is_over and self._trainer is not None:
            logger.info("stopped early: no score above %.4f in %d validations", self.best, self.waited)
            self._trainer.terminate()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know; the patience is a setting and may change."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            KeyError: when it is the state of something else.
        """
        self.best, self.waited = float(state["best"]), int(state["waited"])
