"""One page of a TIFF file or one picture: size, type, grey check and pixels.

How a pixel becomes a number, never inverted against what a viewer shows:

- black-is-zero grey of 1, 8, 16, 32 or 64 bit, integer or floating point: as stored; 1 bit becomes 0/255.
- white-is-zero grey of 1, 8 or 16 bit: turned round, so that bright is high.
- RGB, palettes and opaque alpha: a slice is read when every colour is grey, else refused.
- EXIF or TIFF orientation other than upright: a slice is refused.
- CMYK, YCbCr, Lab, transparency: refused.
- JPEG pixels: as Pillow decodes them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from volseg.checks import refuse
from volseg.data.limits import check_expansion
from volseg.data.picture import (
    PICTURE_SUFFIXES,
    check_upright,
    decode_picture,
    decode_shown,
    grey_of,
    read_picture_header,
)
from volseg.data.tiff_pages import TiffPage, read_tiff_pages
from volseg.data.tiff_spacing import in_plane_spacing_mm, slice_spacing_mm

__all__ = [
    "RASTER_SUFFIXES",
    "Raster",
    "decode_page",
    "decode_shown_page",
    "read_raster",
    "read_shown_raster",
]

RASTER_SUFFIXES = (".tif", ".tiff", *PICTURE_SUFFIXES)
"""Suffixes of files that can be slices."""

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE = range(4)
_COLOUR_NAMES = {5: "CMYK", 6: "YCbCr", 8: "CIE Lab", 4: "a transparency mask"}
_KINDS = {1: "u", 2: "i", 3: "f"}
_ALLOWED = {
    _MIN_IS_BLACK: {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "bit"},
    _MIN_IS_WHITE: {"u1", "u2", "bit"},
    _RGB: {"u1", "u2"},
    _PALETTE: {"u1"},
}


@dataclass(frozen=True)
class Raster:
    """A picture file whose header was accepted; all its pages have one size and type.

    Attributes:
        path: the file.
        kind: "TIFF", "PNG", "BMP", "JPEG" or "GIF".
        width: pixels along a row.
        height: rows.
        dtype: type of the grey pixels.
        page_count: number of pages.
        is_colour: stored as colours, which must all be grey in a volume.
        is_palette: stored as indices into a list of colours.
        orientation: how a viewer turns the pixels (EXIF and TIFF code), 1 for not at all; a slice has 1.
        spacing_mm: (x, y) of a pixel as ITK reads it, or None where the file states none.
        slice_spacing_mm: distance of pages, stated by ImageJ, or None.
        tiff_pages: directories of a TIFF file, else empty.
    """

    path: Path
    kind: str
    width: int
    height: int
    dtype: np.dtype[Any]
    page_count: int = 1
    is_colour: bool = False
    is_palette: bool = False
    orientation: int = 1
    spacing_mm: tuple[float, float] | None = None
    slice_spacing_mm: float | None = None
    tiff_pages: tuple[TiffPage, ...] = field(default=(), repr=False)


def read_raster(path: Path, max_bytes: int | None = None) -> Raster:
    """Check the header of a picture file that is to be a slice, or of a TIFF of slices.

    Raises:
        InputError: when it is damaged, turned, no picture that is read, a bomb, or has pages of several
            sizes.
    """
    raster = read_shown_raster(path, max_bytes)
    if raster.tiff_pages and raster.orientation != 1:
        got, remedy = f"TIFF orientation {raster.orientation}", "rotate the pixels and remove the tag"
        refuse(path, "upright pixels", got, remedy)
    check_upright(path, raster.orientation)
    return raster


def read_shown_raster(path: Path, max_bytes: int | None = None) -> Raster:
    """Check the header of a picture file, whatever its orientation is.

    Raises:
        InputError: as `read_raster`.
    """
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _read_picture_header(path, max_bytes)
    pages = read_tiff_pages(path)
    first = pages[0]
    dtype = _pixel_dtype(path, first)
    for number, page in enumerate(pages, 1):
        if page.is_thumbnail:
            refuse(
                path,
                "full pages only",
                f"a thumbnail or mask as page {number}",
                "export it without thumbnails",
            )
        got, expected = _describe(page), _describe(first)
        if got != expected:
            refuse(
                path,
                f"pages alike: {expected}",
                f"{got} as page {number}",
                "export pages of one size and type",
            )
        if page.compression != 1:
            check_expansion(path, page.stored_bytes, page.decoded_bytes, max_bytes)
    return Raster(
        path, "TIFF", first.width, first.height, dtype, len(pages),
        is_colour=first.photometric in (_RGB, _PALETTE), is_palette=first.photometric == _PALETTE,
        orientation=first.orientation, spacing_mm=in_plane_spacing_mm(first),
        slice_spacing_mm=slice_spacing_mm(first), tiff_pages=tuple(pages),
    )  # fmt: skip


def decode_page(raster: Raster, index: int, target: npt.NDArray[Any]) -> None:
    """Decode one page into `target` of shape (H, W) and the raster's dtype; safe to call from many threads.

    Raises:
        InputError: when the pixels are damaged, or colours or transparency are left.
    """
    if not raster.tiff_pages:
        pixels = decode_picture(raster.path)
    elif _is_raw(raster.tiff_pages[index]) and target.flags.c_contiguous:
        _read_plain(raster.path, raster.tiff_pages[index], target)
        return
    else:
        pixels = _decode_tiff(raster.path, raster.tiff_pages[index])
        pixels = pixels if pixels.ndim == 2 else grey_of(raster.path, pixels)
    if pixels.shape != target.shape:
        refuse(raster.path, f"{target.shape[1]}x{target.shape[0]} pixels",
               "x".join(map(str, pixels.shape[::-1])), "export the file again")  # fmt: skip
    target[...] = pixels


def decode_shown_page(raster: Raster) -> tuple[npt.NDArray[Any], int]:
    """Decode a file of one picture with its colours, as it is stored.

    Returns:
        (H, W) grey, (H, W, 3) colours or (H, W, 4) colours and alpha; and how a viewer turns them.

    Raises:
        InputError: when the pixels are damaged.
    """
    if not raster.tiff_pages:
        return decode_shown(raster.path)
    return _decode_tiff(raster.path, raster.tiff_pages[0]), raster.orientation


def _read_picture_header(path: Path, max_bytes: int | None) -> Raster:
    picture = read_picture_header(path)
    pixel_bytes = picture.dtype.itemsize * (1 if picture.is_grey else 4)
    check_expansion(path, path.stat().st_size, picture.width * picture.height * pixel_bytes, max_bytes)
    per_inch = picture.resolution_per_inch
    return Raster(
        path, PICTURE_SUFFIXES[path.suffix.lower()], picture.width, picture.height, picture.dtype,
        is_colour=not picture.is_grey, is_palette=picture.mode in ("P", "PA"),
        orientation=picture.orientation,
        spacing_mm=(25.4 / per_inch[0], 25.4 / per_inch[1]) if per_inch else None,
    )  # fmt: skip


def _describe(page: TiffPage) -> str:
    kind = {1: "unsigned", 2: "signed", 3: "float"}.get(page.sample_format, "unknown")
    return (
        f"{page.width}x{page.height}, {page.samples} x {page.bits} bit {kind}, "
        f"photometric {page.photometric}, orientation {page.orientation}"
    )


def _pixel_dtype(path: Path, page: TiffPage) -> np.dtype[Any]:
    if page.orientation not in range(1, 9):
        refuse(path, "a TIFF orientation from 1 to 8", page.orientation, "export the picture again")
    if page.photometric not in _ALLOWED:
        name = _COLOUR_NAMES.get(page.photometric, f"photometric {page.photometric}")
        refuse(path, "a grey or RGB picture", name, "convert it to grey or RGB")
    is_rgb = page.photometric == _RGB
    if page.samples not in ((3, 4) if is_rgb else (1,)):
        refuse(
            path,
            "one grey value per pixel",
            f"{page.samples} channels",
            "export one channel, or convert to grey",
        )
    is_bit = page.bits == 1 and page.sample_format in (1, 4)
    name = "bit" if is_bit else f"{_KINDS.get(page.sample_format, '?')}{page.bits / 8:g}"
    if name not in _ALLOWED[page.photometric]:
        refuse(path, f"a depth that photometric {page.photometric} is read with", _describe(page),
               "convert it to 8 or 16-bit grey")  # fmt: skip
    return np.dtype(np.uint8 if is_bit else name)


def _is_raw(page: TiffPage) -> bool:
    return page.is_plain and page.photometric == _MIN_IS_BLACK and page.bits > 1


def _read_plain(path: Path, page: TiffPage, target: npt.NDArray[Any]) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(page.data_offset)
        view = target.data.cast("B")
        while len(view) and (count := file.readinto(view)):
            view = view[count:]
    if len(view):
        refuse(
            path,
            f"{target.nbytes} bytes of pixels",
            f"{target.nbytes - len(view)}",
            "the file changed: start again",
        )
    if page.byte_order != ("<" if sys.byteorder == "little" else ">"):
        target.byteswap(inplace=True)


def _decode_tiff(path: Path, page: TiffPage) -> npt.NDArray[Any]:
    try:
        with tifffile.TiffFile(path) as tiff:
            tiff.filehandle.seek(page.offset)
            directory = tifffile.TiffPage(tiff, index=0)
            pixels = np.asarray(directory.asarray(maxworkers=1))
            colours = None if page.photometric != _PALETTE else np.asarray(directory.colormap)
            is_planar = directory.planarconfig == 2
    except Exception as error:  # tifffile and its codecs raise dozens of types on damaged data
        refuse(
            path,
            "pixels that decode",
            str(error) or type(error).__name__,
            "the file is damaged: export it again",
        )
    if page.bits == 1:
        pixels = (pixels != 0).astype(np.uint8) * np.uint8(255)
    if page.photometric == _MIN_IS_WHITE:
        return np.iinfo(pixels.dtype).max - pixels
    if page.photometric == _PALETTE and colours is not None:
        # a palette holds 16-bit colours; 8 of them are shown
        return (colours >> 8).astype(np.uint8).T[pixels]
    if page.photometric == _RGB and is_planar:
        return np.moveaxis(pixels, 0, -1)
    return pixels
