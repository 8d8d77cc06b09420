"""The forward pass of training, in the arithmetic that the device does natively."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.inferers import Inferer

from volseg.checks import check_choice
from volseg.inferers.precision import Amp, autocast_for, dtype_for

__all__ = ["AutocastInferer"]


class AutocastInferer(Inferer):
    """One forward pass under autocast, channels last, with float32 logits for the loss.

    MONAI's trainers know mixed precision on CUDA only; bfloat16 pays on CPUs with units for it too, and
    needs no gradient scaler.

    Args:
        amp: "auto" is bfloat16 where the device has units for it, else float32; "off" is float32.

    Raises:
        ValueError: for "fp16", which needs a scaler.
    """

    def __init__(self, amp: Amp = "auto") -> None:
        check_choice("amp", amp, ("auto", "off", "bf16"))
        self.amp: Amp = amp

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """(B, C*S, H, W) in; what the network returns out, tensors in float32."""
        needs_scaler = dtype_for(self.amp, inputs.device) is torch.float16  # "auto" on older GPUs
        with autocast_for("off" if needs_scaler else self.amp, inputs.device):
            return _as_float(network(inputs.contiguous(memory_format=torch.channels_last), *args, **kwargs))


def _as_float(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.float()
    if isinstance(output, Mapping):
        return {name: _as_float(value) for name, value in output.items()}
    return [_as_float(value) for value in output]
