from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data.datalist import read_datalist
from volseg.data.datasets import prepare_dataset
from volseg.data.datasets.shapes import prepare_shapes

HEIGHT, WIDTH = 9, 7


def add(place, number):
    for part in ("images", "masks"):
        (place / part).mkdir(parents=True, exist_ok=True)
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask[2, :3], mask[5:7, :2] = (255, 0, 0), (0, 255, 0)
    Image.new("RGB", (WIDTH, HEIGHT), (200, 200, 200)).save(place / f"images/Img_{number}.png")
    Image.fromarray(mask).save(place / f"masks/Mask_{number}.png")


@pytest.fixture
def shapes(tmp_path):
    """Three images in the published layout."""
    for number in (0, 2, 10):
        add(tmp_path / "images_train", number)
    return tmp_path


def test_each_image_is_a_group_with_the_colour_rule(shapes):
    report = prepare_dataset("shapes", shapes)
    assert report.faults == []
    content = read_datalist(shapes / "datalist.json")
    assert content.classes == {0: "background", 1: "line", 2: "ellipse"}
    assert [item["case"] for item in content.training] == ["train_0", "train_2", "train_10"]
    assert [item["group"] for item in content.training] == ["train_0", "train_2", "train_10"]
    assert content.training[2]["label"] == "images_train/masks/Mask_10.png"
    assert content.training[2]["label_rule"] == {"#ff0000": 1, "#00ff00": 2}
    assert report.cases[0].foreground == pytest.approx(7 / 63)


def test_test_images_are_never_trained_on(shapes):
    add(shapes / "images_test", 0)
    prepare_shapes(shapes)
    (item,) = read_datalist(shapes / "datalist.json").test
    assert item["case"] == "test_0"


def test_a_folder_of_images_itself_is_accepted(shapes):
    assert len(prepare_shapes(shapes / "images_train").cases) == 3


def test_a_missing_mask_is_a_fault(shapes):
    (shapes / "images_train/masks/Mask_2.png").unlink()
    expected = "images_train/images/Img_2.png: expected its mask in images_train/masks, got none; add it"
    assert prepare_shapes(shapes).faults == [expected]


def test_a_smoothed_mask_is_a_fault(shapes):
    path = shapes / "images_train/masks/Mask_2.png"
    Image.open(path).resize((WIDTH - 1, HEIGHT - 1), Image.Resampling.BILINEAR).resize((WIDTH, HEIGHT)).save(
        path
    )
    (fault,) = prepare_shapes(shapes).faults
    assert fault.startswith(
        "images_train/masks/Mask_2.png: expected the colours #000000, #ff0000, #00ff00, got #"
    )


def test_generated_data_are_listed_and_repeatable(tmp_path):
    for name in ("a", "b"):
        assert prepare_shapes(tmp_path / name, generate=3, generate_test=2, seed=6).faults == []
    lists = [(tmp_path / name / "datalist.json").read_text() for name in ("a", "b")]
    assert lists[0] == lists[1]  # with the hashes of the pictures
    document = json.loads(lists[0])
    assert (len(document["training"]), len(document["test"])) == (3, 2)
    hashes = {item["image_sha256"] for item in document["training"] + document["test"]}
    assert len(hashes) == 5


def test_ten_test_images_are_generated_by_default(tmp_path):
    prepare_shapes(tmp_path, generate=2)
    assert len(list((tmp_path / "images_test/images").iterdir())) == 10


def test_generating_into_other_pictures_is_refused(shapes):
    with pytest.raises(InputError, match=r"Img_10\.png: expected a folder for generated pictures alone"):
        prepare_shapes(shapes, generate=3, overwrite=True)


@pytest.mark.parametrize(("train", "test", "option"), [(0, None, "--generate"), (2, 0, "--generate-test")])
def test_nothing_to_generate_is_refused(tmp_path, train, test, option):
    with pytest.raises(InputError, match=f"^{option}: expected one image or more, got 0"):
        prepare_shapes(tmp_path / "new", generate=train, generate_test=test)
    assert not (tmp_path / "new").exists()


def test_test_images_alone_are_not_generated(shapes):
    with pytest.raises(InputError, match="--generate-test: expected --generate beside it"):
        prepare_shapes(shapes, generate_test=3)


def test_generating_needs_a_name_for_the_folder():
    with pytest.raises(InputError, match="RAW: expected a folder for the pictures, got an empty text"):
        prepare_shapes("", generate=2)


def test_no_folder_of_images_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="expected images_train/images and images_train/masks, got no folder"
    ):
        prepare_shapes(tmp_path)
