from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK
import tifffile

from volseg.checks import InputError
from volseg.data.slice_writer import write_slice_folder


def _volume(shape=(7, 5, 3), dtype=np.uint16):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", ["deflate", "lzw", None])
def test_the_series_reader_of_itk_reads_the_same_array(tmp_path, dtype, compression):
    volume = _volume(dtype=dtype)
    paths = write_slice_folder(tmp_path, volume, compression=compression)
    read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage([str(path) for path in paths]))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read.transpose(2, 1, 0), volume)


def test_a_slice_has_y_rows_and_x_columns(tmp_path):
    volume = _volume()
    paths = write_slice_folder(tmp_path, volume)
    np.testing.assert_array_equal(tifffile.imread(paths[1]), volume[:, :, 1].T)


def test_slices_are_numbered_from_first_with_so_many_digits(tmp_path):
    paths = write_slice_folder(tmp_path / "new" / "folder", _volume(), first=98, digits=3)
    assert [path.name for path in paths] == ["098.tif", "099.tif", "100.tif"]
    assert sorted((tmp_path / "new" / "folder").iterdir()) == sorted(paths)


def test_the_spacing_lies_beside_the_slices(tmp_path):
    write_slice_folder(tmp_path, _volume(), spacing_mm=(0.05, 0.06, 0.1))
    assert json.loads((tmp_path / "spacing.json").read_text()) == {"spacing_mm": [0.05, 0.06, 0.1]}


def test_without_a_spacing_there_is_no_sidecar(tmp_path):
    write_slice_folder(tmp_path, _volume())
    assert not (tmp_path / "spacing.json").exists()


def test_an_existing_slice_is_not_overwritten(tmp_path):
    volume = _volume()
    write_slice_folder(tmp_path, volume)
    with pytest.raises(InputError, match=r"0000\.tif: expected a new file"):
        write_slice_folder(tmp_path, volume // 2)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "0000.tif"), volume[:, :, 0].T)


@pytest.mark.parametrize(
    "volume", [np.zeros((4, 3), np.uint8), np.zeros((4, 3, 2), np.float32)], ids=["2d", "float"]
)
def test_what_is_no_integer_volume_is_refused(tmp_path, volume):
    with pytest.raises(ValueError, match="takes a 3D volume of uint8 or uint16, got"):
        write_slice_folder(tmp_path, volume)


@pytest.mark.parametrize(
    ("spacing_mm", "message"),
    [((0.1, 0.1), "must hold three edge lengths, got 2"), ((0.1, 0.0, 0.1), "must be positive and finite")],
)
def test_a_wrong_spacing_is_refused_before_anything_is_written(tmp_path, spacing_mm, message):
    with pytest.raises(ValueError, match=message):
        write_slice_folder(tmp_path / "case", _volume(), spacing_mm=spacing_mm)
    assert not (tmp_path / "case").exists()
