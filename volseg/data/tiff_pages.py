"""The pages of a TIFF file by their directories alone: every claim is checked before a pixel is decoded.

tifffile ends a broken or looping chain of pages without an error, so the chain is walked here. Sub-
directories (pyramid levels) are not part of the chain and are ignored.
"""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from volseg.checks import refuse

__all__ = ["TiffPage", "read_tiff_pages"]

# tag numbers of TIFF 6.0
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
_DESCRIPTION, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _STRIP_BYTES = 270, 273, 274, 277, 279
_STRIP_ROWS, _X_RESOLUTION, _Y_RESOLUTION, _PLANAR, _RESOLUTION_UNIT, _PREDICTOR = (
    278,
    282,
    283,
    284,
    296,
    317,
)
_TILE_WIDTH, _TILE_ROWS, _TILE_OFFSETS, _TILE_BYTES, _SAMPLE_FORMAT = 322, 323, 324, 325, 339
_WANTED = {
    _SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _DESCRIPTION, _STRIP_OFFSETS,
    _ORIENTATION, _SAMPLES, _STRIP_BYTES, _X_RESOLUTION, _Y_RESOLUTION, _PLANAR, _RESOLUTION_UNIT, _PREDICTOR,
    _STRIP_ROWS, _TILE_WIDTH, _TILE_ROWS, _TILE_OFFSETS, _TILE_BYTES, _SAMPLE_FORMAT,
}  # fmt: skip
_TYPE_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d",
               13: "I", 16: "Q", 17: "q", 18: "Q"}  # fmt: skip
_BAD = "the file is truncated or damaged: copy or export it again"


@dataclass(frozen=True)
class TiffPage:
    """One page of a TIFF file.

    Attributes:
        offset: position of its directory in the file.
        byte_order: "<" or ">".
        width: pixels along a row.
        height: rows.
        bits: bits of one sample.
        samples: samples of one pixel.
        sample_format: 1 unsigned, 2 signed, 3 floating point.
        photometric: TIFF code; 0 white is zero, 1 black is zero, 2 RGB, 3 palette.
        compression: TIFF code; 1 is none.
        orientation: TIFF code; 1 is the usual one.
        is_thumbnail: marked as a reduced version or a mask of another page.
        is_plain: stored as the bare rows of pixels, one after the other, at `data_offset`.
        data_offset: position of the first strip or tile.
        stored_bytes: size of its data in the file.
        resolution: (x, y) pixels per `resolution_unit`, or None.
        resolution_unit: 1 none, 2 inch, 3 centimetre.
        description: text of its ImageDescription.
    """

    offset: int
    byte_order: str
    width: int
    height: int
    bits: int
    samples: int
    sample_format: int
    photometric: int
    compression: int
    orientation: int
    is_thumbnail: bool
    is_plain: bool
    data_offset: int
    stored_bytes: int
    resolution: tuple[float, float] | None
    resolution_unit: int
    description: str

    @property
    def decoded_bytes(self) -> int:
        """Size of its pixels in memory."""
        return self.height * math.ceil(self.width * self.samples * self.bits / 8)


def read_tiff_pages(path: Path) -> list[TiffPage]:
    """Walk the chain of pages of a TIFF or BigTIFF file.

    A large ImageJ file has one directory for all its pages, which lie behind each other; it is unrolled here.

    Raises:
        InputError: when the chain loops or leaves the file, when a page's data do, or when the file's own
            description promises another number of pages, channels, time points or further axes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        order, is_big, offset = _read_start(path, file)
        pages: list[TiffPage] = []
        seen: set[int] = set()
        while offset:
            if offset in seen:
                refuse(path, "a chain of pages that ends", f"a loop behind page {len(pages)}", _BAD)
            seen.add(offset)
            tags, following = _read_directory(path, file, (order, is_big, size), offset)
            pages.append(_page(path, tags, order, offset, size))
            offset = following
    if not pages:
        refuse(path, "at least one page", "none", _BAD)
    return _check_promises(path, pages, size)


def _read_start(path: Path, file: BinaryIO) -> tuple[str, bool, int]:
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 8:
        refuse(
            path, "a TIFF file", f"a file that starts with {start[:8]!r}", "rename the file after its content"
        )
    version = struct.unpack(order + "H", start[2:4])[0]
    if version == 42:
        return order, False, struct.unpack(order + "I", start[4:8])[0]
    if version == 43 and len(start) == 16 and struct.unpack(order + "HH", start[4:8]) == (8, 0):
        return order, True, struct.unpack(order + "Q", start[8:16])[0]
    refuse(path, "TIFF version 42 or 43", version, "rename the file after its content")


def _read_directory(
    path: Path, file: BinaryIO, layout: tuple[str, bool, int], offset: int
) -> tuple[dict[int, Any], int]:
    order, is_big, size = layout
    count_code, entry_code, next_code = ("Q", "HHQ", "Q") if is_big else ("H", "HHI", "I")
    count_size, inline = struct.calcsize("<" + count_code), 8 if is_big else 4
    entry_size = struct.calcsize("<" + entry_code) + inline
    file.seek(offset)
    start = file.read(count_size)
    count = struct.unpack(order + count_code, start)[0] if len(start) == count_size else 0
    if not count or offset + count_size + count * entry_size + inline > size:
        refuse(path, "a page directory inside the file", f"one at byte {offset} of {size}", _BAD)
    entries = file.read(count * entry_size)
    following = struct.unpack(order + next_code, file.read(inline))[0]
    tags: dict[int, Any] = {}
    for start_of_entry in range(0, len(entries), entry_size):
        entry = entries[start_of_entry : start_of_entry + entry_size]
        tag, kind, number = struct.unpack(order + entry_code, entry[:-inline])
        if tag in _WANTED and kind in _TYPE_CODES:
            tags[tag] = _read_values(path, file, (order, next_code, size), (kind, number, entry[-inline:]))
    return tags, int(following)


def _read_values(
    path: Path, file: BinaryIO, layout: tuple[str, str, int], entry: tuple[int, int, bytes]
) -> Any:
    order, offset_code, size = layout
    kind, number, data = entry
    code = _TYPE_CODES[kind]
    length = number * struct.calcsize("<" + code)
    if length > len(data):
        position = struct.unpack(order + offset_code, data)[0]
        if position + length > size:
            refuse(path, "tags inside the file", f"one of {length} bytes at byte {position} of {size}", _BAD)
        file.seek(position)
        data = file.read(length)
    if code == "s":
        return data[:number].split(b"\0")[0].decode("utf-8", "replace")
    return struct.unpack(f"{order}{number * len(code)}{code[0]}", data[:length])


def _number(tags: dict[int, Any], tag: int, default: int) -> int:
    values = tags.get(tag)
    return int(values[0]) if values and not isinstance(values, str) else default


def _page(path: Path, tags: dict[int, Any], order: str, offset: int, size: int) -> TiffPage:
    width, height, samples = _number(tags, _WIDTH, 0), _number(tags, _HEIGHT, 0), _number(tags, _SAMPLES, 1)
    if width < 1 or height < 1 or samples < 1:
        refuse(path, "pages of at least one pixel", f"{width}x{height} of {samples} samples", _BAD)
    bits = tags.get(_BITS, (1,))
    if len(set(bits)) != 1:
        refuse(path, "samples of one depth", f"bits {bits}", "convert it to grey")
    offsets, counts = _segments(path, tags, size)
    text = tags.get(_DESCRIPTION, "")
    page = TiffPage(
        offset=offset, byte_order=order, width=width, height=height, bits=int(bits[0]), samples=samples,
        sample_format=_number(tags, _SAMPLE_FORMAT, 1), photometric=_number(tags, _PHOTOMETRIC, 1),
        compression=_number(tags, _COMPRESSION, 1), orientation=_number(tags, _ORIENTATION, 1),
        is_thumbnail=bool(_number(tags, _SUBFILE, 0) & 5), is_plain=False, data_offset=int(offsets[0]),
        stored_bytes=sum(counts), resolution=_resolution(tags),
        resolution_unit=_number(tags, _RESOLUTION_UNIT, 2), description=text if isinstance(text, str) else "",
    )  # fmt: skip
    if page.compression == 1 and page.stored_bytes < page.decoded_bytes:
        refuse(path, f"{page.decoded_bytes} bytes of pixels", f"{page.stored_bytes} bytes", _BAD)
    is_gapless = all(a + n == b for a, n, b in zip(offsets, counts, offsets[1:], strict=False))
    is_plain = page.compression == 1 and _TILE_OFFSETS not in tags and is_gapless
    is_plain = is_plain and page.stored_bytes == page.decoded_bytes
    is_plain = is_plain and _number(tags, _PREDICTOR, 1) == 1 and _number(tags, _FILL_ORDER, 1) == 1
    return replace(page, is_plain=is_plain)


def _segments(path: Path, tags: dict[int, Any], size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    is_tiled = _TILE_OFFSETS in tags
    offsets = tags.get(_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS, ())
    counts = tags.get(_TILE_BYTES if is_tiled else _STRIP_BYTES, ())
    width, height = _number(tags, _WIDTH, 0), _number(tags, _HEIGHT, 0)
    rows = max(1, _number(tags, _TILE_ROWS if is_tiled else _STRIP_ROWS, height))
    across = math.ceil(width / max(1, _number(tags, _TILE_WIDTH, width))) if is_tiled else 1
    expected = math.ceil(height / rows) * across
    if _number(tags, _PLANAR, 1) == 2:
        expected *= _number(tags, _SAMPLES, 1)
    if not len(offsets) == len(counts) == expected or 0 in counts:
        refuse(path, f"{expected} strips or tiles of pixels", f"{len(offsets)}, sizes {counts[:3]}", _BAD)
    end = max(start + count for start, count in zip(offsets, counts, strict=True))
    if end > size or min(offsets) < 8:
        refuse(path, f"pixels within its {size} bytes", f"a page whose data end at byte {end}", _BAD)
    return offsets, counts


def _resolution(tags: dict[int, Any]) -> tuple[float, float] | None:
    fractions = tags.get(_X_RESOLUTION, ()), tags.get(_Y_RESOLUTION, ())
    if any(len(fraction) != 2 or 0 in fraction for fraction in fractions):
        return None
    (x_top, x_bottom), (y_top, y_bottom) = fractions
    return x_top / x_bottom, y_top / y_bottom


def _check_promises(path: Path, pages: list[TiffPage], size: int) -> list[TiffPage]:
    text = pages[0].description
    remedy = "export one grey channel of one time point as plain pages"
    if text.startswith("ImageJ="):
        claims = {key: int(value) for key, value in re.findall(r"^(\w+)=(\d+)\s*$", text, re.MULTILINE)}
        for axis in ("channels", "frames"):
            if claims.get(axis, 1) > 1:
                refuse(path, "one channel and one time point", f"{claims[axis]} {axis}", remedy)
        promised = max(claims.get("images", 1), claims.get("slices", 1))
    elif "<OME" in text[:2000]:
        counts = {
            axis: max(map(int, found))
            for axis in "CTZ"
            if (found := re.findall(rf'\bSize{axis}="(\d+)"', text))
        }
        for axis in "CT":
            if counts.get(axis, 1) > 1:
                refuse(path, "one channel and one time point", f"Size{axis} {counts[axis]}", remedy)
        promised = counts.get("Z", len(pages))
    elif text.startswith('{"shape"') and pages[0].samples == 1:
        promised = _shaped_pages(path, text, remedy, len(pages))
    else:
        promised = len(pages)
    if promised > 1 and len(pages) == 1:
        return _unroll(path, pages[0], promised, size)
    if promised != len(pages):
        refuse(path, f"{promised} pages by its description", f"{len(pages)}", _BAD)
    return pages


def _shaped_pages(path: Path, text: str, remedy: str, found: int) -> int:
    try:
        shape = [int(length) for length in json.loads(text)["shape"] if int(length) != 1]
    except (ValueError, TypeError, KeyError):
        return found
    if len(shape) > 3 and shape[-1] not in (3, 4):
        refuse(path, "an image of three axes", f"axes of {shape} in its description", remedy)
    # a page that is one pixel high or wide loses an axis here, so only a plain stack can promise a number
    return shape[0] if len(shape) == 3 and shape[-1] not in (3, 4) else found


def _unroll(path: Path, page: TiffPage, count: int, size: int) -> list[TiffPage]:
    step = page.decoded_bytes
    if not page.is_plain or page.data_offset + count * step > size:
        refuse(path, f"{count} pages by its description", "1", _BAD)
    return [replace(page, data_offset=page.data_offset + k * step) for k in range(count)]
