"""Scores of folders: laws, matching, grids, values, nnU-Net's fields."""

from __future__ import annotations

import csv
import io
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data import Datalist, write_datalist
from volseg.data.detection_table import detection_csv
from volseg.metrics import compute_detection_auc, compute_dice, compute_iou, compute_surface_dice
from volseg.reports import score_csv, score_folders, score_markdown, score_summary, write_scores
from volseg.reports.scores import THRESHOLDS

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*always_return_as_numpy:FutureWarning"  # MONAI's distances call MONAI's own old parameter
)

SHAPE = (11, 9, 7)
AFFINE = np.array([[-0.5, 0, 0, 3], [0, 0.8, 0, -4], [0, 0, 2.0, 10], [0, 0, 0, 1]])
CASES = ("case_1", "case_2", "case_10")


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def save_picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def volume(seed, shape=SHAPE):
    """Three classes in blocks; class 2 is missing for seed 1, which has an empty class."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 2 if seed == 1 else 3, [size // 2 + 1 for size in shape])
    return np.kron(coarse, np.ones((2, 2, 2), int))[: shape[0], : shape[1], : shape[2]].astype(np.uint8)


def spoiled(array, seed):
    rng = np.random.default_rng(100 + seed)
    return np.where(rng.random(array.shape) < 0.2, 0, array).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Predictions as inference lays them out, and flat truths."""
    for seed, case in enumerate(CASES):
        truth = volume(seed)
        save(tmp_path / "truth" / f"{case}.nii.gz", truth)
        save(tmp_path / "pred" / case / f"{case}_seg.nii.gz", spoiled(truth, seed))
    return tmp_path / "pred", tmp_path / "truth"


def numbers(report):
    return [[{**row} for row in rows.values()] for rows in report.rows]


def test_a_folder_against_itself_is_perfect(folders):
    report = score_folders(folders[1], folders[1])
    wanted = {"dice": 1.0, "iou": 1.0, "precision": 1.0, "recall": 1.0, "surface_dice": 1.0}
    assert report.mean == wanted | {"hd95_mm": 0.0, "assd_mm": 0.0}
    assert report.per_class[2]["undefined"] == 1
    assert [report.per_class[2][name] for name in ("missed", "spurious")] == [0, 0]


def test_the_numbers_are_those_of_the_metrics(folders):
    report = score_folders(*folders, tolerance_mm=0.5)
    assert [case["case"] for case in report.cases] == ["case_1", "case_2", "case_10"]
    for seed, case in enumerate(CASES):
        truth, pred = volume(seed), spoiled(volume(seed), seed)
        for index in (1, 2):
            row, masks = report.rows[seed][index], (pred == index, truth == index)
            options = {"spacing_mm": (0.5, 0.8, 2.0), "tolerance_mm": 0.5}
            surface = compute_surface_dice(*masks, **options)
            np.testing.assert_equal(row["dice"], compute_dice(*masks), err_msg=case)
            np.testing.assert_equal(row["iou"], compute_iou(*masks))
            np.testing.assert_allclose(row["surface_dice"], surface, rtol=1e-6)  # float32 affine in the file
            assert row["n_ref"] == masks[1].sum()
            assert row["volume_pred_mm3"] == pytest.approx(masks[0].sum() * 0.8, rel=1e-6)
            assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == truth.size


def test_the_mean_runs_over_cases_then_classes(folders):
    report = score_folders(*folders, surfaces=False)
    table = np.array([[row["dice"] for row in rows.values()] for rows in report.rows])
    assert report.mean["dice"] == pytest.approx(np.nanmean(np.nanmean(table, axis=0)))
    assert np.isnan(report.mean["surface_dice"])


def test_renaming_both_sides_changes_no_number(folders):
    before = score_folders(*folders, surfaces=False)
    for case in CASES:
        new = case.replace("case", "patient")
        shutil.move(folders[1] / f"{case}.nii.gz", folders[1] / f"{new}_gt.nii.gz")
        (folders[0] / case / f"{case}_seg.nii.gz").rename(folders[0] / case / f"{new}_seg.nii.gz")
        (folders[0] / case).rename(folders[0] / new)
    after = score_folders(*folders, surfaces=False)
    assert [case["case"] for case in after.cases] == ["patient_1", "patient_2", "patient_10"]
    assert repr(numbers(after)) == repr(numbers(before))
    assert after.intervals["dice"] == before.intervals["dice"]


def test_permuting_the_classes_permutes_the_scores(folders):
    before = score_folders(*folders)
    swap = np.array([0, 2, 1], np.uint8)
    for path in [*folders[0].rglob("*.nii.gz"), *folders[1].glob("*.nii.gz")]:
        save(path, swap[np.asarray(nib.load(path).dataobj)])
    after = score_folders(*folders)
    assert repr(after.per_class[1]) == repr(before.per_class[2])
    assert repr(after.per_class[2]) == repr(before.per_class[1])


def test_deleting_a_structure_never_improves_a_mean(folders):
    before = score_folders(*folders).mean
    path = folders[0] / "case_2/case_2_seg.nii.gz"
    save(path, np.zeros(SHAPE, np.uint8))
    report = score_folders(*folders)
    after = report.mean
    assert all(after[name] <= before[name] for name in ("dice", "iou", "precision", "recall", "surface_dice"))
    assert all(after[name] >= before[name] for name in ("hd95_mm", "assd_mm"))
    assert report.per_class[1]["missed"] == 1


def test_two_empty_masks_are_undefined_and_counted(tmp_path):
    for side in ("pred", "truth"):
        save(tmp_path / side / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    report = score_folders(tmp_path / "pred", tmp_path / "truth")
    assert np.isnan(report.mean["dice"])
    assert report.per_class[1]["undefined"] == 1
    assert "| a | " in score_markdown(report)
    assert score_summary(report)["foreground_mean"]["Dice"] is None


# --- matching -----------------------------------------------------------------------------------------


def test_a_missing_prediction_is_refused(folders):
    shutil.rmtree(folders[0] / "case_2")
    with pytest.raises(
        InputError, match=r"one prediction for each of the 3 cases .* got none for case_2; add"
    ):
        score_folders(*folders)


def test_an_extra_prediction_is_refused(folders):
    save(folders[0] / "case_4" / "case_4_seg.nii.gz", volume(0))
    with pytest.raises(InputError, match="got case_4 without a truth; add"):
        score_folders(*folders)


def test_of_many_missing_cases_five_are_named(folders):
    for number in range(20, 29):
        save(folders[1] / f"case_{number}.nii.gz", volume(0))
    with pytest.raises(InputError, match="case_20, case_21, case_22, case_23, case_24 and 4 more"):
        score_folders(*folders)


def test_two_masks_of_one_name_are_refused(folders):
    save(folders[1] / "case_1.nii", volume(0))
    with pytest.raises(InputError, match=r"one mask for each case, got case_1.nii and case_1.nii.gz"):
        score_folders(*folders)


def test_a_case_folder_without_a_mask_is_refused(folders):
    (folders[0] / "case_7").mkdir()
    with pytest.raises(InputError, match="case_7: expected one mask or the slices of one, got none"):
        score_folders(*folders)


def test_a_case_folder_of_two_volumes_is_refused(folders):
    for name in "ab":
        save(folders[0] / "case_7" / f"{name}.nii.gz", volume(0))
    with pytest.raises(InputError, match="got 2 mask files"):
        score_folders(*folders)


@pytest.mark.parametrize(
    ("place", "got"), [("none", "nothing there"), ("empty", "none"), ("a.npy", "'.npy'")]
)
def test_a_place_without_masks_is_refused(folders, tmp_path, place, got):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.npy").touch()
    with pytest.raises(InputError, match=got):
        score_folders(tmp_path / place, folders[1])


def test_several_label_folders_are_refused(folders, tmp_path):
    for name in ("labels", "masks"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="one folder of masks, got labels and masks"):
        score_folders(folders[0], tmp_path / "raw")


def test_maps_beside_the_predictions_are_no_cases(folders, tmp_path):
    for case in CASES:
        seg = folders[0] / case / f"{case}_seg.nii.gz"
        save(tmp_path / "flat" / seg.name, np.asarray(nib.load(seg).dataobj))
        for kind in ("prob", "disagreement"):
            save(tmp_path / "flat" / f"{case}_{kind}.nii.gz", np.zeros(SHAPE, np.float32))
            save(folders[0] / case / f"{case}_{kind}.nii.gz", np.zeros(SHAPE, np.float32))
    (tmp_path / "flat" / "summary.json").write_text("{}")
    nested, flat = (
        score_folders(place, folders[1], surfaces=False) for place in (folders[0], tmp_path / "flat")
    )
    assert repr(numbers(nested)) == repr(numbers(flat))


def test_the_label_folder_of_a_data_set_is_found(folders, tmp_path):
    shutil.copytree(folders[1], tmp_path / "set/labels")
    (tmp_path / "set/images").mkdir()
    assert len(score_folders(folders[0], tmp_path / "set", surfaces=False).cases) == 3


def test_two_single_files_need_no_common_name(folders):
    report = score_folders(folders[0] / "case_1/case_1_seg.nii.gz", folders[1] / "case_1.nii.gz")
    assert [case["case"] for case in report.cases] == ["case_1"]
    assert np.isnan(report.intervals["dice"]).all()


def test_one_predicted_case_needs_not_be_called_as_the_folder_of_its_truth(folders, tmp_path):
    shutil.copytree(folders[0] / "case_2", tmp_path / "one" / "case_2")
    report = score_folders(tmp_path / "one", folders[1] / "case_2.nii.gz", surfaces=False)
    assert [case["case"] for case in report.cases] == ["case_2"]
    with pytest.raises(InputError, match="case_1, case_10 without a truth"):
        score_folders(folders[0], folders[1] / "case_2.nii.gz", surfaces=False)
    for k in range(SHAPE[2]):
        save_picture(tmp_path / "labels" / f"{k:04}.png", volume(1)[..., k].T * 255)
    report = score_folders(tmp_path / "one", tmp_path / "labels", preset="sennet", surfaces=False)
    assert [case["case"] for case in report.cases] == ["labels"]


def test_a_datalist_names_cases_groups_and_classes(folders, tmp_path):
    items = [
        {"image": f"truth/{case}.nii.gz", "label": f"truth/{case}.nii.gz", "case": case, "group": case[:6]}
        for case in CASES
    ]
    names = {0: "background", 1: "artery", 2: "vein"}
    parts = [[item for item in items if item["group"] == group] for group in ("case_1", "case_2")]
    write_datalist(tmp_path / "datalist.json", Datalist("set", *parts, classes=names))
    report = score_folders(folders[0], tmp_path, section="all", surfaces=False)
    assert report.classes == {1: "artery", 2: "vein"}
    assert list(report.groups) == ["case_1", "case_2"]
    # the test section is the default
    with pytest.raises(InputError, match="case_1, case_10 without a truth"):
        score_folders(folders[0], tmp_path)


def listed(folder, source, **more):
    """Write the datalist of a second observer, whose labels are the masks of a folder."""
    items = [
        {
            "image": f"{source}/{case}.nii.gz",
            "label": f"{source}/{case}.nii.gz",
            "case": case,
            "group": case,
            **more,
        }
        for case in CASES
    ]
    write_datalist(folder / "datalist.json", Datalist("set", [], items))


def test_the_labels_of_a_datalist_are_scored_like_predictions(folders, tmp_path):
    for case in CASES:
        shutil.copy(folders[0] / case / f"{case}_seg.nii.gz", tmp_path / f"{case}.nii.gz")
    listed(tmp_path, ".")
    expected = score_folders(*folders, surfaces=False)
    for place in (tmp_path, tmp_path / "datalist.json"):
        report = score_folders(place, folders[1], other=place, surfaces=False)
        assert report.mean["dice"] == expected.mean["dice"]
        assert report.versus["dice"]["difference"] == 0


def test_predictions_that_need_a_rule_are_refused(folders, tmp_path):
    listed(tmp_path, "truth", label_rule="above:0")
    with pytest.raises(InputError, match="a label_rule or labelled_range of case_1; swap the two sides"):
        score_folders(tmp_path, folders[1], surfaces=False)


def test_a_section_needs_a_datalist(folders):
    with pytest.raises(InputError, match="a prepared folder, to take section 'test' of"):
        score_folders(*folders, section="test")


def test_a_datalist_without_labels_is_refused(folders, tmp_path):
    item = {"image": "truth/case_1.nii.gz", "case": "case_1", "group": "case_1"}
    write_datalist(tmp_path / "datalist.json", Datalist("set", [], [item]))
    with pytest.raises(InputError, match="labels in section 'all', got none"):
        score_folders(folders[0], tmp_path)


def test_both_labelled_parts_of_one_volume_are_scored_on_its_prediction(tmp_path):
    whole = (volume(3) > 0).astype(np.uint8)
    save(tmp_path / "k.nii.gz", whole)
    save(tmp_path / "pred/k/k_seg.nii.gz", whole)
    parts = {"k_first": [0, 3], "k_last": [4, 7]}
    common = {"image": "k.nii.gz", "label": "k.nii.gz", "group": "k", "same_volume": True}
    items = [{**common, "case": case, "labelled_range": part} for case, part in parts.items()]
    write_datalist(tmp_path / "datalist.json", Datalist("set", items))
    report = score_folders(tmp_path / "pred", tmp_path)
    assert [case["shape"][2] for case in report.cases] == [3, 3]
    assert report.mean["dice"] == 1
    assert report.rows[1][1]["n_ref"] == whole[..., 4:].sum()


def test_slices_of_a_labelled_range_lie_where_the_list_says(tmp_path):
    whole = (volume(3) > 0).astype(np.uint8)
    save(tmp_path / "pred/k/k_seg.nii.gz", whole, np.diag([-1.0, -1, 1, 1]))
    for number in range(2, 6):
        save_picture(tmp_path / f"k/labels/{number:03d}.png", whole[..., number].T * np.uint8(255))
    (tmp_path / "k/labels/spacing.json").write_text('{"spacing_mm": [1, 1, 1]}')
    item = {"image": "k", "label": "k/labels", "case": "k", "group": "k", "labelled_range": [2, 6]}
    write_datalist(tmp_path / "datalist.json", Datalist("set", [item]))
    assert score_folders(tmp_path / "pred", tmp_path).mean["dice"] == 1
    (tmp_path / "datalist.json").unlink()
    write_datalist(tmp_path / "datalist.json", Datalist("set", [{**item, "labelled_range": [2, 9]}]))
    with pytest.raises(InputError, match="expected 7 slices, or those of the whole image, got 4"):
        score_folders(tmp_path / "pred", tmp_path)


# --- slices by number ---------------------------------------------------------------------------------

NUMBERS = (10, 11, 15, 18)
IMAGE_NUMBERS = (8, 10, 11, 14, 15, 18)


def mask_slices(folder, numbers, seed=3):
    """Write slices that depend on their number alone; return them as (x, y, slices)."""
    planes = [volume(seed * 100 + number, (*SHAPE[:2], 1))[..., 0] > 0 for number in numbers]
    for number, plane in zip(numbers, planes, strict=True):
        save_picture(folder / f"{number:03}.png", plane.T * np.uint8(255))
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.fixture
def labelled(tmp_path):
    """A truth whose slices have gaps between their numbers."""
    return mask_slices(tmp_path / "truth/a/labels", NUMBERS)


def listed_slices(folder, image_numbers, **more):
    """Write the datalist of a case of which some slices are labelled."""
    mask_slices(folder / "truth/a/images", image_numbers, seed=5)
    item = {"image": "a/images", "label": "a/labels", "case": "a", "group": "a", **more}
    write_datalist(folder / "truth/datalist.json", Datalist("set", test=[item]))


def test_a_truth_with_missing_slices_is_scored_on_as_many_predicted_ones(labelled, tmp_path):
    save(tmp_path / "pred/a/a_seg.nii.gz", labelled)
    report = score_folders(tmp_path / "pred", tmp_path / "truth")
    assert (report.mean["dice"], report.cases[0]["shape"]) == (1, [*SHAPE[:2], len(NUMBERS)])
    # no surface runs from a slice to one that is no neighbour
    assert np.isnan(report.mean["surface_dice"])


@pytest.mark.parametrize("has_list", [False, True], ids=["folders", "datalist"])
def test_predicted_slices_are_matched_by_their_numbers(labelled, tmp_path, has_list):
    mask_slices(tmp_path / "pred/a", IMAGE_NUMBERS)
    if has_list:
        listed_slices(tmp_path, IMAGE_NUMBERS)
    report = score_folders(tmp_path / "pred", tmp_path / "truth")
    assert report.mean["dice"] == 1
    assert report.rows[0][1]["n_ref"] == labelled.sum()


def test_the_images_of_a_datalist_number_the_slices_of_a_prediction(labelled, tmp_path):
    listed_slices(tmp_path, IMAGE_NUMBERS)
    whole = mask_slices(tmp_path / "whole", IMAGE_NUMBERS)
    save(tmp_path / "pred/a/a_seg.nii.gz", whole)
    report = score_folders(tmp_path / "pred", tmp_path / "truth")
    assert (report.mean["dice"], report.rows[0][1]["n_ref"]) == (1, labelled.sum())
    # what is predicted on a slice that nobody labelled counts for nothing
    save(tmp_path / "pred/a/a_seg.nii.gz", np.where([n in NUMBERS for n in IMAGE_NUMBERS], whole, 1))
    assert score_folders(tmp_path / "pred", tmp_path / "truth").mean["dice"] == 1


def test_an_offset_and_a_range_of_a_datalist_choose_the_slices(labelled, tmp_path):
    images = [number - 1 for number in (*NUMBERS, 21)]
    listed_slices(tmp_path, images, label_offset=1, labelled_range=[1, 9])
    save(tmp_path / "pred/a/a_seg.nii.gz", np.concatenate([labelled, labelled[..., :1]], axis=-1))
    report = score_folders(tmp_path / "pred", tmp_path / "truth")
    assert (report.mean["dice"], report.cases[0]["shape"][2]) == (1, 3)  # 11, 15 and 18
    assert report.rows[0][1]["n_ref"] == labelled[..., 1:].sum()


def test_slices_whose_numbers_are_unknown_are_refused(labelled, tmp_path):
    save(tmp_path / "pred/a/a_seg.nii.gz", np.zeros((*SHAPE[:2], 6), np.uint8))
    with pytest.raises(InputError, match=r"expected 4 slices .* got 6; give a prepared folder as truth"):
        score_folders(tmp_path / "pred", tmp_path / "truth")
    listed_slices(tmp_path, (*IMAGE_NUMBERS, 20))
    with pytest.raises(InputError, match=r"expected 7 slices as the image, or the 4 of .* got 6"):
        score_folders(tmp_path / "pred", tmp_path / "truth")


def test_a_labelled_slice_that_is_not_predicted_is_refused(labelled, tmp_path):
    mask_slices(tmp_path / "pred/a", (10, 11, 15, 17))
    with pytest.raises(InputError, match=r"expected slice 18, which .* labels, got 4 slices without it"):
        score_folders(tmp_path / "pred", tmp_path / "truth")


def test_tables_of_slices_are_matched_by_number_too(labelled, tmp_path):
    listed_slices(tmp_path, IMAGE_NUMBERS)
    whole = mask_slices(tmp_path / "whole", IMAGE_NUMBERS)
    save(tmp_path / "pred/a/a_seg.nii.gz", whole)
    scores = np.random.default_rng(0).random((1, len(IMAGE_NUMBERS)))
    (tmp_path / "pred/a/a_detection.csv").write_bytes(detection_csv(np.repeat(scores, 3, axis=0)))
    report = score_folders(tmp_path / "pred", tmp_path / "truth", preset="oct", surfaces=False)
    assert report.mean["dice"] == 1


# --- grids --------------------------------------------------------------------------------------------


def with_mask(path, array, affine):
    save(path, np.ascontiguousarray(array), affine)
    return path


def test_another_storage_order_of_the_same_place_is_turned(tmp_path):
    truth = volume(0)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    cycle = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    stored = np.transpose(truth[::-1], (1, 2, 0))
    pred = with_mask(tmp_path / "p.nii.gz", stored, AFFINE @ flip @ cycle)
    report = score_folders(pred, with_mask(tmp_path / "t.nii.gz", truth, AFFINE), preset="shapes")
    assert report.mean["dice"] == 1
    assert report.preset.score == 1
    assert report.cases[0]["note"] == "turned to the truth's axes (2, 0, 1), flipped (0,)"
    assert "turned to those of the truth: 1" in score_markdown(report)


OFF = np.diag([1.0, 1, 1, 1])
OFF[2, 3] = 20  # 20 voxels of 2 mm


@pytest.mark.parametrize(
    ("change", "distance"),
    [(np.diag([-1.0, 1, 1, 1]), "5"), (OFF, "40"), (np.diag([1.1, 1, 1, 1]), "0.5")],
    ids=["flipped affine alone", "40 mm off", "another spacing"],
)
def test_another_place_is_refused(tmp_path, change, distance):
    truth = with_mask(tmp_path / "t.nii.gz", volume(0), AFFINE)
    pred = with_mask(tmp_path / "p.nii.gz", volume(0), AFFINE @ change)
    with pytest.raises(
        InputError, match=f"t.nii.gz, got one whose voxels lie up to {distance} mm off; write"
    ):
        score_folders(pred, truth)


def test_rounding_of_a_header_is_no_other_place(tmp_path):
    far = AFFINE.copy()
    far[:3, 3] = 1e6
    truth = with_mask(tmp_path / "t.nii.gz", volume(0), far)
    far[:3, 3] += 0.06  # one step of single precision there
    assert (
        score_folders(with_mask(tmp_path / "p.nii.gz", volume(0), far), truth, surfaces=False).mean["dice"]
        == 1
    )


def test_another_shape_is_refused(tmp_path):
    truth = with_mask(tmp_path / "t.nii.gz", volume(0), AFFINE)
    pred = with_mask(tmp_path / "p.nii.gz", volume(0)[:, :, :6], AFFINE)
    with pytest.raises(
        InputError, match=r"expected 11x9x7 voxels as .*t.nii.gz, got 11x9x6; predict on the grid"
    ):
        score_folders(pred, truth)


def test_a_transposed_picture_is_refused_as_such(tmp_path):
    save_picture(tmp_path / "t.png", np.zeros((9, 11), np.uint8))
    save_picture(tmp_path / "p.png", np.zeros((11, 9), np.uint8))
    with pytest.raises(InputError, match="must not be transposed"):
        score_folders(tmp_path / "p.png", tmp_path / "t.png")


def test_wrong_grids_are_refused_before_anything_is_scored(folders, caplog):
    save(folders[0] / "case_10/case_10_seg.nii.gz", volume(2), AFFINE @ OFF)
    with caplog.at_level("INFO", "volseg"), pytest.raises(InputError, match="case_10"):
        score_folders(*folders)
    assert not caplog.records


def test_slices_without_spacing_are_measured_by_the_given_one(tmp_path):
    mask = (volume(0) > 0).astype(np.uint8)
    for number in range(SHAPE[2]):
        save_picture(tmp_path / f"truth/k/labels/{number}.png", mask[..., number].T * np.uint8(255))
        save_picture(tmp_path / f"pred/k/{number}.png", mask[..., number].T)
    report = score_folders(tmp_path / "pred", tmp_path / "truth")
    assert not report.cases[0]["spacing_is_known"]
    assert np.isnan(report.rows[0][1]["volume_ref_mm3"])
    assert "unknown spacing, measured with 1 mm: 1" in score_markdown(report)
    known = score_folders(tmp_path / "pred", tmp_path / "truth", spacing_mm=(0.5, 0.5, 2))
    assert known.rows[0][1]["volume_ref_mm3"] == mask.sum() * 0.5
    assert known.mean["surface_dice"] == 1


def test_a_spacing_against_that_of_the_file_is_refused(folders):
    with pytest.raises(InputError, match=r"expected voxels of 1x1x1 mm, got 0.5x0.8x2 mm in the file"):
        score_folders(*folders, spacing_mm=(1, 1, 1))


# --- values -------------------------------------------------------------------------------------------


def scored_values(tmp_path, pred, truth, **options):
    save(tmp_path / "p.nii.gz", np.asarray(pred).reshape(-1, 1, 2), np.eye(4))
    save(tmp_path / "t.nii.gz", np.asarray(truth).reshape(-1, 1, 2), np.eye(4))
    return score_folders(tmp_path / "p.nii.gz", tmp_path / "t.nii.gz", **options)


def test_0_and_255_are_a_mask_and_other_whole_numbers_classes(tmp_path):
    report = scored_values(tmp_path, np.uint8([0, 0, 1, 1]), np.uint8([0, 255, 255, 0]))
    assert report.rows[0][1]["dice"] == 0.5
    report = scored_values(tmp_path, np.float32([0, 300, 3, 3]), np.int16([0, 300, 3, 0]))
    assert report.classes == {3: "3", 300: "300"}
    assert [row["dice"] for row in report.rows[0].values()] == [2 / 3, 1.0]


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (np.float32([0, 0.5, 1, 1]), "got 0.5; threshold it first"),
        (np.float32([0, np.nan, 1, 1]), "got NaN or infinity"),
        (np.int16([0, -1, 1, 1]), "got -1"),
        (np.int32([0, 70000, 1, 1]), "from 0 to 65535, got 70000"),
        (np.uint8([0, 255, 1, 1]), "got grey values 0, 1, 255; --mask-above"),
    ],
    ids=["fraction", "nan", "negative", "huge", "grey"],
)
def test_unexpected_values_are_refused(tmp_path, values, got):
    with pytest.raises(InputError, match=rf"p\.nii\.gz: .*{got}"):
        scored_values(tmp_path, values, np.uint8([0, 1, 1, 0]))


def test_grey_masks_are_cut_where_the_caller_says(tmp_path):
    values = np.uint8([0, 255, 1, 100])
    assert scored_values(tmp_path, values, np.uint8([0, 1, 0, 0]), mask_above=100).mean["dice"] == 1
    assert scored_values(tmp_path, values, np.uint8([0, 1, 1, 1]), preset="drive").mean["dice"] == 1


def test_a_jpeg_mask_needs_a_threshold(tmp_path):
    save_picture(tmp_path / "a.jpg", np.kron(np.eye(3, dtype=np.uint8) * 255, np.ones((5, 7), np.uint8)))
    with pytest.raises(InputError, match="127 for a JPEG"):
        score_folders(tmp_path / "a.jpg", tmp_path / "a.jpg")
    report = score_folders(tmp_path / "a.jpg", tmp_path / "a.jpg", preset="nerve")
    assert report.rows[0][1]["n_ref"] == 3 * 35


def test_one_side_with_two_kinds_of_values_is_refused(tmp_path):
    for name, value in (("a", 255), ("b", 2)):
        save(tmp_path / f"{name}.nii.gz", np.uint8([[[0, value]]]), np.eye(4))
    with pytest.raises(InputError, match=r"0 and 255 in a.nii.gz, class indices in b.nii.gz"):
        score_folders(tmp_path, tmp_path)


def test_values_outside_the_named_classes_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected label values 0, 1, got 2"):
        scored_values(tmp_path, np.uint8([0, 2, 1, 1]), np.uint8([0, 1, 1, 1]), classes={1: "vessel"})


def test_the_edema_preset_maps_the_values_of_its_files(tmp_path):
    truth, pred = np.uint8([0, 255, 191, 128]), np.uint8([0, 1, 2, 0])
    report = scored_values(tmp_path, pred, truth, preset="aic-edema")
    assert report.classes == {1: "REA", 2: "SRF", 3: "PED"}
    assert [row["dice"] for row in report.rows[0].values()] == [1, 1, 0]
    assert report.rows[0][3]["missed"]
    assert report.preset.score == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="label values 0, 128, 191, 255, or 0, 1, 2, 3, got 7"):
        scored_values(tmp_path, np.uint8([7, 7, 7, 7]), truth, preset="aic-edema")


@pytest.fixture
def edema(folders):
    """The folders with a table of slices beside each prediction."""
    for case in CASES:
        scores = np.random.default_rng(len(case)).random((3, SHAPE[2]))
        table = folders[0] / case / f"{case}_detection.csv"
        table.write_bytes(detection_csv(scores, ["REA", "SRF", "PED"]))
    return folders


@pytest.mark.parametrize("preset", ["aic-edema", "oct"])
def test_slices_are_judged_by_the_tables_of_the_detection_head(edema, preset):
    names = {"aic-edema": "REA", "oct": "1"}
    beside = score_folders(*edema, preset=preset, surfaces=False).preset.beside
    scores = [np.random.default_rng(len(case)).random((3, SHAPE[2]))[0] for case in CASES]
    present = [(volume(seed) == 1).any(axis=(0, 1)) for seed in range(3)]
    expected = compute_detection_auc(np.concatenate(scores), np.concatenate(present))
    assert beside[f"auc_{names[preset]}"] == pytest.approx(expected, nan_ok=True)
    for case in CASES:
        (edema[0] / case / f"{case}_detection.csv").unlink()
    without = score_folders(*edema, preset=preset, surfaces=False).preset.beside
    assert without[f"dice_{names[preset]}"] == beside[f"dice_{names[preset]}"]


def test_a_table_that_is_missing_short_or_of_turned_slices_is_refused(edema):
    table = edema[0] / "case_2" / "case_2_detection.csv"
    whole = table.read_text()
    table.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"case_2_detection.csv: expected 7 slices, got 6"):
        score_folders(*edema, preset="oct", surfaces=False)
    table.unlink()
    with pytest.raises(InputError, match=r"case_2_detection.csv: expected a table of slices"):
        score_folders(*edema, preset="oct", surfaces=False)
    table.write_text(whole)
    turned, path = np.diag([1.0, 1, -1, 1]), edema[0] / "case_2" / "case_2_seg.nii.gz"
    turned[2, 3] = SHAPE[2] - 1
    save(path, np.asarray(nib.load(path).dataobj)[..., ::-1], AFFINE @ turned)
    with pytest.raises(InputError, match="expected slices in the order of the truth, got a prediction that"):
        score_folders(*edema, preset="oct", surfaces=False)
    assert score_folders(*edema, surfaces=False).preset is None  # without a preset nobody asks


# --- pictures, presets, sweep -------------------------------------------------------------------------


def test_pictures_are_scored_without_surfaces(tmp_path):
    mask = (volume(0)[..., 0] > 0).astype(np.uint8) * np.uint8(255)
    for side, suffix in (("pred", "seg.png"), ("truth", "manual1.gif")):
        for number in (1, 2):
            save_picture(tmp_path / side / f"{number:02d}_{suffix}", mask)
    report = score_folders(tmp_path / "pred", tmp_path / "truth")
    assert [case["case"] for case in report.cases] == ["01", "02"]
    assert report.mean["dice"] == 1
    assert np.isnan(report.mean["surface_dice"])
    assert "surface Dice" not in score_markdown(report)


def test_the_sennet_preset_reads_a_folder_of_slices_as_one_volume(tmp_path):
    mask = (volume(0) > 0).astype(np.uint8) * np.uint8(255)
    for number in range(SHAPE[2]):
        save_picture(tmp_path / f"labels/{number:04d}.png", mask[..., number].T)
    save(tmp_path / "p.nii.gz", mask // 255, np.diag([-0.05, -0.05, 0.05, 1]))
    report = score_folders(tmp_path / "labels", tmp_path / "labels", preset="sennet")
    assert [case["shape"] for case in report.cases] == [list(SHAPE)]
    assert report.preset.score == 1
    assert score_folders(tmp_path / "p.nii.gz", tmp_path / "labels").cases[0]["spacing_mm"][
        0
    ] == pytest.approx(0.05)


def test_a_field_of_view_is_for_drive_alone(tmp_path):
    save_picture(tmp_path / "t/21_manual1.gif", np.uint8([[0, 255, 0], [255, 0, 0]]))
    save_picture(tmp_path / "p/21.png", np.uint8([[0, 1, 1], [1, 0, 0]]))
    save_picture(tmp_path / "v/21_training_mask.gif", np.uint8([[255, 255, 0], [255, 255, 255]]))
    places = tmp_path / "p", tmp_path / "t"
    report = score_folders(*places, preset="drive", view=tmp_path / "v")
    assert report.preset.score == pytest.approx(2 / 3)
    assert report.preset.beside["accuracy"] == 1
    with pytest.raises(ValueError, match="view is for the preset 'drive', got preset None"):
        score_folders(*places, view=tmp_path / "v")


def test_the_sweep_finds_the_threshold_of_the_probabilities(tmp_path):
    mask = (volume(0) > 0).astype(np.uint8)
    save(tmp_path / "t/a.nii.gz", mask)
    save(tmp_path / "p/a/a_seg.nii.gz", mask)
    save(tmp_path / "p/a/a_prob.nii.gz", np.where(mask, np.float32(0.42), np.float32(0.28)))
    sweep = score_folders(tmp_path / "p", tmp_path / "t", threshold_sweep=True).sweep
    assert sweep["thresholds"] == list(THRESHOLDS)
    for name in ("dice", "surface_dice_at_tolerance_0"):
        assert (sweep[name]["best_threshold"], sweep[name]["best"]) == (0.3, 1)
    at_one = np.where(mask, 1, 1)
    assert sweep["dice"]["mean"][0] == pytest.approx(compute_dice(at_one, mask))


def test_a_sweep_without_maps_is_refused(folders):
    with pytest.raises(
        InputError, match=r"case_1_prob.nii.gz: .* none; run inference with --save_probability true"
    ):
        score_folders(*folders, threshold_sweep=True)


@pytest.mark.parametrize(
    ("values", "got"), [(np.float32(1.5), "others, or NaN"), (np.uint8(1), "uint8 values")], ids=str
)
def test_a_map_that_holds_no_probabilities_is_refused(tmp_path, values, got):
    save(tmp_path / "a_seg.nii.gz", np.ones(SHAPE, np.uint8))
    save(tmp_path / "a_prob.nii.gz", np.full(SHAPE, values))
    with pytest.raises(InputError, match=f"probabilities from 0 to 1, got {got}"):
        score_folders(tmp_path, tmp_path / "a_seg.nii.gz", threshold_sweep=True)


def test_a_sweep_of_several_classes_is_refused(tmp_path):
    save(tmp_path / "a_seg.nii.gz", np.full(SHAPE, 2, np.uint8))
    save(tmp_path / "a_prob.nii.gz", np.zeros(SHAPE, np.float32))
    with pytest.raises(InputError, match="a mask of one class, to sweep thresholds, got class 2"):
        score_folders(tmp_path, tmp_path / "a_seg.nii.gz", threshold_sweep=True)


@pytest.mark.parametrize(
    "options",
    [{"preset": "senet"}, {"tolerance_mm": -1}, {"spacing_mm": (1, 1)}, {"resamples": 0}],
    ids=lambda options: next(iter(options)),
)
def test_an_argument_out_of_range_is_a_value_error(folders, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        score_folders(*folders, **options)


# --- intervals, groups, comparison --------------------------------------------------------------------


def test_the_interval_is_seeded_and_holds_the_mean(folders):
    first, again = (score_folders(*folders, seed=3, surfaces=False) for _ in range(2))
    assert repr(first.intervals) == repr(again.intervals)
    low, high = first.intervals["dice"]
    assert low <= first.mean["dice"] <= high
    assert low < high


def test_groups_are_resampled_as_a_whole(folders):
    one = score_folders(*folders, groups=dict.fromkeys(CASES, "all"), surfaces=False)
    assert np.isnan(one.intervals["dice"]).all()
    two = score_folders(*folders, groups=r"_(\d)", surfaces=False)
    assert {name: row["cases"] for name, row in two.groups.items()} == {"1": 2, "2": 1}
    assert two.mean == score_folders(*folders, surfaces=False).mean or np.isnan(two.mean["surface_dice"])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"case_1": "a"}, "a group for each case, got none for case_2, case_10"),
        (r"_(\d\d)", "in every name, got none in case_1"),
        (r"case", "in every name"),
        ("(", "a file or a regular expression"),
    ],
    ids=["missing", "no match", "no bracket", "no pattern"],
)
def test_a_case_without_a_group_is_refused(folders, groups, message):
    with pytest.raises(InputError, match=message):
        score_folders(*folders, groups=groups)


def test_a_folder_versus_itself_differs_by_nothing(folders):
    versus = score_folders(*folders, other=folders[0], surfaces=False).versus
    assert versus["dice"]["difference"] == 0
    assert versus["dice"]["interval"] == (0, 0)
    assert versus["dice"]["p_value"] == 1
    assert versus["dice"]["pairs"] == 3


def test_a_comparison_turns_round_with_its_sides(folders):
    there = score_folders(*folders, other=folders[1]).versus
    back = score_folders(folders[1], folders[1], other=folders[0]).versus
    for name in ("dice", "hd95_mm"):
        assert back[name]["difference"] == pytest.approx(-there[name]["difference"])
        assert back[name]["interval"] == pytest.approx([-edge for edge in there[name]["interval"][::-1]])
        assert back[name]["p_value"] == there[name]["p_value"] == 0.25  # 3 pairs, all of one sign
    assert there["dice"]["other"] == 1


def test_the_second_folder_must_hold_the_same_cases(folders, tmp_path):
    shutil.copytree(folders[0], tmp_path / "other")
    shutil.rmtree(tmp_path / "other/case_1")
    with pytest.raises(
        InputError, match=r"other: expected one mask for each of the 3 cases .* none for case_1"
    ):
        score_folders(*folders, other=tmp_path / "other")


# --- files --------------------------------------------------------------------------------------------


def test_the_summary_has_the_fields_of_nnunet(folders, tmp_path):
    report = score_folders(*folders)
    paths = write_scores(report, tmp_path / "out")
    summary = json.loads(paths[0].read_text())
    fields = {"Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"}
    assert set(summary["mean"]) == {"1", "2"}
    assert fields <= set(summary["foreground_mean"])
    assert fields <= set(summary["mean"]["1"])
    case = summary["metric_per_case"][0]
    assert fields <= set(case["metrics"]["2"])
    assert case["prediction_file"].endswith("case_1_seg.nii.gz")
    assert case["reference_file"].endswith("case_1.nii.gz")
    assert summary["foreground_mean"]["Dice"] == pytest.approx(report.mean["dice"])
    assert summary["interval_95"]["dice"] == [report.mean["dice"], *report.intervals["dice"]]
    assert summary["metric_per_case"][1]["metrics"]["2"]["Dice"] is None


def test_nothing_is_replaced_unless_asked(folders, tmp_path):
    report = score_folders(*folders, surfaces=False)
    write_scores(report, tmp_path / "out")
    with pytest.raises(InputError, match="a new file"):
        write_scores(report, tmp_path / "out")
    assert len(write_scores(report, tmp_path / "out", overwrite=True)) == 3


def test_the_table_has_a_line_per_case_and_class(folders):
    rows = list(csv.DictReader(io.StringIO(score_csv(score_folders(*folders, surfaces=False)))))
    assert [(row["case"], row["class"]) for row in rows][:3] == [
        ("case_1", "1"),
        ("case_1", "2"),
        ("case_2", "1"),
    ]
    assert rows[3]["dice"] == ""
    assert rows[3]["missed"] == "0"


def test_the_text_lists_the_worst_cases_first(folders):
    report = score_folders(*folders, groups=r"_(\d)", other=folders[1], surfaces=False)
    text = score_markdown(report, most_cases=1)
    dices = {case["case"]: np.nanmean([r["dice"] for r in rows.values()])
             for case, rows in zip(report.cases, report.rows, strict=True)}  # fmt: skip
    assert f"| {min(dices, key=dices.get)} | " in text.split("worst 1 cases")[1]
    assert "| other mean |" in text
    assert "interval over groups" in text


# --- predictions of pictures, as inference lays them out ----------------------------------------------


def predicted_pictures(tmp_path, masks, *, white=255, with_nifti=False):
    for name, mask in masks.items():
        save_picture(tmp_path / f"pred/{name}/{name}_seg.png", (mask * white).astype(np.uint8))
        if with_nifti:
            spoilt = np.diag([-1.0, -1.0, 1, 1])
            save(tmp_path / f"pred/{name}/{name}_seg.nii.gz", mask.T[..., None].astype(np.uint8), spoilt)


@pytest.mark.parametrize("with_nifti", [False, True], ids=["png", "png and nifti"])
def test_predicted_pictures_in_sub_folders_are_scored_against_pictures(tmp_path, with_nifti):
    rng = np.random.default_rng(0)
    masks = {f"{number:02d}_test": rng.random((13, 9)) > 0.6 for number in (1, 2, 10)}
    predicted_pictures(tmp_path, masks, with_nifti=with_nifti)
    truths = {name: mask & (rng.random(mask.shape) > 0.2) for name, mask in masks.items()}
    for name, mask in truths.items():
        save_picture(tmp_path / f"truth/{name}.png", mask * np.uint8(255))
    report = score_folders(tmp_path / "pred", tmp_path / "truth")
    found = {case["case"]: rows[1]["dice"] for case, rows in zip(report.cases, report.rows, strict=True)}
    for name, truth in truths.items():
        dice = 2 * (masks[name] & truth).sum() / (masks[name].sum() + truth.sum())
        assert found[name] == pytest.approx(dice)


def listed_truth(tmp_path, rule, mask, name="01"):
    save_picture(tmp_path / f"data/mask/{name}.png", mask)
    save_picture(tmp_path / f"data/image/{name}.png", np.zeros(mask.shape[:2], np.uint8))
    item = {"image": f"image/{name}.png", "label": f"mask/{name}.png", "case": name, "group": name}
    case = {**item, "label_rule": rule, "spacing_mm": [0.5, 0.25]}
    classes = {0: "background", 1: "line", 2: "ellipse"}
    write_datalist(tmp_path / "data/datalist.json", Datalist("x", test=[case], classes=classes))
    return tmp_path / "data"


@pytest.mark.parametrize(("rule", "above"), [("nonzero", 0), ("above:127", 127)])
def test_the_rule_of_a_datalist_makes_masks_of_grey_truths(tmp_path, rule, above):
    grey = np.random.default_rng(0).integers(0, 255, (13, 9)).astype(np.uint8)
    predicted_pictures(tmp_path, {"01": grey > above})
    report = score_folders(tmp_path / "pred", listed_truth(tmp_path, rule, grey))
    assert report.rows[0][1]["dice"] == 1.0


def test_the_colours_of_a_truth_are_scored_by_the_rule_of_the_datalist(tmp_path):
    classes = np.random.default_rng(0).integers(0, 3, (13, 9)).astype(np.uint8)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[classes]
    predicted_pictures(tmp_path, {"01": classes}, white=1)
    truth = listed_truth(tmp_path, {"#ff0000": 1, "#00ff00": 2}, colours)
    report = score_folders(tmp_path / "pred", truth)
    assert [report.rows[0][index]["dice"] for index in (1, 2)] == [1.0, 1.0]
    colours[0, 0] = 0, 0, 255
    save_picture(truth / "mask/01.png", colours)
    with pytest.raises(InputError, match=r"01\.png: expected the colours .* got #0000ff in 1 pixels"):
        score_folders(tmp_path / "pred", truth)
