from __future__ import annotations

from functools import partial

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from PIL import Image

from volseg.checks import InputError
from volseg.data.case_dataset import check_cases
from volseg.data.datalist import load_cases, read_datalist
from volseg.data.datasets import oct_edema, prepare_dataset
from volseg.data.datasets.oct_edema import prepare_oct_edema
from volseg.data.phantoms import write_oct_edema
from volseg.transforms import AssignSpacingd, CheckPaird, MapLabelsd, MatchSlicesd, SpreadSlicesd

# MONAI builds all its readers for each LoadImage, also the one whose GPU decoder is not installed
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")

WIDTH, HEIGHT = 6, 9
VALUES = np.array([0, 255, 191, 128], np.uint8)


def scan(depth, seed):
    return np.random.default_rng(seed).integers(1, 255, (depth, HEIGHT, WIDTH)).astype(np.uint8)


def lesions(depth, seed):
    """Label values (z, rows, columns); all four occur."""
    return VALUES[np.random.default_rng(seed).choice(4, (depth, HEIGHT, WIDTH), p=[0.7, 0.1, 0.1, 0.1])]


def write_bmps(folder, pages, first):
    folder.mkdir(parents=True)
    for number, page in enumerate(pages, start=first):
        Image.fromarray(page).save(folder / f"{number}.bmp")


def add_case(place, name, depth=4, seed=0, first=1, first_label=1, labels=None):
    write_bmps(place / "original_images" / f"{name}.img", scan(depth, seed), first)
    pages = lesions(depth, seed) if labels is None else labels
    write_bmps(place / "label_images" / f"{name}_labelMark", pages, first_label)


@pytest.fixture
def challenge(tmp_path):
    """Three sets; cases of different length, one numbered otherwise, test cases without labels."""
    root = tmp_path / "raw"
    add_case(root / "Edema_trainingset", "P1_MacularCube512x128_a_z", 4, 1)
    add_case(root / "Edema_trainingset", "P1_MacularCube512x128_b_z", 5, 2)
    add_case(root / "Edema_trainingset", "PC2_MacularCube512x128_a_z", 3, 3, first=0, first_label=1)
    add_case(root / "Edema_validationset", "P3", 6, 4)
    write_bmps(root / "Edema_testset" / "original_images" / "P4.img", scan(3, 5), 1)
    return root


def cases_of(root, section="all"):
    return {case["case"]: case for case in load_cases(root, section)}


def only_fault(root, **arguments):
    report = prepare_oct_edema(root, **arguments)
    assert report.datalist is None
    assert not (root / "datalist.json").exists()
    (fault,) = report.faults
    return fault


def test_the_challenge_becomes_a_datalist(challenge):
    report = prepare_oct_edema(challenge)
    assert report.faults == []
    assert list(cases_of(challenge, "test")) == ["P4"]
    cases = cases_of(challenge)
    assert [case["group"] for case in cases.values()] == ["P1", "P1", "PC2", "P3", "P4"]
    assert cases["P3"]["label_rule"] == {"0": 0, "255": 1, "191": 2, "128": 3}
    assert "label" not in cases["P4"]
    content = read_datalist(challenge / "datalist.json")
    assert content.classes == {0: "background", 1: "REA", 2: "SRF", 3: "PED"}
    check_cases(list(cases.values()), gaps="keep")
    check_cases(list(cases.values()))


def test_visits_of_a_patient_are_in_one_fold(challenge):
    prepare_oct_edema(challenge, seed=5)
    folds = {name: case.get("fold") for name, case in cases_of(challenge).items()}
    assert folds["P1_MacularCube512x128_a_z"] == folds["P1_MacularCube512x128_b_z"]
    assert {fold for fold in folds.values() if fold is not None} == {0, 1, 2}


def test_the_seed_repeats_the_folds(challenge, tmp_path):
    for name in ("a", "b"):
        prepare_oct_edema(challenge, output_dir=tmp_path / name, folds=2, seed=3)
    lists = [(tmp_path / name / "datalist.json").read_bytes() for name in ("a", "b")]
    assert lists[0] == lists[1]


def test_another_way_to_number_labels_is_recorded_and_told(challenge):
    report = prepare_oct_edema(challenge)
    offsets = {name: case.get("label_offset") for name, case in cases_of(challenge).items()}
    assert {name for name, offset in offsets.items() if offset} == {"PC2_MacularCube512x128_a_z"}
    assert offsets["PC2_MacularCube512x128_a_z"] == 1
    assert (
        "label numbers lie one above those of their images in 1 of 5 cases, first PC2_" in report.warnings[0]
    )


@pytest.mark.parametrize(("first", "first_label"), [(0, 1), (1, 0), (7, 7)])
def test_slices_are_paired_in_order_however_they_are_numbered(tmp_path, first, first_label):
    place = tmp_path / "train"
    add_case(place, "P1", 4, 1, first=first, first_label=first_label)
    add_case(place, "P2", 4, 2)
    prepare_oct_edema(place)
    keys = ("image", "label")
    load = Compose(
        [
            LoadImaged(keys, reader="volseg.data.VolumeReader", gaps="keep", dtype=None),
            AssignSpacingd(keys),
            EnsureChannelFirstd(keys),
            MapLabelsd("label", rule_key="label_rule"),
            SpreadSlicesd(),
            MatchSlicesd(),
            CheckPaird(),
        ]
    )
    item = load(cases_of(place)["P1"])
    np.testing.assert_array_equal(item["image"][0].numpy(), scan(4, 1).T)
    expected = np.select([lesions(4, 1) == value for value in VALUES], [0, 1, 2, 3])
    np.testing.assert_array_equal(item["label"][0].numpy(), expected.T)
    np.testing.assert_allclose(item["image"].pixdim, [6 / WIDTH, 2 / HEIGHT, 6 / 4], atol=1e-6)


def test_spacing_is_the_field_divided_by_the_size_unless_stated(challenge, tmp_path):
    prepare_oct_edema(challenge)
    spacing = [case["spacing_mm"] for case in cases_of(challenge).values()]
    expected = [[6 / WIDTH, 2 / HEIGHT, 6 / depth] for depth in (4, 5, 3, 6, 3)]
    np.testing.assert_allclose(spacing, expected, atol=1e-6)
    prepare_oct_edema(challenge, output_dir=tmp_path / "out", spacing_mm=[0.1, 0.2, 0.3])
    assert cases_of(tmp_path / "out")["P3"]["spacing_mm"] == [0.1, 0.2, 0.3]


def test_the_report_counts_lesions(challenge):
    rows = {row.case: row for row in prepare_oct_edema(challenge).cases}
    assert rows["P3"].size == (WIDTH, HEIGHT, 6)
    assert rows["P3"].slices_labelled == 6
    assert rows["P3"].foreground == pytest.approx((lesions(6, 4) > 0).mean())
    assert rows["P4"].foreground is None


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nii.gz"])
def test_volume_files_take_the_place_of_folders_and_keep_their_spacing(tmp_path, suffix):
    place = tmp_path / "train"
    add_case(place, "P1", 4, 1)
    for part, end, pages in (
        ("original_images", "", scan(5, 2)),
        ("label_images", "_labelMark", lesions(5, 2)),
    ):
        path = place / part / f"P2{end}{suffix}"
        if suffix == ".nii.gz":
            nib.Nifti1Image(pages.T, np.diag([0.012, 0.002, 0.05, 1])).to_filename(path)
        else:
            image = SimpleITK.GetImageFromArray(pages)
            image.SetSpacing((0.012, 0.002, 0.05))
            SimpleITK.WriteImage(image, str(path))
    report = prepare_oct_edema(place, spacing_mm=1.0)
    assert report.faults == []
    cases = cases_of(place)
    np.testing.assert_allclose(cases["P2"]["spacing_mm"], [0.012, 0.002, 0.05], rtol=1e-6)
    assert cases["P1"]["spacing_mm"] == [1.0, 1.0, 1.0]
    assert len(cases["P2"]["image_sha256"]) == 64
    assert [row.warnings for row in report.cases] == [[], ["its file states its own spacing and keeps it"]]
    check_cases(list(cases.values()), gaps="keep")


def test_one_patient_alone_is_cut_along_z(tmp_path):
    place = tmp_path / "train"
    add_case(place, "P1", 12, 1)
    report = prepare_oct_edema(place)
    cases = cases_of(place)
    assert [case["labelled_range"] for case in cases.values()] == [[0, 8], [10, 12]]
    assert [row.slices_labelled for row in report.cases] == [8, 2]
    assert "the validation score will be too good" in report.warnings[0]


def test_a_set_called_test_serves_inference_only(tmp_path):
    write_bmps(tmp_path / "Edema_testset/original_images/P4.img", scan(3, 5), 1)
    report = prepare_oct_edema(tmp_path / "Edema_testset")
    assert report.faults == []
    assert [case["case"] for case in load_cases(tmp_path / "Edema_testset", "test")] == ["P4"]


def test_the_same_name_in_two_sets_is_two_cases(tmp_path):
    add_case(tmp_path / "raw/a", "P1", 4, 1)
    add_case(tmp_path / "raw/b", "P1", 4, 2)
    add_case(tmp_path / "raw/b", "P2", 4, 3)
    prepare_oct_edema(tmp_path / "raw")
    assert list(cases_of(tmp_path / "raw")) == ["a_P1", "b_P1", "P2"]


def test_missing_labels_are_a_fault_in_training(challenge):
    write_bmps(challenge / "Edema_trainingset/original_images/P9.img", scan(3, 9), 1)
    assert only_fault(challenge) == (
        "Edema_trainingset/original_images/P9.img: expected labels in label_images, got none; "
        "add them, or put the case into a set called test"
    )


def test_labels_without_images_are_a_fault(challenge):
    write_bmps(challenge / "Edema_trainingset/label_images/P9_labelMark", lesions(3, 9), 1)
    assert "P9_labelMark: expected a case 'P9' in original_images, got none" in only_fault(challenge)


def test_unknown_label_values_are_named_with_their_file_and_counts(challenge):
    pages = lesions(3, 9)
    pages[1, 0, :2], pages[1, 1, 0], pages[2, 0, 0] = 7, 100, 7
    add_case(challenge / "Edema_trainingset", "P9", 3, 9, labels=pages)
    assert only_fault(challenge) == (
        "Edema_trainingset/label_images/P9_labelMark/2.bmp: expected the values 0, 128, 191, 255, "
        "got 7 (2 pixels), 100 (1 pixels), and such values in 1 more slices; correct the label"
    )


@pytest.mark.parametrize(
    ("number", "part", "told"),
    [
        (4, "label_images/P3_labelMark", "expected slice 4 behind 3.bmp, got 5.bmp"),
        (6, "label_images/P3_labelMark", "original_images/P3.img/6.bmp: expected its label in"),
        (3, "original_images/P3.img", "expected slice 3 behind 2.bmp, got 4.bmp"),
        (6, "original_images/P3.img", "label_images/P3_labelMark/6.bmp: expected its image in"),
    ],
    ids=["label inside", "last label", "image inside", "last image"],
)
def test_a_missing_slice_is_a_fault(challenge, number, part, told):
    (challenge / "Edema_validationset" / part / f"{number}.bmp").unlink()
    assert told in only_fault(challenge)


def test_a_transposed_label_is_a_fault(challenge):
    pages = lesions(3, 9).transpose(0, 2, 1)
    add_case(challenge / "Edema_trainingset", "P9", 3, 9, labels=pages)
    told = "label_images/P9_labelMark: 6x9, but its image is 9x6; labels must not be transposed"
    assert only_fault(challenge) == f"Edema_trainingset/{told}"


def test_slices_that_two_patients_share_are_a_fault(challenge):
    add_case(challenge / "Edema_trainingset", "P9", 6, 4)
    assert only_fault(challenge) == "P3: has image slices that P9 has too; remove one of them"


def test_a_patient_that_is_trained_on_must_not_be_tested(challenge):
    add_case(challenge / "Edema_testset", "PC2_MacularCube512x128_c_z", 3, 9)
    fault = only_fault(challenge)
    assert fault.startswith("PC2_MacularCube512x128_c_z: expected a patient that is not trained on, got that")


def test_a_picture_outside_a_case_folder_is_a_fault(challenge):
    Image.fromarray(scan(1, 0)[0]).save(challenge / "Edema_trainingset/original_images/1.bmp")
    assert any(
        "1.bmp: expected a folder for each case" in fault for fault in prepare_oct_edema(challenge).faults
    )


def test_all_faults_are_told_at_once(challenge):
    for part in ("original_images/P3.img/6.bmp", "label_images/P3_labelMark/6.bmp"):
        (challenge / "Edema_validationset" / part).write_bytes(b"no picture")
    faults = prepare_oct_edema(challenge).faults
    assert ["P3.img/6.bmp" in faults[0], "P3_labelMark/6.bmp" in faults[1]] == [True, True]


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a folder original_images, got none"):
        prepare_dataset("oct-edema", tmp_path)


def test_a_datalist_is_not_overwritten_unasked(challenge):
    prepare_dataset("oct-edema", challenge)
    with pytest.raises(InputError, match="use --overwrite"):
        prepare_dataset("oct-edema", challenge)
    assert prepare_dataset("oct-edema", challenge, overwrite=True).faults == []


@pytest.fixture
def small_phantoms(monkeypatch):
    monkeypatch.setattr(oct_edema, "write_oct_edema", partial(write_oct_edema, size=(17, 32, 3)))


@pytest.mark.usefixtures("small_phantoms")
def test_generated_volumes_are_listed_and_repeatable(tmp_path):
    for name in ("a", "b"):
        report = prepare_dataset("oct-edema", tmp_path / name, generate=3, generate_test=2, seed=6)
        assert report.faults == []
    lists = [(tmp_path / name / "datalist.json").read_text() for name in ("a", "b")]
    assert lists[0] == lists[1]
    document = read_datalist(tmp_path / "a/datalist.json")
    assert (len(document.training), len(document.test)) == (3, 2)


@pytest.mark.usefixtures("small_phantoms")
def test_a_quarter_of_the_training_volumes_is_generated_for_the_test(tmp_path):
    prepare_oct_edema(tmp_path, generate=5)
    assert len(list((tmp_path / "test/original_images").iterdir())) == 2


@pytest.mark.usefixtures("small_phantoms")
def test_generating_among_other_volumes_is_refused(tmp_path):
    add_case(tmp_path / "train", "P7", 3)
    with pytest.raises(InputError, match=r"P7\.img: expected a folder for generated volumes alone"):
        prepare_oct_edema(tmp_path, generate=2, overwrite=True)


@pytest.mark.parametrize(("train", "test", "option"), [(0, None, "--generate"), (2, 0, "--generate-test")])
def test_nothing_to_generate_is_refused(tmp_path, train, test, option):
    with pytest.raises(InputError, match=f"^{option}: expected one volume or more, got 0"):
        prepare_oct_edema(tmp_path / "new", generate=train, generate_test=test)
    assert not (tmp_path / "new").exists()


def test_test_volumes_alone_are_not_generated(challenge):
    with pytest.raises(InputError, match="--generate-test: expected --generate beside it"):
        prepare_oct_edema(challenge, generate_test=3)


def test_generating_needs_a_name_for_the_folder():
    with pytest.raises(InputError, match="RAW: expected a folder for the volumes, got an empty text"):
        prepare_oct_edema("", generate=2)
