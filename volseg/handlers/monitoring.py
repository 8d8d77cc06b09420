"""What TensorBoard shows beside MONAI's own curves: pictures of cases, seconds, memory, learning rate."""

from __future__ import annotations

import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from volseg.files import check_writable
from volseg.reports import plane_pictures

__all__ = ["CaseImages", "CaseScores", "RunScalars", "open_writer"]


class SilentWriter(SummaryWriter):
    """A writer that writes nothing, for every rank but the first."""

    def __init__(self) -> None:
        self.log_dir = ""

    def add_scalar(self, *args: object, **kwargs: object) -> None:
        """Do nothing."""

    def add_image(self, *args: object, **kwargs: object) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def open_writer(log_dir: str | Path) -> SummaryWriter:
    """TensorBoard writer into `log_dir`; a silent one on every rank but the first.

    Raises:
        InputError: when the folder cannot be written.
    """
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_rank()
    ):
        return SilentWriter()
    check_writable(log_dir)
    return SummaryWriter(str(log_dir))


class RunScalars:
    """Learning rate, seconds and peak memory of each epoch.

    Args:
        writer: from `open_writer`.
        optimizer: its first group's learning rate is shown.
    """

    def __init__(self, writer: SummaryWriter, optimizer: Optimizer) -> None:
        self.writer = writer
        self.optimizer = optimizer
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self._started = time.monotonic()

    def __call__(self, engine: Engine) -> None:
        """Write the scalars of the epoch that ended."""
        epoch = engine.state.epoch
        self.writer.add_scalar("run/learning_rate", self.optimizer.param_groups[0]["lr"], epoch)
        self.writer.add_scalar("run/seconds_per_epoch", time.monotonic() - self._started, epoch)
        self.writer.add_scalar("run/peak_memory_gib", _peak_memory_bytes() / 2**30, epoch)
        self.writer.flush()


class CaseImages:
    """Pictures of the first validation cases across three axes, prediction and truth drawn over the image.

    Attach before any handler that drops `engine.state.output`.

    Args:
        writer: from `open_writer`.
        threshold_of: object with `best_threshold`, or a number; probabilities from it on are drawn.
        most_cases: how many cases get pictures.
        classes: more than 1 where a prediction has a probability for each, background first; the most
            probable is drawn.
    """

    def __init__(
        self, writer: SummaryWriter, threshold_of: Any = 0.5, *, most_cases: int = 3, classes: int = 1
    ) -> None:
        self.writer = writer
        self.classes = classes
        self.threshold_of = threshold_of
        self.most_cases = most_cases
        self._drawn = 0

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _reset(self, engine: Engine) -> None:
        self._drawn = 0

    def __call__(self, engine: Engine) -> None:
        """Draw the cases of the iteration."""
        output: Any = engine.state.output
        for item in output if isinstance(output, list) else []:
            if self._drawn == self.most_cases:
                return
            self._drawn += 1
            image, pred = _volume(item["image"]), self._mask(item["pred"])
            truth = None if item.get("label") is None else _volume(item["label"])
            for axis, picture in plane_pictures(image, pred, truth).items():
                self.writer.add_image(
                    f"validation_{self._drawn}/across_{axis}", picture, engine.state.epoch, dataformats="HWC"
                )

    def _mask(self, pred: torch.Tensor) -> npt.NDArray[np.generic]:
        if 1 < self.classes <= len(pred):
            return np.asarray(pred[: self.classes].detach().argmax(dim=0).cpu().numpy() > 0)
        return _volume(pred) >= self._threshold()

    def _threshold(self) -> float:
        chosen = getattr(self.threshold_of, "best_threshold", self.threshold_of)
        return 0.5 if chosen is None else float(chosen)


class CaseScores:
    """Metric of each validation case as a curve of its own; no point where it is undefined.

    Of several thresholds the best is shown, of several classes the mean.

    Args:
        writer: from `open_writer`.
        name: of the metric, a key of the engine's `state.metric_details`.
    """

    def __init__(self, writer: SummaryWriter, name: str) -> None:
        self.writer = writer
        self.name = name

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write one value per case."""
        details = engine.state.metric_details.get(self.name)
        if details is None or not len(details):
            return
        scores = torch.as_tensor(details).detach().float()
        of_classes = scores.reshape(len(scores), scores.shape[1] if scores.ndim > 1 else 1, -1).nanmean(dim=1)
        for number, score in enumerate(of_classes.nan_to_num(-math.inf).amax(dim=1).tolist()):
            if math.isfinite(score):
                self.writer.add_scalar(f"{self.name}/case_{number + 1}", score, engine.state.epoch)
        self.writer.flush()


def _volume(value: torch.Tensor) -> npt.NDArray[Any]:
    array = value.detach().cpu().numpy()
    return np.asarray(array[0])


def _peak_memory_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
