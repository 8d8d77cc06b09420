"""Detection beside segmentation in an evaluator: which slices hold which lesion."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.handlers import IgniteMetricHandler, from_engine
from monai.networks.utils import eval_mode

from volseg.checks import check_positive
from volseg.inferers import SliceDetectionInferer
from volseg.metrics import DetectionAUCMetric
from volseg.transforms.resize import resize_nearest

__all__ = ["DetectionAUCHandler", "SliceDetection"]


class SliceDetection:
    """Put the chance that a slice holds a lesion into the output of an evaluator, for each class and slice.

    It is asked of the network's detection head after the forward pass, (K, S). Without an inferer it is the
    largest probability of the segmentation in the slice, of K - 1 foreground classes (of the one class, where
    `classes` is 1). Where postprocessing gives "pred" another number of slices, that of the image, each takes
    the value of the nearest; postprocessing must keep their axis and their order.

    Args:
        inferer: `SliceDetectionInferer`, or None for the segmentation.
        classes: channels of the segmentation, for the probabilities.
        key: where the output takes it.
        axis: of the slices, without an inferer.

    Raises:
        ValueError: for an axis that is none; when the evaluator runs, for a network without detection head.
    """

    def __init__(
        self,
        inferer: SliceDetectionInferer | None = None,
        *,
        classes: int = 1,
        key: str = "detection",
        axis: int = 2,
    ) -> None:
        check_positive("classes", classes)
        if axis not in (0, 1, 2):
            raise ValueError(f"axis must be 0, 1 or 2, got {axis}")
        self.inferer = inferer
        self.classes = classes
        self.key = key
        self.axis = axis if inferer is None else inferer.axis

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator, behind its postprocessing, which it registers first."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.restore)

    def __call__(self, engine: Engine) -> None:
        """Add (B, K, S) to the output of a forward pass."""
        output: Any = engine.state.output
        if self.inferer is None:
            output[self.key] = self._of_segmentation(output["pred"])
            return
        network: Any = engine.network
        with eval_mode(network):  # the evaluator's own is over by now
            output[self.key] = self.inferer(output["image"], network)

    def restore(self, engine: Engine) -> None:
        """Bring the slices to the number of those of the restored prediction."""
        output: Any = engine.state.output
        for item in output if isinstance(output, list) else [output]:
            slices = item["pred"].shape[self.axis - 3]
            scores = item[self.key]
            item[self.key] = resize_nearest(scores, (*scores.shape[1:-1], slices))

    def _of_segmentation(self, pred: torch.Tensor) -> torch.Tensor:
        first = 1 if self.classes > 1 else 0
        lesions = pred.as_subclass(torch.Tensor)[:, first : self.classes]
        return lesions.amax(dim=[axis + 2 for axis in range(3) if axis != self.axis])


class DetectionAUCHandler(IgniteMetricHandler):
    """AUC of `SliceDetection` over the slices of all cases, the mean of the classes and each class.

    MONAI's `IgniteMetricHandler` gives the mean alone. Each class is one more of the engine's metrics,
    `<name>_class_1` and so on, by the names that `ScoreTable` uses. The AUC within each case are the details.

    Args:
        key: where the output has (K, S) scores; the labels are class indices 1 to K under "label", with the
            slices along the last axis.
    """

    def __init__(self, key: str = "detection") -> None:
        self.metric = DetectionAUCMetric(first_class=1)
        super().__init__(metric_fn=self.metric, output_transform=from_engine([key, "label"]))

    def completed(self, engine: Engine, name: str) -> None:
        """Publish the metric and its classes."""
        super().completed(engine, name)
        per_class = self.metric.per_class
        if per_class is not None and len(per_class) > 1:
            engine.state.metrics |= {f"{name}_class_{k}": float(s) for k, s in enumerate(per_class, start=1)}
