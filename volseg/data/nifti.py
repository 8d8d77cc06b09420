"""NIfTI-1 and NIfTI-2, one file or a pair: first the header is checked, then the data are read to the end.

nibabel parses the header. Size, datatype, extensions, affine and gzip checksum are checked here, because
nibabel accepts a wrong or missing gzip checksum, and a singular affine. What is read how:

- sform (code > 0) wins over qform, qform over pixdim; a disagreement of the two forms is warned of.
- without forms the affine is nibabel's: pixdim, x flipped, origin in the middle.
- a sheared affine is read as it is; a singular one, or one that is not finite, is refused.
- a two-dimensional image is a volume of one slice; trailing axes of length 1 are dropped.
- slope 0 or NaN means unscaled; scaled integers up to 16 bit become float32, wider ones float64.
- colour, complex, several volumes, Analyze files without NIfTI magic and bytes behind the data are refused.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from volseg.checks import refuse
from volseg.data.byte_stream import ByteStream, GzipStream
from volseg.data.limits import check_budget, check_expansion
from volseg.geometry import Geometry

__all__ = ["NIFTI_DTYPES", "NiftiSource", "open_nifti"]

NIFTI_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
"""NIfTI datatype codes that one grey voxel may have."""

_UNITS = {0: "unknown", 1: "m", 2: "mm", 3: "um"}
_MAX_EXTENSION_BYTES = 64 * 2**20
# deflate cannot shrink anything further than 1032-fold
_DEFLATE_LIMIT = 1032
# forms that place a corner of the volume further apart than this part of a voxel disagree
_FORM_TOLERANCE_VOXELS = 0.1


@dataclass(frozen=True)
class NiftiSource:
    """A NIfTI file whose header was accepted.

    Attributes:
        path: the file that holds the voxels.
        geometry: grid of the volume.
        stored_dtype: voxel type in the file, with its byte order.
        data_offset: position of the first voxel in the decompressed data.
        slope: scale factor, or None for unscaled data.
        intercept: added after scaling.
    """

    path: Path
    geometry: Geometry
    stored_dtype: np.dtype[Any]
    data_offset: int
    slope: float | None
    intercept: float

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array that `read` returns."""
        if self.slope is None:
            return self.stored_dtype.newbyteorder("=")
        is_exact = self.stored_dtype.itemsize <= 2 or self.stored_dtype == np.float32
        return np.dtype(np.float32 if is_exact else np.float64)

    def read(self, max_workers: int | None = None) -> npt.NDArray[Any]:
        """Read the voxels as (x, y, z), in Fortran order.

        Args:
            max_workers: not used, one stream is read by one thread.

        Raises:
            InputError: when the data are short, damaged or longer than the header says.
        """
        voxels = np.empty(math.prod(self.geometry.shape), self.stored_dtype)
        with self.path.open("rb") as file:
            stream = _stream(self.path, file)
            stream.skip(self.data_offset)
            stream.fill(memoryview(voxels.view(np.uint8).data))
            stream.finish()
        if not voxels.dtype.isnative:
            voxels = voxels.byteswap(inplace=True).view(voxels.dtype.newbyteorder("="))
        if self.slope is not None:
            voxels = voxels.astype(self.dtype, copy=False)
            voxels *= self.slope
            voxels += self.intercept
        return voxels.reshape(self.geometry.shape, order="F")


def open_nifti(path: Path, max_bytes: int | None = None) -> NiftiSource:
    """Check the header of a .nii, .nii.gz or .hdr/.img pair.

    Raises:
        InputError: when anything in the header, or the file's size, is not as the standard asks.
    """
    header_path, data_path = _header_and_data(path)
    header, raw, is_pair = _read_header(header_path)
    shape = _shape(path, header)
    stored_dtype = _stored_dtype(path, header)
    offset = _data_offset(header_path, header, len(raw), is_pair)
    voxel_bytes = math.prod(shape) * stored_dtype.itemsize
    _check_size(data_path, offset, voxel_bytes, max_bytes)
    slope, intercept = _scaling(path, header)
    source = NiftiSource(
        data_path, _geometry(path, header, raw, shape), stored_dtype, offset, slope, intercept
    )
    if source.dtype.itemsize > stored_dtype.itemsize:
        check_budget(path, math.prod(shape) * source.dtype.itemsize, max_bytes)
    return source


def _stream(path: Path, file: Any) -> ByteStream:
    return GzipStream(path, file) if path.name.lower().endswith(".gz") else ByteStream(path, file)


def _header_and_data(path: Path) -> tuple[Path, Path]:
    suffix = path.suffix.lower()
    if suffix not in (".hdr", ".img"):
        return path, path
    other = {".hdr": ".img", ".img": ".hdr"}[suffix]
    partner = path.with_suffix(other.upper() if path.suffix.isupper() else other)
    if not partner.is_file():
        refuse(
            path, f"its other half {partner.name} beside it", "no such file", "keep .hdr and .img together"
        )
    return (path, partner) if suffix == ".hdr" else (partner, path)


def _read_header(path: Path) -> tuple[Any, bytes, bool]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        if is_gzip != path.name.lower().endswith(".gz"):
            refuse(
                path,
                "gzip data behind a name that ends in .gz, and nowhere else",
                "gzip data" if is_gzip else "other data",
                "rename the file after its content",
            )
        file.seek(0)
        raw = _stream(path, file).read_up_to(540)
    remedy = "give a NIfTI file, or convert this one"
    for size, header_class, magics in (
        (348, nib.Nifti1Header, {b"n+1\0": False, b"ni1\0": True}),
        (540, nib.Nifti2Header, {b"n+2\0": False, b"ni2\0": True}),
    ):
        for order in "<>":
            if raw[:4] != np.array(size, f"{order}i4").tobytes():
                continue
            if len(raw) < size:
                refuse(path, f"a header of {size} bytes", f"{len(raw)} bytes", "copy the file again")
            header = header_class(raw[:size], order, check=False)
            magic = raw[344:348] if size == 348 else raw[4:8]
            is_pair = path.suffix.lower() == ".hdr"
            if magics.get(magic) != is_pair:
                refuse(path, f"the magic of a NIfTI {'pair' if is_pair else 'file'}", repr(magic), remedy)
            return header, raw[:size], is_pair
    refuse(path, "a NIfTI header", f"a file that starts with {raw[:8]!r}", remedy)


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
    dim = [int(length) for length in header["dim"]]
    if not 1 <= dim[0] <= 7 or any(length < 1 for length in dim[1 : dim[0] + 1]):
        refuse(path, "1 to 7 axes of at least one voxel", f"dim {dim}", "export the volume again")
    shape = [*dim[1 : dim[0] + 1], 1, 1]
    if math.prod(shape[3:]) != 1:
        refuse(
            path, "one volume of three axes", f"{dim[1 : dim[0] + 1]}", "split it into one file per volume"
        )
    return shape[0], shape[1], shape[2]


def _stored_dtype(path: Path, header: Any) -> np.dtype[Any]:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code not in NIFTI_DTYPES:
        refuse(
            path, "one integer or real number per voxel", f"datatype {code}", "convert it to a grey volume"
        )
    dtype = np.dtype(NIFTI_DTYPES[code]).newbyteorder(header.endianness)
    if bits not in (0, 8 * dtype.itemsize):
        refuse(path, f"bitpix {8 * dtype.itemsize} for datatype {code}", bits, "export the volume again")
    return dtype


def _data_offset(path: Path, header: Any, header_size: int, is_pair: bool) -> int:
    offset = float(header["vox_offset"])
    if is_pair:
        lowest = 0
    else:
        lowest = header_size + 4
        offset = offset or lowest  # 0 is written by programs that mean "behind the header"
    if not math.isfinite(offset) or offset != int(offset) or offset < lowest:
        refuse(path, f"vox_offset of {lowest} or more", offset, "export the volume again")
    if offset > lowest + _MAX_EXTENSION_BYTES:
        refuse(path, f"at most {_MAX_EXTENSION_BYTES} bytes of header extensions", f"vox_offset {offset:.0f}",
               "remove the extensions")  # fmt: skip
    if not is_pair:
        _check_extensions(path, header, header_size, int(offset))
    return int(offset)


def _check_extensions(path: Path, header: Any, header_size: int, offset: int) -> None:
    with path.open("rb") as file:
        stream = _stream(path, file)
        stream.skip(header_size)
        has_extensions = stream.read_up_to(4)[:1] not in (b"", b"\0")
        position = header_size + 4
        while has_extensions and position < offset:
            size = int(np.frombuffer(stream.read_up_to(4).ljust(4, b"\0"), f"{header.endianness}i4")[0])
            if size < 8 or position + size > offset:
                refuse(path, f"header extensions up to byte {offset}", f"one of {size} bytes at {position}",
                       "remove the extensions")  # fmt: skip
            stream.skip(size - 4)
            position += size


def _check_size(path: Path, offset: int, voxel_bytes: int, max_bytes: int | None) -> None:
    stored, needed = path.stat().st_size, offset + voxel_bytes
    if path.name.lower().endswith(".gz"):
        is_impossible = needed > _DEFLATE_LIMIT * (stored + 8)
        if is_impossible:
            refuse(
                path,
                f"data for {needed} bytes",
                f"a file of {stored}",
                "the file is truncated or its header wrong",
            )
        check_budget(path, voxel_bytes, max_bytes)
        check_expansion(path, stored, voxel_bytes, max_bytes)
        return
    if stored != needed:
        refuse(path, f"a file of {needed} bytes by its header", f"{stored} bytes", "copy or export it again")
    check_budget(path, voxel_bytes, max_bytes)


def _scaling(path: Path, header: Any) -> tuple[float | None, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope) or (slope == 1 and intercept == 0):
        return None, 0.0
    if not math.isfinite(slope) or not math.isfinite(intercept):
        refuse(path, "a finite scale", f"scl_slope {slope}, scl_inter {intercept}", "export the volume again")
    return slope, intercept


def _geometry(path: Path, header: Any, raw: bytes, shape: tuple[int, int, int]) -> Geometry:
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    unit = _UNITS.get(int(header["xyzt_units"]) & 7)
    if unit is None:
        refuse(
            path,
            "a spatial unit code of 0, 1, 2 or 3",
            f"xyzt_units {header['xyzt_units']}",
            "export it again",
        )
    if sform_code > 0:
        name, affine = "sform", np.asarray(header.get_sform(), dtype=np.float64)
    elif qform_code > 0:
        name, affine = "qform", _qform(path, header)
    else:
        name, affine = "pixdim", _pixdim_affine(path, header, shape)
    _check_affine(path, name, affine)
    if sform_code > 0 and qform_code > 0:
        _warn_of_other_qform(path, header, affine, shape)
    return Geometry(shape, affine, unit, sform_code, qform_code, True, raw)


def _spatial_header(header: Any) -> Any:
    # a two-dimensional file may leave the third pixdim at 0: its one slice is then 1 unit thick
    copy = header.copy()
    if int(header["dim"][0]) < 3:
        pixdim = copy["pixdim"].copy()
        unset = [axis for axis in range(int(header["dim"][0]) + 1, 4) if not pixdim[axis] > 0]
        pixdim[unset] = 1
        copy["pixdim"] = pixdim
    return copy


def _qform(path: Path, header: Any) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(_spatial_header(header).get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
        refuse(path, "a valid qform", str(error), "set the sform, or export the volume again")


def _pixdim_affine(path: Path, header: Any, shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    zooms = np.asarray(_spatial_header(header)["pixdim"][1:4], dtype=np.float64)
    if not np.isfinite(zooms).all() or (zooms <= 0).any():
        refuse(path, "an sform, a qform or a positive pixdim", f"pixdim {zooms.tolist()} and no form",
               "set the voxel size of the file")  # fmt: skip
    zooms[0] *= -1
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -zooms * (np.asarray(shape) - 1) / 2
    return affine


def _check_affine(path: Path, name: str, affine: npt.NDArray[np.float64]) -> None:
    remedy = "set a valid sform or qform, or export the volume again"
    if not np.isfinite(affine).all():
        refuse(path, f"a finite {name}", affine[:3].tolist(), remedy)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths == 0).any() or abs(np.linalg.det(affine[:3, :3] / np.where(lengths, lengths, 1))) < 1e-6:
        refuse(path, f"an invertible {name}", affine[:3].tolist(), remedy)


def _warn_of_other_qform(
    path: Path, header: Any, sform: npt.NDArray[np.float64], shape: tuple[int, int, int]
) -> None:
    try:
        qform = np.asarray(_spatial_header(header).get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):
        qform = np.full((4, 4), np.nan)
    corners = np.array([[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])]).T
    distance_voxels = np.linalg.norm((np.linalg.inv(sform) @ qform @ corners - corners)[:3], axis=0).max()
    if not distance_voxels <= _FORM_TOLERANCE_VOXELS:
        warnings.warn(
            f"{path}: sform and qform place the volume differently; the sform is used",
            UserWarning,
            stacklevel=2,
        )
