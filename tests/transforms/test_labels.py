from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from volseg.checks import InputError
from volseg.transforms.labels import IGNORE, MapLabelsd, MaskUnlabelledd, PlaceSparseLabeld

EDEMA = {"0": 0, "255": 1, "191": 2, "128": 3}


def from_file(values: list | torch.Tensor, **meta) -> dict:
    return {"label": MetaTensor(torch.as_tensor(values), meta={"filename_or_obj": "labels/0007.tif", **meta})}


@pytest.mark.parametrize(
    ("values", "rules", "expected"),
    [
        ([[[0, 255, 0]]], "binary", [0, 1, 0]),
        ([[[0, 1, 1]]], "binary", [0, 1, 1]),
        ([[[0, 0, 0]]], "binary", [0, 0, 0]),
        ([[[255.0, 0.0]]], "binary", [1, 0]),
        ([[[128, 191, 255, 0]]], EDEMA, [3, 2, 1, 0]),
        ([[[0, 7]]], {0: 0, 7: IGNORE}, [0, 255]),
        ([[[0, 40000]]], {0: 0, 40000: 1}, [0, 1]),
    ],
    ids=["0/255", "0/1", "empty", "float", "four values", "ignore", "16 bit"],
)
def test_values_become_class_indices(values, rules, expected) -> None:
    found = MapLabelsd("label", rules)(from_file(values))["label"]
    assert found.dtype == torch.uint8
    assert found.flatten().tolist() == expected


@pytest.mark.parametrize(
    ("values", "rules", "message"),
    [
        ([[[0, 1, 255]]], "binary", "expected label values 0, 255, got 1; add a rule to the label values"),
        ([[[0, 2]]], "binary", "expected label values 0, 1, got 2"),
        ([[[0, 9, 5]]], EDEMA, "expected label values 0, 128, 191, 255, got 5, 9; add a rule"),
        ([[list(range(9))]], {0: 0}, "got 1, 2, 3, 4, 5, ...;"),
        ([[[0, -1]]], "binary", "expected label values from 0 up, got -1; labels are whole class numbers"),
        ([[[0.0, 0.7]]], "binary", "expected whole label values, got 0.7"),
        ([[[0.0, float("nan")]]], "binary", "expected whole label values, got NaN or infinity"),
        ([[[0, 70000]]], "binary", "expected label values up to 65535, got 70000"),
    ],
    ids=["mixed", "unknown", "listed", "many", "negative", "fractional", "nan", "huge"],
)
def test_values_without_a_rule_are_refused(values, rules, message) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as refusal:
        MapLabelsd("label", rules)(from_file(values))
    assert str(refusal.value).startswith("labels/0007.tif: ")


def test_an_empty_label_is_refused_when_asked() -> None:
    for values in ([[[0, 0]]], [[[0, 7]]]):
        with pytest.raises(InputError, match="expected some foreground, got an empty label"):
            MapLabelsd("label", {0: 0, 7: IGNORE}, require_foreground=True)(from_file(values))


def test_slabs_do_not_change_the_result(monkeypatch) -> None:
    values = torch.from_numpy(np.random.default_rng(0).choice([0, 128, 191, 255], (1, 11, 7, 5)))
    whole = MapLabelsd("label", EDEMA)(from_file(values))["label"]
    monkeypatch.setattr("volseg.transforms.volume.SLAB_VOXELS", 100)
    assert torch.equal(MapLabelsd("label", EDEMA)(from_file(values))["label"], whole)


def test_wrong_rules_are_told() -> None:
    with pytest.raises(ValueError, match=r"values must be .*, got 'binaer'"):
        MapLabelsd("label", "binaer")
    with pytest.raises(ValueError, match=re.escape("class indices must lie between 0 and 255, got [0, 300]")):
        MapLabelsd("label", {0: 0, 1: 300})


def sparse(slices: int, labelled_range=(2, 5)) -> dict:
    affine = torch.diag(torch.tensor([-0.5, -0.5, 2.0, 1.0], dtype=torch.float64))
    label = torch.ones(1, 4, 3, slices, dtype=torch.uint8)
    return {
        "image": MetaTensor(torch.zeros(1, 4, 3, 7), affine=affine),
        "label": MetaTensor(label, meta={"filename_or_obj": "labels/0007.tif"}),
        "labelled_range": list(labelled_range),
    }


@pytest.mark.parametrize("slices", [3, 7], ids=["only the range", "all slices"])
def test_slices_outside_the_labelled_range_are_ignored(slices: int) -> None:
    item = sparse(slices)
    found = PlaceSparseLabeld()(item)["label"]
    assert found.shape == item["image"].shape
    assert found.dtype == torch.uint8
    assert (found[..., 2:5] == 1).all()
    assert (found[..., :2] == IGNORE).all()
    assert (found[..., 5:] == IGNORE).all()
    assert torch.equal(found.affine, item["image"].affine)
    assert int(item["label"].max()) == 1


def test_the_order_of_the_slices_is_kept() -> None:
    item = sparse(3)
    item["label"] = torch.arange(3, dtype=torch.uint8).expand(1, 4, 3, 3)
    assert PlaceSparseLabeld()(item)["label"][0, 0, 0].tolist() == [255, 255, 0, 1, 2, 255, 255]


def test_items_without_a_range_pass_unchanged() -> None:
    item = {**sparse(7), "labelled_range": None}
    assert PlaceSparseLabeld()(item)["label"] is item["label"]


def test_a_range_beyond_the_image_is_refused() -> None:
    with pytest.raises(
        InputError, match=re.escape("labels/0007.tif: expected a range within 0..7, got [2, 9)")
    ):
        PlaceSparseLabeld()(sparse(3, (2, 9)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 4, 3, 4),
            "labels/0007.tif: 4x3x4, but its image is 4x3x3; a label needs one voxel per image voxel",
        ),
        ((1, 3, 4, 3), "labels/0007.tif: 3x4x3, but its image is 4x3x3; labels must not be transposed"),
    ],
    ids=["count", "transposed"],
)
def test_a_label_that_fits_neither_range_nor_image_is_refused(shape, message) -> None:
    item = sparse(3)
    item["label"] = MetaTensor(torch.zeros(shape), meta=item["label"].meta)
    with pytest.raises(InputError, match=re.escape(message)):
        PlaceSparseLabeld()(item)


def test_the_background_of_an_incomplete_label_is_ignored_except_at_borders() -> None:
    label = torch.zeros(1, 9, 9, 9, dtype=torch.uint8)
    label[0, 4, 4, 4] = 2
    found = MaskUnlabelledd(border=1)({"label": label, "label_coverage": 0.65})["label"]
    assert int((found == 2).sum()) == 1
    assert int((found == 0).sum()) == 3**3 - 1
    assert int((found == IGNORE).sum()) == 9**3 - 3**3
    assert int((MaskUnlabelledd(border=0)({"label": label, "label_coverage": 0.65})["label"] == 0).sum()) == 0
    assert int(label.max()) == 2


def test_a_border_does_not_wrap_around_the_volume() -> None:
    label = torch.zeros(1, 3, 5, 7, dtype=torch.uint8)
    label[0, 0, 0, 0] = 1
    found = MaskUnlabelledd(border=4)({"label": label, "label_coverage": 0.1})["label"]
    assert (found[0, :, :5, :5] != IGNORE).all()
    assert (found[0, :, :, 5:] == IGNORE).all()


@pytest.mark.parametrize("coverage", [{}, {"label_coverage": 0.9}, {"label_coverage": 1}], ids=str)
def test_a_label_that_covers_enough_passes_unchanged(coverage: dict) -> None:
    item = {"label": torch.zeros(1, 3, 3, 3, dtype=torch.uint8), **coverage}
    assert MaskUnlabelledd()(item)["label"] is item["label"]


def test_an_impossible_coverage_is_refused() -> None:
    for coverage in (0, 65, float("nan")):
        with pytest.raises(InputError, match="expected a coverage above 0 and up to 1"):
            MaskUnlabelledd()({**from_file([[[0, 1]]]), "label_coverage": coverage})


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="border must be at least 0 voxels, got -1"):
        MaskUnlabelledd(border=-1)
    with pytest.raises(ValueError, match="min_coverage must lie between 0 and 1, got 9"):
        MaskUnlabelledd(min_coverage=9)
