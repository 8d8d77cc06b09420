"""Picture of a 2D case: the image, its truth and its prediction side by side."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from volseg.checks import check_choice
from volseg.reports.colours import UNLABELLED, class_colour
from volseg.reports.overlays import (
    AGREEMENT_COLOURS,
    Picture,
    agreement_regions,
    nearest_on_grid,
    tile,
    windowed,
)

__all__ = ["PanelColours", "draw_panels"]

PanelColours = Literal["classes", "errors"]


def draw_panels(
    image: npt.NDArray[Any],
    pred: npt.NDArray[Any],
    truth: npt.NDArray[Any] | None = None,
    *,
    colours: PanelColours = "classes",
    opacity: float = 0.5,
    longest_side: int = 512,
) -> Picture:
    """Draw image | truth | prediction, or image | prediction without a truth.

    Args:
        image: (C, H, W) of any range; three channels are red, green and blue, of others the first is grey.
            An image of another size than `pred` is shown on its grid.
        pred: (H, W) class indices or a mask.
        truth: (H, W) class indices, 255 where nobody labelled; or None.
        colours: of the prediction: "classes" by `CLASS_COLOURS`, or "errors" by `AGREEMENT_COLOURS`: true
            positives purple, false negatives yellow, false positives green, wrong classes orange. Without a
            truth it is "classes".
        opacity: of the colours.
        longest_side: larger panels are reduced to it.

    Returns:
        (rows, columns, 3) uint8, as a person sees it: nothing is transposed.

    Raises:
        ValueError: for unknown colours, or a truth of another size than the prediction.

    Example:
        >>> draw_panels(np.zeros((3, 5, 7)), np.ones((5, 7)), np.ones((5, 7))).shape
        (5, 29, 3)
    """
    check_choice("colours", colours, get_args(PanelColours))
    if truth is not None and np.shape(truth) != np.shape(pred):
        raise ValueError(
            f"truth and pred must have one shape, got {np.shape(truth)} and {np.shape(pred)}; "
            "bring the prediction onto the truth's grid"
        )
    shown = _as_rgb(nearest_on_grid(np.asarray(image), (len(image), *np.shape(pred))))
    panels = [shown]
    if truth is not None:
        panels.append(_over(shown, _class_regions(truth), opacity))
    if truth is None or colours == "classes":
        panels.append(_over(shown, _class_regions(pred), opacity))
    else:
        regions = agreement_regions(pred, truth)
        errors = [(AGREEMENT_COLOURS[name], region) for name, region in regions.items()]
        panels.append(_over(shown, errors, opacity))
    return tile([_reduced(panel, longest_side) for panel in panels])


def _as_rgb(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    channels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    return windowed(channels.astype(np.float32)).transpose(1, 2, 0)


def _class_regions(
    labels: npt.NDArray[Any],
) -> list[tuple[tuple[int, int, int], npt.NDArray[np.bool_]]]:
    labels = np.asarray(labels)
    present = [int(index) for index in np.unique(labels) if index not in (0, UNLABELLED)]
    return [(class_colour(index), labels == index) for index in present]


def _over(
    shown: npt.NDArray[np.float32],
    regions: list[tuple[tuple[int, int, int], npt.NDArray[np.bool_]]],
    opacity: float,
) -> npt.NDArray[np.float32]:
    mixed = shown.copy()
    for colour, region in regions:
        mixed[region] = (1 - opacity) * mixed[region] + opacity * np.array(colour, dtype=np.float32)
    return mixed


def _reduced(panel: npt.NDArray[np.float32], longest_side: int) -> Picture:
    picture = panel.round().astype(np.uint8)
    rows, columns = picture.shape[:2]
    factor = longest_side / max(rows, columns)
    if factor >= 1:
        return picture
    size = max(1, round(columns * factor)), max(1, round(rows * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
