from __future__ import annotations

import math

import numpy as np
import pytest

from volseg.checks import InputError
from volseg.metrics.presets import PRESETS, ScoredCase, score_preset


def box(*start, shape=(7, 8, 9), value=1):
    mask = np.zeros(shape, dtype=np.uint8)
    if start:
        mask[tuple(slice(s, s + 3) for s in start)] = value
    return mask


def test_sennet_scores_two_empty_volumes_zero_and_says_what_that_hides():
    cases = [ScoredCase("a", box(1, 1, 1), box(1, 1, 1) * 255), ScoredCase("b", box(), box())]
    report = score_preset("sennet", cases)
    assert report.score == 0.5
    assert report.beside["surface_dice_without_empty"] == 1.0
    assert (report.beside["empty"], len(report.cases)) == (1, 2)


def test_sennet_scores_in_voxels_and_reports_millimetres_beside():
    case = ScoredCase("a", box(2, 1, 1), box(1, 1, 1), spacing_mm=(5.0, 1.0, 1.0))
    report = score_preset("sennet", [case])
    assert report.score == pytest.approx(0.6599065386427476)  # of the reference package
    assert report.beside["surface_dice_mm"] != pytest.approx(report.score, abs=1e-3)


def test_sennet_weighs_a_small_volume_like_a_large_one():
    small, large = box(1, 1, 1), np.ones((17, 15, 13), dtype=np.uint8)
    cases = [ScoredCase("a", large, large), ScoredCase("b", box(), small)]
    report = score_preset("sennet", cases)
    assert (report.score, report.beside["worst_volume"], report.beside["missed"]) == (0.5, 0.0, 1)


# AI Challenger 2018, validation case 11: voxels by class of the truth (rows: none, REA, SRF) and of the
# prediction, counted on the four published models' predictions; Dice of REA and SRF by hand from the counts
PUBLISHED_MODELS = {
    "model_0": ([[790401, 6900, 7], [7089, 75623, 1150], [0, 928, 13472]], (151246 / 167313, 26944 / 29029)),
    "model_1": ([[789597, 7709, 2], [3360, 79840, 662], [0, 879, 13521]], (159680 / 172290, 27042 / 28585)),
    "model_2": ([[789435, 7873, 0], [2698, 80357, 807], [0, 534, 13866]], (160714 / 172626, 27732 / 29073)),
    "model_3": ([[789968, 7340, 0], [4249, 78650, 963], [0, 994, 13406]], (157300 / 170846, 26812 / 28769)),
}


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_aic_edema_scores_the_published_models_on_their_case(name):
    counts, dice = PUBLISHED_MODELS[name]
    truth, pred = (np.repeat(side.ravel(), np.ravel(counts)) for side in np.indices((3, 3)))
    shape = 83, 166, 65
    report = score_preset("aic-edema", [ScoredCase("val_case11", pred.reshape(shape), truth.reshape(shape))])
    assert report.score == pytest.approx(np.mean(dice), abs=1e-12)
    assert [report.beside["dice_REA"], report.beside["dice_SRF"]] == pytest.approx(list(dice), abs=1e-12)
    assert math.isnan(report.beside["dice_PED"])  # the case has none, and none was predicted
    assert (report.beside["spurious"], report.beside["empty"]) == (0, 1)


def test_aic_edema_lets_a_false_alarm_go_free_and_says_so():
    pred = box(1, 1, 1) + box(4, 4, 4, value=3)
    report = score_preset("aic-edema", [ScoredCase("a", pred, box(1, 1, 1))])
    assert report.score == 1.0
    assert report.beside["dice_with_false_alarms"] == 0.5
    assert report.beside["spurious"] == 1
    assert math.isnan(report.beside["dice_PED"])


def test_aic_edema_takes_the_mean_over_volumes_then_classes():
    both = box(1, 1, 1) + box(4, 4, 4, value=2)
    cases = [
        ScoredCase("a", both, both),
        ScoredCase("b", box(), box(1, 1, 1)),
        ScoredCase("c", box(), box(1, 1, 1)),
    ]
    report = score_preset("aic-edema", cases)
    assert report.score == pytest.approx((1 / 3 + 1) / 2)
    assert report.beside["missed"] == 2


def test_aic_edema_judges_the_slices_by_the_detection_head_when_there_is_one():
    truth = box(1, 1, 1)
    detection = np.tile(np.linspace(1, 0, 9)[:, None], 3)
    report = score_preset("aic-edema", [ScoredCase("a", truth, truth, detection=detection)])
    assert report.beside["auc_REA"] == pytest.approx(15 / 18)
    assert score_preset("aic-edema", [ScoredCase("a", truth, truth)]).beside["auc_REA"] == 1.0


def test_aic_edema_tells_a_torn_lesion_beside_the_score():
    truth = np.zeros((7, 8, 9), np.uint8)
    truth[1:4, 1:4, 1:8] = 2
    pred = truth.copy()
    pred[..., 4] = 0
    beside = score_preset("aic-edema", [ScoredCase("a", pred, truth)]).beside
    assert (beside["unbroken_SRF"], beside["components_per_lesion"]) == (0.5, 2.0)
    assert beside["slice_consistency"] == pytest.approx(4 / 6)
    assert math.isnan(beside["unbroken_REA"])


def test_oct_counts_every_class_of_every_volume():
    both = box(1, 1, 1) + box(4, 4, 4, value=2)
    cases = [
        ScoredCase("right", both, both),
        ScoredCase("missed", box(), box(1, 1, 1)),
        ScoredCase("false alarm", box(1, 1, 1) + box(4, 4, 4, value=2), box(1, 1, 1)),
        ScoredCase("nothing", box(), box()),
    ]
    report = score_preset("oct", cases)
    assert report.beside["dice_1"] == pytest.approx((1 + 0 + 1 + 1) / 4)
    assert report.beside["dice_2"] == pytest.approx((1 + 1 + 0 + 1) / 4)
    assert report.score == pytest.approx(3 / 4)
    assert report.beside["dice_where_present_1"] == pytest.approx(2 / 3)
    assert report.beside["dice_where_present_2"] == 1.0
    assert [report.beside[name] for name in ("missed", "spurious", "empty")] == [1, 1, 3]
    assert report.beside["unbroken_2"] == 0.5  # the false alarm counts 0, the empty volumes do not
    assert len(report.cases) == 8


def test_oct_counts_single_lesions_and_volumes():
    truth = box(1, 1, 0) + box(1, 4, 6)
    pred = box(1, 1, 0) + box(4, 1, 6)
    pred[0, 0, 0] = 1
    report = score_preset("oct", [ScoredCase("a", pred, truth, spacing_mm=(0.5, 1.0, 2.0))])
    assert report.beside["lesion_recall"] == 0.5
    assert report.beside["spurious_lesions_per_volume"] == 1.0
    assert report.beside["lesion_f1"] == 0.5
    assert report.beside["volume_difference_mm3"] == 1.0
    unknown = score_preset("oct", [ScoredCase("a", pred, truth)])
    assert math.isnan(unknown.beside["volume_difference_mm3"])


def test_oct_never_rewards_a_prediction_that_is_taken_away():
    truth = box(1, 1, 1) + box(4, 4, 4, value=2)
    full = score_preset("oct", [ScoredCase("a", truth, truth)])
    less = score_preset("oct", [ScoredCase("a", np.where(truth == 2, 0, truth), truth)])
    for name in ("dice_where_present", "lesion_f1", "lesion_recall", "unbroken", "auc"):
        assert less.beside[name] < full.beside[name]
    assert less.score < full.score


def test_oct_gives_the_same_numbers_to_permuted_classes():
    truth = box(1, 1, 1) + box(4, 4, 4, value=2)
    pred = box(1, 1, 1) + box(4, 4, 5, value=2)
    swapped = [np.choose(mask, [0, 2, 1]) for mask in (pred, truth)]
    beside = [score_preset("oct", [ScoredCase("a", *each)]).beside for each in ((pred, truth), swapped)]
    for name in ("dice", "lesion_f1", "unbroken", "slice_consistency", "auc"):
        assert [beside[0][f"{name}_1"], beside[0][f"{name}_2"]] == [
            beside[1][f"{name}_2"],
            beside[1][f"{name}_1"],
        ]


def test_oct_judges_the_slices_by_the_detection_head_when_there_is_one():
    truth = box(1, 1, 1)
    detection = np.tile(np.linspace(1, 0, 9)[:, None], 3)
    report = score_preset("oct", [ScoredCase("a", truth, truth, detection=detection)])
    assert report.beside["auc_1"] == pytest.approx(15 / 18)
    assert (report.beside["dice_3"], report.score) == (1.0, 1.0)  # a class of the head that nobody has


def test_oct_of_nothing_but_empty_volumes_is_perfect_and_undefined_otherwise():
    report = score_preset("oct", [ScoredCase("a", box(), box())])
    assert (report.score, report.beside["empty"]) == (1.0, 1)
    assert all(math.isnan(report.beside[name]) for name in ("dice_where_present", "unbroken", "auc"))


def test_nerve_pays_for_empty_frames_and_says_how_much():
    frames = [box(1, 1, shape=(6, 7)), box(shape=(6, 7)), box(shape=(6, 7))]
    nothing = box(shape=(6, 7))
    report = score_preset("nerve", [ScoredCase(str(k), nothing, truth) for k, truth in enumerate(frames)])
    assert report.score == pytest.approx(2 / 3)
    assert report.beside["empty_submission"] == report.score
    assert report.beside["dice_of_frames_with_nerve"] == 0.0
    assert (report.beside["recall"], report.beside["false_negative_pixels"]) == (0.0, 9)


def test_nerve_gives_an_empty_submission_the_share_of_empty_frames():
    # the challenge's test set: 0.51 for predicting nothing at all
    truths = [box(1, 1, shape=(6, 7)) if k < 49 else box(shape=(6, 7)) for k in range(100)]
    nothing, everywhere = box(shape=(6, 7)), box(1, 1, shape=(6, 7))
    names = [f"{k}" for k in range(100)]
    silent, loud = (
        score_preset("nerve", [ScoredCase(n, pred, t) for n, t in zip(names, truths, strict=True)])
        for pred in (nothing, everywhere)
    )
    assert silent.score == silent.beside["empty_submission"] == pytest.approx(0.51)
    assert loud.score == pytest.approx(0.49)  # every nerve found, and yet below silence
    assert (loud.beside["dice_of_frames_with_nerve"], silent.beside["dice_of_frames_with_nerve"]) == (
        1.0,
        0.0,
    )


def test_drive_ranks_the_probabilities_inside_the_field_of_view_only():
    truth = np.array([[1, 1, 0, 0, 0, 1]])
    soft = np.array([[0.9, 0.4, 0.6, 0.1, 1.0, 0.0]], dtype=np.float32)
    view = np.array([[1, 1, 1, 1, 0, 0]])
    case = ScoredCase("a", soft >= 0.5, truth, probability=soft, field_of_view=view)
    beside = score_preset("drive", [case]).beside
    assert beside["auc"] == 0.75  # three of the four pairs in view are in order
    assert (beside["accuracy"], beside["sensitivity"], beside["specificity"]) == (0.5, 0.5, 0.5)
    assert (beside["iou_in_view"], beside["pixels_predicted_out_of_view"]) == (pytest.approx(1 / 3), 1)


def test_drive_scores_all_pixels_and_the_field_of_view_beside():
    truth, view = box(1, 1, shape=(6, 7)), np.ones((6, 7))
    pred = truth.copy()
    pred[5, 6], view[5, 6] = 1, 0
    case = ScoredCase("a", pred, truth, field_of_view=view)
    report = score_preset("drive", [case])
    assert report.score == pytest.approx(0.9)
    assert (report.beside["iou_in_view"], report.beside["accuracy"]) == (1.0, 1.0)
    assert report.beside["pixels_predicted_out_of_view"] == 1


def test_shapes_pools_the_images():
    line = np.array([[0, 1, 0], [0, 1, 2]])
    cases = [ScoredCase("a", line, line), ScoredCase("b", np.zeros((2, 3), dtype=int), line)]
    report = score_preset("shapes", cases)
    iou = 6 / 9, 2 / 4, 1 / 2
    assert report.score == pytest.approx(np.mean(iou))
    assert report.beside["mean_iou_without_background"] == pytest.approx(0.5)
    assert report.beside["mean_iou_over_images"] == pytest.approx((1 + (3 / 6 + 0 + 0) / 3) / 2)
    assert report.beside["missed"] == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_a_perfect_prediction_is_perfect_in_every_protocol(preset):
    truth = box(1, 1, 1) if preset in ("sennet", "aic-edema", "oct") else box(1, 1, shape=(6, 7))
    assert score_preset(preset, [ScoredCase("a", truth, truth)]).score == 1.0


@pytest.mark.parametrize("preset", PRESETS)
def test_no_case_and_other_shapes_are_refused(preset):
    with pytest.raises(InputError, match="expected at least one case, got none"):
        score_preset(preset, [])
    with pytest.raises(InputError, match="case_7: expected a prediction of the truth's shape"):
        score_preset(preset, [ScoredCase("case_7", box(), box(shape=(7, 8, 8)))])


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="did you mean 'nerve'"):
        score_preset("nerves", [])
