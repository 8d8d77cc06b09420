"""What TensorBoard shows beside MONAI's own curves: pictures of cases, seconds, memory, learning rate."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from volseg.checks import check_choice
from volseg.files import check_writable
from volseg.geometry import spacing_of
from volseg.reports import VolumeView, contact_sheet, draw_panels, name_classes, plane_pictures
from volseg.reports.panels import PanelColours

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
    """Pictures of the first validation cases: volumes across three axes, 2D cases beside their truth.

    Attach before any handler that drops `engine.state.output`. A volume has the prediction drawn over it, see
    `draw_agreement`, and one of several foreground classes also has its most telling slices in the colours
    of the classes, truth above prediction, see `contact_sheet`; a 2D case is shown as image | truth |
    prediction, see `draw_panels`.

    Args:
        writer: from `open_writer`.
        threshold_of: object with `best_threshold` (0.5 where it has none), or a number; probabilities from it
            on are drawn.
        most_cases: how many cases get pictures.
        classes: more than 1 where a prediction has a probability for each, background first; the most
            probable is drawn. A prediction that is a decision already is drawn as it is.
        colours: of the prediction of a 2D case: "classes", or "errors" against the truth.
        class_names: for the legend, see `volseg.reports.name_classes`.

    Raises:
        ValueError: for other colours, or names of no class.
    """

    def __init__(
        self,
        writer: SummaryWriter,
        threshold_of: Any = 0.5,
        *,
        most_cases: int = 3,
        classes: int = 1,
        colours: PanelColours = "classes",
        class_names: Sequence[str] | Mapping[int | str, str] | None = None,
    ) -> None:
        check_choice("colours", colours, get_args(PanelColours))
        self.names = name_classes(classes, class_names)
        self.writer = writer
        self.classes = classes
        self.threshold_of = threshold_of
        self.most_cases = most_cases
        self.colours: PanelColours = colours
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
            for name, picture in self._pictures(item).items():
                tag = f"validation_{self._drawn}/{name}"
                self.writer.add_image(tag, picture, engine.state.epoch, dataformats="HWC")

    def _pictures(self, item: Any) -> dict[str, npt.NDArray[np.uint8]]:
        image, pred = _array(item["image"]), self._labels(item["pred"])
        truth = None if item.get("label") is None else _array(item["label"])[0]
        if pred.ndim == 2:
            return {"picture": draw_panels(image, pred, truth, colours=self.colours)}
        pictures = {f"across_{axis}": plane for axis, plane in plane_pictures(image[0], pred, truth).items()}
        if len(self.names) > 1:
            affine = getattr(item.get("label"), "affine", None)
            spacing = None if affine is None else spacing_of(affine)
            view = VolumeView(image[0], pred, truth, spacing_mm=spacing, class_names=self.names)
            pictures["slices"] = contact_sheet(view, most_slices=4, columns=2)
        return pictures

    def _labels(self, pred: torch.Tensor) -> npt.NDArray[Any]:
        if 1 < self.classes <= len(pred):
            return _array(pred[: self.classes].argmax(dim=0)).astype(np.uint8)
        decided = _array(pred)[0]
        return decided >= self._threshold() if decided.dtype.kind == "f" else decided

    def _threshold(self) -> float:
        if isinstance(self.threshold_of, int | float):
            return float(self.threshold_of)
        chosen = getattr(self.threshold_of, "best_threshold", None)
        return 0.5 if chosen is None else float(chosen)


class CaseScores:
    """Metric of each validation case as a curve of its own, and of each class; no point where undefined.

    Of several thresholds the best is shown for a case, and the best of the mean for the classes. Where there
    are more than `most_cases`, their distribution is shown instead: the lowest, the quartiles, the highest.

    Args:
        writer: from `open_writer`.
        name: of the metric, a key of the engine's `state.metric_details`.
        most_cases: with a curve of their own.
    """

    def __init__(self, writer: SummaryWriter, name: str, *, most_cases: int = 20) -> None:
        self.writer = writer
        self.name = name
        self.most_cases = most_cases

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write one value per case, or of their distribution, and one per class where there are several."""
        details = engine.state.metric_details.get(self.name)
        if details is None or not len(details):
            return
        scores = torch.as_tensor(details).detach().cpu().float()
        scores = scores.reshape(len(scores), scores.shape[1] if scores.ndim > 1 else 1, -1)
        of_cases = scores.nanmean(dim=1).nan_to_num(-math.inf).amax(dim=1)
        points = {f"case_{number + 1}": score for number, score in enumerate(of_cases.tolist())}
        if len(points) > self.most_cases:
            points = _distribution(of_cases[of_cases.isfinite()])
        if scores.shape[1] > 1:
            of_classes = scores.nanmean(dim=0)
            best = int(of_classes.nanmean(dim=0).nan_to_num(-math.inf).argmax())
            points |= {f"class_{k + 1}": score for k, score in enumerate(of_classes[:, best].tolist())}
        for name, score in points.items():
            if math.isfinite(score):
                self.writer.add_scalar(f"{self.name}/{name}", score, engine.state.epoch)
        self.writer.flush()


def _distribution(scores: torch.Tensor) -> dict[str, float]:
    names = ("lowest", "quartile_1", "median", "quartile_3", "highest")
    if not len(scores):
        return {}
    quantiles = torch.quantile(scores, torch.linspace(0, 1, len(names)))
    return dict(zip(names, quantiles.tolist(), strict=True))


def _array(value: torch.Tensor) -> npt.NDArray[Any]:
    tensor = value.detach().as_subclass(torch.Tensor).cpu()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _peak_memory_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
