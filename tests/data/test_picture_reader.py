"""A picture is read as a person sees it, or refused by name."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from PIL import Image

from volseg.checks import InputError
from volseg.data import PictureReader, picture_geometry, read_picture
from volseg.data.picture_reader import picture_affine
from volseg.geometry import spacing_of, swap_ras_lps

H, W = 37, 23
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 250, (H, W)).astype(np.uint8)
RGB = RNG.integers(0, 250, (H, W, 3)).astype(np.uint8)
LOSSLESS = [".png", ".bmp", ".tif", ".ppm"]


def save(path, pixels, **options):
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)
    else:
        Image.fromarray(pixels).save(path, **options)
    return path


def refusal(path, channels="any", **options):
    with pytest.raises(InputError) as refused:
        read_picture(path, channels, **options)
    message = str(refused.value)
    assert message.startswith(f"{path}: expected ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".gif", ".pgm"])
def test_grey_is_rows_by_columns_and_repeated_where_rgb_is_asked(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", GREY)
    for channels in ("grey", "any"):
        got = read_picture(path, channels)
        assert got.dtype == np.uint8
        assert got.flags.writeable
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, GREY)
    np.testing.assert_array_equal(read_picture(path, "rgb"), np.stack([GREY] * 3, -1))


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_colours_are_rows_by_columns_by_three(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", RGB)
    for channels in ("rgb", "any"):
        np.testing.assert_array_equal(read_picture(path, channels), RGB)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_is_as_pillow_decodes_it(tmp_path, mode):
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as shown:
        np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg"), np.asarray(shown))


TIFFS = {
    "lzw": {"compression": "lzw"},
    "deflate, tiled": {"compression": "zlib", "tile": (16, 16)},
    "planes": {"planarconfig": "separate"},
    "big-endian": {"byteorder": ">"},
    "predictor": {"compression": "lzw", "predictor": True},
}


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_in_colours_keeps_values_and_type(tmp_path, kind, dtype):
    pixels = RGB.astype(dtype) * (257 if dtype == np.uint16 else 1)
    options = TIFFS[kind]
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
    got = read_picture(save(tmp_path / "a.tif", stored, **options))
    assert got.dtype == dtype
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("shape", [(H, W), (H, W, 3), (1, 1), (1, 5, 3), (5, 1, 3)])
def test_sixteen_bits_are_kept_in_a_png(tmp_path, shape):
    import imagecodecs

    pixels = RNG.integers(0, 65535, shape).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    got = read_picture(tmp_path / "a.png")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("channels", [2, 4])
def test_opaque_alpha_of_sixteen_bits_is_dropped(tmp_path, channels):
    import imagecodecs

    pixels = RNG.integers(0, 65535, (H, W, channels)).astype(np.uint16)
    pixels[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    expected = pixels[..., :3] if channels == 4 else np.stack([pixels[..., 0]] * 3, -1)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), expected)


def test_sixteen_bit_grey_of_pgm_is_kept(tmp_path):
    pixels = GREY.astype(np.uint16) * 257
    (tmp_path / "a.pgm").write_bytes(f"P5\n{W} {H}\n65535\n".encode() + pixels.astype(">u2").tobytes())
    got = read_picture(tmp_path / "a.pgm")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize(("kind", "depth"), [("P5", 1), ("P5", 15), ("P2", 7), ("P6", 65535)])
def test_a_netpbm_that_would_be_stretched_is_refused(tmp_path, kind, depth):
    body = b" ".join([b"1"] * 6) if kind == "P2" else bytes(36)
    (tmp_path / "a.ppm").write_bytes(f"{kind}\n2 3\n{depth}\n".encode() + body)
    message = "expected a maximum of 255, or of 65535 for grey, got a maximum of "
    assert refusal(tmp_path / "a.ppm").startswith(message)


def test_plain_text_netpbm_is_read(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P2\n# made by hand\n3 2\n255\n0 10 20\n30 40 255\n")
    assert read_picture(tmp_path / "a.pgm").tolist() == [[0, 10, 20], [30, 40, 255]]


def test_colours_that_are_all_grey_are_read_as_grey(tmp_path):
    path = save(tmp_path / "a.png", np.stack([GREY] * 3, -1))
    np.testing.assert_array_equal(read_picture(path, "grey"), GREY)
    assert read_picture(path).shape == (H, W, 3)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_colours_are_refused_where_grey_is_asked(tmp_path, suffix):
    pixels = np.stack([GREY] * 3, -1)
    pixels[5, 7] = 10, 20, 30
    message = refusal(save(tmp_path / f"a{suffix}", pixels), "grey")
    assert message == (
        "expected a grey picture, got 1 coloured pixels, the first of red 10, green 20, blue 30; "
        'read it with channels "rgb", or convert it to grey'
    )


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_dropped_where_opaque_and_refused_where_not(tmp_path, suffix):
    pixels = np.concatenate([RGB, np.full((H, W, 1), 255, np.uint8)], -1)
    options = {"extrasamples": [2]} if suffix == ".tif" else {}
    np.testing.assert_array_equal(read_picture(save(tmp_path / f"a{suffix}", pixels, **options)), RGB)
    pixels[3, 4, 3] = 254
    for channels in ("rgb", "any", "grey"):
        message = refusal(save(tmp_path / f"b{suffix}", pixels, **options), channels)
        assert message == "expected an opaque picture, got 1 transparent pixels; flatten its alpha channel"


@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp", ".tif"])
def test_a_palette_gives_its_colours_never_its_indices(tmp_path, suffix):
    colours = RNG.integers(0, 255, (8, 3)).astype(np.uint8)
    image = Image.fromarray(GREY % 8).convert("P")
    image.putpalette([*colours.ravel().tolist(), *[0] * (768 - 24)])
    image.save(tmp_path / f"a{suffix}")
    for channels in ("rgb", "any"):
        np.testing.assert_array_equal(read_picture(tmp_path / f"a{suffix}", channels), colours[GREY % 8])


@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp", ".tif"])
def test_a_palette_of_greys_is_grey_and_not_its_indices(tmp_path, suffix):
    greys = np.array([200, 10, 90, 30, 255, 0, 128, 64], np.uint8)
    image = Image.fromarray(GREY % 8).convert("P")
    image.putpalette([*np.repeat(greys, 3).tolist(), *[0] * (768 - 24)])
    image.save(tmp_path / f"a{suffix}")
    for channels in ("grey", "any"):
        np.testing.assert_array_equal(read_picture(tmp_path / f"a{suffix}", channels), greys[GREY % 8])


def test_a_transparent_entry_of_a_palette_is_refused_where_it_is_used(tmp_path):
    image = Image.fromarray(GREY % 8).convert("P")
    image.save(tmp_path / "used.png", transparency=int(image.getpixel((0, 0))))
    image.save(tmp_path / "unused.png", transparency=200)
    assert "transparent pixels" in refusal(tmp_path / "used.png")
    assert read_picture(tmp_path / "unused.png", "rgb").shape == (H, W, 3)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_one_bit_is_black_and_white(tmp_path, suffix):
    Image.fromarray(GREY > 100).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_picture(tmp_path / f"a{suffix}"), np.where(GREY > 100, 255, 0))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_white_is_zero_is_as_a_viewer_shows_it(tmp_path, dtype):
    pixels = GREY > 100 if dtype is bool else GREY.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    got = read_picture(tmp_path / "a.tif")
    expected = np.where(pixels, 0, 255) if dtype is bool else np.iinfo(dtype).max - pixels
    np.testing.assert_array_equal(got, expected)


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_an_orientation_is_applied_as_pillow_does(tmp_path, orientation, suffix):
    from PIL import ImageOps

    path = tmp_path / f"a{suffix}"
    Image.fromarray(RGB).save(path, exif=exif(orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    got = read_picture(path)
    np.testing.assert_array_equal(got, expected)
    assert got.shape == ((W, H, 3) if orientation >= 5 else (H, W, 3))
    assert picture_geometry(path).shape == (got.shape[1], got.shape[0], 1)


def test_an_unknown_orientation_is_refused(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif(9))
    assert (
        refusal(tmp_path / "a.png") == "expected an EXIF orientation from 1 to 8, got 9; remove the EXIF data"
    )
    Image.fromarray(RGB).save(tmp_path / "a.tif", tiffinfo={274: 9})
    assert refusal(tmp_path / "a.tif").startswith("expected a TIFF orientation from 1 to 8, got 9")


@pytest.mark.parametrize(("mode", "suffix", "name"), [("CMYK", ".jpg", "CMYK"), ("CMYK", ".tif", "CMYK"),
                                                      ("LAB", ".tif", "CIE Lab")])  # fmt: skip
def test_other_colour_spaces_are_refused(tmp_path, mode, suffix, name):
    Image.new(mode, (W, H)).save(tmp_path / f"a{suffix}")
    assert name in refusal(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_an_animation_is_refused(tmp_path, suffix):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    assert "got 2 frames" in refusal(tmp_path / f"a{suffix}")


def test_several_pages_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, GREY]), photometric="minisblack")
    assert refusal(tmp_path / "a.tif") == (
        "expected one picture, got 2 pages; save each as its own file, or read them as the slices of a volume"
    )


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".gif", ".jpg"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.6, 0.98])
def test_a_cut_file_is_refused(tmp_path, suffix, part):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RGB).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    refusal(path)


def test_a_wrong_bit_of_a_png_is_refused(tmp_path):
    path = save(tmp_path / "a.png", RGB, compress_level=0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "wrong checksum" in refusal(path)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    assert refusal(tmp_path / "a.png").startswith("expected compressed data that expand at most")


def test_more_pixels_than_the_budget_are_refused(tmp_path):
    path = save(tmp_path / "a.png", GREY)
    assert refusal(path, max_bytes=H * W - 1).startswith(f"expected at most {H * W - 1} bytes of voxels")
    assert read_picture(path, max_bytes=H * W).shape == (H, W)


def test_a_suffix_that_lies_and_one_that_is_unknown_are_refused(tmp_path):
    save(tmp_path / "a.png", GREY).rename(tmp_path / "a.jpg")
    assert refusal(tmp_path / "a.jpg").endswith("rename the file after its content")
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    message = refusal(tmp_path / "a.nii.gz")
    assert message.startswith("expected one of .tif .tiff .png")
    assert message.endswith("got .gz; convert it to PNG")


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    assert refusal(tmp_path) == "expected one picture, got a folder; give the path of a file in it"
    assert "got a pipe" in refusal(tmp_path / "pipe.png")
    assert "got an empty file" in refusal(tmp_path / "empty.png")
    assert "got nothing there" in refusal(tmp_path / "none.png")
    assert "got a symbolic link to nothing" in refusal(tmp_path / "lost.png")


def test_wrong_arguments_are_told(tmp_path):
    with pytest.raises(
        ValueError, match="channels must be one of any, grey, rgb, got 'gray'; did you mean 'grey'"
    ):
        PictureReader("gray")
    with pytest.raises(ValueError, match="channels must be one of"):
        read_picture(tmp_path / "a.png", "gray")
    with pytest.raises(ValueError, match=r"spacing_mm must be two edge lengths \(x, y\), got \[1, 2, 3\]"):
        PictureReader(spacing_mm=[1, 2, 3])
    with pytest.raises(ValueError, match="spacing_mm must be positive"):
        PictureReader(spacing_mm=[1, 0])
    two = PictureReader().read(["a.png", "b.png"])
    with pytest.raises(InputError, match=r"a\.png, b\.png: expected one path per picture, got 2 paths"):
        PictureReader().get_data(two)


def load(path, **options):
    chain = [
        LoadImaged("image", reader="volseg.data.PictureReader", dtype=None, **options),
        EnsureChannelFirstd("image"),
    ]
    return Compose(chain)({"image": str(path)})["image"]


@pytest.mark.parametrize(
    ("channels", "pixels", "count"),
    [("rgb", RGB, 3), ("grey", GREY, 1), ("any", RGB, 3), ("any", GREY, 1), ("rgb", GREY, 3)],
    ids=["rgb", "grey", "any rgb", "any grey", "grey as rgb"],
)
def test_monai_gets_channels_rows_columns(tmp_path, channels, pixels, count):
    image = load(save(tmp_path / "a.png", pixels), channels=channels)
    expected = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else np.stack([pixels] * count)
    assert image.shape == (count, H, W)
    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(image.numpy(), expected)
    assert image.meta["filename_or_obj"] == str(tmp_path / "a.png")
    assert image.meta["spacing_is_known"] is False
    assert image.meta["non_finite_voxels"] == 0
    assert image.affine.tolist() == [[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_monai_tries_no_other_reader_after_a_refusal(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    with pytest.raises(RuntimeError) as failed:
        load(path, channels="grey")
    assert "expected a grey picture" in str(failed.value.__cause__)


def test_a_float_tiff_counts_what_is_not_finite(tmp_path):
    pixels = GREY.astype(np.float32)
    pixels[2, 3] = np.nan
    image = load(save(tmp_path / "a.tif", pixels))
    assert image.dtype == torch.float32
    assert image.meta["non_finite_voxels"] == 1
    pixels[:] = np.inf
    refused = save(tmp_path / "b.tif", pixels)
    with pytest.raises(InputError, match="expected finite voxels"):
        PictureReader().get_data((refused,))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_the_grid_is_that_of_simpleitk(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(RGB).save(path, dpi=(300, 150))
    image, geometry = sitk.ReadImage(str(path)), picture_geometry(path)
    assert geometry.shape == (W, H, 1) == (*image.GetSize(), 1)
    np.testing.assert_allclose(geometry.spacing_mm[:2], image.GetSpacing(), rtol=1e-5)
    lps = np.diag([*image.GetSpacing(), 1.0, 1.0])
    np.testing.assert_allclose(geometry.affine, swap_ras_lps(lps), rtol=1e-5, atol=1e-9)
    pixels = load(path)
    for row, column in [(0, 0), (3, 11), (H - 1, W - 1)]:
        place = image.TransformIndexToPhysicalPoint((column, row))
        ras = pixels.affine.numpy() @ [row, column, 0, 1]
        np.testing.assert_allclose(swap_ras_lps(np.diag([*ras[:3], 1])).diagonal()[:2], place, atol=1e-4)
        if name != "a.jpg":
            assert pixels[:, row, column].tolist() == list(image.GetPixel(column, row))


def test_a_stated_spacing_goes_before_the_files(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", dpi=(300, 150))
    image = load(tmp_path / "a.jpg", spacing_mm=[0.5, 0.25])
    assert spacing_of(image.affine) == (0.25, 0.5, 1.0)
    assert image.meta["spacing_is_known"] is True
    for stated in ([0.5, 0.25], [0.5, 0.25, 3]):
        geometry = picture_geometry(tmp_path / "a.jpg", spacing_mm=stated)
        assert geometry.spacing_mm == (0.5, 0.25, (*stated, 1)[2])
        assert geometry.spacing_is_known
    with pytest.raises(ValueError, match="spacing_mm must be two edge lengths"):
        picture_geometry(tmp_path / "a.jpg", spacing_mm=[0.5])


def test_a_turned_picture_exchanges_its_spacings(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", dpi=(254, 127), exif=exif(6))
    assert picture_geometry(tmp_path / "a.jpg").spacing_mm[:2] == pytest.approx((0.2, 0.1))
    assert spacing_of(load(tmp_path / "a.jpg").affine)[:2] == pytest.approx((0.1, 0.2))


def test_the_affine_of_a_picture_takes_rows_to_posterior():
    affine = picture_affine((0.5, 2.0))
    assert (affine @ [3, 4, 0, 1]).tolist() == [-2.0, -6.0, 0.0, 1.0]  # 4 columns left, 3 rows posterior


def test_the_reader_knows_its_suffixes():
    reader = PictureReader()
    assert reader.verify_suffix(["a.PNG", "b.tiff"])
    assert not reader.verify_suffix("a.nii.gz")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.sampled_from(LOSSLESS))
def test_any_size_reads_back_as_it_was_written(tmp_path_factory, height, width, count, suffix):
    pixels = np.random.default_rng(height * 10 + width).integers(0, 255, (height, width, count))
    pixels = pixels.astype(np.uint8).squeeze(-1) if count == 1 else pixels.astype(np.uint8)
    path = tmp_path_factory.mktemp("size") / f"a{suffix}"
    np.testing.assert_array_equal(read_picture(save(path, pixels)), pixels)
