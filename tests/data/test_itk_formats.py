from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK

from volseg.checks import InputError
from volseg.data.volume_reader import read_header, read_volume
from volseg.geometry import swap_ras_lps

SHAPE = (5, 7, 4)
VOXELS = np.random.default_rng(0).integers(0, 100, SHAPE)


def _image(dtype="i2"):
    image = SimpleITK.GetImageFromArray(VOXELS.astype(dtype).T)
    c, s = np.cos(0.3), np.sin(0.3)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    image.SetSpacing((0.5, 0.7, 3))
    image.SetOrigin((10, -20, 30))
    return image


def _lps(image):
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return lps


def _write(path, dtype="i2", compress=False):
    SimpleITK.WriteImage(_image(dtype), str(path), compress)
    return path


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("compress", [False, True])
def test_every_format_type_and_compression_is_read(tmp_path, suffix, dtype, compress):
    path = _write(tmp_path / f"a{suffix}", dtype, compress)
    voxels, geometry = read_volume(path)
    assert voxels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(voxels, VOXELS)
    np.testing.assert_allclose(geometry.affine, swap_ras_lps(_lps(_image())), atol=1e-12)
    assert geometry.spacing_is_known
    np.testing.assert_array_equal(read_header(path).affine, geometry.affine)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_flat_picture_is_one_slice(tmp_path, suffix):
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(VOXELS[..., 0].astype("u1").T), str(tmp_path / f"a{suffix}")
    )
    voxels, geometry = read_volume(tmp_path / f"a{suffix}")
    assert voxels.shape == geometry.shape == (5, 7, 1)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("missing", [1, 60])
def test_short_data_are_refused(tmp_path, suffix, compress, missing):
    path = _write(tmp_path / f"cut{suffix}", compress=compress)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match=rf"cut\{suffix}: expected"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_more_data_than_voxels_are_refused(tmp_path, suffix):
    path = _write(tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match="bytes of voxels"):
        read_header(path)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_wrong_bit_in_compressed_data_is_refused(tmp_path, suffix):
    path = _write(tmp_path / f"a{suffix}", compress=True)
    data = bytearray(path.read_bytes())
    data[-60] ^= 16
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"intact compressed data|bytes of voxels"):
        read_header(path)


@pytest.mark.parametrize(
    "name",
    ["../secret.raw", "/etc/hostname", "sub/a.raw", "..\\a.raw", "LIST", "a%03d.raw 1 4 1", "gone.raw"],
)
@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_a_header_that_points_elsewhere_is_refused(tmp_path, name, suffix):
    (tmp_path / "x").mkdir()
    path = _write(tmp_path / "x" / f"a{suffix}")
    (tmp_path / "secret.raw").write_bytes(bytes(2 * 140))
    text = path.read_bytes().replace(b"ElementDataFile = a.raw", f"ElementDataFile = {name}".encode())
    path.write_bytes(text.replace(b"data file: a.raw", f"data file: {name}".encode()))
    assert name.encode() in path.read_bytes()
    with pytest.raises(InputError, match=rf"a\{suffix}: expected (one data file|its data file)"):
        read_header(path)


CHANGES = {
    "mha html": (".mha", lambda data: b"<html>", "MetaImage header"),
    "nrrd html": (".nrrd", lambda data: b"<html>", "NRRD header"),
    "ascii": (".mha", lambda data: data.replace(b"BinaryData = True", b"BinaryData = False"), "binary data"),
    "ascii nrrd": (".nrrd", lambda data: data.replace(b"encoding: raw", b"encoding: ascii"), "raw or gzip"),
    "skip": (
        ".nrrd",
        lambda data: data.replace(b"encoding: raw", b"encoding: raw\nline skip: 2"),
        "no line skip",
    ),
    "no blank": (".nrrd", lambda data: data[: data.index(b"\n\n") + 1], "blank line"),
    "terabytes": (
        ".mha",
        lambda data: data.replace(b"DimSize = 5 7 4", b"DimSize = 30000 30000 30000"),
        "bytes of voxels",
    ),
    "terabytes nrrd": (
        ".nrrd",
        lambda data: data.replace(b"sizes: 5 7 4", b"sizes: 30000 30000 30000"),
        "bytes of voxels",
    ),
    "channels": (
        ".mha",
        lambda data: data.replace(b"DimSize = ", b"ElementNumberOfChannels = 3\nDimSize = "),
        "per voxel",
    ),
    "nan": (".mha", lambda data: data.replace(b"Offset = 10", b"Offset = nan"), "finite numbers in Offset"),
    "nan nrrd": (
        ".nrrd",
        lambda data: data.replace(b"space origin: (10", b"space origin: (nan"),
        "finite numbers",
    ),
    "zero spacing": (
        ".mha",
        lambda data: data.replace(b"ElementSpacing = 0.5", b"ElementSpacing = 0"),
        "invertible",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_header_that_is_not_as_it_should_be_is_refused(tmp_path, name):
    suffix, change, message = CHANGES[name]
    path = _write(tmp_path / f"a{suffix}")
    data = change(path.read_bytes())
    assert data != path.read_bytes()
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"a\{suffix}: expected .*({message})"):
        read_volume(path)


def test_a_vector_image_is_refused(tmp_path):
    image = SimpleITK.GetImageFromArray(np.zeros((4, 7, 5, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match="one integer or real number per voxel"):
        read_header(tmp_path / "a.nrrd")


def test_a_header_without_spacing_says_so(tmp_path):
    path = _write(tmp_path / "a.mha")
    lines = [line for line in path.read_bytes().split(b"\n", 13) if not line.startswith(b"ElementSpacing")]
    path.write_bytes(b"\n".join(lines))
    assert not read_header(path).spacing_is_known


def test_a_bomb_behind_a_small_header_is_refused(tmp_path):
    path = _write(tmp_path / "a.nrrd", compress=True)
    start = path.read_bytes().split(b"\n\n")[0] + b"\n\n"
    path.write_bytes(start + gzip.compress(bytes(2**22)))
    with pytest.raises(InputError, match="280 bytes of voxels"):
        read_header(path)
