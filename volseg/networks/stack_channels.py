"""Which channel counts a network over slice stacks can have."""

from __future__ import annotations

from collections.abc import Sequence

from volseg.checks import check_odd

__all__ = ["check_features", "check_stack"]


def check_stack(in_channels: int, in_slices: int, out_channels: int, out_slices: int) -> None:
    """Accept the four counts of a network `(B, C*S, H, W) -> (B, K*M, H, W)`.

    Raises:
        ValueError: when a count is below 1, S is even, or M is neither 1 nor S.

    Example:
        >>> check_stack(1, 5, 2, 3)
        Traceback (most recent call last):
        ValueError: out_slices must be 1 (the middle slice) or 5 (in_slices), got 3
    """
    check_odd("in_slices", in_slices)
    for name, count in (("in_channels", in_channels), ("out_channels", out_channels)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if out_slices not in (1, in_slices):
        allowed = "1" if in_slices == 1 else f"1 (the middle slice) or {in_slices} (in_slices)"
        raise ValueError(f"out_slices must be {allowed}, got {out_slices}")


def check_features(features: Sequence[int]) -> tuple[int, ...]:
    """Return the widths of a network's levels as a tuple.

    Raises:
        ValueError: when there are fewer than two, or one is below 1.

    Example:
        >>> check_features([16])
        Traceback (most recent call last):
        ValueError: features must be at least two positive widths, got (16,); use for example (16, 32)
    """
    widths = tuple(int(width) for width in features)
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(
            f"features must be at least two positive widths, got {widths}; use for example (16, 32)"
        )
    return widths
