"""One mask for each class of a prediction, for metrics that score structure by structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from volseg.checks import check_positive

__all__ = ["class_masks"]

Pairs = tuple[list[torch.Tensor], list[torch.Tensor]]


def class_masks(classes: int, key: str = "pred") -> Callable[[Sequence[Mapping[str, Any]]], Pairs]:
    """Make the `output_transform` of an `IgniteMetricHandler` for a network of several classes.

    MONAI's `from_engine` hands a metric the class indices of a decision, which it takes for one mask. Turning
    "pred" itself into masks would hide the classes from handlers that draw it, in four times its memory.

    Args:
        classes: K, with the background.
        key: class indices (1, ...) or probabilities (K, ...), of which the largest wins.

    Returns:
        a function of an engine's decollated output: predictions (K, ...) of bool, and labels as they are.

    Raises:
        ValueError: when the prediction has another number of channels.

    Example:
        >>> pred, label = class_masks(3)([{"pred": torch.tensor([[2, 0]]), "label": torch.tensor([[2, 1]])}])
        >>> pred[0].int().tolist()
        [[0, 1], [0, 0], [1, 0]]
    """
    check_positive("classes", classes)

    def transform(output: Sequence[Mapping[str, Any]]) -> Pairs:
        return [_masks(item[key], classes) for item in output], [item["label"] for item in output]

    return transform


def _masks(pred: torch.Tensor, classes: int) -> torch.Tensor:
    plain = pred.as_subclass(torch.Tensor)
    if len(plain) not in (1, classes):
        raise ValueError(f"pred must have 1 or {classes} channels, got {len(plain)}; check `classes`")
    indices = plain[0] if len(plain) == 1 else plain.argmax(dim=0)
    return torch.stack([indices == label for label in range(classes)])
