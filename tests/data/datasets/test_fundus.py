from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data.datalist import load_cases, read_datalist
from volseg.data.datasets import prepare_dataset
from volseg.data.datasets.fundus import prepare_fundus

SIZE = 96


def photograph(seed):
    """Coarse texture that tells one photograph from another after any turn."""
    values = np.random.default_rng(seed).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(values).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def add(root, name, pixels, mask=None, section="train"):
    for part in ("image", "mask"):
        (root / section / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(root / section / "image" / f"{name}.png")
    grey = np.zeros((SIZE, SIZE), np.uint8)
    grey[40:50, 10:80], grey[50, 10:80] = 255, 60
    Image.fromarray(grey if mask is None else mask).save(root / section / "mask" / f"{name}.png")


@pytest.fixture
def versions(tmp_path):
    """Three photographs in four versions each, under shuffled names, and one test photograph."""
    for seed in range(3):
        pixels = photograph(seed)
        for k, version in enumerate((pixels, pixels[:, ::-1], np.rot90(pixels), pixels[::-1])):
            add(tmp_path, f"{3 * k + seed:02d}", version)
    add(tmp_path, "00", photograph(9), section="test")
    return tmp_path


def test_all_versions_of_a_photograph_are_in_one_group_and_fold(versions):
    report = prepare_dataset("fundus", versions)
    assert report.faults == []
    items = read_datalist(versions / "datalist.json").training
    assert len(items) == 12
    fold_of = {}
    for item in items:
        assert item["group"] == f"train_{int(item['case'][-2:]) % 3:02d}"
        assert fold_of.setdefault(item["group"], item["fold"]) == item["fold"]
    assert sorted(fold_of.values()) == [0, 1, 2]


def test_items_hold_relative_paths_the_rule_and_hashes(versions):
    prepare_fundus(versions)
    document = json.loads((versions / "datalist.json").read_text())
    assert "root" not in document
    item = document["training"][4]
    assert item["image"] == "train/image/04.png"
    assert item["label"] == "train/mask/04.png"
    assert item["label_rule"] == "nonzero"
    assert len(item["image_sha256"]) == len(item["label_sha256"]) == 64
    (test,) = document["test"]
    assert (test["case"], test["group"]) == ("test_00", "test_00")
    assert "fold" not in test


def test_the_list_may_lie_elsewhere(versions, tmp_path_factory):
    target = tmp_path_factory.mktemp("list")
    prepare_fundus(versions, output_dir=target)
    assert not (versions / "datalist.json").exists()
    assert load_cases(target, "all")[0]["image"] == str(versions / "train/image/00.png")


def test_a_photograph_in_train_and_test_is_a_fault(versions):
    add(versions, "01", photograph(2)[:, ::-1], section="test")
    report = prepare_fundus(versions)
    (fault,) = report.faults
    assert fault == (
        "test/image/01.png: expected a photograph that is not trained on, got that of train/image/02.png; "
        "remove one of them"
    )
    assert not (versions / "datalist.json").exists()


def test_test_pictures_may_lack_masks(versions):
    for path in (versions / "test/mask").iterdir():
        path.unlink()
    report = prepare_fundus(versions)
    assert report.faults == []
    (item,) = read_datalist(versions / "datalist.json").test
    assert "label" not in item
    assert "label_rule" not in item


def test_a_lone_mask_and_a_lone_image_are_both_told(versions):
    (versions / "train/mask/03.png").rename(versions / "train/mask/99.png")
    assert prepare_fundus(versions).faults == [
        "train/image/03.png: expected its mask in train/mask, got none; add it",
        "train/mask: expected an image for the mask '99', got none; add it or remove the mask",
    ]


def test_a_train_folder_itself_is_accepted(versions):
    report = prepare_fundus(versions / "train", group=lambda paths: [int(path.stem) % 3 for path in paths])
    assert len(report.cases) == 12
    assert (versions / "train/datalist.json").exists()


def test_an_empty_mask_is_told_and_stops_nothing(versions):
    add(versions, "00", photograph(0), np.zeros((SIZE, SIZE), np.uint8))
    report = prepare_fundus(versions)
    assert report.warnings == ["train_00: its mask is empty"]
    assert report.datalist is not None
    assert report.cases[0].foreground == 0


def test_masks_that_are_all_empty_are_a_fault(versions):
    for path in versions.glob("*/mask/*.png"):
        Image.new("L", (SIZE, SIZE)).save(path)
    (fault,) = prepare_fundus(versions).faults
    assert fault.endswith("expected a mask with foreground, got 13 masks, all empty; check the download")


def test_a_single_photograph_cannot_be_validated(tmp_path):
    add(tmp_path, "1", photograph(0))
    add(tmp_path, "2", photograph(0)[::-1])
    (fault,) = prepare_fundus(tmp_path).faults
    assert "expected at least two groups (photographs), got 'train_1' alone" in fault


@pytest.mark.parametrize("folds", [1, 4])
def test_impossible_folds_are_a_fault(versions, folds):
    expected = f"folds: expected 2 to 3, the number of groups, got {folds}; change it"
    assert prepare_fundus(versions, folds=folds).faults == [expected]


def test_no_folder_of_images_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"expected train/image and train/mask, got no folder image; give the"
    ):
        prepare_fundus(tmp_path)


def test_an_existing_list_is_replaced_only_when_asked(versions):
    prepare_fundus(versions)
    with pytest.raises(InputError, match="use --overwrite or --output-dir"):
        prepare_fundus(versions)
    assert prepare_fundus(versions, overwrite=True).datalist is not None


def test_the_same_seed_gives_the_same_list(versions):
    prepare_fundus(versions, seed=4)
    first = (versions / "datalist.json").read_bytes()
    prepare_fundus(versions, seed=4, overwrite=True)
    assert (versions / "datalist.json").read_bytes() == first


def test_a_list_edited_so_that_a_group_crosses_folds_is_refused(versions):
    prepare_fundus(versions)
    path = versions / "datalist.json"
    document = json.loads(path.read_text())
    document["training"][0]["fold"] = (document["training"][0]["fold"] + 1) % 3
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"expected group 'train_00' in one fold, or it leaks"):
        load_cases(versions, "training")


def test_a_list_edited_so_that_a_test_group_is_trained_on_is_refused(versions):
    prepare_fundus(versions)
    path = versions / "datalist.json"
    document = json.loads(path.read_text())
    document["test"][0]["group"] = "train_01"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"expected group 'train_01' in training or in test"):
        load_cases(versions, "training")
