"""A volume as an animation: image, truth and prediction side by side, slice after slice."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from volseg.checks import check_positive
from volseg.files import write_bytes
from volseg.reports.captions import draw_caption, draw_legend
from volseg.reports.colours import CLASS_COLOURS, UNLABELLED, UNLABELLED_COLOUR
from volseg.reports.overlays import Picture
from volseg.reports.volume_view import VolumeView

__all__ = ["volume_gif", "write_volume_gif"]

# One palette for all frames: greys, then the tints of each colour over them, then the colours themselves.
# 32 + 9 * 16 + 9 = 185 of 256 entries; with 60 greys the file is a fourth larger and looks the same.
_GREYS = 32
_TINTS = 16
_OPACITY = 0.45
_COLOURS = (*CLASS_COLOURS, UNLABELLED_COLOUR)
_GAP = 4


def volume_gif(
    view: VolumeView,
    *,
    longest_side: int = 320,
    most_frames: int = 128,
    frames_per_second: float = 10.0,
) -> bytes:
    """Draw image | truth | prediction of slice after slice, with slice number, legend and an endless loop.

    Args:
        view: the volume; without a truth there are two panels.
        longest_side: of a panel, in pixels.
        most_frames: of more slices an even choice is shown, with those where a class is largest.
        frames_per_second: speed.

    Returns:
        The GIF file.

    Raises:
        ValueError: when a size or the speed is not positive.
    """
    for name, value in {"most_frames": most_frames, "frames_per_second": frames_per_second}.items():
        check_positive(name, value)
    size = view.panel_size(longest_side)
    colours = _palette()
    frames = (_frame(view, index, size, colours) for index in view.spread(most_frames))
    stream = io.BytesIO()
    next(frames).save(
        stream,
        format="GIF",
        save_all=True,
        append_images=frames,
        duration=round(1000 / frames_per_second),
        loop=0,
    )
    return stream.getvalue()


def write_volume_gif(
    path: str | Path,
    image: npt.NDArray[Any],
    pred: npt.NDArray[Any],
    truth: npt.NDArray[Any] | None = None,
    *,
    spacing_mm: Sequence[float] | None = None,
    class_names: Mapping[int, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the animation of a volume: `VolumeView` tells the arguments, `volume_gif` the picture."""
    view = VolumeView(image, pred, truth, spacing_mm=spacing_mm, class_names=class_names)
    write_bytes(path, volume_gif(view), overwrite=overwrite)


def _frame(view: VolumeView, index: int, size: tuple[int, int], colours: bytes) -> Image.Image:
    # everything is drawn as indices of the palette, which leaves nothing to quantise
    levels = view.grey(index, size) // (256 // _GREYS)
    panels = {f"slice {index + 1} of {view.depth}": levels}
    if view.truth is not None:
        panels["truth"] = _tinted(levels, view.labels(view.truth, index, size))
    panels["prediction"] = _tinted(levels, view.labels(view.pred, index, size))
    columns = [
        np.concatenate([draw_caption(size[0], text, ink=_GREYS - 1), panel]) for text, panel in panels.items()
    ]
    gap = np.zeros((len(columns[0]), _GAP), np.uint8)
    row = np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1)
    entries = [(name, _GREYS + len(_COLOURS) * _TINTS + _place(label)) for label, name in view.names.items()]
    legend = draw_legend(row.shape[1], entries, ink=_GREYS - 1)
    frame = Image.fromarray(np.concatenate([row, legend]))
    frame.putpalette(colours)
    return frame


def _tinted(levels: Picture, labels: Picture) -> Picture:
    places = np.array([_place(label) if label else 0 for label in range(UNLABELLED + 1)], np.uint8)
    tints = _GREYS + _TINTS * places[labels] + levels // (_GREYS // _TINTS)
    return np.where(labels == 0, levels, tints.astype(np.uint8))


def _place(label: int) -> int:
    return len(CLASS_COLOURS) if label == UNLABELLED else (label - 1) % len(CLASS_COLOURS)


def _palette() -> bytes:
    greys = np.linspace(0, 255, _GREYS)[:, None].repeat(3, axis=1)
    under = np.linspace(0, 255, _TINTS)[:, None]
    tints = [(1 - _OPACITY) * under + _OPACITY * np.array(colour) for colour in _COLOURS]
    return np.concatenate([greys, *tints, _COLOURS]).round().astype(np.uint8).tobytes()
