"""What keeps a training run honest: seeds per epoch and finite losses."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from volseg.checks import refuse

__all__ = ["EpochSeed", "FiniteLoss"]


class EpochSeed:
    """Seed every global generator from (seed, epoch, rank) when an epoch starts.

    With it a resumed run draws what the undisturbed one draws; MONAI resumes with the state of epoch one.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed for the epoch that starts."""
        rank = int(os.environ.get("RANK", 0))
        drawn = np.random.SeedSequence((self.seed, engine.state.epoch, rank)).generate_state(3)
        random.seed(int(drawn[0]))
        np.random.seed(int(drawn[1]))
        torch.manual_seed(int(drawn[2]))


class FiniteLoss:
    """Stop a run whose loss is no number any more, before it is saved as the best model.

    Args:
        limit: absolute value above which a loss counts as exploded.
    """

    def __init__(self, limit: float = 1e6) -> None:
        self.limit = limit

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the loss of the iteration.

        Raises:
            InputError: when it is NaN, infinite or above the limit.
        """
        output: Any = engine.state.output
        loss = (output[0] if isinstance(output, list) else output)["loss"].item()
        if not abs(loss) <= self.limit:
            refuse(
                f"epoch {engine.state.epoch}, iteration {engine.state.iteration}",
                "a finite loss",
                loss,
                "lower the learning rate (--learning_rate) or look for NaN voxels in the training images",
            )
