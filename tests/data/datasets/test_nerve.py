from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from volseg.checks import InputError
from volseg.data.datalist import load_cases, read_datalist
from volseg.data.datasets import prepare_dataset
from volseg.data.datasets.nerve import prepare_nerve
from volseg.data.rle import encode_rle, write_rle_csv

HEIGHT, WIDTH = 18, 14


def frame(subject, number):
    return np.random.default_rng([subject, number]).integers(0, 200, (HEIGHT, WIDTH)).astype(np.uint8)


def nerve_mask(is_empty=False):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:9, 4:12] = 0 if is_empty else 255
    return mask


@pytest.fixture
def challenge(tmp_path):
    """Four subjects of three frames each; those of the first two have a nerve in one frame only."""
    (tmp_path / "train").mkdir()
    for subject in range(1, 5):
        for number in range(1, 4):
            name = f"{subject}_{number}"
            mask = nerve_mask(is_empty=subject < 3 and number > 1)
            tifffile.imwrite(tmp_path / f"train/{name}.tif", frame(subject, number), compression="lzw")
            tifffile.imwrite(tmp_path / f"train/{name}_mask.tif", mask, compression="lzw")
    return tmp_path


@pytest.fixture
def pictures(tmp_path):
    """Two subjects as JPEG, in folders of their own."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for name in ("10_1", "10_2", "9_1"):
        subject, number = map(int, name.split("_"))
        image = Image.fromarray(np.kron(frame(subject, number), np.ones((8, 8), np.uint8))).convert("RGB")
        image.save(tmp_path / f"images/{name}.jpg")
        Image.fromarray(np.kron(nerve_mask(), np.ones((8, 8), np.uint8))).save(
            tmp_path / f"masks/{name}_mask.jpg"
        )
    return tmp_path


def test_the_frames_of_a_subject_are_in_one_group_and_fold(challenge):
    assert prepare_dataset("nerve", challenge).faults == []
    items = read_datalist(challenge / "datalist.json").training
    assert [item["case"] for item in items[:4]] == ["1_1", "1_2", "1_3", "2_1"]
    for item in items:
        assert item["group"] == f"subject_{item['case'][0]}"
    assert len({(item["group"], item["fold"]) for item in items}) == 4
    assert items[0]["label"] == "train/1_1_mask.tif"
    assert items[0]["label_rule"] == "nonzero"


@pytest.mark.parametrize("seed", range(5))
def test_subjects_that_share_a_frame_are_in_one_group_and_fold(challenge, seed):
    shared = frame(4, 3)
    shared[0, 0] += 3  # not equal, but the same picture
    tifffile.imwrite(challenge / "train/2_1.tif", shared, compression="lzw")
    report = prepare_nerve(challenge, folds=2, seed=seed)
    assert report.warnings == [
        "subject_2 and subject_4 share frames (1 pair of the same picture): they are one group, subject_2+4"
    ]
    groups = {row.case: row.group for row in report.cases}
    assert [groups[f"{subject}_1"] for subject in (1, 2, 3, 4)] == [
        "subject_1", "subject_2+4", "subject_3", "subject_2+4",
    ]  # fmt: skip
    assert len({row.fold for row in report.cases if row.group == "subject_2+4"}) == 1
    assert read_datalist(challenge / "datalist.json").training[3]["group"] == "subject_2+4"


def test_without_shared_frames_the_list_is_as_if_nothing_was_compared(challenge, tmp_path_factory):
    targets = [tmp_path_factory.mktemp(name) for name in ("compared", "not_compared")]
    reports = [
        prepare_nerve(challenge, output_dir=target, find_pairs=find_pairs)
        for target, find_pairs in zip(targets, (None, lambda paths: []), strict=True)
    ]
    assert reports[0].warnings == []
    texts = [(target / "datalist.json").read_bytes() for target in targets]
    assert texts[0] == texts[1]


def test_pairs_within_a_subject_join_nothing(challenge):
    report = prepare_nerve(challenge, find_pairs=lambda paths: [(0, 1), (3, 5)])
    assert report.warnings == []
    assert len({row.group for row in report.cases}) == 4


def test_a_chain_of_pairs_is_one_group_with_all_its_pairs_counted(challenge):
    report = prepare_nerve(challenge, find_pairs=lambda paths: [(0, 3), (1, 4), (5, 9), (0, 1)])
    assert report.warnings == [
        "subject_1 and subject_2 and subject_4 share frames (3 pairs of the same picture): "
        "they are one group, subject_1+2+4"
    ]


def test_subjects_that_all_share_frames_cannot_be_split(challenge):
    faults = prepare_nerve(challenge, find_pairs=lambda paths: [(0, 3), (0, 6), (0, 9)]).faults
    assert "expected at least two groups (subjects), got 'subject_1+2+3+4' alone" in faults[0]


def test_test_frames_join_no_subjects(challenge):
    (challenge / "test").mkdir()
    tifffile.imwrite(challenge / "test/7.tif", frame(1, 1))
    report = prepare_nerve(challenge)
    assert (report.faults, report.warnings) == ([], [])


@pytest.mark.parametrize("seed", range(5))
def test_folds_share_the_subjects_with_many_empty_masks(challenge, seed):
    report = prepare_nerve(challenge, folds=2, seed=seed, overwrite=True)
    empty = [sum(row.foreground == 0 for row in report.cases if row.fold == fold) for fold in (0, 1)]
    assert empty == [2, 2]


def test_the_table_counts_empty_masks(challenge):
    lines = prepare_nerve(challenge).table().splitlines()
    assert lines[-1].split()[:5] == ["all", "12", "4", "0", "4"]


def test_missing_mask_files_are_decoded_from_the_csv(challenge, tmp_path_factory):
    target = tmp_path_factory.mktemp("list")
    rows = []
    for path in sorted((challenge / "train").glob("*_mask.tif")):
        subject, number, _ = path.stem.split("_")
        rows.append((subject, number, encode_rle(tifffile.imread(path), order="F")))
    write_rle_csv(challenge / "train_masks.csv", rows, columns=("subject", "img", "pixels"))
    expected = tifffile.imread(challenge / "train/3_2_mask.tif")
    (challenge / "train/3_2_mask.tif").unlink()
    (challenge / "train/1_2_mask.tif").unlink()
    report = prepare_nerve(challenge, output_dir=target)
    assert report.faults == []
    labels = {case["case"]: case["label"] for case in load_cases(target, "all")}
    assert labels["3_2"] == str(target / "labels/3_2_mask.tif")
    assert labels["3_1"] == str(challenge / "train/3_1_mask.tif")
    assert np.array_equal(tifffile.imread(labels["3_2"]), expected)
    assert not tifffile.imread(labels["1_2"]).any()


def test_masks_in_neither_form_are_faults(challenge):
    (challenge / "train/3_2_mask.tif").unlink()
    assert prepare_nerve(challenge).faults == [
        "train/3_2.tif: expected its mask in train, got none; add it",
    ]


def test_a_damaged_csv_is_a_fault(challenge):
    (challenge / "train/3_2_mask.tif").unlink()
    (challenge / "train_masks.csv").write_text("id,rle\n")
    faults = prepare_nerve(challenge).faults
    assert "expected the columns subject,img,pixels, got 'id,rle'" in faults[0]


def test_frames_of_the_test_folder_become_the_test_section(challenge):
    (challenge / "test").mkdir()
    tifffile.imwrite(challenge / "test/7.tif", frame(0, 7))
    prepare_nerve(challenge)
    (item,) = read_datalist(challenge / "datalist.json").test
    assert (item["case"], item["group"], item["image"]) == ("test_7", "test_7", "test/7.tif")


def test_jpeg_masks_count_above_127(pictures):
    report = prepare_nerve(pictures)
    assert report.faults == []
    items = read_datalist(pictures / "datalist.json").training
    assert [item["label_rule"] for item in items] == ["above:127"] * 3
    assert [item["group"] for item in items] == ["subject_9", "subject_10", "subject_10"]
    assert report.cases[0].foreground == pytest.approx(48 / (HEIGHT * WIDTH), abs=0.01)


def test_a_jpeg_mask_without_frame_is_a_fault(pictures):
    (pictures / "images/9_1.jpg").unlink()
    assert "masks: expected an image for the mask '9_1', got none; add it or remove the mask" in (
        prepare_nerve(pictures).faults
    )


def test_a_colour_frame_is_a_fault(pictures):
    Image.new("RGB", (8 * WIDTH, 8 * HEIGHT), (200, 20, 20)).save(pictures / "images/9_1.jpg")
    (fault,) = prepare_nerve(pictures).faults
    assert fault.startswith("images/9_1.jpg: expected")


@pytest.mark.parametrize("folder", ["images", "other"])
def test_a_folder_without_frames_is_refused(tmp_path, folder):
    (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match="expected frames named like"):
        prepare_nerve(tmp_path)
