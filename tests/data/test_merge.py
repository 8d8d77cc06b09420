"""Several prepared data sets as one."""

import pytest

from volseg.checks import InputError
from volseg.data import Datalist, load_cases, merge_datalists, write_datalist


def prepared(folder, name, cases, **options):
    for case in cases:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        (folder / "pictures" / f"{case}.png").write_bytes(b"image")
        (folder / "pictures" / f"{case}_mask.png").write_bytes(b"mask")
    items = [
        {
            "image": f"pictures/{case}.png",
            "label": f"pictures/{case}_mask.png",
            "case": case,
            "group": case,
            "fold": fold % 2,
        }
        for fold, case in enumerate(cases)
    ]
    write_datalist(folder / "datalist.json", Datalist(name=name, training=items, **options))
    return folder


def test_cases_of_all_lists_keep_fold_and_files_and_get_the_name_of_their_list(tmp_path):
    folders = [prepared(tmp_path / "a", "eyes", "12"), prepared(tmp_path / "deep" / "b", "chase", "123")]
    merge_datalists(folders, tmp_path / "merged")
    cases = load_cases(tmp_path / "merged", "training", fold=1)
    assert [item["case"] for item in cases] == ["eyes_1", "chase_1", "chase_3"]
    assert [item["group"] for item in cases] == ["eyes_1", "chase_1", "chase_3"]
    assert cases[1]["image"] == str(tmp_path / "deep" / "b" / "pictures" / "1.png")
    assert cases[1]["label"] == str(tmp_path / "deep" / "b" / "pictures" / "1_mask.png")


def test_two_lists_of_one_name_are_refused(tmp_path):
    folders = [prepared(tmp_path / "a", "eyes", "12"), prepared(tmp_path / "b", "eyes", "34")]
    with pytest.raises(InputError, match="a name that no other list has, got 'eyes'"):
        merge_datalists(folders, tmp_path / "merged")


def test_lists_of_other_classes_are_refused(tmp_path):
    other = {0: "background", 1: "line", 2: "ellipse"}
    folders = [prepared(tmp_path / "a", "a", "12"), prepared(tmp_path / "b", "b", "34", classes=other)]
    with pytest.raises(InputError, match="expected the classes"):
        merge_datalists(folders, tmp_path / "merged")
