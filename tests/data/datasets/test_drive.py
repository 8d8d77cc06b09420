from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data.datalist import load_cases, read_datalist
from volseg.data.datasets import prepare_dataset
from volseg.data.datasets.drive import prepare_drive

HEIGHT, WIDTH = 9, 7


def add(root, number, section="training", parts=("images", "1st_manual", "mask")):
    names = {
        "images": f"{number}_{section}.tif",
        "1st_manual": f"{number}_manual1.gif",
        "mask": f"{number}_{section}_mask.gif",
    }
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[2:4, 1:6] = 255
    pixels = {"images": np.full((HEIGHT, WIDTH, 3), int(number), np.uint8), "1st_manual": mask, "mask": mask}
    for part in parts:
        (root / section / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[part]).save(root / section / part / names[part])


@pytest.fixture
def drive(tmp_path):
    """Three training photographs, and a test photograph without manual mask."""
    for number in ("21", "22", "23"):
        add(tmp_path, number)
    add(tmp_path, "01", "test", ("images", "mask"))
    return tmp_path


def test_the_number_in_front_pairs_the_three_files(drive):
    assert prepare_dataset("drive", drive).faults == []
    items = read_datalist(drive / "datalist.json").training
    assert [item["case"] for item in items] == [item["group"] for item in items] == ["21", "22", "23"]
    assert sorted(item["fold"] for item in items) == [0, 1, 2]
    assert items[0]["image"] == "training/images/21_training.tif"
    assert items[0]["label"] == "training/1st_manual/21_manual1.gif"
    assert items[0]["field_of_view"] == "training/mask/21_training_mask.gif"
    assert len(items[0]["field_of_view_sha256"]) == 64


def test_loaded_cases_have_the_whole_path_of_the_field_of_view(drive):
    prepare_drive(drive)
    (case,) = load_cases(drive, "test")
    assert case["field_of_view"] == str(drive / "test/mask/01_test_mask.gif")
    assert "label" not in case


def test_manual_masks_of_the_test_section_are_taken_where_they_are(drive):
    add(drive, "01", "test", ("1st_manual",))
    prepare_drive(drive)
    (item,) = read_datalist(drive / "datalist.json").test
    assert item["label"] == "test/1st_manual/01_manual1.gif"


def test_a_folder_of_images_itself_is_accepted(drive):
    assert len(prepare_drive(drive / "training").cases) == 3


def test_missing_fields_of_view_are_faults_unless_there_is_none(drive):
    (drive / "training/mask/22_training_mask.gif").unlink()
    expected = (
        "training/images/22_training.tif: expected its field of view in training/mask, got none; add it"
    )
    assert prepare_drive(drive).faults == [expected]
    for path in (drive / "training/mask").iterdir():
        path.unlink()
    report = prepare_drive(drive)
    assert report.faults == []
    assert report.warnings == [
        "training: no field of view masks; scores count the black border as background"
    ]


def test_a_missing_manual_mask_and_a_foreign_name_are_faults(drive):
    (drive / "training/1st_manual/23_manual1.gif").rename(drive / "training/1st_manual/manual.gif")
    assert prepare_drive(drive).faults == [
        "training/1st_manual/manual.gif: expected a name like 21_manual1.gif, got 'manual.gif'; "
        "rename or remove it",
        "training/images/23_training.tif: expected its mask in training/1st_manual, got none; add it",
    ]


def test_a_number_in_both_sections_is_a_fault(drive):
    add(drive, "21", "test", ("images", "mask"))
    assert "21: expected a name of its own for each case, got 2 cases; rename their files" in (
        prepare_drive(drive).faults
    )


def test_no_folder_of_images_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="expected training/images, training/1st_manual and training/mask, got"
    ):
        prepare_drive(tmp_path)
