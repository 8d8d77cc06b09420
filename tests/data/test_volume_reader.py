from __future__ import annotations

import os
import socket
import warnings

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged

from volseg.checks import InputError
from volseg.data.volume_reader import VolumeReader, check_voxels, read_header, read_volume, slice_numbers
from volseg.geometry import affine_from_spacing

# MONAI builds all its readers for each LoadImage, also the one whose GPU decoder is not installed
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")

READER = "volseg.data.VolumeReader"
VOXELS = np.random.default_rng(0).integers(0, 60000, (5, 7, 4)).astype(np.uint16)
AFFINE = np.array([[0, 0, 4.0, 1], [-2, 0, 0, 2], [0, 3, 0, 3], [0, 0, 0, 1]])


def _nifti(path, voxels=VOXELS):
    nib.Nifti1Image(voxels, AFFINE).to_filename(path)
    return path


def _slices(folder, voxels=VOXELS):
    folder.mkdir(parents=True)
    for k in range(voxels.shape[2]):
        tifffile.imwrite(folder / f"{k + 8}.tif", voxels[:, :, k].T.copy())
    return folder


def test_load_image_keeps_values_place_and_meta_of_a_slice_folder(tmp_path):
    image = LoadImage(reader=READER, dtype=None, spacing_mm=(0.5, 0.25, 2))(_slices(tmp_path / "s"))
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.int32  # MONAI widens uint16, for which torch has few operations
    np.testing.assert_array_equal(image.numpy(), VOXELS)
    np.testing.assert_array_equal(image.affine, affine_from_spacing((0.5, 0.25, 2)))
    assert image.meta["filename_or_obj"] == str(tmp_path / "s")
    assert image.meta["spacing_is_known"] is True
    assert image.meta["non_finite_voxels"] == 0
    assert image.meta["space"] == "RAS"


@pytest.mark.parametrize("image_only", [True, False])
def test_load_imaged_reads_image_and_label_by_the_readers_name(tmp_path, image_only):
    voxels = VOXELS.astype(np.float32)
    voxels[1, 2, 3] = np.nan
    item = {
        "image": str(_nifti(tmp_path / "a.nii.gz", voxels)),
        "label": str(_slices(tmp_path / "case" / "images")),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "NvImgCodecPydicomReader")
        loaded = LoadImaged(
            ["image", "label"], reader=READER, image_only=image_only, ensure_channel_first=True
        )(item)
    assert loaded["image"].shape == loaded["label"].shape == (1, 5, 7, 4)
    assert loaded["image"].dtype == torch.float32
    np.testing.assert_array_equal(loaded["image"].affine, AFFINE)
    assert loaded["image"].meta["non_finite_voxels"] == 1
    np.testing.assert_array_equal(loaded["label"][0].numpy(), VOXELS)
    assert loaded["label"].meta["spacing_is_known"] is False


def test_a_file_that_is_refused_is_not_handed_to_another_reader(tmp_path):
    path = _nifti(
        tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 60000, (33, 41, 25)).astype(np.uint16)
    )
    path.write_bytes(path.read_bytes()[:-8])
    nib.load(path).get_fdata()  # nibabel, which MONAI would try next, reads it
    with pytest.raises(InputError, match=r"a\.nii\.gz: expected intact gzip data"):
        LoadImage(reader=READER)(path)


def test_several_paths_for_one_volume_are_refused(tmp_path):
    path = str(_nifti(tmp_path / "a.nii"))
    with pytest.raises(InputError, match="one path per volume, got 2 paths"):
        LoadImage(reader=READER)([path, path])


def test_the_readers_own_array_keeps_the_files_type(tmp_path):
    reader = VolumeReader()
    for path in (_slices(tmp_path / "s"), _nifti(tmp_path / "a.nii")):
        assert reader.get_data(reader.read(path))[0].dtype == np.uint16


@pytest.mark.parametrize("arguments", [{"spacing_mm": (1, 0, 1)}, {"spacing_mm": (1, 1)}, {"max_workers": 0}])
def test_a_reader_checks_its_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        VolumeReader(**arguments)


def test_a_reader_knows_its_suffixes(tmp_path):
    reader = VolumeReader()
    assert reader.verify_suffix("a.NII.GZ")
    assert reader.verify_suffix([tmp_path, "b.tif"])
    assert not reader.verify_suffix(["a.nii", "b.npy"])


NAMES = [
    "a.nii.old.nii.gz",
    "two words.nii",
    "früh 早.nii.gz",
    'it\'s "quoted".nii',
    "[a]{b}(c).nii",
    "#1.nii",
    "50%.nii",
    "-rf.nii",
    "@output_dir.nii.gz",
    "$import os.nii",
    "new\nline.nii",
    "a" * 236 + ".nii",
    "%file.nii",
    "~.nii",
    "*.nii",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_is_read(tmp_path, name):
    _nifti(tmp_path / "a.nii")
    _nifti(tmp_path / "a.nii.gz")
    (tmp_path / ("a.nii.gz" if name.endswith(".gz") else "a.nii")).rename(tmp_path / name)
    np.testing.assert_array_equal(read_volume(tmp_path / name)[0], VOXELS)
    np.testing.assert_array_equal(LoadImage(reader=READER, dtype=None)(tmp_path / name).numpy(), VOXELS)


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_is_one_line_whatever_the_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>" * 100)
    with pytest.raises(InputError) as caught:
        read_header(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_links_to_files_and_folders_are_followed(tmp_path):
    (tmp_path / "link.nii").symlink_to(_nifti(tmp_path / "a.nii"))
    (tmp_path / "folder").symlink_to(_slices(tmp_path / "s"))
    np.testing.assert_array_equal(read_volume(tmp_path / "link.nii")[0], VOXELS)
    np.testing.assert_array_equal(read_volume(tmp_path / "folder")[0], VOXELS)


def _loop(path):
    path.symlink_to(path.name)


def _socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is limited to about 100 characters
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


STRANGE = {
    "dangling": (lambda path: path.symlink_to("nowhere.nii"), "got a symbolic link to nothing"),
    "loop": (_loop, "a symbolic link that leads in a circle"),
    "pipe": (lambda path: os.mkfifo(path), "got a pipe, socket or device"),
    "socket": (_socket, "got a pipe, socket or device"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "got a pipe, socket or device"),
    "missing": (lambda path: None, "got nothing there"),
    "empty": (lambda path: path.touch(), "an empty file"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_file_is_refused_without_waiting(tmp_path, name):
    make, message = STRANGE[name]
    make(tmp_path / "a.nii")
    for read in (read_header, read_volume, LoadImage(reader=READER)):
        with pytest.raises(InputError, match=rf"a\.nii: expected .*{message}"):
            read(tmp_path / "a.nii")


def test_an_empty_or_impossible_path_is_refused():
    with pytest.raises(InputError, match="an empty path"):
        read_header("")
    with pytest.raises(InputError, match="expected a path"):
        read_header("a\0b.nii")
    with pytest.raises(InputError, match="a readable file"):
        read_header("a" * 300 + ".nii")


@pytest.mark.parametrize("name", ["a.npy", "a.nii.bak", "a", "a.zip", "a.nii.gz.txt"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x" * 400)
    with pytest.raises(InputError, match="convert the volume"):
        read_header(tmp_path / name)


def test_a_folder_of_volumes_is_no_volume(tmp_path):
    _nifti(tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"got a\.nii; give the path of that file itself"):
        read_header(tmp_path)


def test_the_budget_is_checked_before_reading(tmp_path, monkeypatch):
    for path in (_nifti(tmp_path / "a.nii"), _nifti(tmp_path / "a.nii.gz"), _slices(tmp_path / "s")):
        with pytest.raises(InputError, match="at most 279 bytes of voxels, got 280"):
            read_header(path, max_bytes=VOXELS.nbytes - 1)
        assert read_volume(path, max_bytes=VOXELS.nbytes)[0].nbytes == VOXELS.nbytes
        monkeypatch.setenv("VOLSEG_MAX_INPUT_BYTES", "279")
        with pytest.raises(InputError, match="VOLSEG_MAX_INPUT_BYTES"):
            LoadImage(reader=READER)(path)
        monkeypatch.delenv("VOLSEG_MAX_INPUT_BYTES")


def test_a_volume_that_states_its_spacing_keeps_it_with_a_warning(tmp_path):
    path = _nifti(tmp_path / "a.nii")
    with pytest.warns(UserWarning, match=r"a\.nii: keeps its own spacing of \(2\.0, 3\.0, 4\.0\) mm"):
        assert read_header(path, spacing_mm=(1, 1, 1)).spacing_mm == (2, 3, 4)
    assert read_header(path, spacing_mm=(2, 3, 4)).spacing_mm == (2, 3, 4)


def test_slice_numbers_count_from_zero_without_names(tmp_path):
    assert slice_numbers(_nifti(tmp_path / "a.nii")) == [0, 1, 2, 3]
    assert slice_numbers(_slices(tmp_path / "s")) == [8, 9, 10, 11]


@pytest.mark.parametrize("order", ["C", "F"])
def test_voxels_that_are_not_finite_are_counted_and_never_all(order):
    voxels = np.zeros((3, 4, 5), np.float32, order=order)
    assert check_voxels(voxels, "a.nii") == 0
    voxels[1, 2, :2] = np.nan, -np.inf
    assert check_voxels(voxels, "a.nii") == 2
    assert check_voxels(VOXELS, "a.nii") == 0
    with pytest.raises(InputError, match=r"a\.nii: expected finite voxels"):
        check_voxels(np.full((2, 2, 2), np.inf), "a.nii")


def test_kept_gaps_are_told_by_the_slice_numbers(tmp_path):
    folder = _slices(tmp_path / "s")
    (folder / "9.tif").unlink()
    image = LoadImage(reader=READER, dtype=None, gaps="keep")(folder)
    assert list(image.meta["slice_numbers"]) == [8, 10, 11]
    np.testing.assert_array_equal(image.numpy(), VOXELS[..., [0, 2, 3]])
    with pytest.raises(InputError, match=r"expected slice 9 behind 8\.tif"):
        LoadImage(reader=READER, dtype=None)(folder)


def test_only_slices_and_pages_have_slice_numbers(tmp_path):
    reader = VolumeReader(gaps="keep")
    _, meta = reader.get_data(reader.read(_nifti(tmp_path / "a.nii.gz")))
    assert "slice_numbers" not in meta
    reader = VolumeReader()
    _, meta = reader.get_data(reader.read(_slices(tmp_path / "s")))
    assert "slice_numbers" not in meta


def test_another_word_for_gaps_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gaps must be one of keep, refuse, got 'kept'; did you mean 'keep'"):
        VolumeReader(gaps="kept")
    with pytest.raises(ValueError, match="gaps must be one of keep, refuse, got 'kept'"):
        read_header(_slices(tmp_path / "s"), gaps="kept")
