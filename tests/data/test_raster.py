from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from volseg.checks import InputError
from volseg.data.raster import decode_page, read_raster
from volseg.data.volume_reader import read_header, read_volume

PIXELS = np.random.default_rng(0).integers(0, 250, (37, 23)).astype(np.uint8)


def _decode(path):
    raster = read_raster(path)
    target = np.empty((raster.height, raster.width), raster.dtype)
    decode_page(raster, 0, target)
    return target


def _patch_tag(path, tag: int, value: int):
    """Overwrite the inline value of a classic little-endian TIFF tag."""
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    for k in range(struct.unpack_from("<H", data, start)[0]):
        entry = start + 2 + 12 * k
        number, kind = struct.unpack_from("<HH", data, entry)
        if number == tag:
            struct.pack_into("<H" if kind == 3 else "<I", data, entry + 8, value)
    path.write_bytes(data)


TIFFS = {
    "plain": {},
    "lzw": {"compression": "lzw"},
    "deflate": {"compression": "zlib"},
    "predictor": {"compression": "lzw", "predictor": True},
    "packbits": {"compression": "packbits"},
    "zstd": {"compression": "zstd"},
    "tiled": {"tile": (16, 16)},
    "tiled deflate": {"tile": (16, 16), "compression": "zlib"},
    "bigtiff": {"bigtiff": True},
    "strips": {"rowsperstrip": 5},
    "lzw strips": {"rowsperstrip": 5, "compression": "lzw"},
}


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_a_tiff_keeps_its_values_and_type(tmp_path, kind, dtype, order):
    pixels = PIXELS.astype(dtype) * 3
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=order, **TIFFS[kind])
    got = _decode(tmp_path / "a.tif")
    assert got.dtype == np.dtype(dtype)
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("compression", [None, "raw", "group4", "tiff_lzw"])
def test_one_bit_is_black_and_white(tmp_path, compression):
    image = Image.fromarray(PIXELS > 100)
    image.save(tmp_path / "a.tif", **({"compression": compression} if compression else {}))
    np.testing.assert_array_equal(_decode(tmp_path / "a.tif"), np.where(PIXELS > 100, 255, 0))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_white_is_zero_is_read_as_it_is_shown(tmp_path, dtype):
    pixels = PIXELS.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(_decode(tmp_path / "a.tif"), np.iinfo(dtype).max - pixels)
    if dtype == "u1":
        np.testing.assert_array_equal(_decode(tmp_path / "a.tif"), np.asarray(Image.open(tmp_path / "a.tif")))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb_that_is_grey_is_read_as_grey(tmp_path, planar):
    axis = -1 if planar == "contig" else 0
    tifffile.imwrite(tmp_path / "a.tif", np.stack([PIXELS] * 3, axis), photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(_decode(tmp_path / "a.tif"), PIXELS)


def test_opaque_alpha_is_dropped_and_a_transparent_pixel_refused(tmp_path):
    pixels = np.stack([PIXELS] * 3 + [np.full_like(PIXELS, 255)], -1)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=[2])
    np.testing.assert_array_equal(_decode(tmp_path / "a.tif"), PIXELS)
    pixels[3, 4, 3] = 254
    tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="rgb", extrasamples=[2])
    with pytest.raises(InputError, match=r"b\.tif: expected an opaque picture"):
        _decode(tmp_path / "b.tif")


@pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp", ".gif"])
def test_a_palette_gives_its_colours_not_its_indices(tmp_path, suffix):
    image = Image.fromarray(PIXELS % 7).convert("P")
    levels = [200, 10, 90, 30, 255, 0, 128]
    image.putpalette([level for level in levels for _ in range(3)] + [0] * (768 - 21))
    image.save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(_decode(tmp_path / f"a{suffix}"), np.array(levels)[PIXELS % 7])
    image.putpalette([200, 10, 90] + [0] * 765)
    image.save(tmp_path / f"b{suffix}")
    with pytest.raises(InputError, match=rf"b\{suffix}: expected a grey picture, got colours"):
        _decode(tmp_path / f"b{suffix}")


def _colour(path, mode="RGB"):
    image = Image.fromarray(np.stack([PIXELS, PIXELS // 2, PIXELS], -1)).convert(mode)
    image.save(path)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp", ".jpg"])
def test_colours_are_refused_from_the_header_on(tmp_path, suffix):
    _colour(tmp_path / f"a{suffix}")
    with pytest.raises(InputError, match=rf"a\{suffix}: expected a grey picture, got colours"):
        read_header(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("mode", "suffix", "message"),
    [("CMYK", ".tif", "CMYK"), ("CMYK", ".jpg", "CMYK"), ("LAB", ".tif", "CIE Lab")],
)
def test_other_colour_spaces_are_refused(tmp_path, mode, suffix, message):
    image = Image.new(mode, (7, 5))
    image.save(tmp_path / f"a{suffix}")
    with pytest.raises(InputError, match=message):
        read_header(tmp_path / f"a{suffix}")


def test_channels_where_one_is_expected_are_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([PIXELS] * 5), planarconfig="separate", photometric="minisblack"
    )
    with pytest.raises(InputError, match="5 channels"):
        read_header(tmp_path / "a.tif")
    tifffile.imwrite(
        tmp_path / "b.tif", np.stack([PIXELS] * 2, -1), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(InputError, match="2 channels"):
        read_header(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.tif", lambda p: Image.fromarray(PIXELS).save(p, tiffinfo={274: 6})),
        ("a.png", lambda p: Image.fromarray(PIXELS).save(p, exif=_exif(6))),
        ("a.jpg", lambda p: Image.fromarray(PIXELS).save(p, exif=_exif(3))),
    ],
)
def test_turned_pixels_are_refused(tmp_path, name, save):
    save(tmp_path / name)
    with pytest.raises(InputError, match="orientation"):
        read_header(tmp_path / name)


def _exif(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


@pytest.mark.parametrize("name", ["plain", "lzw", "tiled deflate", "bigtiff", "strips", "zstd"])
@pytest.mark.parametrize("part", [0.02, 0.6, 0.98])
def test_a_cut_tiff_is_refused_by_name(tmp_path, name, part):
    tifffile.imwrite(tmp_path / "cut.tif", np.stack([PIXELS] * 3), photometric="minisblack", **TIFFS[name])
    data = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"cut\.tif: "):
        read_volume(tmp_path / "cut.tif")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".gif"])
@pytest.mark.parametrize("part", [0.01, 0.1, 0.6, 0.99])
def test_a_cut_picture_is_refused_by_name(tmp_path, suffix, part):
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(PIXELS).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * part))])
    with pytest.raises(InputError, match=rf"cut\{suffix}: "):
        read_volume(path)


def test_damaged_compressed_pixels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, compression="zlib")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].dataoffsets[0]
    data[offset + 100] ^= 255
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tif: expected pixels that decode"):
        read_volume(tmp_path / "a.tif")


def test_a_png_with_one_wrong_bit_is_refused(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", compress_level=0)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match="wrong checksum in b'IDAT'"):
        read_volume(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("suffix", "other"), [(".tif", "PNG"), (".png", "TIFF"), (".bmp", "PNG"), (".jpg", "GIF")]
)
def test_a_suffix_that_lies_is_refused(tmp_path, suffix, other):
    Image.fromarray(PIXELS).save(tmp_path / f"a{suffix}", format=other)
    with pytest.raises(InputError, match="rename the file after its content"):
        read_header(tmp_path / f"a{suffix}")


def test_sixteen_bit_png_keeps_its_type(tmp_path):
    pixels = PIXELS.astype(np.uint16) * 257
    Image.fromarray(pixels).save(tmp_path / "a.png")
    got = _decode(tmp_path / "a.png")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, pixels)


def test_grey_with_opaque_alpha_is_grey_in_png(tmp_path):
    Image.fromarray(PIXELS).convert("LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(_decode(tmp_path / "a.png"), PIXELS)
    Image.fromarray(PIXELS).save(tmp_path / "b.png", transparency=int(PIXELS[0, 0]))
    with pytest.raises(InputError, match="opaque"):
        _decode(tmp_path / "b.png")


def test_one_bit_png_and_bmp_are_black_and_white(tmp_path):
    for name in ("a.png", "a.bmp"):
        Image.fromarray(PIXELS > 100).save(tmp_path / name)
        np.testing.assert_array_equal(_decode(tmp_path / name), np.where(PIXELS > 100, 255, 0))


def test_an_animation_is_refused(tmp_path):
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    for name in ("a.gif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(InputError, match="2 frames"):
            read_header(tmp_path / name)


def test_a_png_bomb_is_refused_by_its_header(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(InputError, match=r"bomb\.png: expected compressed data that expand"):
        read_header(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (257, 40, "strips|bytes of pixels"),
        (262, 9, "photometric 9"),
        (258, 24, "bytes of pixels"),
        (258, 4, "depth that"),
        (278, 3, "strips or tiles"),
        (279, 10, "bytes of pixels"),
        (273, 10**6, "pixels within"),
        (256, 0, "one pixel"),
    ],
)
def test_a_tag_that_does_not_fit_is_refused(tmp_path, tag, value, message):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, rowsperstrip=37)
    _patch_tag(tmp_path / "a.tif", tag, value)
    with pytest.raises(InputError, match=message):
        read_header(tmp_path / "a.tif")
