"""Wording of argument and input errors: what was expected, what came, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

__all__ = [
    "InputError",
    "check_choice",
    "check_flag",
    "check_fraction",
    "check_odd",
    "check_positive",
    "nearest",
    "refuse",
]


class InputError(ValueError):
    """An input that volseg refuses, told in one message: which, expected, got, remedy."""


def refuse(source: str | Path, expected: str, got: object, remedy: str) -> NoReturn:
    """Raise the one error that every refused input ends in.

    Args:
        source: the file, folder or argument that is wrong.
        expected: what would have been right.
        got: what was found.
        remedy: the nearest thing to do.

    Raises:
        InputError: always.

    Example:
        >>> refuse("a.tif", "16-bit grey", "RGB", "convert it to grey")
        Traceback (most recent call last):
        volseg.checks.InputError: a.tif: expected 16-bit grey, got RGB; convert it to grey
    """
    raise InputError(f"{_one_line(source)}: expected {expected}, got {got}; {remedy}")


def nearest(word: str, words: Collection[str]) -> str:
    """Word a did-you-mean hint, or list the choices when nothing is near.

    Example:
        >>> nearest("maen", ["mean", "max", "vote"])
        "did you mean 'mean'?"
        >>> nearest("xyz", ["mean", "max"])
        'use one of max, mean'
    """
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(sorted(words))}"


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: with the nearest choice.

    Example:
        >>> check_choice("fusion", "maen", ["mean", "max"])
        Traceback (most recent call last):
        ValueError: fusion must be one of max, mean, got 'maen'; did you mean 'mean'?
    """
    if value not in choices:
        hint = nearest(str(value), choices)
        listed = ", ".join(sorted(choices))
        raise ValueError(
            f"{name} must be one of {listed}, got {value!r}" + (f"; {hint}" if "did" in hint else "")
        )
    return value


def check_flag(name: str, value: bool | str) -> bool:
    """Return a switch as a bool; `--overwrite false` on a command line arrives as a text, which is true.

    Raises:
        ValueError: naming the argument and what came.

    Example:
        >>> check_flag("overwrite", "false")
        False
    """
    known = {"true": True, "false": False}
    if not isinstance(value, bool | str) or str(value).lower() not in known:
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return known[str(value).lower()]


def check_odd(name: str, value: int) -> int:
    """Return `value` if it is an odd positive integer; a slice stack has one middle slice.

    Raises:
        ValueError: with the nearest odd numbers.

    Example:
        >>> check_odd("in_slices", 4)
        Traceback (most recent call last):
        ValueError: in_slices must be an odd number of slices, got 4; use 3 or 5
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1 or value % 2 == 0:
        even = isinstance(value, int | np.integer) and value > 1
        remedy = f"use {value - 1} or {value + 1}" if even else "use 1, 3 or 5"
        raise ValueError(f"{name} must be an odd number of slices, got {value}; {remedy}")
    return int(value)


def check_positive(name: str, values: float | Sequence[float]) -> None:
    """Accept a positive finite number, or a sequence of them.

    Raises:
        ValueError: naming the argument and what came.

    Example:
        >>> check_positive("spacing_mm", (0.5, 0.0, 1.0))
        Traceback (most recent call last):
        ValueError: spacing_mm must be positive and finite, got (0.5, 0.0, 1.0)
    """
    numbers = np.atleast_1d(np.asarray(values, dtype=float))
    if numbers.size == 0 or not np.isfinite(numbers).all() or (numbers <= 0).any():
        raise ValueError(f"{name} must be positive and finite, got {values}")


def check_fraction(name: str, value: float) -> float:
    """Return `value` if it lies in [0, 1].

    Raises:
        ValueError: naming the argument and what came.

    Example:
        >>> check_fraction("threshold", 1.5)
        Traceback (most recent call last):
        ValueError: threshold must lie between 0 and 1, got 1.5
    """
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not 0.0 <= float(value) <= 1.0:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
    return float(value)


def _one_line(source: str | Path) -> str:
    return str(source).replace("\n", "\\n").replace("\r", "\\r")
