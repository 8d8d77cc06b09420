"""How much an input may claim: a byte budget for the voxels and a bound on how far a file may expand."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from volseg.checks import refuse

__all__ = [
    "MAX_EXPANSION",
    "MAX_INPUT_BYTES_VARIABLE",
    "SMALL_BYTES",
    "byte_budget",
    "check_budget",
    "check_expansion",
]

MAX_INPUT_BYTES_VARIABLE = "VOLSEG_MAX_INPUT_BYTES"
"""Environment variable that states the budget where no `max_bytes` is given."""

SMALL_BYTES = 256 * 2**20
"""A compressed file or page that decodes to no more than this is never called a bomb."""

MAX_EXPANSION = 500
"""Largest ratio of decoded to stored bytes above `SMALL_BYTES`, unless the user states a budget.

A sparse vessel mask of a whole kidney expands about 100-fold; a block of equal bytes about 1000-fold.
"""


def byte_budget(max_bytes: int | None = None) -> int:
    """Largest decoded size of one volume in bytes.

    It is `max_bytes`, else the environment variable `VOLSEG_MAX_INPUT_BYTES`, else half of the memory.

    Raises:
        ValueError: when the stated budget is no positive integer.

    Example:
        >>> byte_budget(1000)
        1000
    """
    stated = _stated_budget(max_bytes)
    return stated if stated is not None else int(psutil.virtual_memory().total) // 2


def check_budget(source: str | Path, voxel_bytes: int, max_bytes: int | None = None) -> None:
    """Refuse a volume whose voxels need more memory than the budget allows.

    Raises:
        InputError: naming the file, its size and the budget.
    """
    budget = byte_budget(max_bytes)
    if voxel_bytes > budget:
        refuse(
            source,
            f"at most {budget} bytes of voxels",
            f"{voxel_bytes} bytes by its header",
            f"pass a larger max_bytes or set {MAX_INPUT_BYTES_VARIABLE} if the header is right",
        )


def check_expansion(
    source: str | Path, stored_bytes: int, decoded_bytes: int, max_bytes: int | None = None
) -> None:
    """Refuse a compressed file that would expand like a decompression bomb, unless a budget was stated.

    Raises:
        InputError: when it decodes to more than `SMALL_BYTES` and more than `MAX_EXPANSION` times its size.
    """
    if decoded_bytes <= max(SMALL_BYTES, MAX_EXPANSION * stored_bytes):
        return
    if _stated_budget(max_bytes) is None:
        refuse(
            source,
            f"compressed data that expand at most {MAX_EXPANSION}-fold",
            f"{decoded_bytes} bytes of voxels claimed by {stored_bytes} stored bytes",
            f"pass max_bytes or set {MAX_INPUT_BYTES_VARIABLE} to read it on purpose",
        )


def _stated_budget(max_bytes: int | None) -> int | None:
    name, stated = "max_bytes", max_bytes
    if stated is None:
        text = os.environ.get(MAX_INPUT_BYTES_VARIABLE, "").strip()
        if not text:
            return None
        name, stated = MAX_INPUT_BYTES_VARIABLE, int(text) if text.isdecimal() else 0
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
        raise ValueError(f"{name} must be a positive number of bytes, got {stated!r}; use e.g. 8000000000")
    return stated
