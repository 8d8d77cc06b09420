"""Rules by which the values or colours of a mask become class indices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.checks import refuse
from volseg.transforms.volume import Array, slabs

__all__ = [
    "LabelRule",
    "check_rule",
    "classes_by_colour",
    "classes_by_rule",
    "classes_by_threshold",
    "is_by_colour",
    "threshold_of",
]

LabelRule = str | Mapping[Any, int]
""""binary", "nonzero", "above:127", `{"0": 0, "255": 1}` or `{"#ff0000": 1}`."""

_ABOVE = re.compile(r"above:([0-9]+)")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_CHOICES = '"binary", "nonzero", "above:127", values {"0": 0, "255": 1} or colours {"#ff0000": 1}'
_MOST_SHOWN = 5


def check_rule(name: str, rule: object) -> LabelRule:
    """Return a rule if it is one.

    Args:
        name: of the argument or key, for the message.
        rule: what was given.

    Raises:
        ValueError: when it is none, or a class index lies outside 0..255.

    Example:
        >>> check_rule("label_rule", "above")
        Traceback (most recent call last):
        ValueError: label_rule must be "binary", "nonzero", "above:127", values {"0": 0, "255": 1} or \
colours {"#ff0000": 1}, got 'above'
    """
    if isinstance(rule, str) and (rule in ("binary", "nonzero") or _ABOVE.fullmatch(rule)):
        return rule
    if not isinstance(rule, Mapping) or not rule or not (_has_colours(rule) or _has_values(rule)):
        raise ValueError(f"{name} must be {_CHOICES}, got {rule!r}")
    if any(not 0 <= int(index) <= 255 for index in rule.values()):
        indices = sorted(int(index) for index in rule.values())
        raise ValueError(f"class indices must lie between 0 and 255, got {indices}")
    return rule


def classes_by_rule(array: Array, rule: LabelRule, name: str) -> npt.NDArray[np.uint8]:
    """Map the values or colours of a label to class indices.

    Args:
        array: (C, *spatial) values; C is 1, or 3 for colours.
        rule: as `check_rule` accepts it.
        name: of the label, for messages.

    Returns:
        uint8 of the same shape; one channel by a rule of colours or of brightness.

    Raises:
        InputError: for what the rule does not name, and for values that are no class numbers.
    """
    threshold = threshold_of(rule)
    if threshold is not None:
        return classes_by_threshold(array, threshold, name)
    if isinstance(rule, Mapping) and _has_colours(rule):
        return classes_by_colour(array, rule, name)
    found = _values_in(array, name)
    return _mapped(array, _rules_for(rule, found, name))


def is_by_colour(rule: LabelRule) -> bool:
    """Tell whether a rule maps colours."""
    return isinstance(rule, Mapping) and _has_colours(rule)


def threshold_of(rule: LabelRule) -> int | None:
    """Return the number that a value of foreground lies above, or None for a rule without one.

    Example:
        >>> threshold_of("nonzero"), threshold_of("above:127"), threshold_of("binary")
        (0, 127, None)
    """
    if rule == "nonzero":
        return 0
    found = _ABOVE.fullmatch(rule) if isinstance(rule, str) else None
    return int(found.group(1)) if found else None


def classes_by_threshold(array: Array, threshold: int, name: str) -> npt.NDArray[np.uint8]:
    """Mark what is brighter than a threshold; above 0, any colour but black is.

    Args:
        array: (1, *spatial) values or (3, *spatial) colours.
        threshold: see `threshold_of`.
        name: of the label, for messages.

    Returns:
        (1, *spatial) of 0 and 1.

    Raises:
        InputError: for NaN, negative values, other channels, and for colours where the threshold is not 0.
    """
    _check_channels(array, name)
    if array.size and not array.min() >= 0:  # NaN is not either
        refuse(name, "label values from 0 up", f"{array.min():g}", "repair the file")
    if threshold > 0 and (array != array[:1]).any():
        count = int(np.count_nonzero((array != array[:1]).any(axis=0)))
        remedy = "read the label as grey, or give a rule for its colours"
        refuse(name, f"grey values to compare with {threshold}", f"{count} coloured pixels", remedy)
    return np.asarray((array > threshold).any(axis=0, keepdims=True), np.uint8)


def classes_by_colour(array: Array, rule: Mapping[str, int], name: str) -> npt.NDArray[np.uint8]:
    """Give each pixel the class of its colour; black is 0 unless the rule says otherwise.

    Args:
        array: (3, *spatial) of 0 to 255, or (1, *spatial) grey.
        rule: `#rrggbb` to class index.
        name: of the label, for messages.

    Returns:
        (1, *spatial) class indices.

    Raises:
        InputError: for any other colour, naming the first five and the number of their pixels.
    """
    _check_channels(array, name)
    if array.size and not (array.min() >= 0 and array.max() <= 255):  # NaN fails as well
        got = f"{array.min():g} to {array.max():g}"
        refuse(name, "colours of 0 to 255", got, "save the label with 8 bits per channel")
    red, green, blue = np.broadcast_to(array, (3, *array.shape[1:])).astype(np.uint32)
    codes = red << 16 | green << 8 | blue
    classes = np.zeros(codes.shape, np.uint8)
    is_known = codes == 0
    for colour, index in rule.items():
        is_here = codes == int(colour[1:], 16)
        classes[is_here] = int(index)
        is_known |= is_here
    if not is_known.all():
        _refuse_colours(codes[~is_known], rule, name)
    return classes[None]


def _rules_for(rule: LabelRule, found: list[int], name: str) -> dict[int, int]:
    if isinstance(rule, Mapping):
        rules = {int(value): int(index) for value, index in rule.items()}
    else:
        rules = {0: 0, 255: 1} if 255 in found else {0: 0, 1: 1}
    unknown = [value for value in found if value not in rules]
    if unknown:
        listed = ", ".join(str(value) for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        expected = f"label values {', '.join(str(value) for value in sorted(rules))}"
        refuse(name, expected, listed, "add a rule to the label values, or repair the file")
    return rules


def _values_in(array: Array, name: str) -> list[int]:
    found: set[int] = set()
    remedy = "labels are whole class numbers from 0 up; repair the file"
    for _, part in slabs(array):
        if array.dtype.kind == "f":
            if not np.isfinite(part).all():
                refuse(name, "whole label values", "NaN or infinity", remedy)
            fractional = part != np.rint(part)
            if fractional.any():
                refuse(name, "whole label values", f"{part[fractional][0]:g}", remedy)
        if part.size and part.min() < 0:
            refuse(name, "label values from 0 up", part.min(), remedy)
        if part.size and part.max() > 65535:
            refuse(name, "label values up to 65535", part.max(), remedy)
        counts = np.bincount(part.astype(np.uint16, copy=False).ravel())
        found.update(np.flatnonzero(counts).tolist())
    return sorted(found)


def _mapped(array: Array, rules: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    table = np.zeros(max(rules) + 1, np.uint8)
    table[list(rules)] = list(rules.values())
    mapped = np.empty(array.shape, np.uint8)
    for rows, part in slabs(array):
        mapped[:, rows] = table[part.astype(np.uint16, copy=False)]
    return mapped


def _refuse_colours(codes: npt.NDArray[np.uint32], rule: Mapping[str, int], name: str) -> None:
    found, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST_SHOWN]
    shown = [f"#{found[index]:06x} in {counts[index]} pixels" for index in order]
    got = ", ".join(shown) + (f" and {len(found) - len(shown)} more" if len(found) > len(shown) else "")
    expected = f"the colours #000000, {', '.join(sorted(rule))}"
    refuse(name, expected, got, "recolour it or add a rule; a mask must not be smoothed or a JPEG")


def _check_channels(array: Array, name: str) -> None:
    if array.shape[0] not in (1, 3):
        refuse(
            name, "one channel, or red, green and blue", f"{array.shape[0]} channels", "select one channel"
        )


def _has_colours(rule: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) and _COLOUR.fullmatch(key) for key in rule) and _has_indices(rule)


def _has_values(rule: Mapping[Any, Any]) -> bool:
    return all(str(key).isdecimal() for key in rule) and _has_indices(rule)


def _has_indices(rule: Mapping[Any, Any]) -> bool:
    return all(isinstance(index, int | np.integer) and not isinstance(index, bool) for index in rule.values())
