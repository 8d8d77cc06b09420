"""Reads volumes slice by slice and tells each 2x2x2 neighbourhood by a number, with two slices in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = [
    "IGNORE",
    "border_of",
    "check_pair",
    "join_planes",
    "mask_of",
    "mask_pair",
    "plane_codes",
    "streaming_order",
    "to_array",
]

IGNORE = 255
"""Value of a label voxel that nobody has labelled; the losses skip it, the metrics treat it as documented."""

Plane = npt.NDArray[np.uint8]


def to_array(volume: Any) -> npt.NDArray[Any]:
    """View a numpy array, memory map or torch tensor as a numpy array; copies from a GPU only."""
    if isinstance(volume, torch.Tensor):
        tensor = volume.detach().cpu()
        plain = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor  # a MetaTensor's data
        return np.asarray((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())
    return np.asanyarray(volume)


def streaming_order(volume: npt.NDArray[Any]) -> tuple[int, int, int]:
    """Order of axes in which a volume lies in memory, slowest first: slices along the first are read whole.

    Example:
        >>> streaming_order(np.zeros((2, 3, 4), order="F"))
        (2, 1, 0)
    """
    first, second, third = sorted(range(3), key=lambda axis: (-abs(volume.strides[axis]), axis))
    return first, second, third


def mask_pair(
    pred: npt.NDArray[Any], truth: npt.NDArray[Any], ignore_value: int | None
) -> tuple[Plane, Plane]:
    """Turn one slice of each volume into masks of 0 and 1; ignored voxels are background in both.

    Raises:
        ValueError: when a floating-point mask holds anything but 0 and 1.
    """
    ignored = None if ignore_value is None else truth == ignore_value
    masks = mask_of(pred, "pred"), mask_of(truth, "truth")
    if ignored is not None and ignored.any():
        masks = masks[0] & ~ignored, masks[1] & ~ignored
    return masks[0].view(np.uint8), masks[1].view(np.uint8)


def mask_of(plane: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
    """Tell where a slice is not zero.

    Raises:
        ValueError: when a floating-point mask holds anything but 0 and 1, NaN included.
    """
    mask = np.ascontiguousarray(plane) if plane.dtype == np.bool_ else np.not_equal(plane, 0, order="C")
    if plane.dtype.kind == "f" and not np.array_equal(plane, mask):
        raise ValueError(
            f"{name} must be a mask of 0 and 1, got {plane.dtype} values between; threshold it first"
        )
    return mask


def plane_codes(mask: Plane) -> Plane:
    """Number each 2x2 neighbourhood of a slice by 4 bits; outside the slice is background.

    Args:
        mask: (H, W) of 0 and 1.

    Returns:
        (H + 1, W + 1) codes of 0 to 15.

    Example:
        >>> plane_codes(np.array([[1]], dtype=np.uint8)).tolist()
        [[1, 2], [4, 8]]
    """
    height, width = mask.shape
    rows = np.zeros((height + 2, width + 1), dtype=np.uint8)
    np.left_shift(mask, 1, out=rows[1:-1, 1:])
    rows[1:-1, :-1] |= mask
    codes = np.left_shift(rows[:-1], np.uint8(2))
    codes |= rows[1:]
    return codes


def join_planes(before: Plane, after: Plane) -> Plane:
    """Neighbour codes, 0 to 255, of the layer between two slices, from the 4 bits that each contributes."""
    codes = np.left_shift(before, np.uint8(4))
    codes |= after
    return codes


def border_of(codes: Plane) -> npt.NDArray[np.bool_]:
    """Tell which neighbourhoods hold a surface: neither all background (0) nor all foreground (255)."""
    inner = codes - np.uint8(1)  # 0 wraps to 255
    return inner < 254


def check_pair(pred: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
    """Accept two volumes of one shape (x, y, z).

    Raises:
        ValueError: when they differ or are not three-dimensional.
    """
    if pred.ndim != 3 or pred.shape != truth.shape:
        raise ValueError(
            f"expected two volumes of one shape (x, y, z), got {pred.shape} and {truth.shape}; "
            "remove batch and channel axes, bring the prediction onto the truth's grid"
        )
