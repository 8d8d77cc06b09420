"""Views of a plane for test-time augmentation: flips and quarter turns, and how to undo them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    # Only what swaps left and right: pictures with an up and a down are learnt in no other view.
    "mirror": (View(), View(flipped=(-1,))),
    "flips": _FLIPS,
    # Transposing and flipping covers the quarter turns: all eight symmetries of a square.
    "d4": _FLIPS + tuple(View(True, view.flipped) for view in _FLIPS),
}


def views_of(tta: TTA) -> tuple[View, ...]:
    """List the views of a test-time augmentation, the plain one first.

    Args:
        tta: "none" is the plain view, "mirror" adds the one with its columns reversed, "flips" adds three
            flips, "d4" all eight flips and quarter turns.

    Raises:
        ValueError: for any other name.

    Example:
        >>> [len(views_of(name)) for name in ("none", "mirror", "flips", "d4")]
        [1, 2, 4, 8]
    """
    return _VIEWS[check_choice("tta", tta, _VIEWS)]
