"""The first convolution of an encoder trained on colour pictures, fitted to other inputs."""

from __future__ import annotations

import torch

__all__ = ["fit_inputs"]

_COLOURS = 3


def fit_inputs(filters: torch.Tensor, inputs: int, in_channels: int) -> torch.Tensor:
    """Filters for stacks of slices from filters for red, green and blue.

    With `in_channels` 3 and several slices each is repeated over the slices of its colour; with any other
    number of inputs their mean is repeated. They are scaled so that a grey picture in all inputs gives what
    it gives in the original.

    Args:
        filters: (outputs, 3, h, w); any other shape is returned as it is.
        inputs: C*S of the network.
        in_channels: C, channels of one slice.

    Returns:
        (outputs, inputs, h, w).

    Example:
        >>> fit_inputs(torch.ones(1, 3, 1, 1), 6, 2).flatten().tolist()
        [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    """
    if filters.ndim != 4 or filters.shape[1] != _COLOURS or inputs == _COLOURS == in_channels:
        return filters
    if in_channels == _COLOURS:
        slices = inputs // _COLOURS
        return filters.repeat_interleave(slices, dim=1) / slices
    return filters.mean(dim=1, keepdim=True).repeat(1, inputs, 1, 1) * (_COLOURS / inputs)
