"""Lines of text above and below pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["LINE_HEIGHT", "draw_caption", "draw_legend"]

LINE_HEIGHT = 20
_FONT_SIZE = 13
_SWATCH = 12
_MARGIN = 5
_SPACE = 16

Ink = int | tuple[int, int, int]


def draw_caption(width: int, text: str, *, ink: Ink) -> npt.NDArray[np.uint8]:
    """Write one line on black; what is longer than the width is cut off.

    Args:
        width: of the line.
        text: what to write.
        ink: a level or palette index, or red, green and blue.

    Returns:
        (20, width) of levels, or (20, width, 3).
    """
    page = _page(width, 1, ink)
    _write(page, (_MARGIN, 0), text, ink)
    return np.asarray(page)


def draw_legend(width: int, entries: Sequence[tuple[str, Any]], *, ink: Ink) -> npt.NDArray[np.uint8]:
    """Write names behind squares of their colours, in as many lines as they need.

    Args:
        width: of the lines.
        entries: name and colour, the colour given as `ink` is.
        ink: of the names.

    Returns:
        (20 * lines, width) of levels, or (20 * lines, width, 3).
    """
    font = ImageFont.load_default(_FONT_SIZE)
    places, column, line = [], _MARGIN, 0
    for name, _ in entries:
        needed = round(font.getlength(name)) + _SWATCH + _MARGIN + _SPACE
        if column > _MARGIN and column + needed - _SPACE > width:
            column, line = _MARGIN, line + 1
        places.append((column, line * LINE_HEIGHT))
        column += needed
    page = _page(width, line + 1, ink)
    draw = ImageDraw.Draw(page)
    for (name, colour), (left, top) in zip(entries, places, strict=True):
        high = top + (LINE_HEIGHT - _SWATCH) // 2
        draw.rectangle((left, high, left + _SWATCH - 1, high + _SWATCH - 1), fill=colour)
        _write(page, (left + _SWATCH + _MARGIN, top), name, ink)
    return np.asarray(page)


def _page(width: int, lines: int, ink: Ink) -> Image.Image:
    return Image.new("L" if isinstance(ink, int) else "RGB", (width, lines * LINE_HEIGHT))


def _write(page: Image.Image, place: tuple[int, int], text: str, ink: Ink) -> None:
    left, top = place
    middle = (left, top + LINE_HEIGHT // 2)
    ImageDraw.Draw(page).text(middle, text, fill=ink, font=ImageFont.load_default(_FONT_SIZE), anchor="lm")
