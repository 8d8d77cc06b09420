"""The front door: every volume enters here, looked at by its header first, then read to its last byte.

| path | read as |
|---|---|
| `*.nii`, `*.nii.gz`, `*.hdr` or `*.img` | NIfTI, `volseg.data.nifti` |
| `*.tif`, `*.tiff`, `*.png`, `*.bmp`, `*.jpg`, `*.jpeg`, `*.gif` | pages, `volseg.data.slice_folder` |
| `*.pgm`, `*.ppm` | likewise |
| `*.nrrd`, `*.nhdr`, `*.mha`, `*.mhd` | `volseg.data.itk_formats` |
| `*.dcm`, `*.ima`, `*.dicom`, or a file with the DICOM mark | `volseg.data.dicom` |
| a folder | its slices, else its DICOM series, else the slices of its sub-folder `images` |

The suffix chooses, and the content must agree. Pipes, devices and broken links are refused unopened.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol, get_args

import numpy as np
import numpy.typing as npt
from monai.data import ImageReader

from volseg.checks import check_choice, check_positive, refuse
from volseg.data.dicom import DICOM_SUFFIXES, has_dicom_mark, list_dicom_files, open_dicom
from volseg.data.itk_formats import ITK_SUFFIXES, open_itk
from volseg.data.nifti import open_nifti
from volseg.data.raster import RASTER_SUFFIXES
from volseg.data.slice_folder import Gaps, SliceSource, check_spacing, is_junk, open_slices
from volseg.geometry import Geometry

__all__ = [
    "VolumeReader",
    "check_voxels",
    "is_folder",
    "paths_of",
    "read_header",
    "read_numbered_header",
    "read_volume",
    "refuse_access",
    "slice_numbers",
]

_NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img")
_ALL_SUFFIXES = (*_NIFTI_SUFFIXES, *RASTER_SUFFIXES, *ITK_SUFFIXES, *DICOM_SUFFIXES)
_SAME_SPACING = 1e-2


class _Source(Protocol):
    """What the module of each format returns for an accepted header."""

    @property
    def geometry(self) -> Geometry:
        """Grid of the volume."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array that `read` returns."""

    def read(self, max_workers: int | None = None) -> npt.NDArray[Any]:
        """Read the voxels as (x, y, z)."""


class VolumeReader(ImageReader):
    """MONAI reader for every format of this module: `LoadImaged(keys, reader="volseg.data.VolumeReader")`.

    MONAI's readers know no slice folders, accept damaged files, and are all tried in turn when the chosen one
    refuses in `read`. This one therefore refuses in `get_data`, where LoadImage tries no other. The array
    keeps the file's type; LoadImage then converts it to its `dtype`, and widens uint16 to int32 for None.

    Args:
        spacing_mm: edge lengths (x, y, z) of a voxel for slices and pages; other volumes keep their own.
        max_bytes: largest accepted size of the voxels, see `volseg.data.limits.byte_budget`.
        max_workers: threads that decode slices; by default one per processor, at most 8.
        gaps: "refuse" a slice folder in which numbers are missing, or "keep" the slices that are there as the
            volume; their numbers then stand in its meta data, where `volseg.transforms.SpreadSlicesd` finds
            them.
    """

    def __init__(
        self,
        spacing_mm: Sequence[float] | None = None,
        max_bytes: int | None = None,
        max_workers: int | None = None,
        *,
        gaps: Gaps = "refuse",
    ) -> None:
        super().__init__()
        check_choice("gaps", gaps, get_args(Gaps))
        if spacing_mm is not None:
            check_spacing(spacing_mm)
        if max_workers is not None:
            check_positive("max_workers", max_workers)
        self.spacing_mm = spacing_mm
        self.max_bytes = max_bytes
        self.max_workers = max_workers
        self.gaps = gaps

    def verify_suffix(self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> bool:
        """Tell whether every name is a folder or has a suffix of this module."""
        return all(
            Path(name).is_dir() or str(name).lower().endswith(_ALL_SUFFIXES) for name in paths_of(filename)
        )

    def read(
        self, data: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], **kwargs: Any
    ) -> tuple[Path, ...]:
        """Only note the path; nothing is opened before `get_data`.

        Args:
            data: one path, alone or in a sequence.
            kwargs: not used; MONAI's interface asks for it.
        """
        return paths_of(data)

    def get_data(self, img: Sequence[Path]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Read the volume that `read` noted.

        Returns:
            the (x, y, z) array in the file's dtype, and its meta data: `affine` and `original_affine` (4, 4)
            in RAS mm, `spatial_shape`, `original_channel_dim`, `space`, `filename_or_obj`,
            `spacing_is_known` and `non_finite_voxels`; with `gaps="keep"` also the `slice_numbers` of slices
            and pages, a list of int.

        Raises:
            InputError: naming the file, for whatever is wrong with it.
        """
        paths = tuple(img)
        if len(paths) != 1:
            refuse(", ".join(map(str, paths)) or "no input", "one path per volume", f"{len(paths)} paths",
                   "give a folder of slices, or one file")  # fmt: skip
        source = _open(paths[0], self.spacing_mm, self.max_bytes, self.gaps)
        voxels, bad = _read(source, paths[0], self.max_workers)
        geometry, numbers = source.geometry, _numbers_of(source)
        numbered = {"slice_numbers": numbers} if self.gaps == "keep" and numbers is not None else {}
        return voxels, {
            "affine": geometry.affine,
            "original_affine": geometry.affine,
            "spatial_shape": np.asarray(geometry.shape),
            "original_channel_dim": float("nan"),
            "space": "RAS",
            "filename_or_obj": str(paths[0]),
            "spacing_is_known": geometry.spacing_is_known,
            "non_finite_voxels": bad,
            **numbered,
        }


def read_header(
    path: str | os.PathLike[str],
    *,
    spacing_mm: Sequence[float] | None = None,
    max_bytes: int | None = None,
    gaps: Gaps = "refuse",
) -> Geometry:
    """Check all that headers tell about a volume, and return its grid, without reading the voxels.

    Args:
        path: file or folder.
        spacing_mm: edge lengths (x, y, z) of a voxel for slices and pages.
        max_bytes: largest accepted size of the voxels.
        gaps: "keep" accepts a slice folder in which numbers are missing.

    Raises:
        InputError: naming the file, for whatever is wrong with it.
    """
    return _open(_path(path), spacing_mm, max_bytes, gaps).geometry


def read_numbered_header(
    path: str | os.PathLike[str], *, spacing_mm: Sequence[float] | None = None, gaps: Gaps = "refuse"
) -> tuple[Geometry, list[int] | None]:
    """As `read_header`, with the numbers of slices and pages; None for formats whose slices have none."""
    source = _open(_path(path), spacing_mm, None, gaps)
    return source.geometry, _numbers_of(source)


def read_volume(
    path: str | os.PathLike[str],
    *,
    spacing_mm: Sequence[float] | None = None,
    max_bytes: int | None = None,
    max_workers: int | None = None,
    gaps: Gaps = "refuse",
) -> tuple[npt.NDArray[Any], Geometry]:
    """Read a volume to its last byte, after its header was checked.

    Args:
        path: file or folder.
        spacing_mm: edge lengths (x, y, z) of a voxel for slices and pages.
        max_bytes: largest accepted size of the voxels.
        max_workers: threads that decode slices.
        gaps: "keep" accepts a slice folder in which numbers are missing.

    Returns:
        the (x, y, z) array in the file's dtype and native byte order, and its grid.

    Raises:
        InputError: naming the file, for whatever is wrong with it.
    """
    source = _open(_path(path), spacing_mm, max_bytes, gaps)
    voxels, _ = _read(source, _path(path), max_workers)
    return voxels, source.geometry


def slice_numbers(path: str | os.PathLike[str], *, gaps: Gaps = "refuse") -> list[int]:
    """Return the numbers in the names of a folder's slices, in order; 0, 1, 2 ... for any other volume.

    A folder of partial labels may start at any number: they say where in the image stack its slices lie.

    Raises:
        InputError: as `read_header`.
    """
    geometry, numbers = read_numbered_header(path, gaps=gaps)
    return list(range(geometry.shape[2])) if numbers is None else numbers


def check_voxels(array: npt.NDArray[Any], source: str | Path) -> int:
    """Count the voxels that are NaN or infinite; nothing is replaced.

    Returns:
        their number, 0 for integers.

    Raises:
        InputError: when no voxel is finite.
    """
    if not np.issubdtype(array.dtype, np.inexact) or not array.size:
        return 0
    # slab by slab along the slowest axis in memory: a mask of the whole volume would cost a quarter of it
    slowest = int(np.argmax(np.abs(array.strides)))
    finite = sum(int(np.isfinite(slab).sum()) for slab in np.moveaxis(array, slowest, 0))
    if not finite:
        refuse(source, "finite voxels", "only NaN or infinite ones", "export the volume again")
    return array.size - finite


def _numbers_of(source: _Source) -> list[int] | None:
    return list(source.numbers) if isinstance(source, SliceSource) else None


def _read(source: _Source, path: Path, max_workers: int | None) -> tuple[npt.NDArray[Any], int]:
    """Voxels of an accepted header, and how many of them are not finite."""
    try:
        voxels = source.read(max_workers)
    except OSError as error:
        refuse_access(path, error)
    return voxels, check_voxels(voxels, path)


def _open(path: Path, spacing_mm: Sequence[float] | None, max_bytes: int | None, gaps: Gaps) -> _Source:
    check_choice("gaps", gaps, get_args(Gaps))
    if spacing_mm is not None:
        check_spacing(spacing_mm)
    try:
        source: _Source
        if is_folder(path):
            source = _open_folder(path, spacing_mm, max_bytes, gaps)
        else:
            source = _open_file(path, spacing_mm, max_bytes)
    except OSError as error:
        refuse_access(path, error)
    if spacing_mm is not None and not np.allclose(source.geometry.spacing_mm, spacing_mm, rtol=_SAME_SPACING):
        stated = tuple(round(length, 6) for length in source.geometry.spacing_mm)
        warnings.warn(
            f"{path}: keeps its own spacing of {stated} mm, not {tuple(spacing_mm)}",
            UserWarning,
            stacklevel=3,
        )
    return source


def _path(path: str | os.PathLike[str]) -> Path:
    if not os.fspath(path):
        refuse("path", "a file or folder", "an empty path", "give the path of a volume")
    return Path(path)


def is_folder(path: Path) -> bool:
    """Tell a folder from a file, without opening either.

    Raises:
        InputError: for a pipe, socket or device, which could hang, and for a text that is no path.
        OSError: when nothing is there.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        refuse(str(path), "a path", str(error), "give the path of a file or folder")
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        refuse(path, "a file or folder", "a pipe, socket or device", "write the volume to a file first")
    return stat.S_ISDIR(mode)


def _open_file(path: Path, spacing_mm: Sequence[float] | None, max_bytes: int | None) -> _Source:
    name = path.name.lower()
    if not path.stat().st_size:
        refuse(path, "a volume", "an empty file", "copy or export it again")
    if name.endswith(_NIFTI_SUFFIXES):
        return open_nifti(path, max_bytes)
    if name.endswith(RASTER_SUFFIXES):
        return open_slices(path, spacing_mm, max_bytes)
    if name.endswith(ITK_SUFFIXES):
        return open_itk(path, max_bytes)
    if name.endswith(DICOM_SUFFIXES) or has_dicom_mark(path):
        return open_dicom(path, max_bytes)
    refuse(
        path,
        f"one of {' '.join(_ALL_SUFFIXES)}",
        path.suffix or "no suffix",
        "convert the volume, e.g. to .nii.gz",
    )


def _open_folder(
    path: Path, spacing_mm: Sequence[float] | None, max_bytes: int | None, gaps: Gaps
) -> _Source:
    names = [name for name in os.listdir(path) if not is_junk(name) and not (path / name).is_dir()]
    if any(name.lower().endswith(RASTER_SUFFIXES) for name in names):
        return open_slices(path, spacing_mm, max_bytes, gaps=gaps)
    if list_dicom_files(path):
        return open_dicom(path, max_bytes)
    volumes = sorted(name for name in names if name.lower().endswith((*_NIFTI_SUFFIXES, *ITK_SUFFIXES)))
    if volumes:
        refuse(
            path, "a folder of slices or one DICOM series", volumes[0], "give the path of that file itself"
        )
    return open_slices(path, spacing_mm, max_bytes, gaps=gaps)


def paths_of(data: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the paths that MONAI hands to a reader, one or several.

    Raises:
        InputError: for an empty path.
    """
    return (_path(data),) if isinstance(data, str | os.PathLike) else tuple(_path(name) for name in data)


def refuse_access(path: Path, error: OSError) -> NoReturn:
    """Word what the operating system said about a file.

    Raises:
        InputError: always.
    """
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        refuse(path, "a file or folder", "a symbolic link to nothing", "restore its target")
    if isinstance(error, FileNotFoundError):
        refuse(error.filename or path, "a file or folder", "nothing there", "check the path")
    if error.errno == errno.ELOOP:
        refuse(path, "a file or folder", "a symbolic link that leads in a circle", "restore its target")
    refuse(
        error.filename or path,
        "a readable file",
        error.strerror or str(error),
        "check its rights and its disk",
    )
