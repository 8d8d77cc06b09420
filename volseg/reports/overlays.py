"""Pictures of a slice with truth and prediction drawn over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from volseg.checks import check_positive
from volseg.files import write_atomically

__all__ = [
    "AGREEMENT_COLOURS",
    "agreement_regions",
    "draw_agreement",
    "intensity_window",
    "nearest_on_grid",
    "plane_pictures",
    "tile",
    "windowed",
    "write_gif",
    "write_png",
]

Picture = npt.NDArray[np.uint8]

AGREEMENT_COLOURS: Mapping[str, tuple[int, int, int]] = {
    "true positive": (160, 32, 240),
    "false negative": (255, 215, 0),
    "false positive": (0, 200, 80),
    "wrong class": (255, 110, 20),
}
"""Purple where truth and prediction agree, yellow where something was missed, green where it was invented,
orange where it was taken for something else."""


def draw_agreement(
    image: npt.NDArray[np.generic],
    pred: npt.NDArray[np.generic],
    truth: npt.NDArray[np.generic] | None = None,
    *,
    opacity: float = 0.55,
) -> Picture:
    """Draw where prediction and truth agree over a grey slice.

    Args:
        image: (x, y) slice, any range; shown between its 1st and 99th percentile.
        pred: (x, y) class indices, or a boolean mask, which is right for every class.
        truth: (x, y) class indices, 255 where nobody labelled; without it the prediction is outlined.
        opacity: of the colours.

    Returns:
        (rows, columns, 3) uint8 picture, y down and x to the right, as a viewer shows the slice.
    """
    grey = windowed(np.asarray(image, dtype=np.float32))
    picture = np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)
    found = np.asarray(pred) > 0
    if truth is None:
        regions = {"true positive": found & ~ndimage.binary_erosion(found)}
        opacity = 1.0
    else:
        regions = agreement_regions(pred, truth)
    for name, region in regions.items():
        picture[region] = (1 - opacity) * picture[region] + opacity * np.array(AGREEMENT_COLOURS[name])
    return picture.round().astype(np.uint8).transpose(1, 0, 2)


def agreement_regions(
    pred: npt.NDArray[np.generic], truth: npt.NDArray[np.generic]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Where prediction and truth agree and where not, by the names of `AGREEMENT_COLOURS`.

    Args:
        pred: class indices of any shape, or a boolean mask, which is right for every class.
        truth: the same of the same shape; 255, where nobody labelled, is in no region.
    """
    given, true = np.asarray(pred), np.asarray(truth)
    found, known = given > 0, true != 255
    real = (true > 0) & known
    has_classes = np.bool_ not in (given.dtype, true.dtype)
    confused = found & real & (given != true) & has_classes
    return {
        "true positive": found & real & ~confused,
        "false negative": ~found & real,
        "false positive": found & ~real & known,
        "wrong class": confused,
    }


def plane_pictures(
    image: npt.NDArray[np.generic],
    pred: npt.NDArray[np.generic],
    truth: npt.NDArray[np.generic] | None = None,
) -> dict[str, Picture]:
    """One picture across each axis, through the plane that holds most of the truth (or of the prediction).

    Args:
        image: (x, y, z) volume, or an (x, y) picture, which is seen across z alone. A volume of another size
            than `pred`, resampled for the network, is shown on its grid.
        pred: class indices or boolean mask of the same shape.
        truth: class indices of the same shape, 255 where nobody labelled; or None.

    Returns:
        Pictures by the axis they are cut across: "x", "y", "z".
    """
    if np.ndim(image) == 2:
        return {"z": draw_agreement(image, pred, truth)}
    reference = (
        np.asarray(pred) > 0 if truth is None else (np.asarray(truth) > 0) & (np.asarray(truth) != 255)
    )
    image = nearest_on_grid(np.asarray(image), reference.shape)
    pictures = {}
    for axis, name in enumerate("xyz"):
        amount = np.count_nonzero(reference, axis=tuple(other for other in range(3) if other != axis))
        index = int(amount.argmax()) if amount.any() else reference.shape[axis] // 2
        planes = [None if volume is None else np.take(volume, index, axis) for volume in (image, pred, truth)]
        pictures[name] = draw_agreement(planes[0], planes[1], planes[2])  # type: ignore[arg-type]
    return pictures


def tile(pictures: Sequence[Picture], *, gap: int = 4) -> Picture:
    """Put pictures side by side on black, their tops aligned."""
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + gap * (len(pictures) - 1)
    sheet = np.zeros((height, width, 3), dtype=np.uint8)
    column = 0
    for picture in pictures:
        rows, columns = picture.shape[:2]
        sheet[:rows, column : column + columns] = picture
        column += columns + gap
    return sheet


def write_png(path: str | Path, picture: Picture, *, overwrite: bool = False) -> None:
    """Write a (rows, columns, 3) picture as PNG."""
    write_atomically(Path(path), lambda file: Image.fromarray(picture).save(file), overwrite=overwrite)


def write_gif(
    path: str | Path, pictures: Sequence[Picture], *, frames_per_second: float = 10.0, overwrite: bool = False
) -> None:
    """Write pictures of one size as an endless animation.

    Raises:
        ValueError: for no picture, pictures of several sizes, or a rate that is not positive.
    """
    check_positive("frames_per_second", frames_per_second)
    sizes = {picture.shape for picture in pictures}
    if len(sizes) != 1:
        raise ValueError(f"an animation needs pictures of one size, got {sorted(sizes) or 'no picture'}")
    frames = [Image.fromarray(picture).quantize(128) for picture in pictures]
    duration = round(1000 / frames_per_second)

    def save(file: Path) -> None:
        frames[0].save(file, save_all=True, append_images=frames[1:], duration=duration, loop=0)

    write_atomically(Path(path), save, overwrite=overwrite)


def windowed(
    image: npt.NDArray[np.float32], window: tuple[float, float] | None = None
) -> npt.NDArray[np.float32]:
    """Stretch an image of any shape to 0 to 255 between its 1st and 99th percentile; NaN becomes 0.

    Args:
        image: of any range.
        window: what becomes 0 and 255 instead, for a part of a larger image.
    """
    low, high = intensity_window(image) if window is None else window
    span = high - low if high > low else 1.0
    return np.nan_to_num((np.clip(image, low, high) - low) / span * 255).astype(np.float32)


def intensity_window(image: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The 1st and 99th percentile of the finite values."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
    return float(low), float(high)


def nearest_on_grid(image: npt.NDArray[np.generic], shape: Sequence[int]) -> npt.NDArray[np.generic]:
    """The nearest voxel of an image for each voxel of a grid of another size over the same place.

    Example:
        >>> nearest_on_grid(np.array([10, 20, 30]), (6,)).tolist()
        [10, 10, 20, 20, 30, 30]
    """
    for axis, size in enumerate(shape):
        if image.shape[axis] != size:
            places = (np.arange(size) + 0.5) * image.shape[axis] / size
            image = np.take(image, places.astype(np.intp), axis=axis)
    return image
