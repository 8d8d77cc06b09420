from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from volseg.checks import InputError
from volseg.data.tiff_pages import read_tiff_pages
from volseg.data.volume_reader import read_header, read_volume

STACK = np.random.default_rng(0).integers(0, 60000, (6, 13, 9)).astype(np.uint16)


def _loop(path):
    pages = [page.offset for page in read_tiff_pages(path)]
    data = bytearray(path.read_bytes())
    last = pages[-1]
    count = struct.unpack_from("<H", data, last)[0]
    struct.pack_into("<I", data, last + 2 + 12 * count, pages[1])
    path.write_bytes(data)


@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"compression": "lzw"}, {"tile": (16, 16)}]
)
def test_the_pages_of_a_file_are_a_volume(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", STACK, **options)
    voxels, geometry = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(voxels, STACK.T)
    assert geometry.shape == (9, 13, 6)
    assert not geometry.spacing_is_known


def test_pages_saved_by_pillow_are_read(tmp_path):
    pages = [Image.fromarray(page) for page in STACK]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif")[0], STACK.T)


def test_an_imagej_stack_keeps_its_spacing(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(20, 10),
                     metadata={"axes": "ZYX", "spacing": 2.5, "unit": "um"})  # fmt: skip
    voxels, geometry = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(voxels, STACK.T)
    assert geometry.spacing_mm == pytest.approx((0.00005, 0.0001, 0.0025))
    assert geometry.spacing_is_known


def test_an_imagej_file_with_one_directory_for_all_pages_is_unrolled(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, truncate=True, metadata={"axes": "ZYX"})
    assert (tmp_path / "a.tif").stat().st_size < STACK.nbytes + 1000
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif")[0], STACK.T)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-200])
    with pytest.raises(InputError, match="6 pages by its description"):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("axes", "message"), [("ZCYX", "2 channels"), ("TZYX", "2 frames"), ("CYX", "6 channels")]
)
def test_imagej_channels_and_frames_are_refused(tmp_path, axes, message):
    shape = {"ZCYX": (3, 2, 13, 9), "TZYX": (2, 3, 13, 9), "CYX": (6, 13, 9)}[axes]
    tifffile.imwrite(tmp_path / "a.tif", STACK.reshape(shape), imagej=True, metadata={"axes": axes})
    with pytest.raises(InputError, match=message):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize(("axes", "shape"), [("CZYX", (2, 3, 13, 9)), ("TZYX", (2, 3, 13, 9))])
def test_ome_channels_and_time_are_refused(tmp_path, axes, shape):
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK.reshape(shape), metadata={"axes": axes})
    with pytest.raises(InputError, match=f"Size{axes[0]} 2"):
        read_header(tmp_path / "a.ome.tif")


def test_an_ome_stack_is_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_volume(tmp_path / "a.ome.tif")[0], STACK.T)


def test_four_axes_in_a_shape_description_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK.reshape(2, 3, 13, 9), photometric="minisblack")
    with pytest.raises(InputError, match="image of three axes"):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize("other", [STACK[0, :6, :4], STACK[0].astype(np.uint8), STACK[0].T])
def test_pages_of_another_size_or_type_are_refused(tmp_path, other):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in (STACK[0], STACK[1], other):
            file.write(page, metadata=None)
    with pytest.raises(InputError, match=r"a\.tif: expected pages alike.*as page 3"):
        read_header(tmp_path / "a.tif")


def test_a_thumbnail_among_pages_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(STACK[0], metadata=None)
        file.write(STACK[0], subfiletype=1, metadata=None)
    with pytest.raises(InputError, match="a thumbnail or mask as page 2"):
        read_header(tmp_path / "a.tif")


def test_a_chain_that_loops_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    _loop(tmp_path / "a.tif")
    with pytest.raises(InputError, match="a loop behind page 6"):
        read_header(tmp_path / "a.tif")


def test_a_chain_that_ends_before_its_promise_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    pages = read_tiff_pages(tmp_path / "a.tif")
    assert json.loads(pages[0].description)["shape"] == list(STACK.shape)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    count = struct.unpack_from("<H", data, pages[3].offset)[0]
    struct.pack_into("<I", data, pages[3].offset + 2 + 12 * count, 0)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match="6 pages by its description, got 4"):
        read_header(tmp_path / "a.tif")


def test_no_page_at_all_is_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0\0\0\0\0")
    with pytest.raises(InputError, match="at least one page"):
        read_header(tmp_path / "a.tif")


def test_another_version_is_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II\x07\0\x08\0\0\0")
    with pytest.raises(InputError, match="TIFF version"):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_ends_in_the_one_error_or_in_the_pixels(tmp_path, seed):
    random = np.random.default_rng(seed)
    tifffile.imwrite(tmp_path / "a.tif", STACK[:2], compression="lzw" if seed % 2 else None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for position in random.integers(0, 400, 3):
        data[position] = int(random.integers(0, 256))
    (tmp_path / "a.tif").write_bytes(data)
    try:
        voxels, geometry = read_volume(tmp_path / "a.tif", max_bytes=10**7)
    except InputError:
        return
    assert voxels.shape == geometry.shape
