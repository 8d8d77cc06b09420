from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from volseg.checks import InputError
from volseg.data.volume_reader import read_header, read_volume
from volseg.geometry import swap_ras_lps

STACK = np.random.default_rng(0).integers(0, 4000, (6, 13, 9)).astype(np.uint16)
SERIES, FRAME = generate_uid(entropy_srcs=["series"]), generate_uid(entropy_srcs=["frame"])
TURN = np.cos(0.3), np.sin(0.3)


def _dataset(k: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["slice", str(k)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    one.SeriesInstanceUID, one.StudyInstanceUID, one.FrameOfReferenceUID = SERIES, FRAME, FRAME
    one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", 1, k + 1
    one.Rows, one.Columns = STACK.shape[1:]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.PixelSpacing = [0.7, 0.5]
    c, s = TURN
    one.ImageOrientationPatient = [c, s, 0, -s, c, 0]
    one.ImagePositionPatient = [10, -20, 30 + 2.5 * k]
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    one.SliceThickness = 2.5
    one.PixelData = STACK[k].tobytes()
    return one


def _write(folder: Path, change=None, name="{:02d}.dcm") -> Path:
    folder.mkdir(exist_ok=True)
    for k in range(len(STACK)):
        one = _dataset(k)
        if change is not None and change(one, k) is False:
            continue
        one.save_as(folder / name.format(k), enforce_file_format=True)
    return folder


def _judge(folder: Path):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, swap_ras_lps(lps)


def _same_as_simpleitk(folder):
    voxels, geometry = read_volume(folder)
    expected, affine = _judge(folder)
    np.testing.assert_allclose(voxels, expected, rtol=1e-6)
    np.testing.assert_allclose(geometry.affine, affine, atol=1e-9)
    return voxels


def test_a_series_is_the_volume_of_simpleitk(tmp_path):
    voxels = _same_as_simpleitk(_write(tmp_path / "s"))
    assert voxels.dtype == np.int16
    np.testing.assert_array_equal(voxels, STACK.T.astype(np.int16) - 1024)


def test_names_in_another_order_than_positions_are_read(tmp_path):
    def turn(one, k):
        one.ImagePositionPatient = [10, -20, 30 - 2.5 * k]

    np.testing.assert_array_equal(
        _same_as_simpleitk(_write(tmp_path / "s", turn)), STACK[::-1].T.astype(int) - 1024
    )


def test_files_without_suffix_with_junk_beside_are_read(tmp_path):
    folder = _write(tmp_path / "s", name="IM{:05d}")
    for junk in ("README.txt", ".DS_Store", "notes", "Thumbs.db"):
        (folder / junk).write_bytes(b"junk")
    (folder / "sub").mkdir()
    np.testing.assert_array_equal(read_volume(folder)[0], STACK.T.astype(int) - 1024)


def test_an_object_that_is_no_image_is_left_out(tmp_path):
    folder = _write(tmp_path / "s")
    report = _dataset(0)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    del report.PixelData, report.Rows
    report.save_as(folder / "report.dcm")
    assert read_header(folder).shape == (9, 13, 6)


def test_run_length_encoded_slices_are_read(tmp_path):
    def compress(one, k):
        one.compress(RLELossless, STACK[k], generate_instance_uid=False)

    _same_as_simpleitk(_write(tmp_path / "s", compress))


def test_slopes_that_differ_between_slices_give_real_numbers(tmp_path):
    def scale(one, k):
        one.RescaleSlope, one.RescaleIntercept = 0.5 + k, 3

    voxels = read_volume(_write(tmp_path / "s", scale))[0]
    assert voxels.dtype == np.float32
    np.testing.assert_allclose(voxels, (STACK * (0.5 + np.arange(6))[:, None, None] + 3).T)


def test_unscaled_pixels_keep_their_type(tmp_path):
    def plain(one, k):
        del one.RescaleSlope, one.RescaleIntercept

    voxels = read_volume(_write(tmp_path / "s", plain))[0]
    assert voxels.dtype == np.uint16
    np.testing.assert_array_equal(voxels, STACK.T)


def test_one_file_is_one_slice(tmp_path):
    folder = _write(tmp_path / "s")
    voxels, geometry = read_volume(folder / "02.dcm")
    assert voxels.shape == (9, 13, 1)
    assert geometry.spacing_mm == pytest.approx((0.5, 0.7, 2.5))


def _at(index, **values):
    def change(one, k):
        if k == index:
            for name, value in values.items():
                setattr(one, name, value)

    return change


def _everywhere(**values):
    def change(one, k):
        for name, value in values.items():
            setattr(one, name, value)

    return change


REFUSED = {
    "gap": (lambda one, k: k != 3, r"04\.dcm: expected a slice 2\.5 mm behind 02\.dcm, got 5 mm"),
    "same position": (_at(3, ImagePositionPatient=[10, -20, 35]), "one slice per position"),
    "uneven": (_at(3, ImagePositionPatient=[10, -20, 38]), r"expected a slice"),
    "orientation": (_at(3, ImageOrientationPatient=[1, 0, 0, 0, 1, 0]), r"03\.dcm: expected orientation"),
    "pixel size": (_at(3, PixelSpacing=[0.7, 0.6]), r"03\.dcm: expected pixels of"),
    "two series": (_at(3, SeriesInstanceUID=FRAME), r"03\.dcm: expected the series of 00\.dcm"),
    "other size": (_at(3, Rows=9, Columns=13), r"03\.dcm: expected rows, columns"),
    "other depth": (_at(3, BitsAllocated=8), r"03\.dcm: expected rows, columns"),
    "tilted": (
        lambda one, k: setattr(one, "ImagePositionPatient", [10 + k, -20, 30 + 2.5 * k]),
        "along their normal",
    ),
    "inverted": (_everywhere(PhotometricInterpretation="MONOCHROME1"), r"00\.dcm: expected MONOCHROME2"),
    "colour": (
        _everywhere(PhotometricInterpretation="RGB", SamplesPerPixel=3),
        r"00\.dcm: expected MONOCHROME2",
    ),
    "frames": (_everywhere(NumberOfFrames=2), r"one slice per file, got 2 frames"),
    "no position": (
        lambda one, k: delattr(one, "ImagePositionPatient"),
        "00\\.dcm: expected a DICOM image with pos",
    ),
    "axes not perpendicular": (_everywhere(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "perpendicular axes"),
    "zero spacing": (_everywhere(PixelSpacing=[0, 1]), "positive spacing"),
    "short pixels": (
        lambda one, k: setattr(one, "PixelData", one.PixelData[:100]),
        "bytes of pixels|whole pixel",
    ),
    "bits": (_everywhere(BitsAllocated=1), "8, 16 or 32 bit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_series_that_does_not_fit_together_is_refused(tmp_path, name):
    change, message = REFUSED[name]
    folder = _write(tmp_path / "s", change)
    with pytest.raises(InputError, match=message):
        read_volume(folder)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("is_rle", [False, True])
def test_a_cut_file_is_refused_by_name(tmp_path, part, is_rle):
    def compress(one, k):
        one.compress(RLELossless, STACK[k], generate_instance_uid=False)

    folder = _write(tmp_path / "s", compress if is_rle else None)
    data = (folder / "03.dcm").read_bytes()
    (folder / "03.dcm").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"03\.dcm: expected"):
        read_volume(folder)


def test_a_duplicate_instance_is_refused(tmp_path):
    folder = _write(tmp_path / "s")
    (folder / "copy.dcm").write_bytes((folder / "03.dcm").read_bytes())
    with pytest.raises(
        InputError, match=r"copy\.dcm: expected one slice per position, got the position of 03\.dcm"
    ):
        read_header(folder)


def test_a_folder_of_reports_only_is_refused(tmp_path):
    _dataset(0).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    report = pydicom.dcmread(tmp_path / "a.dcm")
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="expected DICOM images, got none"):
        read_header(tmp_path)
