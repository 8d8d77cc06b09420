import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data import Datalist, write_datalist
from volseg.data.audit import find_audit_cases


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(path)
    return path


def labels(items, folder):
    return {item["case"]: item.get("label", "").removeprefix(f"{folder}/") for item in items}


def test_masks_lie_beside_their_pictures_or_in_a_folder_of_masks(tmp_path):
    for name in ("one/a.png", "one/a_mask.png", "one/b.png", "two/image/c.png", "two/mask/c.png",
                 "three/images/d.jpg", "three/masks/d_mask.jpg"):  # fmt: skip
        picture(tmp_path / name)
    items = find_audit_cases(tmp_path)
    assert labels(items, tmp_path) == {
        "a": "one/a_mask.png", "b": "", "c": "two/mask/c.png", "d": "three/masks/d_mask.jpg",
    }  # fmt: skip
    assert {item["case"]: item.get("label_rule") for item in items} == {
        "a": "nonzero", "b": None, "c": "nonzero", "d": "above:127",
    }  # fmt: skip


def test_two_masks_of_one_picture_are_refused(tmp_path):
    for name in ("images/a.png", "masks/a.png", "masks/a_mask.png"):
        picture(tmp_path / name)
    with pytest.raises(InputError, match="expected one mask"):
        find_audit_cases(tmp_path)


def test_folders_named_train_and_test_are_the_sides_of_a_split(tmp_path):
    for name in ("train/image/1.png", "test/image/1.png", "test/mask/1.png"):
        picture(tmp_path / name)
    items = find_audit_cases(tmp_path)
    assert {item["case"]: item["side"] for item in items} == {"test/1": "test", "train/1": "train"}
    assert labels(items, tmp_path)["test/1"] == "test/mask/1.png"


def test_a_datalist_gives_all_cases_and_their_side(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    items = [{"case": name, "group": name, "image": f"{name}.png", "label": f"{name}.png"} for name in "abc"]
    write_datalist(
        tmp_path / "datalist.json", Datalist("set", [{**items[0], "fold": 1}, items[1]], items[2:])
    )
    cases = find_audit_cases(tmp_path)
    assert {item["case"]: item["side"] for item in cases} == {"a": "fold 1", "b": "training", "c": "test"}


def test_a_datalist_without_split_has_no_sides(tmp_path):
    item = {"case": "a", "group": "a", "image": "a.png", "label": "a.png"}
    write_datalist(tmp_path / "datalist.json", Datalist("set", [item]))
    assert [case["side"] for case in find_audit_cases(tmp_path)] == [""]


def test_slices_of_a_folder_are_one_case_when_volumes_are_asked_for(tmp_path):
    for name in ("v/000.png", "v/001.png"):
        picture(tmp_path / name)
    assert len(find_audit_cases(tmp_path)) == 2
    assert [item["image"] for item in find_audit_cases(tmp_path, volumes=True)] == [str(tmp_path / "v")]


def test_two_labellings_of_one_volume_are_read_once(tmp_path):
    items = [
        {"case": f"v_{part}", "group": "v", "image": "v.nii.gz", "label": f"{part}.nii.gz"} for part in "ab"
    ]
    write_datalist(tmp_path / "datalist.json", Datalist("set", items))
    assert [item["case"] for item in find_audit_cases(tmp_path)] == ["v_a"]


def test_a_missing_list_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a other\.json"):
        find_audit_cases(tmp_path, datalist="other.json")
    with pytest.raises(InputError, match="nothing there"):
        find_audit_cases(tmp_path / "nowhere")
