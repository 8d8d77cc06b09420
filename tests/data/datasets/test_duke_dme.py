from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from PIL import Image

from volseg.checks import InputError
from volseg.data.case_dataset import check_cases
from volseg.data.datalist import load_cases
from volseg.data.datasets import prepare_dataset
from volseg.data.datasets.duke_dme import prepare_duke_dme
from volseg.transforms import (
    IGNORE,
    AssignSpacingd,
    CheckPaird,
    MapLabelsd,
    MatchSlicesd,
    PlaceSparseLabeld,
    SpreadSlicesd,
)

# MONAI builds all its readers for each LoadImage, also the one whose GPU decoder is not installed
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")

WIDTH, HEIGHT = 8, 5
LABELLED = [3, 8, 11, 13, 18]


def write_pngs(folder, numbers, seed, top):
    folder.mkdir(parents=True)
    for number in numbers:
        page = np.random.default_rng((seed, number)).integers(0, top, (HEIGHT, WIDTH)).astype(np.uint8)
        Image.fromarray(page).save(folder / f"{number:03d}.png")


def subject(folder, images, seed, labels=LABELLED):
    write_pngs(folder / "images", images, seed, 250)
    write_pngs(folder / "labels", labels, seed + 100, 4)


@pytest.fixture
def raw(tmp_path):
    """One subject of labelled B-scans only, one of all of them, one without labels."""
    root = tmp_path / "raw"
    subject(root / "Subject_01", LABELLED, 1)
    subject(root / "Subject_02", range(1, 21), 2)
    write_pngs(root / "Subject_03" / "images", range(1, 21), 3, 250)
    return root


def cases_of(root, section="all"):
    return {case["case"]: case for case in load_cases(root, section)}


def loaded(case):
    keys = ("image", "label")
    transforms = [
        LoadImaged(keys, reader="volseg.data.VolumeReader", gaps="keep", dtype=None),
        AssignSpacingd(keys),
        EnsureChannelFirstd(keys),
        MapLabelsd("label", rule_key="label_rule"),
        SpreadSlicesd(),
        MatchSlicesd(),
        PlaceSparseLabeld(),
        CheckPaird(),
    ]
    return Compose(transforms)(case)


def labelled_slices(label):
    """Slices that are known; each slice is so wholly or not at all."""
    is_known = label[0].numpy() != IGNORE
    np.testing.assert_array_equal(is_known.all((0, 1)), is_known.any((0, 1)))
    return np.flatnonzero(is_known.all((0, 1))).tolist()


def test_subjects_become_a_datalist(raw):
    report = prepare_duke_dme(raw)
    assert report.faults == []
    cases = cases_of(raw)
    assert list(cases) == ["Subject_01", "Subject_02", "Subject_03"]
    assert list(cases_of(raw, "test")) == ["Subject_03"]
    assert all(case["group"] == name for name, case in cases.items())
    assert {cases[name]["fold"] for name in ("Subject_01", "Subject_02")} == {0, 1}
    assert cases["Subject_01"]["label_rule"] == "nonzero"
    assert cases["Subject_01"]["spacing_mm"] == [0.0113, 0.00387, 0.123]
    check_cases(list(cases.values()), gaps="keep")


def test_the_report_counts_labelled_scans(raw):
    rows = {row.case: row for row in prepare_duke_dme(raw).cases}
    assert [rows[name].size[2] for name in rows] == [5, 20, 20]
    assert [rows[name].slices_labelled for name in rows] == [5, 5, 0]
    pages = [np.asarray(Image.open(path)) for path in (raw / "Subject_02/labels").iterdir()]
    assert rows["Subject_02"].foreground == pytest.approx((np.array(pages) > 0).mean())


@pytest.mark.parametrize(("name", "first"), [("Subject_01", 3), ("Subject_02", 1)])
def test_scans_without_label_are_unknown_and_not_background(raw, name, first):
    prepare_duke_dme(raw)
    item = loaded(cases_of(raw)[name])
    assert item["image"].shape == item["label"].shape
    assert labelled_slices(item["label"]) == [number - first for number in LABELLED]
    for number in LABELLED:
        page = np.asarray(Image.open(raw / name / "labels" / f"{number:03d}.png"))
        np.testing.assert_array_equal(item["label"][0, ..., number - first].numpy(), (page > 0).T)
    np.testing.assert_allclose(item["image"].pixdim, [0.0113, 0.00387, 0.123])


@pytest.mark.parametrize("images", [LABELLED, range(21)], ids=["labelled ones", "all"])
def test_one_subject_alone_is_cut_along_its_true_grid(tmp_path, images):
    subject(tmp_path / "Subject_01", images, 1)
    report = prepare_duke_dme(tmp_path)
    assert report.faults == []
    assert sum(row.slices_labelled for row in report.cases) in (4, 5)
    cases = cases_of(tmp_path)
    check_cases(list(cases.values()), gaps="keep")
    parts = [labelled_slices(loaded(case)["label"]) for case in cases.values()]
    assert [len(part) for part in parts] == [row.slices_labelled for row in report.cases]
    assert max(parts[0]) + 2 < min(parts[1])


def test_spacing_may_be_stated(raw):
    prepare_dataset("duke-dme", raw, spacing_mm=[0.01, 0.004, 0.12])
    assert cases_of(raw)["Subject_02"]["spacing_mm"] == [0.01, 0.004, 0.12]


def test_a_label_without_a_scan_is_a_fault(raw):
    subject(raw / "Subject_04", LABELLED, 4, labels=[3, 9])
    report = prepare_duke_dme(raw)
    assert report.faults == [
        "Subject_04/labels/009.png: expected its image in Subject_04/images, got none; "
        "add it or remove the label"
    ]
    assert report.datalist is None


def test_labels_without_images_are_a_fault(raw):
    write_pngs(raw / "Subject_04/labels", LABELLED, 4, 4)
    assert prepare_duke_dme(raw).faults == ["Subject_04: expected a folder images, got labels alone; add it"]


def test_labels_of_another_size_are_a_fault(raw):
    write_pngs(raw / "Subject_04/images", LABELLED, 4, 250)
    folder = raw / "Subject_04/labels"
    folder.mkdir()
    Image.new("L", (HEIGHT, WIDTH)).save(folder / "003.png")
    (fault,) = prepare_duke_dme(raw).faults
    assert fault == "Subject_04/labels: 8x5, but its image is 5x8; labels must not be transposed"


def test_scans_of_two_subjects_that_are_the_same_are_a_fault(raw):
    subject(raw / "Subject_04", LABELLED, 1)
    (fault,) = prepare_duke_dme(raw).faults
    assert fault == "Subject_04: has image slices that Subject_01 has too; remove one of them"


def test_one_subject_folder_is_enough_and_test_folders_are_the_test_section(raw, tmp_path):
    subject(raw / "test" / "Subject_05", LABELLED, 5)
    prepare_duke_dme(raw)
    assert list(cases_of(raw, "test")) == ["Subject_03", "Subject_05"]
    report = prepare_duke_dme(raw / "Subject_03", output_dir=tmp_path / "out")
    assert [row.case for row in report.cases] == ["Subject_03"]


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected subject folders with images and labels, got none"):
        prepare_duke_dme(tmp_path)
