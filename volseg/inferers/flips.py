"""Views of a plane for test-time augmentation: flips and quarter turns, and how to undo them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from volseg.checks import check_choice

__all__ = ["TTA", "View", "views_of"]

TTA = Literal["none", "mirror", "flips", "d4"]


@dataclass(frozen=True)
class View:
    """One way to look at a plane: an optional transposition, then optional flips.

    Attributes:
        is_transposed: rows and columns change places first.
        flipped: dimensions flipped afterwards, out of -2 (rows) and -1 (columns).

    Example:
        >>> plane = torch.arange(6).reshape(2, 3)
        >>> View(is_transposed=True, flipped=(-1,)).apply(plane).tolist()
        [[3, 0], [4, 1], [5, 2]]
    """

    is_transposed: bool = False
    flipped: tuple[int, ...] = ()

    def apply(self, planes: torch.Tensor) -> torch.Tensor:
        """Look at planes (…, H, W) this way; (…, W, H) when transposed."""
        seen = planes.transpose(-1, -2) if self.is_transposed else planes
        return seen.flip(self.flipped) if self.flipped else seen

    def undo(self, planes: torch.Tensor) -> torch.Tensor:
        """Turn planes seen this way back; `undo(apply(x))` equals x."""
        unflipped = planes.flip(self.flipped) if self.flipped else planes
        return unflipped.transpose(-1, -2) if self.is_transposed else unflipped


_FLIPS = (View(), View(flipped=(-2,)), View(flipped=(-1,)), View(flipped=(-2, -1)))
_VIEWS: dict[str, tuple[View, ...]] = {
    "none": _FLIPS[:1],
    "flips": _FLIPS,
    # Transposing and flipping covers the quarter turns: all eight symmetries of a square.
    "d4": _FLIPS + tuple(View(True, view.flipped) for view in _FLIPS),
}


def views_of(tta: TTA, axis: int | None = None, *, upright: bool = False) -> tuple[View, ...]:
    """List the views of a test-time augmentation, the plain one first.

    Args:
        tta: "none" is the plain view, "mirror" adds one that swaps left and right but never up and down,
            "flips" adds three flips, "d4" all eight flips and quarter turns.
        axis: of a volume (x, y, z), y being down, across which the planes are cut; None for pictures, whose
            columns run from left to right.
        upright: see planes across axis 0 as (z, y) in place of (y, z).

    Raises:
        ValueError: for any other name.

    Example:
        >>> [len(views_of(name)) for name in ("none", "mirror", "flips", "d4")]
        [1, 2, 4, 8]
        >>> [views_of("mirror", axis)[1].flipped for axis in (None, 0, 1, 2)]
        [(-1,), (-1,), (-2,), (-2,)]
        >>> views_of("mirror", 0, upright=True)[1]
        View(is_transposed=True, flipped=(-2,))
    """
    check_choice("tta", tta, get_args(TTA))
    is_turned = upright and axis == 0
    if tta == "mirror":
        # The planes are (y, z), (x, z) and (x, y): z is reversed in the first, x in the others.
        across = (-1,) if axis in (None, 0) and not is_turned else (-2,)
        return View(is_turned), View(is_turned, across)
    return tuple(replace(view, is_transposed=view.is_transposed != is_turned) for view in _VIEWS[tta])
