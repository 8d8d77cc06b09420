"""Memory layout of batches and weights for inference, without touching the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

__all__ = ["Network", "in_channels_last", "with_fast_weights"]

Network = Callable[..., torch.Tensor]

_CASTABLE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)  # what autocast would cast at every call


def with_fast_weights(network: Network, dtype: torch.dtype | None, *, channels_last: bool) -> Network:
    """Run a module with weights that are converted once instead of at every call.

    Convolutions and linear layers get their weights in the dtype that autocast would give them and in the
    memory format of the batches; all other layers keep theirs, so the numbers are those of plain autocast.
    The copies live as long as the returned callable; the module, its hooks and counters are the caller's.

    Args:
        network: any callable; only plain modules gain, whatever else is returned as it is.
        dtype: of autocast, or None where it is off.
        channels_last: store convolution weights in channels_last.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> fast = with_fast_weights(layer, None, channels_last=True)
        >>> bool((fast(torch.ones(3, 2)) == layer(torch.ones(3, 2))).all())
        True
    """
    if isinstance(network, nn.parallel.DistributedDataParallel):
        network = network.module  # nothing is learnt here, so there is nothing to exchange between ranks
    is_compiled = isinstance(network, torch.jit.ScriptModule) or hasattr(network, "_orig_mod")
    if is_compiled or not isinstance(network, nn.Module):
        return network
    module = network
    weights = dict(_converted(module, dtype, channels_last))

    def run(*args: Any, **kwargs: Any) -> torch.Tensor:
        return functional_call(module, weights, args, kwargs)

    return run if weights else module


def in_channels_last(maps: torch.Tensor) -> torch.Tensor:
    """Lay (N, C, H, W) out in channels_last, with the strides of that format even for one channel.

    `Tensor.contiguous` leaves a single channel as it is, because both formats fit it; convolutions then
    choose the slower one for everything that follows.

    Example:
        >>> in_channels_last(torch.zeros(2, 1, 4, 5)).stride()
        (20, 1, 5, 1)
    """
    strides = torch.empty_like(maps, device="meta", memory_format=torch.channels_last).stride()
    if maps.stride() == strides:
        return maps
    return torch.empty_like(maps, memory_format=torch.channels_last).copy_(maps)


def _converted(
    network: nn.Module, dtype: torch.dtype | None, channels_last: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    for prefix, module in network.named_modules():
        # A subclass may use its weight in its own way, and a hook, as of spectral_norm, may compute with it.
        if type(module) not in _CASTABLE or module._forward_pre_hooks:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            value = parameter.detach()
            if dtype is not None and value.dtype == torch.float32:
                value = value.to(dtype)
            if channels_last and value.ndim == 4:
                value = in_channels_last(value)
            yield (f"{prefix}.{name}" if prefix else name), value
