"""A volume on one page: slices in a grid, with the outlines of what was found and what is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from volseg.checks import check_positive
from volseg.reports.captions import draw_caption, draw_legend
from volseg.reports.colours import UNLABELLED, class_colour
from volseg.reports.overlays import Picture, write_png
from volseg.reports.volume_view import VolumeView

__all__ = ["contact_sheet", "write_contact_sheet"]

_FILL = 0.15
_LINE = 2
_GAP = 6
_INK = (230, 230, 230)


def contact_sheet(
    view: VolumeView, *, most_slices: int = 12, columns: int = 4, longest_side: int = 320
) -> Picture:
    """Draw slices in a grid; the truth, where there is one, stands above the prediction of each slice.

    Args:
        view: the volume.
        most_slices: of more an even choice is shown, of those that hold a class where there are enough.
        columns: slices in a row.
        longest_side: of a slice, in pixels.

    Returns:
        (rows, columns, 3) uint8, with the legend below.

    Raises:
        ValueError: when a size or a number is not positive.
    """
    for name, value in {"most_slices": most_slices, "columns": columns}.items():
        check_positive(name, value)
    size = view.panel_size(longest_side)
    cells = [_cell(view, index, size) for index in view.most_telling(most_slices)]
    columns = min(columns, len(cells))
    rows = [_row(cells[start : start + columns], columns) for start in range(0, len(cells), columns)]
    grid = np.concatenate(rows)
    entries = [(name, class_colour(label)) for label, name in view.names.items()]
    return np.concatenate([grid, draw_legend(grid.shape[1], entries, ink=_INK)])


def write_contact_sheet(
    path: str | Path,
    image: npt.NDArray[Any],
    pred: npt.NDArray[Any],
    truth: npt.NDArray[Any] | None = None,
    *,
    spacing_mm: Sequence[float] | None = None,
    class_names: Mapping[int, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the page of a volume, see `VolumeView` for the arguments and `contact_sheet` for the picture."""
    view = VolumeView(image, pred, truth, spacing_mm=spacing_mm, class_names=class_names)
    write_png(path, contact_sheet(view), overwrite=overwrite)


def _cell(view: VolumeView, index: int, size: tuple[int, int]) -> Picture:
    grey = view.grey(index, size)[..., None].repeat(3, axis=2)
    sides = {"truth": view.truth, "prediction": view.pred}
    parts = []
    for name, volume in sides.items():
        if volume is not None:
            text = f"slice {index + 1}" if view.truth is None else f"slice {index + 1}: {name}"
            parts += [
                draw_caption(size[0], text, ink=_INK),
                _outlined(grey, view.labels(volume, index, size)),
            ]
    return np.concatenate(parts)


def _outlined(grey: Picture, labels: Picture) -> Picture:
    drawn = grey.astype(np.float32)
    for label in np.unique(labels[labels > 0]):
        region, colour = labels == label, np.array(class_colour(int(label)), dtype=np.float32)
        drawn[region] = (1 - _FILL) * drawn[region] + _FILL * colour
        if label != UNLABELLED:
            drawn[region & ~ndimage.binary_erosion(region, iterations=_LINE)] = colour
    return drawn.round().astype(np.uint8)


def _row(cells: Sequence[Picture], columns: int) -> Picture:
    height, width = cells[0].shape[:2]
    row = np.zeros((height + _GAP, columns * (width + _GAP) - _GAP, 3), np.uint8)
    for number, cell in enumerate(cells):
        row[:height, number * (width + _GAP) :][:, :width] = cell
    return row
