"""Scores inside the field of view that each case of a validation brings with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler

from volseg.checks import refuse
from volseg.metrics import FieldOfViewMetric

__all__ = ["FieldOfViewHandler"]

_OUTSIDE = 255  # what a metric takes for unlabelled


class FieldOfViewHandler(IgniteMetricHandler):
    """AUC, accuracy, sensitivity or specificity inside `batch["field_of_view"]`, as a metric of an evaluator.

    MONAI's `IgniteMetricHandler` sees the engine's output alone; the mask lies in its batch. A case without a
    mask is scored on all pixels. The probabilities are `output["probability"]` (see `DecideLabelsd`), or
    `output["pred"]` before any decision.

    Args:
        score: "auc", "accuracy", "sensitivity" or "specificity".
        threshold: probability from which a pixel is foreground; nothing to the AUC.
        mask_key: where a case has its mask (1, H, W), non-zero inside.

    Raises:
        ValueError: for an unknown score or a threshold outside [0, 1].
    """

    def __init__(
        self, score: str = "auc", threshold: float = 0.5, *, mask_key: str = "field_of_view"
    ) -> None:
        self.mask_key = mask_key
        super().__init__(metric_fn=FieldOfViewMetric(score, threshold))

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Score the cases of an iteration.

        Raises:
            ValueError: when the output holds a decision only.
            InputError: naming the case whose mask was not read, or has another size than the label.
        """
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        for scored, given in zip(output, batch, strict=True):
            soft = _probability_of(scored)
            label = scored["label"].as_subclass(torch.Tensor).to(soft.device)
            self.update((soft[None], self._inside(label, given)[None]))

    def _inside(self, label: torch.Tensor, given: Mapping[str, Any]) -> torch.Tensor:
        mask = given.get(self.mask_key)
        if mask is None:
            return label
        case = f"{given.get('case', 'a case')}, {self.mask_key}"
        if not isinstance(mask, torch.Tensor):
            refuse(case, "a mask", type(mask).__name__, "add a LoadImaged of this key to read_label")
        if mask.shape[1:] != label.shape[1:]:
            sizes = ["x".join(map(str, tensor.shape[1:])) for tensor in (label, mask)]
            refuse(case, f"a mask of the label's size {sizes[0]}", sizes[1], "give the mask of this picture")
        inside = mask.as_subclass(torch.Tensor).to(label.device) > 0
        return label.long().where(inside, _OUTSIDE)


def _probability_of(scored: Mapping[str, Any]) -> torch.Tensor:
    soft = scored.get("probability", scored["pred"])
    if not soft.is_floating_point():
        raise ValueError(
            "scores inside the field of view need probabilities, got a decision; "
            "set decide::keep_probability to true"
        )
    return torch.as_tensor(soft.as_subclass(torch.Tensor).float())
