"""Pictures of two dimensions: (row, column) as a person sees them, in grey or in colours.

Spacing of a pixel: what the caller states, else the file's own tags as ITK reads them, else 1 mm.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from monai.data import ImageReader

from volseg.checks import check_choice, check_positive, refuse
from volseg.data.limits import check_budget
from volseg.data.raster import RASTER_SUFFIXES, Raster, decode_shown_page, read_shown_raster
from volseg.data.volume_reader import check_voxels, is_folder, paths_of, refuse_access
from volseg.geometry import Geometry, affine_from_spacing

__all__ = ["Channels", "PictureReader", "picture_affine", "picture_geometry", "read_picture"]

Channels = Literal["rgb", "grey", "any"]
"""What a picture is read as."""

_Path = str | os.PathLike[str]


class PictureReader(ImageReader):
    """MONAI reader of pictures: `LoadImaged(keys, reader="volseg.data.PictureReader", channels="rgb")`.

    MONAI's own `PILReader` returns them transposed, a palette as its indices, and a damaged file as far as it
    goes. This one returns what a person sees, or refuses:

    - PNG, BMP, JPEG, GIF, PPM, PGM and TIFF (1, 8 and 16 bit, LZW, deflate ...) of one frame or page; the
      content must agree with the suffix. Several frames or pages, and truncated files, are refused.
    - "grey" gives (H, W), "rgb" (H, W, 3), "any" (H, W) or (H, W, 3) as the file stores it.
    - colours where grey is asked: read when R = G = B in every pixel, else refused.
    - grey where "rgb" is asked: repeated three times.
    - alpha: dropped where every pixel is opaque, else refused.
    - palette: its colours, never its indices; under "any" (H, W) where all pixels are grey, else (H, W, 3).
    - 1 bit: 0 and 255, black and white as seen; white-is-zero files are turned so that bright is high.
    - 8 and 16 bit keep their type; grey PNGs of 2 and 4 bit are stretched to 0..255, as viewers do.
    - EXIF and TIFF orientation: applied, so that row 0 is the top row that a person sees.
    - CMYK, YCbCr in TIFF, CIE Lab: refused. Colour profiles are not applied.
    - what would need more memory than the budget, or expands like a bomb: refused by its header.

    Refusals come from `get_data`, because LoadImage tries MONAI's other readers after one in `read`. The
    array keeps the file's type; LoadImage then converts it to its `dtype`, and widens uint16 to int32 for
    None.

    Args:
        channels: "rgb", "grey" or "any".
        spacing_mm: edge lengths (x, y) of a pixel, along and across a row; None takes the file's.
        max_bytes: largest accepted size of the pixels, see `volseg.data.limits.byte_budget`.

    Raises:
        ValueError: for other channels, or a spacing that is not two positive numbers.
    """

    def __init__(
        self,
        channels: Channels = "any",
        spacing_mm: Sequence[float] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        super().__init__()
        self.channels = check_choice("channels", channels, get_args(Channels))
        self.spacing_mm = None if spacing_mm is None else _checked_spacing(spacing_mm)
        self.max_bytes = max_bytes

    def verify_suffix(self, filename: Sequence[_Path] | _Path) -> bool:
        """Tell whether every name has a suffix of a picture."""
        return all(str(name).lower().endswith(RASTER_SUFFIXES) for name in paths_of(filename))

    def read(self, data: Sequence[_Path] | _Path, **kwargs: Any) -> tuple[Path, ...]:
        """Only note the path; nothing is opened before `get_data`.

        Args:
            data: one path, alone or in a sequence.
            kwargs: not used; MONAI's interface asks for it.
        """
        return paths_of(data)

    def get_data(self, img: Sequence[Path]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Read the picture that `read` noted.

        Returns:
            the (H, W) or (H, W, 3) array in the file's dtype, and its meta data: `affine` and
            `original_affine` (4, 4) of (row, column, 0) in RAS mm, `spatial_shape`, `original_channel_dim`
            (-1, or NaN without channels), `space`, `filename_or_obj`, `spacing_is_known` and
            `non_finite_voxels`.

        Raises:
            InputError: naming the file, for whatever is wrong with it.
        """
        paths = tuple(img)
        if len(paths) != 1:
            got = f"{len(paths)} paths"
            refuse(", ".join(map(str, paths)) or "no input", "one path per picture", got, "give one file")
        raster = _open(paths[0], self.max_bytes)
        pixels = _decode(raster, self.channels)
        # an orientation behind the pixels of a PNG is known only now
        spacing = self.spacing_mm or _spacing_of(raster, _is_turned(raster, pixels))
        affine = picture_affine(spacing or (1.0, 1.0))
        return pixels, {
            "affine": affine,
            "original_affine": affine.copy(),
            "spatial_shape": np.asarray(pixels.shape[:2]),
            "original_channel_dim": -1 if pixels.ndim == 3 else float("nan"),
            "space": "RAS",
            "filename_or_obj": str(paths[0]),
            "spacing_is_known": spacing is not None,
            "non_finite_voxels": check_voxels(pixels, paths[0]),
        }


def read_picture(
    path: _Path, channels: Channels = "any", *, max_bytes: int | None = None
) -> npt.NDArray[Any]:
    """Read one picture as a person sees it, by the rules of `PictureReader`.

    Args:
        path: PNG, BMP, JPEG, GIF, PPM, PGM or TIFF of one frame.
        channels: "grey" for (H, W), "rgb" for (H, W, 3), "any" for what the file stores.
        max_bytes: largest accepted size of the pixels.

    Returns:
        contiguous array in the file's dtype.

    Raises:
        InputError: naming the file, for whatever is wrong with it.
        ValueError: for other channels.
    """
    check_choice("channels", channels, get_args(Channels))
    return _decode(_open(Path(path), max_bytes), channels)


def picture_geometry(
    path: _Path, *, spacing_mm: Sequence[float] | None = None, max_bytes: int | None = None
) -> Geometry:
    """Check the header of a picture and return the grid on which a NIfTI of its prediction is stored.

    That is (W, H, 1) with the affine that ITK's reading of the picture implies: x along a row, zero origin.

    Args:
        path: as for `read_picture`; its colours and orientation do not matter.
        spacing_mm: edge lengths (x, y) of a pixel; a third number is that of the only slice, otherwise 1 mm.
        max_bytes: largest accepted size of the pixels.

    Raises:
        InputError: naming the file, for whatever its header says wrong.
        ValueError: when the spacing is not two or three positive numbers.
    """
    raster = _open(Path(path), max_bytes)
    is_turned = raster.orientation >= 5
    shape = (raster.height, raster.width, 1) if is_turned else (raster.width, raster.height, 1)
    stated = None if spacing_mm is None else (*_checked_spacing(spacing_mm[:2]), *spacing_mm[2:])
    edges = stated or _spacing_of(raster, is_turned)
    affine = affine_from_spacing((*(edges or (1.0, 1.0)), 1.0)[:3])
    return Geometry(shape, affine, spacing_is_known=edges is not None)


def picture_affine(spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """RAS affine of the (row, column, 0) index of a picture whose rows run to the left of the patient.

    Args:
        spacing_mm: edge lengths (x, y) of a pixel.

    Example:
        >>> picture_affine((0.5, 2.0)).astype(float).tolist()[:2]
        [[0.0, -0.5, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.0]]
    """
    return affine_from_spacing((*spacing_mm, 1.0))[:, [1, 0, 2, 3]] + 0.0  # no negative zeros


def _open(path: Path, max_bytes: int | None) -> Raster:
    (path,) = paths_of(path)
    suffix = path.suffix.lower()
    try:
        if is_folder(path):
            refuse(path, "one picture", "a folder", "give the path of a file in it")
        if suffix not in RASTER_SUFFIXES:
            refuse(path, f"one of {' '.join(RASTER_SUFFIXES)}", suffix or "no suffix", "convert it to PNG")
        if not path.stat().st_size:
            refuse(path, "a picture", "an empty file", "copy or export it again")
        raster = read_shown_raster(path, max_bytes)
    except OSError as error:
        refuse_access(path, error)
    if raster.page_count > 1:
        remedy = "save each as its own file, or read them as the slices of a volume"
        refuse(path, "one picture", f"{raster.page_count} pages", remedy)
    pixel_bytes = raster.dtype.itemsize * (4 if raster.is_colour else 1)
    check_budget(path, raster.width * raster.height * pixel_bytes, max_bytes)
    return raster


def _decode(raster: Raster, channels: str) -> npt.NDArray[Any]:
    try:
        stored, orientation = decode_shown_page(raster)
    except OSError as error:
        refuse_access(raster.path, error)
    if stored.shape[:2] != (raster.height, raster.width):
        got = "x".join(map(str, stored.shape[1::-1]))
        expected = f"{raster.width}x{raster.height} pixels"
        refuse(raster.path, expected, got, "the file is damaged: export it again")
    seen = _without_alpha(raster.path, _upright(stored, orientation))
    if channels == "rgb" and seen.ndim == 2:
        seen = np.stack([seen] * 3, axis=-1)
    is_grey_palette = channels == "any" and raster.is_palette and not (seen != seen[..., :1]).any()
    if seen.ndim == 3 and (channels == "grey" or is_grey_palette):
        seen = _without_colours(raster.path, seen)
    # a copy is writable, and in this machine's byte order
    return np.array(seen, dtype=raster.dtype, order="C")


def _without_alpha(path: Path, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if pixels.ndim == 2 or pixels.shape[-1] == 3:
        return pixels
    clear = int(np.count_nonzero(pixels[..., 3] != np.iinfo(pixels.dtype).max))
    if clear:
        refuse(path, "an opaque picture", f"{clear} transparent pixels", "flatten its alpha channel")
    return pixels[..., :3]


def _without_colours(path: Path, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    is_coloured = (pixels != pixels[..., :1]).any(axis=-1)
    count = int(np.count_nonzero(is_coloured))
    if count:
        red, green, blue = (int(value) for value in pixels[is_coloured][0])
        got = f"{count} coloured pixels, the first of red {red}, green {green}, blue {blue}"
        refuse(path, "a grey picture", got, 'read it with channels "rgb", or convert it to grey')
    return pixels[..., 0]


def _upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn stored pixels as viewers do; the code tells where row 0 and column 0 lie in what is seen.

    1 top left, 2 top right, 3 bottom right, 4 bottom left, then the same with rows and columns exchanged:
    5 left top, 6 right top, 7 right bottom, 8 left bottom.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _is_turned(raster: Raster, pixels: npt.NDArray[Any]) -> bool:
    return raster.orientation >= 5 or pixels.shape[:2] != (raster.height, raster.width)


def _spacing_of(raster: Raster, is_turned: bool) -> tuple[float, ...] | None:
    if raster.spacing_mm is None:
        return None
    return raster.spacing_mm[::-1] if is_turned else raster.spacing_mm


def _checked_spacing(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    if len(spacing_mm) != 2:
        raise ValueError(f"spacing_mm must be two edge lengths (x, y), got {spacing_mm}; repeat one")
    check_positive("spacing_mm", spacing_mm)
    return tuple(float(length) for length in spacing_mm)
