from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from volseg.checks import InputError
from volseg.data.nifti import NIFTI_DTYPES
from volseg.data.volume_reader import read_header, read_volume
from volseg.geometry import swap_ras_lps

SHAPE = (5, 7, 4)


def _voxels(dtype="i2", shape=SHAPE):
    return (np.random.default_rng(0).integers(0, 100, shape)).astype(dtype)


def _oblique(degrees=20.0):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.5, 0.7, 2.0])
    affine[:3, 3] = 10, -20, 30
    return affine


def _save(path: Path, voxels=None, affine=None, version=nib.Nifti1Image, **fields) -> Path:
    voxels = _voxels() if voxels is None else voxels
    image = version(voxels, np.diag([2, 3, 4, 1]) if affine is None else affine, dtype=voxels.dtype)
    image.to_filename(path)
    if fields:
        raw = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        header = nib.Nifti1Header(bytes(raw[:348]), check=False)
        for name, value in fields.items():
            header[name] = value
        raw[:348] = header.binaryblock
        path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))
    return path


AFFINES = {
    "RAS": np.diag([2.0, 3, 4, 1]),
    "LPS": np.diag([-2.0, -3, 4, 1]),
    "permuted": np.array([[0, 0, 4.0, 1], [2, 0, 0, 2], [0, 3, 0, 3], [0, 0, 0, 1]]),
    "left-handed": np.diag([-2.0, 3, 4, 1]),
    "oblique 20": _oblique(20),
    "oblique 45": _oblique(45),
    "anisotropic": np.diag([0.5, 0.5, 5, 1]),
    "far origin": np.array([[1.0, 0, 0, 1e6], [0, 1, 0, -1e6], [0, 0, 1, 1e6], [0, 0, 0, 1]]),
    "tiny spacing": np.diag([0.001, 0.001, 0.001, 1]),
}


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_any_orientation_is_read_as_nibabel_and_simpleitk_read_it(tmp_path, name, suffix):
    path = _save(tmp_path / f"a{suffix}", affine=AFFINES[name])
    voxels, geometry = read_volume(path)
    np.testing.assert_array_equal(voxels, _voxels())
    np.testing.assert_array_equal(geometry.affine, nib.load(path).affine)
    judge = SimpleITK.ReadImage(str(path))
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(judge.GetDirection(), (3, 3)) @ np.diag(judge.GetSpacing())
    lps[:3, 3] = judge.GetOrigin()
    np.testing.assert_allclose(swap_ras_lps(lps), geometry.affine, rtol=1e-5, atol=1e-5)
    assert read_header(path).shape == SHAPE


@pytest.mark.parametrize("dtype", NIFTI_DTYPES.values())
def test_every_grey_dtype_is_kept(tmp_path, dtype):
    voxels, _ = read_volume(_save(tmp_path / "a.nii.gz", _voxels(dtype)))
    assert voxels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(voxels, _voxels(dtype))


def test_big_endian_comes_back_native_with_its_geometry(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.Nifti1Image(_voxels(), _oblique(), header).to_filename(tmp_path / "a.nii")
    voxels, geometry = read_volume(tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    assert voxels.dtype.isnative
    np.testing.assert_array_equal(voxels, _voxels())
    np.testing.assert_allclose(geometry.affine, _oblique(), atol=1e-5)


@pytest.mark.parametrize("version", [nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair])
def test_nifti_2_and_pairs_are_read(tmp_path, version):
    suffix = ".img" if version.__name__.endswith("Pair") else ".nii"
    path = _save(tmp_path / f"a{suffix}", affine=_oblique(), version=version)
    voxels, geometry = read_volume(path)
    np.testing.assert_array_equal(voxels, _voxels())
    np.testing.assert_array_equal(geometry.affine, nib.load(path).affine)
    if suffix == ".img":
        np.testing.assert_array_equal(read_volume(path.with_suffix(".hdr"))[0], voxels)


def test_units_codes_and_raw_header_are_kept(tmp_path):
    path = _save(
        tmp_path / "a.nii", affine=np.diag([50.0, 50, 63, 1]), xyzt_units=3, sform_code=4, qform_code=0
    )
    geometry = read_header(path)
    assert (geometry.unit, geometry.sform_code, geometry.qform_code) == ("um", 4, 0)
    assert geometry.spacing_mm == pytest.approx((0.05, 0.05, 0.063))
    assert geometry.nifti_header == path.read_bytes()[:348]


def test_a_qform_alone_is_used(tmp_path):
    path = _save(tmp_path / "a.nii", affine=_oblique(), sform_code=0, qform_code=1)
    np.testing.assert_allclose(read_header(path).affine, _oblique(), atol=1e-5)


def test_without_forms_pixdim_counts_as_in_nibabel(tmp_path):
    path = _save(tmp_path / "a.nii", sform_code=0, qform_code=0)
    np.testing.assert_array_equal(read_header(path).affine, nib.load(path).affine)


@pytest.mark.parametrize(
    "pixdim", [(1, 9, 9, 9, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0, 0), (1, np.nan, 1, 1, 0, 0, 0, 0)]
)
def test_a_stale_pixdim_beside_a_good_sform_loses_nothing(tmp_path, pixdim):
    path = _save(tmp_path / "a.nii", affine=_oblique(), qform_code=0, pixdim=pixdim)
    np.testing.assert_allclose(read_header(path).affine, _oblique(), atol=1e-5)


def test_an_sform_wins_over_another_qform_with_a_warning(tmp_path):
    path = _save(tmp_path / "a.nii", affine=_oblique(), qform_code=1, qoffset_x=40)
    with pytest.warns(UserWarning, match=r"a\.nii: sform and qform"):
        geometry = read_header(path)
    np.testing.assert_allclose(geometry.affine, _oblique(), atol=1e-5)


def test_a_sheared_affine_is_read_as_it_is(tmp_path):
    sheared = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    path = _save(tmp_path / "a.nii", affine=sheared, qform_code=0)
    np.testing.assert_allclose(read_header(path).affine, sheared, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "read_as"),
    [((5, 7), (5, 7, 1)), ((5, 7, 1), (5, 7, 1)), ((1, 1, 1), (1, 1, 1)), ((2, 2, 2), (2, 2, 2)),
     ((1, 7, 4), (1, 7, 4)), ((5, 7, 4, 1), (5, 7, 4)), ((5, 7, 4, 1, 1), (5, 7, 4))],
)  # fmt: skip
def test_few_voxels_and_trailing_axes_of_one_become_three_axes(tmp_path, shape, read_as):
    voxels, geometry = read_volume(_save(tmp_path / "a.nii.gz", _voxels(shape=shape)))
    assert voxels.shape == geometry.shape == read_as
    np.testing.assert_array_equal(voxels, _voxels(shape=shape).reshape(read_as))


def test_a_flat_image_without_a_third_pixdim_is_one_unit_thick(tmp_path):
    path = _save(tmp_path / "a.nii", _voxels(shape=(5, 7)), qform_code=1, sform_code=0,
                 pixdim=(1, 2, 3, 0, 0, 0, 0, 0))  # fmt: skip
    assert read_header(path).spacing_mm == pytest.approx((2, 3, 1))


def test_scaled_integers_become_real_numbers(tmp_path):
    path = _save(tmp_path / "a.nii.gz", scl_slope=0.5, scl_inter=-10)
    voxels, _ = read_volume(path)
    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels, _voxels() * 0.5 - 10)
    assert (
        read_volume(_save(tmp_path / "b.nii", _voxels("i4"), scl_slope=2, scl_inter=1))[0].dtype == np.float64
    )


@pytest.mark.parametrize("slope", [0, np.nan, 1])
def test_a_slope_that_means_unscaled_keeps_the_integers(tmp_path, slope):
    voxels, _ = read_volume(_save(tmp_path / "a.nii", scl_slope=slope, scl_inter=0))
    assert voxels.dtype == np.int16
    np.testing.assert_array_equal(voxels, _voxels())


def test_an_extension_before_the_data_is_skipped(tmp_path):
    image = nib.Nifti1Image(_voxels(), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 500))
    image.to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz")[0], _voxels())


REFUSED_FIELDS = {
    "singular": ({"srow_y": (2, 0, 0, 0)}, "invertible"),
    "zero column": ({"srow_z": (0, 0, 0, 0)}, "invertible"),
    "nan affine": ({"srow_x": (np.nan, 0, 0, 0)}, "finite sform"),
    "pixdim zero": (
        {"sform_code": 0, "qform_code": 0, "pixdim": (1, 0, 1, 1, 0, 0, 0, 0)},
        "positive pixdim",
    ),
    "pixdim nan": (
        {"sform_code": 0, "qform_code": 0, "pixdim": (1, 1, np.nan, 1, 0, 0, 0, 0)},
        "positive pixdim",
    ),
    "qform pixdim zero": ({"sform_code": 0, "qform_code": 1, "pixdim": (1, 0, 1, 1, 0, 0, 0, 0)}, "qform"),
    "bad quaternion": ({"sform_code": 0, "qform_code": 1, "quatern_b": 5}, "valid qform"),
    "4D": ({"dim": (4, 5, 7, 2, 2, 1, 1, 1)}, "one volume"),
    "5D vector": ({"dim": (5, 5, 7, 2, 1, 2, 1, 1)}, "one volume"),
    "zero axis": ({"dim": (3, 5, 0, 4, 1, 1, 1, 1)}, "at least one voxel"),
    "negative axis": ({"dim": (3, 5, -7, 4, 1, 1, 1, 1)}, "at least one voxel"),
    "nine axes": ({"dim": (9, 5, 7, 4, 1, 1, 1, 1)}, "1 to 7 axes"),
    "complex": ({"datatype": 32, "bitpix": 64}, "datatype 32"),
    "rgb": ({"datatype": 128, "bitpix": 24}, "datatype 128"),
    "unknown datatype": ({"datatype": 77}, "datatype 77"),
    "wrong bitpix": ({"bitpix": 32}, "bitpix 16"),
    "slope infinite": ({"scl_slope": np.inf, "scl_inter": 0}, "finite scale"),
    "intercept nan": ({"scl_slope": 2, "scl_inter": np.nan}, "finite scale"),
    "unit 7": ({"xyzt_units": 7}, "unit code"),
    "wrong magic": ({"magic": b"abc"}, "magic"),
    "no magic, Analyze": ({"magic": b""}, "magic"),
    "pair magic": ({"magic": b"ni1"}, "magic"),
    "data inside the header": ({"vox_offset": 100}, "vox_offset"),
    "vox_offset nan": ({"vox_offset": np.nan}, "vox_offset"),
    "huge extension": ({"vox_offset": 2.0**31}, "header extensions"),
    "27 TB": ({"dim": (3, 30000, 30000, 30000, 1, 1, 1, 1)}, "data for|a file of"),
    "longer than its data": ({"dim": (3, 5, 7, 5, 1, 1, 1, 1)}, "by its header|truncated"),
    "shorter than its data": ({"dim": (3, 5, 7, 3, 1, 1, 1, 1)}, "by its header|more bytes"),
}


@pytest.mark.parametrize("name", REFUSED_FIELDS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_wrong_header_is_refused_by_name(tmp_path, name, suffix):
    fields, message = REFUSED_FIELDS[name]
    path = _save(tmp_path / f"wrong{suffix}", **fields)
    with pytest.raises(InputError, match=f"wrong{suffix}: expected .*({message})") as caught:
        read_volume(path)
    assert str(caught.value).count("\n") < 6


def test_an_extension_that_claims_two_gigabytes_is_refused(tmp_path):
    image = nib.Nifti1Image(_voxels(), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 50))
    image.to_filename(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[352:356] = struct.pack("<i", 2**31 - 1)
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(InputError, match="header extensions up to byte"):
        read_header(tmp_path / "a.nii")


def _flip_stored_bit(data: bytes) -> bytes:
    # a stored (level 0) block: the flipped voxel inflates without error, only the checksum tells
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    stored = bytearray(packer.compress(data) + packer.flush())
    stored[-40] ^= 1
    return bytes(stored)


BROKEN = {
    "cut": (lambda raw: gzip.compress(raw)[:-30], "gzip"),
    "without its last 8 bytes": (lambda raw: gzip.compress(raw)[:-8], "gzip"),
    "wrong length in the trailer": (lambda raw: gzip.compress(raw)[:-1] + b"\x07", "gzip"),
    "bit flip": (_flip_stored_bit, "gzip"),
    "short payload": (lambda raw: gzip.compress(raw[:-9]), "truncated"),
    "header only": (lambda raw: gzip.compress(raw[:200]), "a header of 348"),
    "bytes behind": (lambda raw: gzip.compress(raw + b"\0"), "more bytes"),
    "garbage behind": (lambda raw: gzip.compress(raw) + b"garbage", "gzip"),
    "empty": (lambda raw: b"", "empty file"),
    "random": (lambda raw: np.random.default_rng(1).bytes(900), "gzip data"),
    "an HTML page": (lambda raw: b"<!DOCTYPE html><html>404</html>", "gzip data"),
    "not compressed": (lambda raw: raw, "gzip data"),
    "compressed HTML": (lambda raw: gzip.compress(b"<!DOCTYPE html>" * 50), "NIfTI header"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_gzip_file_is_refused_by_name(tmp_path, name):
    change, message = BROKEN[name]
    raw = _save(tmp_path / "whole.nii").read_bytes()
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(change(raw))
    with pytest.raises(InputError, match=rf"broken\.nii\.gz: .*{message}"):
        read_volume(path)


def test_gzip_in_several_members_is_read(tmp_path):
    raw = _save(tmp_path / "whole.nii").read_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(
        gzip.compress(raw[:300]) + gzip.compress(raw[300:500]) + gzip.compress(raw[500:]) + b"\0" * 99
    )
    np.testing.assert_array_equal(read_volume(path)[0], _voxels())


def test_gzip_data_named_nii_is_refused(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(_save(tmp_path / "b.nii.gz").read_bytes())
    with pytest.raises(InputError, match=r"a\.nii: expected gzip data behind a name"):
        read_header(path)


def test_zeros_without_end_behind_a_small_volume_are_refused_at_once(tmp_path):
    raw = _save(tmp_path / "whole.nii").read_bytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = (
        packer.compress(raw) + b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    )
    (tmp_path / "bomb.nii.gz").write_bytes(packed)
    with pytest.raises(InputError, match="more bytes"):
        read_volume(tmp_path / "bomb.nii.gz")


@pytest.mark.parametrize(("half", "other"), [(".hdr", ".img"), (".img", ".hdr")])
def test_one_half_of_a_pair_is_refused(tmp_path, half, other):
    _save(tmp_path / "a.img", version=nib.Nifti1Pair)
    (tmp_path / f"a{other}").unlink()
    with pytest.raises(InputError, match=rf"a\{half}: expected its other half a\{other}"):
        read_header(tmp_path / f"a{half}")


def test_an_analyze_pair_is_refused(tmp_path):
    nib.AnalyzeImage(_voxels(), np.eye(4)).to_filename(tmp_path / "a.img")
    with pytest.raises(InputError, match=r"magic of a NIfTI pair"):
        read_header(tmp_path / "a.img")


def test_all_nan_is_refused_and_one_nan_is_read(tmp_path):
    voxels = np.full(SHAPE, np.nan, np.float32)
    with pytest.raises(InputError, match=r"nan\.nii: expected finite voxels"):
        read_volume(_save(tmp_path / "nan.nii", voxels))
    voxels[...] = 3e38
    voxels[1, 2, 3] = np.nan
    np.testing.assert_array_equal(read_volume(_save(tmp_path / "a.nii", voxels))[0], voxels)
