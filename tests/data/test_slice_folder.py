from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from volseg.checks import InputError
from volseg.data.volume_reader import read_header, read_volume, slice_numbers
from volseg.geometry import swap_ras_lps

STACK = np.random.default_rng(0).integers(0, 60000, (12, 13, 9)).astype(np.uint16)


def _write(folder: Path, numbers=range(12), name="{}.tif", stack=STACK, **options) -> Path:
    folder.mkdir(exist_ok=True)
    for k, number in enumerate(numbers):
        tifffile.imwrite(folder / name.format(number), stack[k], **options)
    return folder


def _judge(folder: Path, names: list[str]):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(folder / name) for name in names])
    image = reader.Execute()
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, swap_ras_lps(lps)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resolution": (200, 100), "resolutionunit": 3},
        {"resolution": (300, 72), "resolutionunit": 2},
        {"resolution": (20, 10), "resolutionunit": 1},
        {"compression": "lzw"},
    ],
)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_folder_is_the_grid_of_simpleitk(tmp_path, options, workers):
    folder = _write(tmp_path / "s", **options)
    voxels, geometry = read_volume(folder, max_workers=workers)
    expected, affine = _judge(folder, [f"{k}.tif" for k in range(12)])
    assert voxels.dtype == np.uint16
    np.testing.assert_array_equal(voxels, expected)
    np.testing.assert_array_equal(voxels, STACK.T)
    np.testing.assert_allclose(geometry.affine, affine, rtol=1e-12)
    assert not geometry.spacing_is_known
    assert voxels.base is not None


@pytest.mark.parametrize(
    "name", ["{}.tif", "{:04d}.tif", "slice {:02d}.tiff", "kidney_1_{:03d}.TIF", "a2b{}c3.tif"]
)
def test_slices_come_in_natural_order_under_any_scheme(tmp_path, name):
    folder = _write(tmp_path / "s", numbers=range(4, 16), name=name)
    np.testing.assert_array_equal(read_volume(folder)[0], STACK.T)
    assert slice_numbers(folder) == list(range(4, 16))


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif"])
def test_folders_of_pictures_are_read(tmp_path, suffix):
    for k, page in enumerate(STACK.astype(np.uint8)):
        Image.fromarray(page).save(tmp_path / f"{k + 1}.{suffix}")
    np.testing.assert_array_equal(read_volume(tmp_path)[0], STACK.astype(np.uint8).T)


def test_a_folder_of_jpegs_is_read_as_pillow_decodes_it(tmp_path):
    for k in range(3):
        Image.fromarray(STACK[k].astype(np.uint8)).save(tmp_path / f"{k}.jpg")
    expected = np.stack([np.asarray(Image.open(tmp_path / f"{k}.jpg")) for k in range(3)])
    np.testing.assert_array_equal(read_volume(tmp_path)[0], expected.T)


def test_the_sub_folder_images_is_taken_when_the_folder_has_no_slices(tmp_path):
    _write(tmp_path / "images")
    _write(tmp_path / "labels", stack=STACK * 0)
    np.testing.assert_array_equal(read_volume(tmp_path)[0], STACK.T)
    assert slice_numbers(tmp_path) == list(range(12))


def test_junk_beside_slices_is_ignored(tmp_path):
    folder = _write(tmp_path / "s")
    for junk in (
        "Thumbs.db",
        ".DS_Store",
        "._3.tif",
        "desktop.ini",
        "notes.txt",
        "train.csv",
        "3.tif~",
        "meta.json",
    ):
        (folder / junk).write_bytes(b"junk")
    (folder / "sub").mkdir()
    np.testing.assert_array_equal(read_volume(folder)[0], STACK.T)


def test_one_slice_and_one_multi_page_file_are_volumes(tmp_path):
    _write(tmp_path / "one", numbers=[7])
    assert read_volume(tmp_path / "one")[0].shape == (9, 13, 1)
    assert slice_numbers(tmp_path / "one") == [7]
    assert read_volume(tmp_path / "one" / "7.tif")[0].shape == (9, 13, 1)
    (tmp_path / "many").mkdir()
    tifffile.imwrite(tmp_path / "many" / "stack.tif", STACK)
    np.testing.assert_array_equal(read_volume(tmp_path / "many")[0], STACK.T)
    assert slice_numbers(tmp_path / "many") == list(range(12))


def _remove(name):
    return lambda folder: (folder / name).unlink()


def _add(name, content=None, **options):
    def change(folder):
        tifffile.imwrite(folder / name, STACK[0] if content is None else content, **options)

    return change


def _copy(source, name):
    return lambda folder: (folder / name).write_bytes((folder / source).read_bytes())


def _add_png(folder):
    Image.fromarray(STACK[0]).save(folder / "7.png")


def _cut(folder):
    data = (folder / "5.tif").read_bytes()
    (folder / "5.tif").write_bytes(data[:-20])


REFUSED = {
    "missing": (_remove("5.tif"), r"s: expected slice 5 behind 4\.tif, got 6\.tif"),
    "double": (_copy("7.tif", "0007.tif"), r"7\.tif: expected one file per slice number, got number 7 also"),
    "double as png": (_add_png, r"expected slices of one format"),
    "copy": (_copy("7.tif", "7 (1).tif"), "name built like"),
    "no number": (_copy("7.tif", "overview.tif"), "name built like"),
    "smaller": (_add("5.tif", STACK[0][:5]), r"5\.tif: expected 9x13 pixels like 0\.tif, got 9x5"),
    "transposed": (_add("5.tif", STACK[0].T.copy()), r"5\.tif: expected 9x13 pixels like 0\.tif, got 13x9"),
    "other depth": (
        _add("5.tif", STACK[0].astype(np.uint8)),
        r"5\.tif: expected uint16 like 0\.tif, got uint8",
    ),
    "float": (_add("5.tif", STACK[0].astype(np.float32)), r"5\.tif: expected uint16"),
    "colour": (
        _add("5.tif", np.stack([STACK[0]] * 3, -1), photometric="rgb"),
        r"5\.tif: .*got uint16 colours",
    ),
    "truncated": (_cut, r"5\.tif: expected pixels within"),
    "multi-page": (
        _add("5.tif", STACK[:3], photometric="minisblack"),
        r"5\.tif: expected one page per slice file, got 3 pages",
    ),
    "multi-page first": (
        _add("0.tif", STACK[:3], photometric="minisblack"),
        r"0\.tif: expected one page per slice file",
    ),
    "other resolution": (_add("5.tif", resolution=(9, 9), resolutionunit=3), r"5\.tif: expected pixels of"),
    "stranger": (lambda folder: (folder / "a.npy").write_bytes(b"x"), r"a\.npy: expected only slices"),
    "empty slice": (lambda folder: (folder / "5.tif").write_bytes(b""), r"5\.tif: expected a TIFF file"),
    "broken link": (
        lambda folder: (folder / "12.tif").symlink_to("gone.tif"),
        r"12\.tif: expected a regular file",
    ),
    "pipe": (lambda folder: os.mkfifo(folder / "12.tif"), r"12\.tif: expected a regular file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_slice_that_does_not_fit_is_refused_from_the_headers(tmp_path, name):
    change, message = REFUSED[name]
    folder = _write(tmp_path / "s")
    change(folder)
    with pytest.raises(InputError, match=message):
        read_header(folder)


def test_a_colour_slice_among_grey_ones_in_colour_is_refused_by_name(tmp_path):
    for k in range(4):
        pixels = np.stack([STACK[k]] * 3, -1)
        pixels[0, 0, 1] += k == 2
        tifffile.imwrite(tmp_path / f"{k}.tif", pixels, photometric="rgb")
    with pytest.raises(InputError, match=r"2\.tif: expected a grey picture, got colours"):
        read_volume(tmp_path)


def test_two_running_numbers_are_refused(tmp_path):
    for k in range(3):
        tifffile.imwrite(tmp_path / f"t{k}_z{k}.tif", STACK[k])
    with pytest.raises(InputError, match="2 running numbers"):
        read_header(tmp_path)


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: (p / "images").mkdir(), lambda p: (p / "Thumbs.db").touch()]
)
def test_an_empty_folder_is_refused(tmp_path, make):
    make(tmp_path)
    with pytest.raises(InputError, match="expected slices, got no file named"):
        read_header(tmp_path)


def test_spacing_comes_from_the_argument_then_the_sidecar_then_the_tags(tmp_path):
    folder = _write(tmp_path / "images", resolution=(200, 100), resolutionunit=3)
    assert read_header(tmp_path).spacing_mm == pytest.approx((0.05, 0.1, 1))
    (tmp_path / "spacing.json").write_text(json.dumps({"spacing_mm": [2, 3, 4]}))
    assert read_header(tmp_path).spacing_mm == (2, 3, 4)
    (folder / "spacing.json").write_text(json.dumps({"spacing_mm": [5, 6, 7]}))
    assert read_header(tmp_path).spacing_mm == (5, 6, 7)
    known = read_header(tmp_path, spacing_mm=(0.5, 0.25, 8))
    assert known.spacing_mm == (0.5, 0.25, 8)
    assert known.spacing_is_known


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"spacing_mm": 3}',
        '{"spacing_mm": [1, 2]}',
        '{"spacing_mm": [1, 2, 0]}',
        '{"spacing_mm": [1, 2, NaN]}',
        '{"spacing_mm": ["a", 2, 3]}',
        '{"spacing_mm": "123"}',
    ],
)
def test_a_malformed_sidecar_is_refused(tmp_path, text):
    folder = _write(tmp_path / "s")
    (folder / "spacing.json").write_text(text)
    with pytest.raises(InputError, match=r"spacing\.json: expected"):
        read_header(folder)


@pytest.mark.parametrize("spacing", [(1, 2), (1, 2, 0), (1, 2, float("nan"))])
def test_a_wrong_spacing_argument_is_an_error(tmp_path, spacing):
    with pytest.raises(ValueError, match="spacing_mm must be"):
        read_header(_write(tmp_path / "s"), spacing_mm=spacing)


def test_kept_gaps_leave_the_slices_that_are_there_in_order_of_number(tmp_path):
    folder = _write(tmp_path / "s", numbers=(100, 9, 10, 12), stack=STACK[:4])
    with pytest.raises(InputError, match=r"expected slice 11 behind 10\.tif"):
        read_volume(folder)
    voxels, geometry = read_volume(folder, gaps="keep")
    np.testing.assert_array_equal(voxels, STACK[[1, 2, 3, 0]].T)
    assert geometry.shape == read_header(folder, gaps="keep").shape == (9, 13, 4)
    assert slice_numbers(folder, gaps="keep") == [9, 10, 12, 100]


def test_a_full_folder_is_the_same_with_gaps_kept_or_refused(tmp_path):
    folder = _write(tmp_path / "s", numbers=range(5, 17))
    kept, refused = (read_volume(folder, gaps=gaps) for gaps in ("keep", "refuse"))
    assert kept[0].tobytes() == refused[0].tobytes()
    assert kept[0].dtype == refused[0].dtype
    np.testing.assert_array_equal(kept[1].affine, refused[1].affine)


def test_a_double_number_is_refused_even_where_gaps_are_kept(tmp_path):
    folder = _write(tmp_path / "s", numbers=(1, 3), stack=STACK)
    tifffile.imwrite(folder / "03.tif", STACK[2])
    with pytest.raises(InputError, match="one file per slice number"):
        read_volume(folder, gaps="keep")


def test_numbers_too_far_apart_to_count_slices_are_refused(tmp_path):
    folder = _write(tmp_path / "s", numbers=(20240101, 20250101), stack=STACK)
    with pytest.raises(InputError, match="slice numbers that count slices, got 20240101 to 20250101 for 2"):
        read_header(folder, gaps="keep", max_bytes=10**6)
