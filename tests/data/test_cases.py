from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile

from volseg.checks import InputError
from volseg.data.cases import find_cases
from volseg.data.datalist import Datalist, write_datalist


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def pages(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.zeros((count, 5, 7), np.uint8), photometric="minisblack")


def found(root, **arguments):
    """Case name to path below the root."""
    cases = find_cases(root, **arguments)
    assert len({case["case"] for case in cases}) == len(cases)
    assert all(set(case) == {"image", "case", "group"} for case in cases)
    return {case["case"]: os.path.relpath(case["image"], root) for case in cases}


def test_each_volume_file_of_a_folder_is_a_case(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.nii", "c.nrrd", "d.mha", "e.mhd", "e.raw", "notes.txt", "F.NII.GZ")
    assert found(tmp_path) == {
        "a": "a.nii.gz", "b": "b.nii", "c": "c.nrrd", "d": "d.mha", "e": "e.mhd", "F": "F.NII.GZ"
    }  # fmt: skip


def test_a_pair_of_header_and_voxels_is_one_case_and_voxels_alone_are_one_to_refuse(tmp_path):
    touch(tmp_path, "a.hdr", "a.img", "b.img")
    assert found(tmp_path) == {"a": "a.hdr", "b.img": "b.img"}


def test_pictures_directly_in_a_folder_are_one_volume(tmp_path):
    folder = tmp_path / "kidney_1"
    touch(folder, "0000.tif", "0001.tif", "Thumbs.db", "._0000.tif")
    assert found(folder) == {"kidney_1": "."}


def test_pictures_are_cases_of_their_own_in_2d(tmp_path):
    touch(tmp_path, "2.png", "10.png", "1.png")
    assert list(found(tmp_path, spatial_dims=2)) == ["1", "2", "10"]


def test_multi_page_tiffs_are_one_case_each(tmp_path):
    pages(tmp_path / "a.tif", 3)
    pages(tmp_path / "b.tiff", 2)
    assert found(tmp_path) == {"a": "a.tif", "b": "b.tiff"}


def test_a_broken_tiff_among_multi_page_ones_costs_only_itself(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0\xff\xff\xff")
    pages(tmp_path / "b.tif", 2)
    assert found(tmp_path) == {"a": "a.tif", "b": "b.tif"}


def test_single_pages_mixed_with_multi_page_tiffs_stay_one_folder_for_the_reader_to_refuse(tmp_path):
    pages(tmp_path / "x" / "a.tif", 3)
    pages(tmp_path / "x" / "b.tif", 1)
    assert found(tmp_path) == {"x": "x"}


@pytest.mark.parametrize(
    "options", [{"bigtiff": True}, {"byteorder": ">"}, {"imagej": True}], ids=["big", "big-endian", "imagej"]
)
def test_pages_are_counted_in_every_kind_of_tiff(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 5, 7), np.uint8), photometric="minisblack", **options)
    assert found(tmp_path) == {"a": "a.tif"}


def test_slice_folders_are_named_by_their_folder(tmp_path):
    touch(tmp_path, "case_10/0.png", "case_2/0.png", "case_2/1.png")
    assert list(found(tmp_path).items()) == [("case_2", "case_2"), ("case_10", "case_10")]


def test_a_case_folder_is_its_images_without_its_labels(tmp_path):
    touch(tmp_path, "k/images/0.tif", "k/labels/0.tif", "m/images/0.tif", "m/masks/0.tif")
    assert found(tmp_path) == {"k": "k/images", "m": "m/images"}
    assert found(tmp_path / "k") == {"k": "images"}
    assert found(tmp_path / "k" / "images") == {"k": "."}


def test_the_challenge_is_predicted_on_its_test_kidneys(tmp_path):
    touch(
        tmp_path,
        "train/kidney_1_dense/images/0.tif",
        "test/kidney_5/images/0.tif",
        "test/kidney_6/images/0.tif",
    )
    assert found(tmp_path) == {"kidney_5": "test/kidney_5/images", "kidney_6": "test/kidney_6/images"}


def test_the_challenge_without_test_folder_gives_every_kidney_with_images(tmp_path):
    touch(tmp_path, "kidney_2/images/0.tif", "kidney_3_dense/labels/0.tif", "kidney_3_sparse/images/0.tif")
    assert list(found(tmp_path)) == ["kidney_2", "kidney_3_sparse"]


def test_a_dicom_series_is_its_folder_with_or_without_suffix(tmp_path):
    touch(tmp_path, "a/1.dcm", "a/2.dcm", "a/notes.txt")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.2.840.113.4").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "b" / "README").write_bytes(b"\0" * 200)
    (tmp_path / "b" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert found(tmp_path) == {"a": "a", "b": "b"}


def test_a_zarr_store_is_one_case(tmp_path):
    touch(tmp_path, "a.ome.zarr/0/0.0.0", "a.ome.zarr/zarr.json", "b.zarr/.zarray")
    assert found(tmp_path) == {"a": "a.ome.zarr", "b": "b.zarr"}


def test_one_file_is_one_case(tmp_path):
    touch(tmp_path, "a.b.nii.gz")
    assert found(tmp_path / "a.b.nii.gz") == {"a.b": "."}


ODD_NAMES = [
    "@output_dir",
    "$x",
    "a\nb",
    "it's",
    '"q"',
    "[1]",
    "größe",
    "-x",
    "%a#b",
    "a b.nii",
    "__import__('os')",
]


@pytest.mark.parametrize("name", [*ODD_NAMES, "x" * 240])
def test_any_file_name_is_only_a_name(tmp_path, name):
    touch(tmp_path, f"{name}.nii.gz")
    assert found(tmp_path) == {name: f"{name}.nii.gz"}


def test_equal_stems_in_two_folders_are_told_apart_by_their_path(tmp_path):
    touch(tmp_path, "p1/scan.nii", "p2/scan.nii", "p2/other.nii")
    assert found(tmp_path) == {"p1_scan": "p1/scan.nii", "other": "p2/other.nii", "p2_scan": "p2/scan.nii"}


def test_equal_stems_with_two_suffixes_are_told_apart_by_the_suffix(tmp_path):
    touch(tmp_path, "a.nii", "a.nii.gz")
    assert found(tmp_path) == {"a.nii": "a.nii", "a.nii.gz": "a.nii.gz"}


def test_paths_that_join_to_the_same_name_stay_distinct(tmp_path):
    touch(tmp_path, "x_y/scan.nii", "x/y/scan.nii", "x/y_scan.nii", "x_y_scan.nii")
    assert sorted(found(tmp_path).values()) == [
        "x/y/scan.nii",
        "x/y_scan.nii",
        "x_y/scan.nii",
        "x_y_scan.nii",
    ]


def test_outputs_of_a_former_run_are_never_inputs(tmp_path, caplog):
    touch(
        tmp_path, "a.nii.gz", "a/a_seg.nii.gz", "a/a_prob.nii.gz", "a/a_disagreement.nii.gz", "b_seg.nii.gz"
    )
    touch(tmp_path, "a/a_preview.gif", "a/a_sheet.png", "a/a_seg.label.txt", "a/a_seg.ctbl")
    touch(tmp_path, "run1/.volseg.lock", "run1/x.nii.gz", "run2/.volseg_journal.jsonl", "run2/y.nii.gz")
    assert found(tmp_path) == {"a": "a.nii.gz"}
    assert "left out 6 predictions of a former run" in caplog.text
    assert "left out 2 folders written by a run" in caplog.text


def test_hidden_files_and_folders_are_not_inputs(tmp_path):
    touch(tmp_path, "a.nii", ".b.nii", ".hidden/c.nii", "__MACOSX/a.nii")
    assert found(tmp_path) == {"a": "a.nii"}


def test_pictures_beside_volumes_are_left_out_and_told(tmp_path, caplog):
    touch(tmp_path, "a.nii", "overview.png")
    assert found(tmp_path) == {"a": "a.nii"}
    assert "left out 1 pictures beside volumes" in caplog.text


def test_masks_beside_their_frames_are_not_frames(tmp_path):
    touch(tmp_path, "1_1.tif", "1_1_mask.tif", "face_mask.tif")
    assert list(found(tmp_path, spatial_dims=2)) == ["1_1", "face_mask"]


def test_frames_of_two_subjects_are_named_by_subject(tmp_path):
    touch(tmp_path, "s1/images/1.png", "s1/labels/1.png", "s2/images/1.png")
    assert list(found(tmp_path, spatial_dims=2)) == ["s1_1", "s2_1"]


def test_an_empty_slice_folder_beside_full_ones_is_kept_for_the_reader_to_refuse(tmp_path):
    touch(tmp_path, "k1/images/0.tif")
    (tmp_path / "k2" / "images").mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    assert list(found(tmp_path)) == ["k1", "k2"]


def test_folders_are_searched_four_deep_and_no_deeper(tmp_path, caplog):
    touch(tmp_path, "1/2/3/4/a.nii", "1/2/3/4/5/b.nii")
    assert list(found(tmp_path)) == ["a"]
    assert "left out 1 folders more than 4 deep" in caplog.text


def test_links_are_followed_and_dangling_ones_kept_for_the_reader_to_refuse(tmp_path):
    touch(tmp_path, "data/k/0.tif", "in/x.txt", "data/a.nii")
    os.symlink(tmp_path / "data" / "k", tmp_path / "in" / "k")
    os.symlink(tmp_path / "data" / "a.nii", tmp_path / "in" / "a.nii")
    os.symlink(tmp_path / "gone", tmp_path / "in" / "lost")
    os.symlink("loop.nii", tmp_path / "in" / "loop.nii")
    assert list(found(tmp_path / "in")) == ["a", "k", "loop", "lost"]


def test_a_folder_that_links_to_its_parent_is_refused(tmp_path):
    touch(tmp_path, "a/0.tif")
    os.symlink(tmp_path, tmp_path / "a" / "up")
    with pytest.raises(InputError, match="a/up: expected folders that end, got a link back to its parent"):
        find_cases(tmp_path)


@pytest.mark.parametrize("name", ["x.nii.gz", "pipe", "x.tif"])
def test_a_named_pipe_is_not_opened(tmp_path, name):
    touch(tmp_path, "a.nii")
    os.mkfifo(tmp_path / name)
    assert "a" in found(tmp_path)


def test_a_named_pipe_alone_is_refused(tmp_path):
    os.mkfifo(tmp_path / "x.nii.gz")
    with pytest.raises(InputError, match="got a pipe or device"):
        find_cases(tmp_path / "x.nii.gz")


def prepare(folder, training, test):
    write_datalist(folder / "datalist.json", Datalist("x", training, test))


def entry(case, image, **more):
    return {"image": image, "label": "labels", "case": case, "group": "k", "fold": 0, **more}


def test_a_prepared_folder_gives_its_test_section_without_labels(tmp_path):
    test = {"image": "t.nii", "label": "gone.nii", "case": "t", "group": "g", "spacing_mm": [1, 1, 2]}
    prepare(tmp_path, [entry("a", "a.nii")], [test])
    expected = {"image": str(tmp_path / "t.nii"), "case": "t", "group": "g", "spacing_mm": [1, 1, 2]}
    assert find_cases(tmp_path) == [expected]


def test_a_prepared_folder_without_test_section_gives_each_image_once(tmp_path):
    dense = entry("kidney_3_dense", "kidney_3_sparse/images", labelled_range=[3, 9])
    sparse = entry("kidney_3_sparse", "kidney_3_sparse/images")
    prepare(tmp_path, [dense, sparse], [])
    assert [case["case"] for case in find_cases(tmp_path)] == ["kidney_3_sparse"]


def test_another_list_of_a_prepared_folder_is_read_by_its_name_or_refused(tmp_path):
    prepare(tmp_path, [], [{"image": "a.nii", "case": "a", "group": "a"}])
    items = [{"image": f"{case}.nii", "case": case, "group": case} for case in "bc"]
    write_datalist(tmp_path / "audited.json", Datalist("x", test=items))
    assert [case["case"] for case in find_cases(tmp_path)] == ["a"]
    assert [case["case"] for case in find_cases(tmp_path, datalist="audited.json")] == ["b", "c"]
    with pytest.raises(InputError, match=r"expected a other\.json, got none"):
        find_cases(tmp_path, datalist="other.json")


def test_the_two_parts_of_one_volume_are_predicted_as_one_case(tmp_path):
    first = entry("k_first", "images", labelled_range=[0, 7], same_volume=True)
    last = entry("k_last", "images", labelled_range=[9, 12], same_volume=True, fold=1)
    prepare(tmp_path, [first, last], [])
    assert find_cases(tmp_path) == [{"image": str(tmp_path / "images"), "case": "k", "group": "k"}]


@pytest.mark.parametrize("place", ["", " "])
def test_an_empty_dataset_dir_is_refused(place):
    with pytest.raises(InputError, match="dataset_dir: expected a folder or a file, got an empty text"):
        find_cases(place)


def test_a_missing_dataset_dir_is_refused(tmp_path):
    with pytest.raises(InputError, match="none: expected a folder or an image file, got nothing there"):
        find_cases(tmp_path / "none")


def test_a_dangling_link_is_refused(tmp_path):
    os.symlink("gone", tmp_path / "a.nii")
    with pytest.raises(InputError, match="got a link that leads nowhere"):
        find_cases(tmp_path / "a.nii")


def test_a_file_that_is_no_image_is_refused(tmp_path):
    touch(tmp_path, "a.docx")
    with pytest.raises(InputError, match=r"expected one of \.nii\.gz .*, got '\.docx'"):
        find_cases(tmp_path / "a.docx")


def test_no_input_at_all_is_an_error_that_says_what_was_looked_for(tmp_path):
    touch(tmp_path, "a_seg.nii.gz", "notes.txt", "labels/0.tif")
    with pytest.raises(
        InputError, match=r"expected images \(\.nii\.gz.*got none \(1 predictions of a former run"
    ):
        find_cases(tmp_path)


def test_an_output_folder_is_no_input(tmp_path):
    touch(tmp_path, ".volseg.lock", "a.nii.gz")
    with pytest.raises(InputError, match="1 folders written by a run of volseg left out"):
        find_cases(tmp_path)


def test_a_volume_has_two_or_three_dimensions(tmp_path):
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 4"):
        find_cases(tmp_path, spatial_dims=4)


def test_every_kind_of_picture_is_a_case_in_2d_and_junk_is_none(tmp_path):
    touch(
        tmp_path, *(f"{k}.{end}" for k, end in enumerate(["png", "JPG", "tif", "gif", "bmp", "pgm", "ppm"]))
    )
    touch(tmp_path, ".hidden.png", "._0.png", "Thumbs.db", "notes.txt", "desktop.ini")
    assert list(found(tmp_path, spatial_dims=2)) == [str(k) for k in range(7)]


def test_equal_stems_of_pictures_get_distinct_names(tmp_path):
    touch(tmp_path, "a.png", "a.jpg", "b/a.png")
    assert found(tmp_path, spatial_dims=2) == {"a.jpg": "a.jpg", "a.png": "a.png", "b_a": "b/a.png"}


def test_one_picture_is_one_case(tmp_path):
    touch(tmp_path, "01_test.tif")
    for dims in (2, 3):
        assert found(tmp_path / "01_test.tif", spatial_dims=dims) == {"01_test": "."}


def test_label_folders_beside_the_pictures_are_left_out_in_2d(tmp_path):
    touch(tmp_path, "images/21_training.tif", "1st_manual/21_manual1.gif", "mask/21_training_mask.gif")
    assert found(tmp_path, spatial_dims=2) == {"21_training": "images/21_training.tif"}


def test_predicted_pictures_of_a_former_run_are_no_cases(tmp_path):
    touch(tmp_path, "a.png", "a_seg.png", "out/.volseg.lock", "out/a/a_seg.png")
    assert list(found(tmp_path, spatial_dims=2)) == ["a"]


def test_a_prepared_picture_keeps_its_field_of_view_and_not_its_label(tmp_path):
    item = {"image": "i.png", "case": "01", "group": "g", "spacing_mm": [0.5, 0.25], "field_of_view": "f.png"}
    touch(tmp_path, "i.png", "f.png", "l.png")
    write_datalist(tmp_path / "datalist.json", Datalist("x", test=[{**item, "label": "l.png"}]))
    expected = {**item, "image": str(tmp_path / "i.png"), "field_of_view": str(tmp_path / "f.png")}
    assert find_cases(tmp_path, spatial_dims=2) == [expected]


def test_a_scan_folder_called_img_is_named_without_that_end(tmp_path):
    touch(tmp_path, "set/original_images/P1_z.img/1.bmp", "set/label_images/P1_z_labelMark/1.bmp")
    touch(tmp_path, "set/original_images/P2.img/1.bmp", "set/original_images/P2/1.bmp")
    assert [case["case"] for case in find_cases(tmp_path)] == ["P1_z", "P2", "P2.img"]
    (only,) = find_cases(tmp_path / "set/original_images/P1_z.img")
    assert only["case"] == "P1_z"


def test_a_folder_with_missing_slices_is_one_case(tmp_path):
    touch(tmp_path, "S1/images/010.png", "S1/images/015.png", "S1/labels/010.png")
    assert [case["case"] for case in find_cases(tmp_path)] == ["S1"]
