from __future__ import annotations

import re

import pytest

from volseg.checks import InputError
from volseg.data.datasets.folders import (
    index_pictures,
    output_folder,
    raw_folder,
    relative_name,
    unpaired_pictures,
)

FRAME = re.compile(r"([0-9]+)_([0-9]+)(?:_(mask))?")


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_keys_are_the_groups_of_the_name_in_natural_order(tmp_path):
    touch(tmp_path, "1_10.tif", "1_2.tif", "1_2_mask.tif", "Thumbs.db", "._1_3.tif", "notes.txt")
    found, faults = index_pictures(tmp_path, FRAME, root=tmp_path, example="1_1.tif")
    assert list(found) == ["1_2", "1_2_mask", "1_10"]
    assert faults == []


def test_a_folder_that_is_not_there_has_no_pictures(tmp_path):
    assert index_pictures(tmp_path / "no", FRAME, root=tmp_path, example="1_1.tif") == ({}, [])


def test_a_name_of_another_kind_and_a_name_twice_are_faults(tmp_path):
    touch(tmp_path / "train", "1_2.tif", "1_2.png", "copy of 1_2.tif")
    found, faults = index_pictures(tmp_path / "train", FRAME, root=tmp_path, example="1_1.tif")
    assert list(found) == ["1_2"]
    assert faults == [
        "train/1_2.tif: expected one picture called '1_2', got 1_2.png too; remove one",
        "train/copy of 1_2.tif: expected a name like 1_1.tif, got 'copy of 1_2.tif'; rename or remove it",
    ]


def test_missing_and_extra_partners_are_faults(tmp_path):
    images = {"1": tmp_path / "image/1.png", "2": tmp_path / "image/2.png"}
    faults = unpaired_pictures(images, ["2", "3"], kind="mask", place=tmp_path / "mask", root=tmp_path)
    assert faults == [
        "image/1.png: expected its mask in mask, got none; add it",
        "mask: expected an image for the mask '3', got none; add it or remove the mask",
    ]


def test_files_elsewhere_keep_their_whole_path(tmp_path):
    assert relative_name(tmp_path / "a/b.png", tmp_path) == "a/b.png"
    assert relative_name(tmp_path / "a.png", tmp_path / "b") == str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "message"), [("file", "got a file"), ("nothing", "got nothing there")], ids=["file", "missing"]
)
def test_a_raw_folder_must_be_a_folder(tmp_path, name, message):
    touch(tmp_path, "file")
    with pytest.raises(InputError, match=f"{name}: expected the folder of the data set, {message}"):
        raw_folder(tmp_path / name)


def test_an_empty_text_is_no_folder():
    with pytest.raises(InputError, match="RAW: expected the folder of the data set, got an empty text"):
        raw_folder(" ")


def test_an_existing_list_is_kept_unless_overwriting(tmp_path):
    touch(tmp_path, "datalist.json")
    with pytest.raises(InputError, match="expected no datalist yet, got one that exists"):
        output_folder(None, tmp_path, False)
    assert output_folder(None, tmp_path, True) == tmp_path
    assert output_folder(tmp_path / "other", tmp_path, False) == tmp_path / "other"
