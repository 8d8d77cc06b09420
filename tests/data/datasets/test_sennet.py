from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tifffile

from volseg.checks import InputError
from volseg.data.datalist import load_cases, read_datalist
from volseg.data.datasets import prepare_dataset
from volseg.data.datasets.sennet import prepare_sennet
from volseg.data.rle import encode_rle, write_rle_csv

HEIGHT, WIDTH = 9, 7


def write_slices(folder, arrays, first=0):
    folder.mkdir(parents=True)
    for number, array in enumerate(arrays, start=first):
        tifffile.imwrite(folder / f"{number:04d}.tif", array, photometric="minisblack")


def noise(depth, seed):
    return np.random.default_rng(seed).integers(0, 60_000, (depth, HEIGHT, WIDTH)).astype(np.uint16)


def vessels(depth, seed=0):
    return np.where(np.random.default_rng(seed).random((depth, HEIGHT, WIDTH)) < 0.2, 255, 0).astype(np.uint8)


def kidney(folder, depth, seed, labels=None):
    write_slices(folder / "images", noise(depth, seed))
    write_slices(folder / "labels", vessels(depth, seed) if labels is None else labels)


@pytest.fixture
def challenge(tmp_path):
    """The challenge in small: three labelled kidneys, one of them labelled twice, and a test kidney."""
    root = tmp_path / "download"
    kidney(root / "train/kidney_1_dense", 6, 1)
    kidney(root / "train/kidney_2", 5, 2)
    kidney(root / "train/kidney_3_sparse", 8, 3)
    write_slices(root / "train/kidney_3_dense/labels", vessels(3, 4), first=2)
    write_slices(root / "test/kidney_6/images", noise(3, 5))
    return root


def cases_of(root, section="all"):
    return {case["case"]: case for case in load_cases(root, section)}


def only_fault(root, **arguments):
    report = prepare_sennet(root, **arguments)
    assert report.datalist is None
    assert not (root / "datalist.json").exists()
    (fault,) = report.faults
    return fault


def test_the_challenge_becomes_a_datalist(challenge):
    report = prepare_sennet(challenge)
    assert report.faults == []
    assert list(cases_of(challenge, "test")) == ["kidney_6"]
    cases = cases_of(challenge)
    names = ["kidney_1_dense", "kidney_2", "kidney_3_dense", "kidney_3_sparse", "kidney_6"]
    assert list(cases) == names
    assert [cases[name]["group"] for name in names] == [
        "kidney_1",
        "kidney_2",
        "kidney_3",
        "kidney_3",
        "kidney_6",
    ]
    assert [cases[name].get("label_coverage") for name in names] == [1.0, 0.65, 1.0, 0.85, None]
    assert [cases[name]["spacing_mm"][0] for name in names] == [0.05, 0.05, 0.05, 0.05, 0.06308]


def test_the_finer_scan_of_a_part_has_its_own_spacing_and_the_group_of_its_kidney(challenge):
    kidney(challenge / "train/kidney_1_voi", 5, 8)
    prepare_sennet(challenge)
    voi = cases_of(challenge)["kidney_1_voi"]
    assert (voi["spacing_mm"], voi["group"]) == ([0.0052] * 3, "kidney_1")


def test_dense_labels_of_kidney_3_lie_on_a_range_of_the_sparse_images(challenge):
    prepare_sennet(challenge)
    cases = cases_of(challenge)
    dense, sparse = cases["kidney_3_dense"], cases["kidney_3_sparse"]
    assert dense["image"] == sparse["image"]
    assert dense["labelled_range"] == [2, 5]
    assert "labelled_range" not in sparse


def test_both_labellings_of_a_kidney_are_in_one_fold(challenge):
    prepare_sennet(challenge)
    folds = {name: case["fold"] for name, case in cases_of(challenge).items() if "fold" in case}
    assert folds["kidney_3_dense"] == folds["kidney_3_sparse"]
    assert sorted({folds[name] for name in ("kidney_1_dense", "kidney_2", "kidney_3_sparse")}) == [0, 1, 2]


def test_two_folds_are_made_when_asked_and_the_seed_repeats_them(challenge, tmp_path):
    lists = []
    for name in ("a", "b"):
        prepare_sennet(challenge, output_dir=tmp_path / name, folds=2, seed=3)
        lists.append((tmp_path / name / "datalist.json").read_bytes())
    assert lists[0] == lists[1]
    assert {case.get("fold") for case in read_datalist(tmp_path / "a" / "datalist.json").training} == {0, 1}


@pytest.mark.parametrize("folds", [1, 4])
def test_an_impossible_number_of_folds_is_a_fault(challenge, folds):
    assert only_fault(challenge, folds=folds) == (
        f"folds: expected 2 to 3, the number of groups, got {folds}; change it"
    )


def test_the_report_counts_what_is_labelled(challenge):
    rows = {row.case: row for row in prepare_sennet(challenge).cases}
    assert rows["kidney_3_dense"].size == (WIDTH, HEIGHT, 8)
    assert rows["kidney_3_dense"].slices_labelled == 3
    assert rows["kidney_3_dense"].foreground == pytest.approx((vessels(3, 4) > 0).mean())
    assert rows["kidney_6"].foreground is None
    assert rows["kidney_2"].dtype == "uint16"
    assert rows["kidney_2"].warnings == ["about 35 % of its vessels are not labelled"]


def test_the_table_has_a_line_for_each_case(challenge):
    lines = prepare_sennet(challenge).table().splitlines()
    assert lines[0].split()[:3] == ["case", "size", "dtype"]
    assert re.match(r"kidney_3_dense +7x9x8 +uint16 +0\.05x0\.05x0\.05 +3/8 ", lines[3])


@pytest.mark.parametrize("part", ["", "train", ".."])
def test_the_download_is_found_from_its_own_its_inner_and_its_outer_folder(challenge, tmp_path, part):
    report = prepare_sennet(challenge / part, output_dir=tmp_path / "out")
    labelled = [row.case for row in report.cases if row.fold is not None]
    assert labelled == ["kidney_1_dense", "kidney_2", "kidney_3_dense", "kidney_3_sparse"]


def remove_labels(challenge):
    """Replace every label folder of the challenge by rows of train_rles.csv."""
    rows = []
    for folder in sorted((challenge / "train").glob("*/labels")):
        for path in sorted(folder.iterdir()):
            rows.append((f"{folder.parent.name}_{path.stem}", encode_rle(tifffile.imread(path))))
            path.unlink()
        folder.rmdir()
    (challenge / "train/kidney_3_dense").rmdir()
    write_rle_csv(challenge / "train_rles.csv", rows)


def test_run_lengths_replace_missing_label_folders(challenge, tmp_path):
    expected = prepare_sennet(challenge, output_dir=tmp_path / "from_labels")
    remove_labels(challenge)
    report = prepare_sennet(challenge, output_dir=tmp_path / "out")
    assert report.cases == expected.cases
    dense = cases_of(tmp_path / "out")["kidney_3_dense"]
    assert dense["label"] == str(tmp_path / "out/labels/kidney_3_dense")
    assert dense["labelled_range"] == [2, 5]
    decoded = tifffile.imread(tmp_path / "out/labels/kidney_3_dense/0003.tif")
    np.testing.assert_array_equal(decoded, vessels(3, 4)[1])


def test_decoding_again_after_a_kill_keeps_what_is_right_and_refuses_what_is_not(challenge):
    remove_labels(challenge)
    prepare_sennet(challenge)
    (challenge / "datalist.json").unlink()
    prepare_sennet(challenge)
    (challenge / "datalist.json").unlink()
    path = challenge / "labels/kidney_2/0001.tif"
    tifffile.imwrite(path, np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(
        InputError, match=r"kidney_2/0001\.tif: expected the label that train_rles\.csv describes"
    ):
        prepare_sennet(challenge)
    assert prepare_sennet(challenge, overwrite=True).faults == []


def test_damaged_run_lengths_are_faults_by_slice(challenge):
    remove_labels(challenge)
    path = challenge / "train_rles.csv"
    lines = path.read_text().splitlines()
    lines[1] = "kidney_1_dense_0000,60 9"
    path.write_text("\n".join([*lines, "nonsense,1 0"]))
    faults = prepare_sennet(challenge).faults
    assert "expected ids like kidney_1_dense_0000, got 'nonsense'" in faults[0]
    assert re.match("kidney_1_dense, run lengths of slice 0: .*expected runs within 1 to 63", faults[1])
    assert not (challenge / "labels").exists()


def test_an_unreadable_run_length_file_is_a_fault(challenge):
    (challenge / "train_rles.csv").write_text("a,b\n")
    assert "expected the columns id,rle" in only_fault(challenge)


@pytest.fixture
def pair(tmp_path):
    """One folder with images and labels."""
    kidney(tmp_path / "lightsheet", 20, 1)
    return tmp_path / "lightsheet"


def test_one_volume_is_cut_along_z_into_two_items_that_do_not_touch(pair):
    report = prepare_sennet(pair)
    (training,), (validation,) = load_cases(pair, "training"), load_cases(pair, "validation")
    assert training["case"], validation["case"] == ("lightsheet_first", "lightsheet_last")
    assert (training["labelled_range"], validation["labelled_range"]) == ([0, 14], [16, 20])
    assert training["image"] == validation["image"]
    assert training["same_volume"] is validation["same_volume"] is True
    assert "training and validation come from one volume" in report.warnings[0]


def test_the_share_of_foreground_is_that_of_each_part(pair):
    first, last = prepare_sennet(pair).cases
    assert first.foreground == pytest.approx((vessels(20, 1)[:14] > 0).mean())
    assert last.foreground == pytest.approx((vessels(20, 1)[16:] > 0).mean())


def test_both_labellings_of_the_only_kidney_are_cut_at_one_place(tmp_path):
    kidney(tmp_path / "kidney_3_sparse", 20, 3)
    write_slices(tmp_path / "kidney_3_dense/labels", vessels(10, 4), first=8)
    prepare_sennet(tmp_path)
    ranges = {name: case["labelled_range"] for name, case in cases_of(tmp_path).items()}
    assert ranges == {
        "kidney_3_dense_first": [8, 14],
        "kidney_3_dense_last": [16, 18],
        "kidney_3_sparse_first": [0, 14],
        "kidney_3_sparse_last": [16, 20],
    }


def test_a_volume_too_thin_to_cut_is_a_fault(tmp_path):
    kidney(tmp_path / "thin", 3, 1)
    assert "thin: too few labelled slices to cut in two" in only_fault(tmp_path / "thin")


def test_an_unknown_spacing_is_warned_of_and_can_be_stated(pair):
    assert "spacing is unknown" in prepare_sennet(pair).cases[0].warnings[0]
    prepare_sennet(pair, spacing_mm=(0.002, 0.002, 0.005), overwrite=True)
    assert load_cases(pair, "training")[0]["spacing_mm"] == [0.002, 0.002, 0.005]


def test_plain_case_folders_are_groups_of_their_own(tmp_path):
    kidney(tmp_path / "a", 4, 1)
    kidney(tmp_path / "b", 5, 2)
    prepare_dataset("sennet", tmp_path)
    assert {name: case["group"] for name, case in cases_of(tmp_path).items()} == {"a": "a", "b": "b"}


def test_groups_json_joins_cases(tmp_path):
    for number, name in enumerate("abc"):
        kidney(tmp_path / name, 4, number)
    (tmp_path / "groups.json").write_text('{"a": "patient", "b": "patient"}')
    prepare_sennet(tmp_path)
    cases = cases_of(tmp_path)
    assert cases["a"]["fold"] == cases["b"]["fold"] != cases["c"]["fold"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "expected a JSON object of case to group"),
        ("[]", "object of case name"),
        ('{"x": "y"}', "no case 'x'"),
    ],
)
def test_a_wrong_groups_json_is_a_fault(tmp_path, content, message):
    kidney(tmp_path / "a", 4, 1)
    kidney(tmp_path / "b", 5, 2)
    (tmp_path / "groups.json").write_text(content)
    assert message in only_fault(tmp_path)


def test_labels_of_0_and_1_are_accepted(tmp_path):
    kidney(tmp_path / "a", 9, 1, labels=vessels(9) // 255)
    assert prepare_sennet(tmp_path / "a").faults == []


def replace_slice(path, array, **options):
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})


FAULTS = {
    "transposed label": (
        lambda case: replace_slice(case / "labels/0007.tif", vessels(1)[0].T.copy()),
        "lightsheet/labels/0007.tif: 7x9, but its image is 9x7; labels must not be transposed",
    ),
    "small label": (
        lambda case: replace_slice(case / "labels/0007.tif", vessels(1)[0, :4]),
        "lightsheet/labels/0007.tif: 4x7, but its image is 9x7; each label needs its image's size",
    ),
    "small image": (
        lambda case: [
            replace_slice(case / "images/0007.tif", noise(1, 9)[0, :4]),
            replace_slice(case / "labels/0007.tif", vessels(1)[0, :4]),
        ],
        "lightsheet/images/0007.tif: 4x7, but other slices are 9x7; one stack has one size",
    ),
    "label value": (
        lambda case: replace_slice(case / "labels/0007.tif", vessels(1)[0] // 2),
        "labels/0007.tif: expected the values 0 and 1, or 0 and 255, got 0, 127; map them first",
    ),
    "mixed values": (
        lambda case: replace_slice(case / "labels/0007.tif", vessels(1)[0] // 255),
        "labels/0007.tif: its foreground is 1, but 255 in slices before it",
    ),
    "missing label": (
        lambda case: (case / "labels/0007.tif").unlink(),
        "labels: slice 7 has no label; add it",
    ),
    "missing image": (
        lambda case: [(case / f"{part}/0007.tif").unlink() for part in ("images", "labels")],
        "lightsheet/images: slice 7 is missing",
    ),
    "extra label": (
        lambda case: replace_slice(case / "labels/0020.tif", vessels(1)[0]),
        "labels: slice 20 has no image; remove it or add the image",
    ),
    "double number": (
        lambda case: replace_slice(case / "labels/7.tif", vessels(1)[0]),
        "labels: slice 7 is there twice, 0007.tif and 7.tif",
    ),
    "no number": (
        lambda case: replace_slice(case / "labels/cover.tif", vessels(1)[0]),
        "labels/cover.tif: expected a slice number at the end of the name; rename it",
    ),
    "cut label": (
        lambda case: (case / "labels/0007.tif").write_bytes((case / "labels/0007.tif").read_bytes()[:-30]),
        "labels/0007.tif: ",
    ),
    "cut image": (
        lambda case: (case / "images/0007.tif").write_bytes((case / "images/0007.tif").read_bytes()[:-30]),
        "images/0007.tif: ",
    ),
    "colour label": (
        lambda case: replace_slice(
            case / "labels/0007.tif", np.dstack([vessels(1, k)[0] for k in range(3)]), photometric="rgb"
        ),
        "labels/0007.tif: ",
    ),
    "two pages": (
        lambda case: replace_slice(case / "labels/0007.tif", vessels(2)),
        "labels/0007.tif: expected a grey page, got an image of shape (7, 9, 2); convert it",
    ),
    "other label depth": (
        lambda case: replace_slice(case / "labels/0007.tif", vessels(1)[0].astype(np.uint16)),
        "labels",
    ),
    "other depth": (
        lambda case: replace_slice(case / "images/0007.tif", (noise(1, 9)[0] % 200).astype(np.uint8)),
        "images",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_one_slice_is_told(pair, name):
    break_it, message = FAULTS[name]
    break_it(pair)
    assert message in only_fault(pair)


def test_all_faults_are_collected(pair):
    for number in range(12):
        (pair / f"labels/{number:04d}.tif").unlink()
    replace_slice(pair / "labels/0015.tif", vessels(1)[0].T.copy())
    assert len(prepare_sennet(pair).faults) == 13


def test_labels_that_are_all_empty_are_a_fault(tmp_path):
    kidney(tmp_path / "a", 8, 1, labels=np.zeros((8, HEIGHT, WIDTH), np.uint8))
    assert only_fault(tmp_path / "a") == "a/labels: all 8 slices are empty; check the download"


def test_an_empty_label_folder_is_a_fault(tmp_path):
    kidney(tmp_path / "a", 4, 1)
    write_slices(tmp_path / "b/images", noise(4, 2))
    (tmp_path / "b/labels").mkdir()
    assert "b/labels: expected label slices, got an empty folder" in prepare_sennet(tmp_path).faults[0]


def test_an_empty_image_folder_is_a_fault(tmp_path):
    kidney(tmp_path / "a", 8, 1)
    (tmp_path / "b/images").mkdir(parents=True)
    assert "b/images: expected slices" in only_fault(tmp_path)


def test_labels_without_any_images_are_a_fault(tmp_path):
    kidney(tmp_path / "a", 8, 1)
    write_slices(tmp_path / "b/labels", vessels(4))
    assert "b: expected a folder images, got labels alone" in only_fault(tmp_path)


def test_a_gap_in_labels_of_a_part_is_a_fault(challenge):
    (challenge / "train/kidney_3_dense/labels/0003.tif").unlink()
    assert only_fault(challenge) == "kidney_3_dense/labels: slice 3 has no label; add it"


def test_the_same_images_in_two_groups_are_a_fault(tmp_path):
    kidney(tmp_path / "a", 8, 1)
    kidney(tmp_path / "b", 8, 1)
    assert "b: has image slices that a has too; give both the same group" in only_fault(tmp_path)


def test_the_same_images_in_a_test_case_are_a_warning(challenge):
    for path in (challenge / "test/kidney_6/images").iterdir():
        path.unlink()
    for number, array in enumerate(noise(6, 1)):
        replace_slice(challenge / f"test/kidney_6/images/{number:04d}.tif", array)
    assert "kidney_6: has image slices that kidney_1_dense has too" in prepare_sennet(challenge).warnings


def test_a_test_case_named_like_a_training_case_is_a_fault(challenge):
    write_slices(challenge / "test/kidney_2/images", noise(3, 8))
    assert "expected a name that no training case has" in only_fault(challenge)


def test_images_alone_make_a_list_for_inference(tmp_path):
    write_slices(tmp_path / "test/kidney_5/images", noise(3, 1))
    report = prepare_sennet(tmp_path)
    assert "no case has labels" in report.warnings[0]
    assert list(cases_of(tmp_path, "test")) == ["kidney_5"]


def test_a_list_elsewhere_leaves_the_data_untouched(challenge, tmp_path):
    before = sorted(challenge.rglob("*"))
    prepare_sennet(challenge, output_dir=tmp_path / "out")
    assert sorted(challenge.rglob("*")) == before
    assert json.loads((tmp_path / "out/datalist.json").read_text())["root"] == str(challenge)


def test_an_existing_datalist_is_refused_before_the_work(challenge):
    (challenge / "datalist.json").write_text("mine")
    with pytest.raises(InputError, match="expected no datalist yet, got one that exists"):
        prepare_sennet(challenge)
    assert (challenge / "datalist.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("", "an empty text"),
        ("none", "nothing there"),
        ("file", "got a file"),
        ("empty", "got none; give the folder"),
    ],
)
def test_a_folder_without_the_layout_is_refused(tmp_path, raw, message):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        prepare_sennet(tmp_path / raw if raw else raw)


@pytest.mark.parametrize("spacing_mm", [0.0, (1.0, 2.0), (1.0, float("nan"), 1.0)])
def test_an_impossible_spacing_is_refused(pair, spacing_mm):
    with pytest.raises(ValueError, match="spacing_mm must be"):
        prepare_sennet(pair, spacing_mm=spacing_mm)


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'sennet'"):
        prepare_dataset("sennt", tmp_path)
