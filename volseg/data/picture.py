"""One PNG, BMP, JPEG, GIF, PPM or PGM picture, by Pillow bound to the format that the name promises.

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
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
)

from volseg.checks import refuse

__all__ = [
    "PICTURE_SUFFIXES",
    "Picture",
    "check_upright",
    "decode_picture",
    "decode_shown",
    "grey_of",
    "read_picture_header",
]

PICTURE_SUFFIXES = {
    ".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF", ".pgm": "PPM",
    ".ppm": "PPM",
}  # fmt: skip
"""Suffixes that Pillow reads, and the format that the content must have."""

_OPENERS: dict[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
_MAGIC: dict[str, tuple[bytes, ...]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n",), "BMP": (b"BM",), "JPEG": (b"\xff\xd8\xff",), "GIF": (b"GIF8",),
    "PPM": (b"P2", b"P3", b"P5", b"P6"),
}  # fmt: skip
_FAILURES = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
_ORIENTATION_TAG = 274
_BAD = "the file is truncated or damaged: copy or export it again"


@dataclass(frozen=True)
class Picture:
    """What the header of a picture says.

    Attributes:
        width: pixels along a row.
        height: rows.
        mode: Pillow's mode of the pixels.
        dtype: type of the pixels.
        orientation: EXIF orientation, 1 for upright pixels; a PNG may state it behind the pixels only.
        resolution_per_inch: (x, y) of a JPEG, else None; ITK reads no resolution from the other formats.
    """

    width: int
    height: int
    mode: str
    dtype: np.dtype[Any]
    orientation: int
    resolution_per_inch: tuple[float, float] | None

    @property
    def is_grey(self) -> bool:
        """Whether the pixels are stored as one brightness each."""
        return self.mode in ("1", "L", "I") or self.mode.startswith("I;16")


def read_picture_header(path: Path) -> Picture:
    """Check the header of a picture.

    Raises:
        InputError: when the content is not what the suffix says, or pixels that volseg does not read.
    """
    with path.open("rb") as file:
        image = _open(path, file)
        width, height = image.size
        if width < 1 or height < 1:
            refuse(path, "a picture of at least one pixel", f"{width}x{height}", _BAD)
        _check_mode(path, image)
        _check_raw_size(path, image)
        has_16_bits = image.mode == "I" or image.mode.startswith("I;16") or _has_16_bit_colours(image)
        dtype = np.dtype(np.uint16 if has_16_bits else np.uint8)
        mode = image.mode
        return Picture(width, height, mode, dtype, _orientation(path, image), _resolution(image))


def check_upright(path: Path, orientation: int) -> None:
    """Accept pixels that are stored as they are seen.

    Raises:
        InputError: for any other EXIF orientation; a slice of a volume must not be turned in silence.
    """
    if orientation != 1:
        got, remedy = f"EXIF orientation {orientation}", "rotate the pixels and remove the tag"
        refuse(path, "upright pixels", got, remedy)


def decode_picture(path: Path) -> npt.NDArray[Any]:
    """Decode the grey pixels as (H, W): the brightness that a viewer shows, 0/255 for one bit.

    Raises:
        InputError: when the data are damaged, or when colours, transparency or an orientation are left.
    """
    pixels, orientation = decode_shown(path)
    check_upright(path, orientation)
    return pixels if pixels.ndim == 2 else grey_of(path, pixels)


def decode_shown(path: Path) -> tuple[npt.NDArray[Any], int]:
    """Decode the pixels as they are stored, and tell how a viewer turns them.

    Returns:
        (H, W) grey, (H, W, 3) colours or (H, W, 4) colours and alpha, uint8 or uint16; and the orientation.

    Raises:
        InputError: when the data are damaged.
    """
    data = path.read_bytes()
    if PICTURE_SUFFIXES[path.suffix.lower()] == "PNG":
        _check_png_chunks(path, data)
    image = _open(path, BytesIO(data))
    _check_mode(path, image)
    has_16_bit_colours = _has_16_bit_colours(image)
    try:
        image.load()
        pixels = _decode_16_bit_png(data) if has_16_bit_colours else _pixels_of(image)
    except _FAILURES as error:
        refuse(path, "a whole picture", str(error), _BAD)
    return pixels, _orientation(path, image)


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


def _pixels_of(image: ImageFile.ImageFile) -> npt.NDArray[Any]:
    is_transparent = "transparency" in image.info or image.mode in ("LA", "PA", "RGBA")
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in ("L", "RGB") and not is_transparent:
        return np.asarray(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16, copy=False)
    return np.asarray(image.convert("RGBA" if is_transparent else "RGB"))


def _decode_16_bit_png(data: bytes) -> npt.NDArray[Any]:
    """Decode what Pillow would cut to 8 bits; grey with alpha becomes colours with alpha."""
    import imagecodecs

    pixels: npt.NDArray[Any] = imagecodecs.png_decode(data)
    return pixels if pixels.shape[-1] != 2 else pixels[..., [0, 0, 0, 1]]


def _raw_mode(image: ImageFile.ImageFile) -> str:
    arguments = image.tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _has_16_bit_colours(image: ImageFile.ImageFile) -> bool:
    return image.mode in ("RGB", "RGBA", "LA") and ";16" in _raw_mode(image)


def _check_mode(path: Path, image: ImageFile.ImageFile) -> None:
    raw_mode = _raw_mode(image)
    is_16_bit_grey = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    is_known = image.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA") or is_16_bit_grey
    is_deep = is_16_bit_grey or _has_16_bit_colours(image)
    if not is_known or (is_deep and "transparency" in image.info):
        got, remedy = f"{raw_mode or image.mode} pixels", "convert it to grey or RGB without alpha"
        refuse(path, "grey or RGB of 8 or 16 bit", got, remedy)
    if image.format == "PPM" and image.tile[0][0] != "raw":
        _check_maximum(path, image.tile[0], 65535 if is_16_bit_grey else 255)


def _check_maximum(path: Path, tile: Any, largest: int) -> None:
    # Pillow would stretch any other maximum to the largest one, and change the numbers of a label
    maximum = tile[3][1]
    if tile[0] != "ppm_plain" or maximum != largest:
        expected, remedy = "a maximum of 255, or of 65535 for grey", "save it with one of these, or as PNG"
        refuse(path, expected, f"a maximum of {maximum}", remedy)


def _orientation(path: Path, image: ImageFile.ImageFile) -> int:
    if not (data := image.info.get("exif")):
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        orientation = exif.get(_ORIENTATION_TAG, 1)
    except _FAILURES as error:
        refuse(path, "readable EXIF data", str(error), "remove the EXIF data")
    if orientation not in range(9):
        refuse(path, "an EXIF orientation from 1 to 8", repr(orientation), "remove the EXIF data")
    return max(1, int(orientation))


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
