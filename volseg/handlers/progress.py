"""Progress of a long run in the log: cases or epochs done, rate, time to go."""

from __future__ import annotations

import logging
import time
from typing import Any

from ignite.engine import Engine, Events

__all__ = ["CaseProgress"]

logger = logging.getLogger(__name__)


class CaseProgress:
    """Log a line per finished case: how many of how many, seconds of this one, time to go.

    A bar would tear in a log file that two writers share; a line per case is right in both.
    """

    def __init__(self) -> None:
        self._started = self._last = 0.0

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self._started = self._last = time.monotonic()

    def __call__(self, engine: Engine) -> None:
        """Log the case that ended."""
        now = time.monotonic()
        done, total = engine.state.iteration, engine.state.epoch_length or engine.state.iteration
        remaining = (now - self._started) / done * (total - done)
        logger.info(
            "case %d of %d%s: %.1f s, %.0f s to go", done, total, _named(engine), now - self._last, remaining
        )
        self._last = now


def _named(engine: Engine) -> str:
    batch: Any = engine.state.batch
    item = batch[0] if isinstance(batch, list) and batch else batch
    name = item.get("case") if isinstance(item, dict) else None
    return f" ({name[0] if isinstance(name, list) else name})" if name else ""
