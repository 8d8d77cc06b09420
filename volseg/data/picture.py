"""One PNG, BMP, JPEG or GIF picture as grey pixels, by Pillow bound to the format that the name promises.

Pillow's own format classes are called instead of `Image.open`, whose limit on pixels is a global setting
that warns on legitimate large slices; `volseg.data.limits` bounds the size instead.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin

from volseg.checks import refuse

__all__ = ["PICTURE_SUFFIXES", "Picture", "decode_picture", "grey_of", "read_picture"]

PICTURE_SUFFIXES = {".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF"}
"""Suffixes that Pillow reads, and the format that the content must have."""

_OPENERS: dict[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
_MAGIC = {"PNG": b"\x89PNG\r\n\x1a\n", "BMP": b"BM", "JPEG": b"\xff\xd8\xff", "GIF": b"GIF8"}
_FAILURES = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error, zlib.error)
_ORIENTATION_TAG = 274
_BAD = "the file is truncated or damaged: copy or export it again"


@dataclass(frozen=True)
class Picture:
    """What the header of a picture says.

    Attributes:
        width: pixels along a row.
        height: rows.
        mode: Pillow's mode of the pixels.
        dtype: type of the grey pixels.
        resolution_per_inch: (x, y) of a JPEG, else None; ITK reads no resolution from PNG, BMP and GIF.
    """

    width: int
    height: int
    mode: str
    dtype: np.dtype[Any]
    resolution_per_inch: tuple[float, float] | None


def read_picture(path: Path) -> Picture:
    """Check the header of a picture.

    Raises:
        InputError: when the content is not what the suffix says, or no grey picture can come of it.
    """
    with path.open("rb") as file:
        image = _open(path, file)
        width, height = image.size
        if width < 1 or height < 1:
            refuse(path, "a picture of at least one pixel", f"{width}x{height}", _BAD)
        _check_mode(path, image)
        _check_orientation(path, image)
        _check_raw_size(path, image)
        dtype = np.dtype(np.uint16 if image.mode.startswith("I;16") else np.uint8)
        return Picture(width, height, image.mode, dtype, _resolution(image))


def decode_picture(path: Path) -> npt.NDArray[Any]:
    """Decode the grey pixels as (H, W): the brightness that a viewer shows, 0/255 for one bit.

    Raises:
        InputError: when the data are damaged, or when colours or transparency are left.
    """
    data = path.read_bytes()
    if PICTURE_SUFFIXES[path.suffix.lower()] == "PNG":
        _check_png_chunks(path, data)
    image = _open(path, BytesIO(data))
    try:
        image.load()
        _check_orientation(path, image)
        if image.mode == "1":
            return np.asarray(image.convert("L"))
        if image.mode == "L" and "transparency" not in image.info:
            return np.asarray(image)
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16, copy=False)
        shown = np.asarray(image.convert("RGBA"))
    except _FAILURES as error:
        refuse(path, "a whole picture", str(error), _BAD)
    return grey_of(path, shown)


def grey_of(path: Path, shown: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Reduce (H, W, 3 or 4) colours to (H, W) when all of them are grey and opaque.

    Raises:
        InputError: when a pixel is coloured or not opaque.
    """
    red = shown[..., 0]
    if not (np.array_equal(red, shown[..., 1]) and np.array_equal(red, shown[..., 2])):
        refuse(path, "a grey picture", "colours", "convert it to grey, or give the channel that matters")
    if shown.shape[-1] == 4 and (shown[..., 3] != np.iinfo(shown.dtype).max).any():
        refuse(path, "an opaque picture", "transparent pixels", "flatten its alpha channel")
    return red


def _open(path: Path, file: Any) -> ImageFile.ImageFile:
    name = PICTURE_SUFFIXES[path.suffix.lower()]
    start = file.read(8)
    file.seek(0)
    if not start.startswith(_MAGIC[name]):
        refuse(
            path,
            f"a {name} picture",
            f"a file that starts with {start!r}",
            "rename the file after its content",
        )
    try:
        image: ImageFile.ImageFile = _OPENERS[name](file)
        frames = int(getattr(image, "n_frames", 1))
    except _FAILURES as error:
        refuse(path, f"a {name} picture", str(error), _BAD)
    if frames != 1:
        refuse(path, "one picture", f"{frames} frames", "give one file per slice")
    return image


def _check_mode(path: Path, image: ImageFile.ImageFile) -> None:
    raw_mode = str(image.tile[0][3][0] if isinstance(image.tile[0][3], tuple) else image.tile[0][3])
    has_16_bit_colours = ";16" in raw_mode and not raw_mode.startswith("I;16")
    is_grey = image.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA") or image.mode.startswith("I;16")
    if not is_grey or has_16_bit_colours or (image.mode.startswith("I;16") and "transparency" in image.info):
        refuse(
            path, "8 or 16-bit grey", f"{raw_mode or image.mode} pixels", "convert it to grey without alpha"
        )


def _check_orientation(path: Path, image: ImageFile.ImageFile) -> None:
    if not (data := image.info.get("exif")):
        return
    exif = Image.Exif()
    try:
        exif.load(data)
        orientation = exif.get(_ORIENTATION_TAG, 1)
    except _FAILURES as error:
        refuse(path, "readable EXIF data", str(error), "remove the EXIF data")
    if orientation not in (0, 1):
        refuse(
            path, "upright pixels", f"EXIF orientation {orientation}", "rotate the pixels and remove the tag"
        )


def _check_raw_size(path: Path, image: ImageFile.ImageFile) -> None:
    tile = image.tile[0]
    if tile[0] == "raw" and isinstance(tile[3], tuple) and len(tile[3]) > 1:
        needed = int(tile[2]) + int(tile[3][1]) * image.size[1]
        if path.stat().st_size < needed:
            refuse(path, f"a file of {needed} bytes", f"{path.stat().st_size} bytes", _BAD)


def _resolution(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    unit, density = image.info.get("jfif_unit"), image.info.get("jfif_density", (0, 0))
    if unit not in (1, 2) or min(density) <= 0:
        return None
    scale = 2.54 if unit == 2 else 1.0
    return density[0] * scale, density[1] * scale


def _check_png_chunks(path: Path, data: bytes) -> None:
    position, kind = 8, b""
    view = memoryview(data)
    while kind != b"IEND":
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 12 + length
        if end > len(data):
            refuse(path, "PNG chunks up to IEND", f"an end at byte {len(data)} inside one", _BAD)
        kind = bytes(view[position + 4 : position + 8])
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            refuse(path, "intact PNG chunks", f"a wrong checksum in {kind!r}", _BAD)
        position = end
