from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data.datalist import read_datalist
from volseg.data.datasets import prepare_dataset
from volseg.data.datasets.chase import prepare_chase

HEIGHT, WIDTH = 9, 7


def add(root, eye, images=".", labels="."):
    for part in (images, labels):
        (root / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (200, 90, 30)).save(root / images / f"Image_{eye}.jpg")
    for pixels, observer in ((5, "1stHO"), (3, "2ndHO")):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[4, :pixels] = True
        Image.fromarray(mask).save(root / labels / f"Image_{eye}_{observer}.png")


@pytest.fixture(params=[(".", "."), ("images", "labels")], ids=["flat", "folders"])
def chase(request, tmp_path):
    """Both eyes of three subjects, in either layout."""
    for eye in ("01L", "01R", "02L", "02R", "03L", "03R"):
        add(tmp_path, eye, *request.param)
    return tmp_path


def test_both_eyes_of_a_subject_are_in_one_group_and_fold(chase):
    assert prepare_dataset("chase", chase).faults == []
    items = read_datalist(chase / "datalist.json").training
    assert [item["case"] for item in items[:2]] == ["Image_01L", "Image_01R"]
    assert [item["group"] for item in items] == [f"Image_0{k}" for k in (1, 1, 2, 2, 3, 3)]
    assert [items[k]["fold"] == items[k + 1]["fold"] for k in (0, 2, 4)] == [True] * 3


def test_the_first_observer_draws_the_labels_unless_asked_otherwise(chase):
    first = prepare_dataset("chase", chase)
    second = prepare_dataset("chase", chase, observer="2ndHO", overwrite=True)
    assert first.cases[0].foreground == pytest.approx(5 / 63)
    assert second.cases[0].foreground == pytest.approx(3 / 63)
    (item, *_) = read_datalist(chase / "datalist.json").training
    assert item["label"].endswith("Image_01L_2ndHO.png")


def test_an_unknown_observer_gets_a_hint(chase):
    expected = r"--observer: expected one of 1stHO, 2ndHO, got '2nd'; did you mean '2ndHO'\?"
    with pytest.raises(InputError, match=expected):
        prepare_chase(chase, observer="2nd")


def test_a_missing_mask_is_a_fault(chase):
    (path,) = chase.rglob("Image_02R_1stHO.png")
    path.unlink()
    (fault,) = prepare_chase(chase).faults
    assert "Image_02R.jpg: expected its 1stHO mask in" in fault


def test_a_picture_in_two_folders_is_a_fault(tmp_path):
    for eye in ("01L", "02L"):
        add(tmp_path, eye)
    add(tmp_path, "02L", "images", "labels")
    faults = prepare_chase(tmp_path).faults
    expected = (
        "images/Image_02L.jpg: expected one picture called 'Image_02L', got one elsewhere too; remove one"
    )
    assert expected in faults
    assert len(faults) == 3


def test_other_names_are_faults(tmp_path):
    for eye in ("01L", "02L"):
        add(tmp_path, eye)
    Image.new("L", (3, 3)).save(tmp_path / "preview.png")
    (fault,) = prepare_chase(tmp_path).faults
    assert fault.startswith("preview.png: expected a name like Image_01L.jpg or Image_01L_1stHO.png")


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected photographs named like Image_01L\.jpg, got none"):
        prepare_chase(tmp_path)
