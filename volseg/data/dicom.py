"""A folder of DICOM files as one volume: the series is checked from headers, then read slice by slice.

pydicom parses; the series checks are made here, because readers accept gaps, duplicates, mixed spacing
and several series. Rules: files without the DICOM mark are ignored unless named .dcm or .ima, and so are
DICOMDIR and objects that are no images. Slices are sorted along their normal. MONOCHROME1, colour, multi-
frame objects, a position that occurs twice and a tilted gantry are refused. Pixels are rescaled to the
smallest of int16, int32 or float32 that holds them. Compressed pixels that pydicom alone cannot decode
are read by MONAI's ITKReader, one file at a time.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import RLELossless

from volseg.checks import InputError, refuse
from volseg.data.limits import check_budget, check_expansion
from volseg.data.slice_folder import is_junk
from volseg.geometry import Geometry, swap_ras_lps

__all__ = ["DICOM_SUFFIXES", "DicomSource", "has_dicom_mark", "list_dicom_files", "open_dicom"]

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
"""Suffixes that promise DICOM content; a DICOM file may also have none or another."""

_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_COSINE_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-2
_BAD = "the file is truncated or damaged: export it again"
_SPLIT = "give a folder that holds one series of parallel slices"


@dataclass(frozen=True)
class _Slice:
    path: Path
    series: str
    instance: str
    kind: tuple[int, int, int, int]  # rows, columns, bits allocated, signed
    stored_bits: int
    spacing: tuple[float, float]
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    slope: float
    intercept: float
    is_native: bool
    thickness: float | None


@dataclass(frozen=True)
class DicomSource:
    """A DICOM series whose headers were accepted.

    Attributes:
        path: the folder or file.
        slices: headers in the order of z.
        geometry: grid of the volume.
        dtype: type of the array that `read` returns.
    """

    path: Path
    slices: tuple[_Slice, ...]
    geometry: Geometry
    dtype: np.dtype[Any]

    def read(self, max_workers: int | None = None) -> npt.NDArray[Any]:
        """Read the rescaled voxels as (x, y, z).

        Args:
            max_workers: not used, slices are read one after the other.

        Raises:
            InputError: naming the file whose pixels are short or damaged.
        """
        width, height, depth = self.geometry.shape
        voxels = np.empty((depth, height, width), self.dtype)
        for k, one in enumerate(self.slices):
            voxels[k] = _pixels(one, self.dtype)
        return voxels.transpose(2, 1, 0)


def has_dicom_mark(path: Path) -> bool:
    """Tell whether a regular file carries DICM behind its preamble."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def list_dicom_files(folder: Path) -> list[Path]:
    """List the files of a folder that are, or by their suffix should be, DICOM.

    Raises:
        InputError: when a file is named .dcm or .ima and has no DICOM mark.
    """
    files = []
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if is_junk(name) or not path.is_file():
            continue
        if has_dicom_mark(path):
            files.append(path)
        elif name.lower().endswith(DICOM_SUFFIXES):
            refuse(path, "a DICOM file", "no DICM mark at byte 128", _BAD)
    return files


def open_dicom(path: Path, max_bytes: int | None = None) -> DicomSource:
    """Check the headers of a folder that holds one series, or of one DICOM file.

    Raises:
        InputError: naming the file that is short, or that does not fit its neighbours.
    """
    files = list_dicom_files(path) if path.is_dir() else [path]
    slices = [one for file in files if (one := _read_header(file, max_bytes)) is not None]
    if not slices:
        refuse(path, "DICOM images", "none", "give the folder that holds the series")
    first = slices[0]
    for one in slices[1:]:
        _check_alike(first, one)
    affine, ordered = _place(path, slices)
    rows, columns = first.kind[:2]
    dtype = _dtype(ordered)
    check_budget(path, rows * columns * len(ordered) * dtype.itemsize, max_bytes)
    geometry = Geometry((columns, rows, len(ordered)), swap_ras_lps(affine),
                        spacing_is_known=len(ordered) > 1 or first.thickness is not None)  # fmt: skip
    return DicomSource(path, tuple(ordered), geometry, dtype)


def _read_header(path: Path, max_bytes: int | None) -> _Slice | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY_CLASS:
                return None
            kind = pydicom.uid.UID(header.SOPClassUID)
            # a class that is cut short, or not in the standard's list, is no reason to leave a slice out
            if kind.type == "SOP Class" and "Image Storage" not in kind.name:
                return None
            return _slice(path, header, max_bytes)
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, EOFError, OSError, NotImplementedError) as error:
        refuse(path, "a DICOM image with position, orientation and pixel spacing",
               str(error) or type(error).__name__, _BAD)  # fmt: skip


def _slice(path: Path, header: Any, max_bytes: int | None) -> _Slice:
    if int(header.get("NumberOfFrames") or 1) != 1:
        refuse(
            path,
            "one slice per file",
            f"{header.NumberOfFrames} frames",
            "export it as single-frame DICOM or NIfTI",
        )
    if int(header.SamplesPerPixel) != 1 or header.PhotometricInterpretation != "MONOCHROME2":
        refuse(path, "MONOCHROME2", header.PhotometricInterpretation, "export it as MONOCHROME2")
    kind = int(header.Rows), int(header.Columns), int(header.BitsAllocated), int(header.PixelRepresentation)
    if min(kind[:2]) < 1 or kind[2] not in (8, 16, 32) or kind[3] not in (0, 1):
        refuse(path, "rows and columns of 8, 16 or 32 bit", f"{kind[0]}x{kind[1]} of {kind[2]} bit", _BAD)
    syntax = header.file_meta.TransferSyntaxUID
    pixel_bytes, stored = kind[0] * kind[1] * kind[2] // 8, path.stat().st_size
    if not syntax.is_compressed and stored < pixel_bytes:
        refuse(path, f"{pixel_bytes} bytes of pixels", f"a file of {stored} bytes", _BAD)
    check_budget(path, pixel_bytes, max_bytes)
    check_expansion(path, stored, pixel_bytes, max_bytes)
    thickness = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
    one = _Slice(
        path, str(header.SeriesInstanceUID), str(header.SOPInstanceUID), kind, int(header.BitsStored),
        (float(header.PixelSpacing[0]), float(header.PixelSpacing[1])),
        tuple(float(cosine) for cosine in header.ImageOrientationPatient),
        tuple(float(length) for length in header.ImagePositionPatient),
        float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0)),
        not syntax.is_compressed or syntax == RLELossless, abs(float(thickness)) if thickness else None,
    )  # fmt: skip
    numbers = [*one.spacing, *one.orientation, *one.position, one.slope, one.intercept]
    rows = np.reshape(one.orientation, (2, 3)) if len(one.orientation) == 6 else np.zeros((2, 3))
    is_frame = np.allclose(rows @ rows.T, np.eye(2), atol=1e-2)
    if not np.isfinite(numbers).all() or len(one.position) != 3 or not is_frame or min(one.spacing) <= 0:
        refuse(path, "a finite position, perpendicular axes and positive spacing",
               f"{one.position}, {one.orientation}, {one.spacing}", _BAD)  # fmt: skip
    return one


def _check_alike(first: _Slice, one: _Slice) -> None:
    if one.series != first.series:
        refuse(one.path, f"the series of {first.path.name}", f"series {one.series}", _SPLIT)
    if one.kind != first.kind:
        refuse(one.path, f"rows, columns, bits, sign {first.kind} like {first.path.name}", one.kind, _SPLIT)
    if not np.allclose(one.orientation, first.orientation, atol=_COSINE_TOLERANCE):
        refuse(one.path, f"orientation {first.orientation} like {first.path.name}", one.orientation, _SPLIT)
    if not np.allclose(one.spacing, first.spacing, rtol=_COSINE_TOLERANCE):
        refuse(one.path, f"pixels of {first.spacing} mm like {first.path.name}", one.spacing, _SPLIT)


def _place(path: Path, slices: list[_Slice]) -> tuple[npt.NDArray[np.float64], list[_Slice]]:
    first = slices[0]
    along_row, along_column = np.reshape(first.orientation, (2, 3))
    normal = np.cross(along_row, along_column)
    ordered = sorted(slices, key=lambda one: (float(normal @ np.array(one.position)), one.path.name))
    positions = np.array([one.position for one in ordered])
    step = normal * (first.thickness or 1.0)
    if len(ordered) > 1:
        step = _step(path, ordered, positions, normal)
    affine = np.eye(4)
    # the first pixel spacing is the distance of rows, which lies along y
    affine[:3, 0], affine[:3, 1] = along_row * first.spacing[1], along_column * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    return affine, ordered


def _step(
    path: Path, ordered: list[_Slice], positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    for k, gap in enumerate(gaps):
        name, following = ordered[k].path.name, ordered[k + 1].path
        if gap <= _SPACING_TOLERANCE * max(usual, 1e-6):
            refuse(following, "one slice per position", f"the position of {name}", "remove the duplicate")
        if abs(gap - usual) > _SPACING_TOLERANCE * usual + 1e-3:
            refuse(following, f"a slice {usual:.4g} mm behind {name}", f"{gap:.4g} mm",
                   "restore the missing slice, or resample the series to one spacing")  # fmt: skip
    step: npt.NDArray[np.float64] = (positions[-1] - positions[0]) / (len(positions) - 1)
    if np.linalg.norm(step - normal * (normal @ step)) > _SPACING_TOLERANCE * usual:
        refuse(path, "slices stacked along their normal", f"a step of {step.round(4).tolist()} mm",
               "resample the tilted series first")  # fmt: skip
    return normal * float(normal @ step)


def _dtype(slices: list[_Slice]) -> np.dtype[Any]:
    ends = []
    for one in slices:
        if one.slope != int(one.slope) or one.intercept != int(one.intercept):
            return np.dtype(np.float32)
        lowest = -(2 ** (one.stored_bits - 1)) if one.kind[3] else 0
        highest = lowest + 2**one.stored_bits - 1
        ends += [lowest * one.slope + one.intercept, highest * one.slope + one.intercept]
    if (slices[0].slope, slices[0].intercept) == (1, 0) and min(ends) >= 0:
        return np.dtype(f"u{slices[0].kind[2] // 8}")
    for name in ("i2", "i4"):
        if np.iinfo(name).min <= min(ends) and max(ends) <= np.iinfo(name).max:
            return np.dtype(name)
    return np.dtype(np.float32)


def _pixels(one: _Slice, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if not one.is_native:
        return _itk_pixels(one)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)
            pixels = pydicom.dcmread(one.path).pixel_array
    except Exception as error:  # decoders raise many types on damaged data
        refuse(one.path, "whole pixel data", str(error) or type(error).__name__, _BAD)
    if pixels.shape != one.kind[:2]:
        refuse(one.path, f"{one.kind[:2]} pixels", pixels.shape, _BAD)
    if (one.slope, one.intercept) == (1, 0):
        return pixels
    return pixels * np.float64(one.slope) + np.float64(one.intercept)


def _itk_pixels(one: _Slice) -> npt.NDArray[Any]:
    from monai.data import ITKReader

    reader = ITKReader()
    try:
        voxels, _ = reader.get_data(reader.read(str(one.path)))
    except RuntimeError as error:
        refuse(one.path, "pixel data that ITK decodes", str(error).splitlines()[-1], _BAD)
    return np.asarray(voxels).reshape(one.kind[1], one.kind[0]).T
