"""NRRD and MetaImage volumes through MONAI's ITKReader, after a check of their header and data size.

ITK follows a header to any file that it names and fills missing voxels with zeros, so the data file must
lie in the header's own folder and hold exactly as many bytes as the header says. SimpleITK reads the
header's geometry. Read are raw, zlib and gzip data in one file; ASCII, hexadecimal, bzip2, file lists and
channels are refused.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volseg.checks import refuse
from volseg.data.limits import check_budget, check_expansion
from volseg.geometry import Geometry, swap_ras_lps

__all__ = ["ITK_SUFFIXES", "ItkSource", "open_itk"]

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
"""Suffixes that are read through ITK."""

_MAX_HEADER_BYTES = 2**20
_CHUNK = 2**20
_PIXEL_TYPES = {
    "8-bit signed integer": "i1", "8-bit unsigned integer": "u1", "16-bit signed integer": "i2",
    "16-bit unsigned integer": "u2", "32-bit signed integer": "i4", "32-bit unsigned integer": "u4",
    "64-bit signed integer": "i8", "64-bit unsigned integer": "u8",
    "32-bit float": "f4", "64-bit float": "f8",
}  # fmt: skip
# pixel types that itk's Python packages do not wrap; SimpleITK reads them
_NOT_WRAPPED = ("i1", "i8", "u8")
# ITK reads a number that it does not understand as 0
_META_LENGTHS = (
    "Offset", "Origin", "Position", "ElementSpacing", "ElementSize", "TransformMatrix", "Rotation",
    "Orientation",
)  # fmt: skip
_NRRD_LENGTHS = ("spacings", "space directions", "space origin")
_EXPORT = "export it again as one grey volume"
_BAD = "the file is truncated or damaged: copy or export it again"


@dataclass(frozen=True)
class ItkSource:
    """A NRRD or MetaImage file whose header was accepted.

    Attributes:
        path: the header file.
        geometry: grid of the volume.
        dtype: type of the array that `read` returns.
    """

    path: Path
    geometry: Geometry
    dtype: np.dtype[Any]

    def read(self, max_workers: int | None = None) -> npt.NDArray[Any]:
        """Read the voxels as (x, y, z).

        Args:
            max_workers: not used; ITK decides itself.

        Raises:
            InputError: when ITK cannot read it.
        """
        try:
            voxels = (
                _read_simpleitk(self.path) if self.dtype.str[1:] in _NOT_WRAPPED else _read_monai(self.path)
            )
        except RuntimeError as error:
            refuse(self.path, "a file that ITK reads", _last_line(error), _BAD)
        if voxels.ndim == 2:
            voxels = voxels[:, :, None]
        if voxels.shape != self.geometry.shape or voxels.dtype != self.dtype:
            refuse(
                self.path, f"{self.geometry.shape} {self.dtype}", f"{voxels.shape} {voxels.dtype}", _EXPORT
            )
        return voxels


@dataclass(frozen=True)
class _DataPlace:
    path: Path
    offset: int | None  # None: the data are the last bytes of the file
    is_compressed: bool
    states_spacing: bool


def open_itk(path: Path, max_bytes: int | None = None) -> ItkSource:
    """Check the header of a .nrrd, .nhdr, .mha or .mhd file and the size of its data.

    Raises:
        InputError: when a field is wrong, when the data lie in another folder, or are short, long or damaged.
    """
    with path.open("rb") as file:
        start = file.read(_MAX_HEADER_BYTES)
    is_nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    place = _nrrd_data(path, start) if is_nrrd else _meta_data(path, start)
    shape, dtype, affine = _read_information(path, "NrrdImageIO" if is_nrrd else "MetaImageIO")
    voxel_bytes = math.prod(shape) * dtype.itemsize
    stored = place.path.stat().st_size - (place.offset or 0)
    if place.is_compressed:
        check_budget(path, voxel_bytes, max_bytes)
        check_expansion(path, stored, voxel_bytes, max_bytes)
        _check_inflated(path, place, voxel_bytes)
    elif stored < voxel_bytes or (place.offset is not None and stored != voxel_bytes):
        refuse(path, f"{voxel_bytes} bytes of voxels in {place.path.name}", stored, _BAD)
    check_budget(path, voxel_bytes, max_bytes)
    return ItkSource(path, Geometry(shape, affine, spacing_is_known=place.states_spacing), dtype)


def _meta_data(path: Path, start: bytes) -> _DataPlace:
    found = re.search(rb"^\s*ElementDataFile\s*[=:]\s*([^\r\n]*?)\s*\r?\n?$", start, re.MULTILINE)
    if found is None or b"\0" in start[: found.start()]:
        refuse(path, "a MetaImage header with ElementDataFile",
               f"a file that starts with {start[:16]!r}",
               "give a MetaImage file, or rename this one after its content")  # fmt: skip
    end = start.index(b"\n", found.start(1)) + 1 if b"\n" in start[found.start(1) :] else len(start)
    text = start[:end].decode("utf-8", "replace")
    fields = dict(re.findall(r"^\s*(\w+)\s*[=:]\s*(.*?)\s*$", text, re.MULTILINE))
    name = fields["ElementDataFile"]
    _check_numbers(path, {key: fields[key] for key in _META_LENGTHS if key in fields})
    states_spacing = "ElementSpacing" in fields or "ElementSize" in fields
    is_compressed = fields.get("CompressedData", "False").lower() in ("true", "1")
    if fields.get("BinaryData", "True").lower() not in ("true", "1"):
        refuse(path, "binary data", f"BinaryData = {fields['BinaryData']}", "write it as binary")
    if name.lower() == "local":
        return _DataPlace(path, end, is_compressed, states_spacing)
    skip = int(fields.get("HeaderSize", "0")) if re.fullmatch(r"-?\d+", fields.get("HeaderSize", "0")) else 0
    return _DataPlace(_beside(path, name), skip if skip >= 0 else None, is_compressed, states_spacing)


def _nrrd_data(path: Path, start: bytes) -> _DataPlace:
    if not re.match(rb"NRRD000\d\r?\n", start):
        refuse(
            path,
            "a NRRD header",
            f"a file that starts with {start[:8]!r}",
            "rename the file after its content",
        )
    blank = re.search(rb"\r?\n\r?\n", start)
    end = blank.end() if blank else len(start)
    text = start[:end].decode("utf-8", "replace")
    fields = {
        key.strip().lower(): value for key, value in re.findall(r"^([^#:\n]+):(?!=)\s*(.*?)\s*$", text, re.M)
    }
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        refuse(path, "raw or gzip encoding", encoding or "none", "write it as raw or gzip")
    skip = fields.get("byte skip", fields.get("byteskip", "0"))
    if fields.get("line skip", fields.get("lineskip", "0")) != "0" or not re.fullmatch(r"-1|\d+", skip):
        refuse(path, "no line skip, and a byte skip of -1 or more", f"byte skip {skip}", _EXPORT)
    _check_numbers(path, {key: fields[key] for key in _NRRD_LENGTHS if key in fields})
    states_spacing = any(key in fields for key in ("space directions", "spacings"))
    name = fields.get("data file", fields.get("datafile"))
    is_compressed = encoding != "raw"
    if name is not None:
        return _DataPlace(
            _beside(path, name), None if skip == "-1" else int(skip), is_compressed, states_spacing
        )
    if blank is None:
        refuse(path, "a blank line behind the NRRD header", "none", _BAD)
    return _DataPlace(path, None if skip == "-1" else end + int(skip), is_compressed, states_spacing)


def _check_numbers(path: Path, fields: dict[str, str]) -> None:
    for key, text in fields.items():
        for word in re.split(r"[\s,()]+", text.strip("() \t")):
            try:
                is_finite = word == "none" or math.isfinite(float(word))
            except ValueError:
                is_finite = False
            if not is_finite:
                refuse(path, f"finite numbers in {key}", word, _EXPORT)


def _beside(path: Path, name: str) -> Path:
    data = path.parent / name
    if re.search(r"[/\\%\0]", name) or name.split()[0:1] in (["LIST"], ["Local"]) or name in ("", ".", ".."):
        refuse(path, "one data file in the header's own folder", name, "put header and data into one folder")
    if not data.is_file():
        refuse(path, f"its data file {name} beside it", "no such file", "keep header and data together")
    return data


def _read_information(
    path: Path, image_io: str
) -> tuple[tuple[int, int, int], np.dtype[Any], npt.NDArray[np.float64]]:
    import SimpleITK as sitk  # noqa: N813 - the name that its own documentation uses

    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        refuse(path, "a header that ITK reads", _last_line(error), _EXPORT)
    size = reader.GetSize()
    type_name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if len(size) not in (2, 3) or min(size) < 1:
        refuse(path, "two or three axes of at least one voxel", list(size), _EXPORT)
    if reader.GetNumberOfComponents() != 1 or type_name not in _PIXEL_TYPES:
        refuse(path, "one integer or real number per voxel", type_name, _EXPORT)
    axes = len(size)
    lps = np.eye(4)
    lps[:axes, :axes] = np.reshape(reader.GetDirection(), (axes, axes)) @ np.diag(reader.GetSpacing())
    lps[:axes, 3] = reader.GetOrigin()
    if not np.isfinite(lps).all() or abs(np.linalg.det(lps[:3, :3])) == 0:
        refuse(path, "a finite and invertible affine", lps[:3].tolist(), _EXPORT)
    shape = (*map(int, size), 1)
    return (shape[0], shape[1], shape[2]), np.dtype(_PIXEL_TYPES[type_name]), swap_ras_lps(lps)


def _check_inflated(path: Path, place: _DataPlace, voxel_bytes: int) -> None:
    # ITK itself neither compares the checksum nor notices a short stream
    inflater, total = zlib.decompressobj(wbits=47), 0
    with place.path.open("rb") as file:
        file.seek(place.offset or 0)
        pending = b""
        while not inflater.eof and total <= voxel_bytes:
            pending = pending or file.read(_CHUNK)
            if not pending:
                break
            try:
                total += len(inflater.decompress(pending, _CHUNK))
            except zlib.error as error:
                refuse(path, "intact compressed data", str(error), _BAD)
            pending = inflater.unconsumed_tail
    if not inflater.eof or total != voxel_bytes:
        refuse(path, f"{voxel_bytes} bytes of voxels", f"{total} in the compressed data", _BAD)


def _read_monai(path: Path) -> npt.NDArray[Any]:
    from monai.data import ITKReader

    reader = ITKReader()
    voxels, _ = reader.get_data(reader.read(str(path)))
    return np.asarray(voxels)


def _read_simpleitk(path: Path) -> npt.NDArray[Any]:
    import SimpleITK as sitk  # noqa: N813 - the name that its own documentation uses

    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))).T


def _last_line(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
