"""Which arithmetic a network runs in during inference, chosen by what the device does natively."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import torch

from volseg.checks import check_choice

__all__ = ["Amp", "autocast_for", "dtype_for", "has_native_bf16"]

Amp = Literal["auto", "off", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # the last is what 64-bit ARM calls it


@cache
def has_native_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the CPU multiplies bfloat16 in hardware; elsewhere it is emulated, slower than float32.

    Args:
        cpuinfo: processor description of a Linux kernel; where there is none the answer is False.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _BF16_FLAGS.isdisjoint(flags.split())


def autocast_for(amp: Amp, device: torch.device) -> torch.autocast:
    """Make the autocast context of one inference.

    Args:
        amp: "auto" is bfloat16 where the device has units for it, else float16 on CUDA and float32 elsewhere;
            "off" is float32 even inside a caller's autocast.
        device: where the network runs.

    Raises:
        ValueError: for any other name.
    """
    dtype = dtype_for(amp, device)
    if dtype is None:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)


def dtype_for(amp: Amp, device: torch.device) -> torch.dtype | None:
    """Pick the dtype of autocast, None for float32 throughout.

    Raises:
        ValueError: when `amp` is no choice.

    Example:
        >>> dtype_for("bf16", torch.device("cpu"))
        torch.bfloat16
    """
    check_choice("amp", amp, ("auto", "off", "bf16", "fp16"))
    return _native_dtype(device) if amp == "auto" else _DTYPES.get(amp)


def _native_dtype(device: torch.device) -> torch.dtype | None:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_native_bf16() else None
