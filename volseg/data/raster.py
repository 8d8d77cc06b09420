"""One page of a TIFF file or one picture: size, type, grey check and pixels.

How a pixel becomes a number, never inverted against what a viewer shows:

- black-is-zero grey of 1, 8, 16, 32 or 64 bit, integer or floating point: as stored; 1 bit becomes 0/255.
- white-is-zero grey of 1, 8 or 16 bit: turned round, so that bright is high.
- RGB, palettes and opaque alpha: read when every colour is grey, else refused.
- CMYK, YCbCr, Lab, transparency, EXIF or TIFF orientation other than upright: refused.
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
from volseg.data.picture import PICTURE_SUFFIXES, decode_picture, grey_of, read_picture
from volseg.data.tiff_pages import TiffPage, read_tiff_pages
from volseg.data.tiff_spacing import in_plane_spacing_mm, slice_spacing_mm

__all__ = ["RASTER_SUFFIXES", "Raster", "decode_page", "read_raster"]

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
        is_colour: stored as colours, which must all be grey.
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
    spacing_mm: tuple[float, float] | None = None
    slice_spacing_mm: float | None = None
    tiff_pages: tuple[TiffPage, ...] = field(default=(), repr=False)


def read_raster(path: Path, max_bytes: int | None = None) -> Raster:
    """Check the header of a TIFF, PNG, BMP, JPEG or GIF file.

    Raises:
        InputError: when it is damaged, no grey picture, a bomb, or has pages of several sizes.
    """
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _read_picture_header(path, max_bytes)
    pages = read_tiff_pages(path)
    first = pages[0]
    dtype = _grey_dtype(path, first)
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
        is_colour=first.photometric in (_RGB, _PALETTE), spacing_mm=in_plane_spacing_mm(first),
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
    if pixels.shape != target.shape:
        refuse(raster.path, f"{target.shape[1]}x{target.shape[0]} pixels",
               "x".join(map(str, pixels.shape[::-1])), "export the file again")  # fmt: skip
    target[...] = pixels


def _read_picture_header(path: Path, max_bytes: int | None) -> Raster:
    picture = read_picture(path)
    is_colour = picture.mode not in ("1", "L") and not picture.mode.startswith("I;16")
    pixel_bytes = max(picture.dtype.itemsize, 4 if is_colour else 1)
    check_expansion(path, path.stat().st_size, picture.width * picture.height * pixel_bytes, max_bytes)
    per_inch = picture.resolution_per_inch
    return Raster(
        path, PICTURE_SUFFIXES[path.suffix.lower()], picture.width, picture.height, picture.dtype,
        is_colour=is_colour, spacing_mm=(25.4 / per_inch[0], 25.4 / per_inch[1]) if per_inch else None,
    )  # fmt: skip


def _describe(page: TiffPage) -> str:
    kind = {1: "unsigned", 2: "signed", 3: "float"}.get(page.sample_format, "unknown")
    return (
        f"{page.width}x{page.height}, {page.samples} x {page.bits} bit {kind}, "
        f"photometric {page.photometric}, orientation {page.orientation}"
    )


def _grey_dtype(path: Path, page: TiffPage) -> np.dtype[Any]:
    if page.orientation != 1:
        refuse(
            path,
            "upright pixels",
            f"TIFF orientation {page.orientation}",
            "rotate the pixels and remove the tag",
        )
    if page.photometric not in _ALLOWED:
        name = _COLOUR_NAMES.get(page.photometric, f"photometric {page.photometric}")
        refuse(path, "a grey picture", name, "convert it to grey")
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
        return grey_of(path, (colours >> 8).astype(np.uint8).T[pixels])
    if page.photometric == _RGB:
        return grey_of(path, np.moveaxis(pixels, 0, -1) if is_planar else pixels)
    return pixels
