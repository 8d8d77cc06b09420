"""A prediction lies exactly where its image lies, as nibabel and SimpleITK both see it."""

from __future__ import annotations

import gzip
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own idiom
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from volseg.checks import InputError
from volseg.data.nifti_writer import as_labels, as_volumes, write_nifti
from volseg.geometry import Geometry, affine_from_spacing

SHAPE = (5, 7, 3)
UNITS = {"mm": "mm", "um": "micron", "m": "meter"}  # as volseg and as nibabel call them


def turned(degrees, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


GEOMETRIES = {
    "ras": turned(0),
    "lps": np.diag([-1.0, -1.0, 1.0, 1.0]),
    "permuted": np.array([[0, 0, 2.0, 1], [1.5, 0, 0, 2], [0, 1.0, 0, 3], [0, 0, 0, 1]]),
    "left-handed": np.diag([1.0, 1.0, -1.0, 1.0]),
    "oblique 45": turned(45, (0.7, 0.8, 2.0), (10, -20, 30)),
    "anisotropic": turned(0, (0.5, 0.5, 5.0)),
    "far origin": turned(20, (1, 1, 1), (1e6, -1e6, 1e6)),
    "tiny spacing": turned(0, (0.001, 0.001, 0.001)),
}


def source_file(path, affine, *, kind=nib.Nifti1Image, unit="mm", forms=(2, 1), shape=SHAPE, order="<"):
    """Write an int16 image with the given form codes, unit and byte order."""
    header = (nib.Nifti2Header if kind is nib.Nifti2Image else nib.Nifti1Header)(endianness=order)
    image = kind(np.zeros(shape, np.int16), affine, header)
    image.header.set_xyzt_units(UNITS[unit])
    image.header["descrip"] = b"of the source"
    image.header["cal_max"] = 500
    image.set_sform(affine, forms[0])
    image.set_qform(affine, forms[1])
    if forms == (0, 0):
        image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    nib.save(image, path)
    return path


def geometry_of(path):
    """Read the geometry independently of volseg's own reader."""
    image = nib.load(path)
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    unit = next(ours for ours, theirs in UNITS.items() if theirs == image.header.get_xyzt_units()[0])
    size = int(image.header["sizeof_hdr"])
    return Geometry(
        shape=image.shape[:3],
        file_affine=image.affine,
        unit=unit,
        sform_code=int(image.header["sform_code"]),
        qform_code=int(image.header["qform_code"]),
        nifti_header=raw[:size],
    )


def labels_like(shape=SHAPE, dtype=np.uint8):
    return np.random.default_rng(3).integers(0, 3, shape).astype(dtype)


def check_same_place(source, written):
    """Compare two files as nibabel and SimpleITK see them, bit for bit."""
    ours, theirs = nib.load(written), nib.load(source)
    assert ours.shape == theirs.shape
    assert np.array_equal(ours.affine, theirs.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "descrip"):
        assert ours.header[field] == theirs.header[field], field
    for field in ("pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x"):
        assert np.array_equal(ours.header[field], theirs.header[field]), field
    if ours.header["sizeof_hdr"] == 540:
        return  # ITK reads no NIfTI-2
    a, b = sitk.ReadImage(str(written)), sitk.ReadImage(str(source))
    for question in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(a, question)() == getattr(b, question)(), question


@pytest.mark.parametrize("affine", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_a_prediction_lies_where_its_image_lies(tmp_path, affine):
    source = source_file(tmp_path / "image.nii.gz", affine)
    labels = labels_like()
    write_nifti(tmp_path / "seg.nii.gz", labels, geometry_of(source))
    check_same_place(source, tmp_path / "seg.nii.gz")
    assert np.array_equal(np.asarray(nib.load(tmp_path / "seg.nii.gz").dataobj), labels)
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "seg.nii.gz")))
    assert np.array_equal(array.T, labels)


@pytest.mark.parametrize(
    "options",
    [
        {"unit": "um"},
        {"unit": "m"},
        {"forms": (0, 1)},
        {"forms": (1, 0)},
        {"forms": (0, 0)},
        {"forms": (4, 3)},
        {"kind": nib.Nifti2Image},
        {"kind": nib.Nifti2Image, "order": ">"},
        {"order": ">"},
        {"shape": (*SHAPE, 1)},
        {"shape": (*SHAPE, 1, 1)},
        {"shape": (5, 7, 1)},
    ],
    ids=str,
)
def test_a_prediction_keeps_the_form_codes_unit_and_axes_of_the_file(tmp_path, options):
    source = source_file(tmp_path / "image.nii", GEOMETRIES["oblique 45"], **options)
    geometry = geometry_of(source)
    write_nifti(tmp_path / "seg.nii.gz", labels_like(geometry.shape), geometry)
    check_same_place(source, tmp_path / "seg.nii.gz")


def test_fields_that_describe_intensities_are_reset(tmp_path):
    source = nib.load(source_file(tmp_path / "image.nii", np.eye(4))).header
    source["scl_slope"], source["scl_inter"], source["intent_code"] = 2, -1024, 1007
    write_nifti(
        tmp_path / "seg.nii.gz", labels_like(), Geometry(SHAPE, np.eye(4), nifti_header=source.binaryblock)
    )
    header = nib.load(tmp_path / "seg.nii.gz").header
    assert (header["cal_max"], header["intent_code"]) == (0, 0)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "seg.nii.gz").dataobj), labels_like())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.01, 20)] * 3),
    origin=st.tuples(*[st.floats(-1000, 1000)] * 3),
    mirror=st.booleans(),
)
def test_simpleitk_places_a_new_file_where_the_affine_says(tmp_path, angles, spacing, origin, mirror):
    turn = sitk.Euler3DTransform((0, 0, 0), *np.deg2rad(angles).tolist()).GetMatrix()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(turn, (3, 3)) @ np.diag(spacing) @ np.diag([-1 if mirror else 1, 1, 1])
    affine[:3, 3] = origin
    path = tmp_path / "seg.nii.gz"
    write_nifti(path, labels_like(), Geometry(SHAPE, affine), overwrite=True)
    image = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (4, 6, 2)):
        expected = np.diag([-1, -1, 1]) @ (affine @ [*index, 1])[:3]
        # float32 affine: a thousandth of the smallest possible voxel
        assert np.allclose(image.TransformIndexToPhysicalPoint(index), expected, atol=1e-3)


def test_a_slice_folder_gives_both_forms_in_millimetres(tmp_path):
    affine = affine_from_spacing((0.05, 0.05, 0.2))
    write_nifti(tmp_path / "seg.nii.gz", labels_like(), Geometry(SHAPE, affine, sform_code=0, qform_code=0))
    header = nib.load(tmp_path / "seg.nii.gz").header
    assert (header["sform_code"], header["qform_code"], header.get_xyzt_units()[0]) == (1, 1, "mm")
    assert np.allclose(header.get_qform(), affine, atol=1e-6)
    assert sitk.ReadImage(str(tmp_path / "seg.nii.gz")).GetSpacing() == pytest.approx((0.05, 0.05, 0.2))


def test_micrometres_of_a_file_without_a_header_become_millimetres(tmp_path):
    write_nifti(tmp_path / "seg.nii", labels_like(), Geometry(SHAPE, np.diag([50.0, 50, 50, 1]), unit="um"))
    assert nib.load(tmp_path / "seg.nii").affine[0, 0] == pytest.approx(0.05)


def test_a_sheared_affine_goes_into_the_sform_alone(tmp_path):
    affine = np.array([[1.0, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    write_nifti(tmp_path / "seg.nii", labels_like(), Geometry(SHAPE, affine))
    image = nib.load(tmp_path / "seg.nii")
    assert (image.header["qform_code"], image.header["sform_code"]) == (0, 1)
    assert np.allclose(image.affine, affine)
    assert np.allclose(image.header.get_zooms(), np.linalg.norm(affine[:3, :3], axis=0))


def test_an_origin_that_float32_cannot_hold_is_written_as_nifti_2(tmp_path):
    affine = turned(0, (0.001, 0.001, 0.001), (1e6 + 0.1234567, 0, 0))
    write_nifti(tmp_path / "seg.nii", labels_like(), Geometry(SHAPE, affine))
    assert isinstance(nib.load(tmp_path / "seg.nii"), nib.Nifti2Image)
    assert np.array_equal(nib.load(tmp_path / "seg.nii").affine, affine)


def test_an_axis_that_nifti_1_cannot_count_is_written_as_nifti_2(tmp_path):
    shape = (40000, 1, 2)
    write_nifti(tmp_path / "seg.nii.gz", np.ones(shape, np.uint8), Geometry(shape, np.eye(4)))
    assert nib.load(tmp_path / "seg.nii.gz").shape == shape


@pytest.mark.parametrize(
    ("highest", "given", "expected"),
    [
        (1, np.bool_, "uint8"),
        (255, np.int64, "uint8"),
        (256, np.int64, "uint16"),
        (65535, np.uint32, "uint16"),
        (65536, np.int32, "uint32"),
        (1, np.float64, "float32"),
        (1, np.float16, "float32"),
    ],
)
def test_the_smallest_type_is_chosen(tmp_path, highest, given, expected):
    array = np.zeros(SHAPE, given)
    array[1, 2, 0] = highest
    write_nifti(tmp_path / "seg.nii.gz", array, Geometry(SHAPE, np.eye(4)))
    image = nib.load(tmp_path / "seg.nii.gz")
    assert image.get_data_dtype() == expected
    assert np.array_equal(np.asarray(image.dataobj), array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_several_masks_become_a_fourth_axis(tmp_path, order):
    masks = np.asarray(labels_like((2, 5, 7, 33)), order=order)
    source = source_file(tmp_path / "image.nii", np.eye(4), shape=(5, 7, 33, 1))
    write_nifti(tmp_path / "seg.nii.gz", masks, geometry_of(source))
    stored = np.asarray(nib.load(tmp_path / "seg.nii.gz").dataobj)
    assert np.array_equal(stored, np.moveaxis(masks, 0, -1))


def test_a_single_channel_axis_is_dropped(tmp_path):
    write_nifti(tmp_path / "seg.nii.gz", labels_like((1, *SHAPE)), Geometry(SHAPE, np.eye(4)))
    assert nib.load(tmp_path / "seg.nii.gz").shape == SHAPE


def test_equal_input_gives_equal_bytes_at_any_time_and_under_any_name(tmp_path):
    geometry = Geometry(SHAPE, np.eye(4))
    write_nifti(tmp_path / "a.nii.gz", labels_like(), geometry)
    time.sleep(1.1)  # a gzip header counts seconds
    write_nifti(tmp_path / "b.nii.gz", np.asfortranarray(labels_like(dtype=np.int64)), geometry)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_description_replaces_that_of_the_source(tmp_path):
    write_nifti(tmp_path / "seg.nii", labels_like(), Geometry(SHAPE, np.eye(4)), description="vessels " * 20)
    assert nib.load(tmp_path / "seg.nii").header["descrip"].item().decode().startswith("vessels vessels")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((7, 5, 3), np.uint8), "image's size"),
        (np.full(SHAPE, -1), "0 and above, got -1"),
        (np.full(SHAPE, 2**33), r"below 2\*\*32"),
        (np.zeros(SHAPE, np.complex64), "labels or real numbers"),
    ],
    ids=["transposed", "negative", "huge", "complex"],
)
def test_what_is_no_label_map_of_the_image_is_refused(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        write_nifti(tmp_path / "seg.nii.gz", array, Geometry(SHAPE, np.eye(4)))
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.nii\.gz"):
        write_nifti(tmp_path / "seg.nrrd", labels_like(), Geometry(SHAPE, np.eye(4)))


def test_a_header_that_is_none_is_refused(tmp_path):
    geometry = Geometry(SHAPE, np.eye(4), nifti_header=b"GIF89a" + bytes(400))
    with pytest.raises(ValueError, match="348 or 540"):
        write_nifti(tmp_path / "seg.nii.gz", labels_like(), geometry)


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "seg.nii.gz").write_text("mine")
    with pytest.raises(InputError, match="--overwrite true"):
        write_nifti(tmp_path / "seg.nii.gz", labels_like(), Geometry(SHAPE, np.eye(4)))
    assert (tmp_path / "seg.nii.gz").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_disk_that_changes_bytes_is_found_out(tmp_path, monkeypatch, suffix):
    opened = Path.open

    def damage(self, mode="r", *args):
        if mode == "rb":
            with opened(self, "r+b") as file:
                size = file.seek(0, 2)
                file.seek(size // 2)
                byte = file.read(1)[0]
                file.seek(size // 2)
                file.write(bytes([byte ^ 1]))
                file.truncate(size - (suffix == ".nii"))  # without a checksum only a short file shows
        return opened(self, mode, *args)

    monkeypatch.setattr(Path, "open", damage)
    with pytest.raises(InputError, match="read back"):
        write_nifti(tmp_path / f"seg{suffix}", labels_like((5, 7, 300)), Geometry((5, 7, 300), np.eye(4)))
    assert not list(tmp_path.iterdir())


WRITER = """
import sys, numpy as np
from volseg.data.nifti_writer import write_nifti
from volseg.geometry import Geometry
shape = (300, 300, 300)
noise = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
print("ready", flush=True)
write_nifti(sys.argv[1], noise, Geometry(shape, np.eye(4)))
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_no_half_file(tmp_path):
    for delay in (0.0, 0.2, 0.5):
        target = tmp_path / f"{delay}.nii.gz"
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert not target.exists()


@pytest.mark.slow
def test_a_file_size_limit_leaves_no_half_file(tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    target = tmp_path / "big.nii.gz"
    child = subprocess.run(
        [sys.executable, "-c", WRITER, str(target)], preexec_fn=limit, capture_output=True, text=True
    )
    assert child.returncode == 1
    assert child.stderr.strip().splitlines()[-1] == f"OSError: [Errno 27] File too large: '{target}'"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [0.5, -1.0, np.nan, np.inf])
def test_numbers_that_are_no_labels_are_not_rounded(wrong):
    with pytest.raises(ValueError, match="whole numbers"):
        as_labels(np.array([[0.0, wrong]]))


def test_floating_labels_that_are_too_high_are_refused():
    with pytest.raises(ValueError, match=r"below 2\*\*32"):
        as_labels(np.array([2.0**33]))


def test_a_bfloat16_tensor_becomes_an_array():
    volumes = as_volumes(torch.ones(1, *SHAPE, dtype=torch.bfloat16), SHAPE)
    assert (volumes.shape, volumes.dtype) == ((1, *SHAPE), np.float32)


@pytest.mark.parametrize("shape", [(0, 7, 3), (7, 5, 3), (5, 7), (1, 1, *SHAPE)], ids=str)
def test_a_result_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match="undo the resampling"):
        as_volumes(np.zeros(shape), SHAPE)
