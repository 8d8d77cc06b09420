"""Masks as class indices, and how far two masks of one picture agree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.checks import refuse

__all__ = ["classes_of", "foreground_dice"]

_Rule = str | Mapping[str, int]


def classes_of(
    array: npt.NDArray[Any], rule: _Rule, source: str | Path, *, has_colours: bool = False
) -> npt.NDArray[np.uint8]:
    """Apply a case item's `label_rule` to a mask as its file stores it.

    Args:
        array: (H, W) or a volume (x, y, z); with colours (H, W, 3).
        rule: "nonzero" and "binary" (above 0), "above:127", values or colours to class indices.
        source: the file, for messages.
        has_colours: whether the last axis is red, green and blue.

    Returns:
        class indices without channels.

    Raises:
        InputError: for a colour or value that the rule does not know.
    """
    if isinstance(rule, str):
        found = re.fullmatch(r"above:([0-9]+)", rule)
        is_foreground = array > (int(found.group(1)) if found else 0)
        return np.asarray(is_foreground.any(axis=-1) if has_colours else is_foreground, dtype=np.uint8)
    codes = array.astype(np.int64)
    if any(key.startswith("#") for key in rule):
        red, green, blue = (codes[..., k] if has_colours else codes for k in range(3))
        codes = red << 16 | green << 8 | blue
    classes = np.zeros(codes.shape, dtype=np.uint8)
    is_known = codes == 0
    for key, index in rule.items():
        is_here = codes == (int(key[1:], 16) if key.startswith("#") else int(key))
        classes[is_here] = index
        is_known |= is_here
    if not is_known.all():
        got = f"{int(np.count_nonzero(~is_known))} pixels of others"
        refuse(source, f"the values {', '.join(sorted(rule))}", got, "correct the mask or its label_rule")
    return classes


def foreground_dice(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    """Dice of two masks of class indices, a pixel agreeing when its class does; 1 for two empty masks.

    Example:
        >>> foreground_dice(np.uint8([[1, 1, 0]]), np.uint8([[1, 2, 0]]))
        0.5
    """
    total = np.count_nonzero(first) + np.count_nonzero(second)
    if total == 0:
        return 1.0
    return 2.0 * int(np.count_nonzero((first == second) & (first > 0))) / int(total)
