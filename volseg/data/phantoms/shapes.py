"""Synthetic shapes: ellipses and lines in flat grey on noise, with masks that know every pixel.

The numbers are those of the published data set, of which 100 images were measured. Its shapes have no noise
and no soft edges. An ellipse that leaves the image comes back on the other side, a line is cut off. A line is
one pixel wide and then thickened by a diamond:

    thickness 1    . # .      thickness 2    . . # . .
                   # # #                     . # # # .
                   . # .                     # # # # #
                                             . # # # .
                                             . . # . .
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from volseg import files
from volseg.checks import refuse

__all__ = ["SHAPE_COLOURS", "draw_shapes", "write_shapes"]

SHAPE_COLOURS = ("#000000", "#ff0000", "#00ff00")
"""Colour of each class in a mask: background, line, ellipse."""

_SIZE = (400, 200)  # rows, columns
_BRIGHTNESS, _SPREAD, _DARKEST, _BRIGHTEST = (0.7, 0.9), 0.1, 0.6, 1.0
_MOST_SHAPES = 9
_GREY = (0.0, 0.7)
_RADIUS, _ASPECT = (5.0, 20.0), (0.5, 2.0)
_SMALL_RADII = 1.4  # power of a uniform number: 1 would draw large radii more often than was measured
_SHORTEST_LINE = 20.0
_THICKNESSES = (1, 2)

_Grey = npt.NDArray[np.uint8]


def draw_shapes(seed: int | Sequence[int], *, size: tuple[int, int] = _SIZE) -> tuple[_Grey, _Grey]:
    """Draw one image: one to nine ellipses, then as many lines over them, each in its own flat grey.

    Args:
        seed: of everything in the image; the same seed gives the same pixels.
        size: (rows, columns), both more than 20.

    Returns:
        (H, W) grey image and (H, W) classes: 0 background, 1 line, 2 ellipse.

    Raises:
        ValueError: when the size leaves no room for the shortest line.

    Example:
        >>> image, classes = draw_shapes(3)
        >>> image.shape, sorted(set(classes.ravel().tolist()))
        ((400, 200), [0, 1, 2])
    """
    if min(size) <= _SHORTEST_LINE:
        raise ValueError(
            f"size must be more than {_SHORTEST_LINE:g} rows and columns, got {size}; use (400, 200)"
        )
    rng = np.random.default_rng(seed)
    signal = _noise(rng, size)
    classes = np.zeros(size, dtype=np.uint8)
    count = int(rng.integers(1, _MOST_SHAPES, endpoint=True))
    for kind, draw in ((2, _ellipse), (1, _line)):
        for _ in range(count):
            shape = draw(rng, size)
            signal[shape] = rng.uniform(*_GREY)
            classes[shape] = kind
    # floor, not round: white noise below 1 stays below 255
    return (signal * 255).astype(np.uint8), classes


def write_shapes(
    folder: str | Path, count: int, *, seed: int | Sequence[int] = 0, overwrite: bool = False
) -> None:
    """Write `images/Img_0.png` and colour masks `masks/Mask_0.png` and so on.

    Args:
        folder: made if it is not there.
        count: number of images.
        seed: of the images; image k is drawn by `(*seed, k)`, so that more of them begin with the same.
        overwrite: replace pictures of the same names.

    Raises:
        InputError: when the folder holds other pictures than those to be written, or the same and
            `overwrite` is False.
        ValueError: when `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}; ask for one image or more")
    names = {"images": "Img_{}.png", "masks": "Mask_{}.png"}
    written = {Path(folder) / part / name.format(k): k for part, name in names.items() for k in range(count)}
    for part in names:
        _check_free(Path(folder) / part, written, overwrite)
    seeds = [seed] if isinstance(seed, int) else list(seed)
    palette = np.array(
        [[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in SHAPE_COLOURS], np.uint8
    )
    grey = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    for k in range(count):
        for (part, name), pixels, colours in zip(
            names.items(), draw_shapes([*seeds, k]), (grey, palette), strict=True
        ):
            path = Path(folder) / part / name.format(k)
            files.write_atomically(path, partial(_write_png, colours[pixels]), overwrite=overwrite)


def _check_free(folder: Path, written: dict[Path, int], overwrite: bool) -> None:
    present = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in present:
        if path not in written:
            refuse(path, "a folder for generated pictures alone", "another file", "choose an empty folder")
        if not overwrite:
            refuse(path, "a new file", "one that exists", "use --overwrite or choose an empty folder")


def _write_png(pixels: _Grey, path: Path) -> None:
    Image.fromarray(pixels).save(path)


def _noise(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Gaussian noise whose values outside of the allowed range are drawn again."""
    brightness = rng.uniform(*_BRIGHTNESS)
    noise = rng.normal(brightness, _SPREAD, size)
    while (outside := (noise < _DARKEST) | (noise >= _BRIGHTEST)).any():
        noise[outside] = rng.normal(brightness, _SPREAD, int(outside.sum()))
    return noise


def _ellipse(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    centre, angle = rng.uniform(0, size), rng.uniform(0, np.pi)
    radius = _RADIUS[0] + (_RADIUS[1] - _RADIUS[0]) * rng.random() ** _SMALL_RADII
    aspect = rng.uniform(*_ASPECT)
    # the shortest way from the centre, which may lead over the border to the other side
    rows, columns = (
        (np.arange(length) - middle + length / 2) % length - length / 2
        for length, middle in zip(size, centre, strict=True)
    )
    along = rows[:, None] * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows[:, None] * np.sin(angle)
    inside: npt.NDArray[np.bool_] = (along / radius) ** 2 + (across / (radius * aspect)) ** 2 < 1
    return inside


def _line(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    middle = rng.uniform(0, size)
    length, angle = rng.uniform(_SHORTEST_LINE, min(size)), rng.uniform(0, 2 * np.pi)
    step = length * np.array([np.sin(angle), np.cos(angle)])
    share = np.linspace(-0.5, 0.5, int(np.abs(step).max()) + 2)[:, None]  # no pixel of the line is skipped
    places = np.rint(middle + share * step).astype(np.int64)
    thickness = int(rng.choice(_THICKNESSES))
    offset = np.mgrid[-thickness : thickness + 1, -thickness : thickness + 1].reshape(2, -1).T
    diamond = offset[np.abs(offset).sum(axis=1) <= thickness]
    places = (places[:, None] + diamond).reshape(-1, 2)
    places = places[((places >= 0) & (places < size)).all(axis=1)]
    mask = np.zeros(size, dtype=np.bool_)
    mask[tuple(places.T)] = True
    return mask
