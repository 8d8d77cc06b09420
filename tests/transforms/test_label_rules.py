from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from volseg.checks import InputError
from volseg.transforms.label_rules import check_rule, classes_by_rule, is_by_colour, threshold_of
from volseg.transforms.labels import MapLabelsd

COLOURS = {"#ff0000": 1, "#00FF00": 2}
RGB = np.zeros((3, 4, 5), np.uint8)
RGB[0, 1, :3] = 255
RGB[1, 2, 1] = 255


def item(array, **more):
    label = MetaTensor(torch.as_tensor(np.asarray(array)), meta={"filename_or_obj": "masks/7.png"})
    return {"label": label, "case": "7", **more}


def mapped(array, **more):
    return MapLabelsd(rule_key="label_rule")(item(array, **more))["label"]


def test_colours_become_one_channel_of_classes():
    found = mapped(RGB, label_rule=COLOURS)
    assert found.dtype == torch.uint8
    assert found.shape == (1, 4, 5)
    assert found[0].tolist() == [[0] * 5, [1, 1, 1, 0, 0], [0, 2, 0, 0, 0], [0] * 5]
    assert found.meta["filename_or_obj"] == "masks/7.png"


def test_a_grey_file_has_grey_colours():
    assert mapped([[[0, 128]]], label_rule={"#808080": 3}).tolist() == [[[0, 3]]]


def test_black_is_background_unless_the_rule_says_otherwise():
    assert mapped(np.zeros((3, 1, 1), np.uint8), label_rule={"#000000": 4}).item() == 4


def test_other_colours_are_refused_with_their_number():
    bad = RGB.copy()
    bad[:, 0, :2] = [[255], [255], [0]]
    bad[2, 3, 4] = 7
    expected = (
        "masks/7.png: expected the colours #000000, #00FF00, #ff0000, got #ffff00 in 2 pixels, "
        "#000007 in 1 pixels; recolour it or add a rule; a mask must not be smoothed or a JPEG"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        mapped(bad, label_rule=COLOURS)
    noise = np.random.default_rng(0).integers(1, 255, (3, 4, 5)).astype(np.uint8)
    with pytest.raises(InputError, match="and 15 more; recolour"):
        mapped(noise, label_rule=COLOURS)


def test_colours_of_sixteen_bits_are_refused():
    with pytest.raises(InputError, match="expected colours of 0 to 255, got 0 to 65535"):
        mapped(RGB.astype(np.int32) * 257, label_rule=COLOURS)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("nonzero", [0, 1, 1, 1]), ("above:127", [0, 0, 0, 1]), ("above:126", [0, 0, 1, 1])],
)
def test_a_threshold_makes_a_mask_of_grey_values(rule, expected):
    assert mapped([[[0, 1, 127, 255]]], label_rule=rule).flatten().tolist() == expected


def test_nonzero_takes_any_colour_and_above_none():
    assert mapped(RGB, label_rule="nonzero").sum() == 4
    with pytest.raises(InputError, match="expected grey values to compare with 127, got 4 coloured pixels"):
        mapped(RGB, label_rule="above:127")


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_values_that_are_no_brightness_are_refused(value):
    with pytest.raises(InputError, match="expected label values from 0 up"):
        mapped([[[0.0, value]]], label_rule="nonzero")


@pytest.mark.parametrize("rule", ["nonzero", COLOURS])
def test_other_channels_are_refused(rule):
    with pytest.raises(InputError, match="expected one channel, or red, green and blue, got 2 channels"):
        mapped(np.zeros((2, 3, 4), np.uint8), label_rule=rule)


def test_a_case_without_a_rule_follows_the_transforms():
    grey = [[[0, 3, 255]]]
    assert mapped(grey).tolist() == [[[0, 1, 1]]]
    assert mapped(grey, label_rule=None).tolist() == [[[0, 1, 1]]]
    with pytest.raises(InputError, match="expected label values 0, 255, got 3"):
        MapLabelsd()(item(grey, label_rule="nonzero"))
    strict = MapLabelsd(values="binary", rule_key="label_rule")
    assert strict(item(grey, label_rule="above:3"))["label"].tolist() == [[[0, 0, 1]]]
    with pytest.raises(InputError, match="got 3"):
        strict(item(grey))


def test_values_may_be_the_rule_of_a_case():
    assert mapped([[[0, 7]]], label_rule={"0": 0, "7": 2}).tolist() == [[[0, 2]]]


@pytest.mark.parametrize(
    "rule",
    ["above", "above:-1", "max", {}, {"red": 1}, {"#ff0000": 1, "255": 2}, {"#ff0000": True}, 7, ["nonzero"]],
)
def test_what_is_no_rule_is_told(rule):
    with pytest.raises(ValueError, match='label_rule must be "binary", "nonzero", "above:127", values'):
        check_rule("label_rule", rule)
    with pytest.raises(InputError, match=r"^7: label_rule must be .*; correct the datalist$"):
        mapped(RGB, label_rule=rule)


def test_class_indices_fit_a_byte():
    with pytest.raises(ValueError, match=re.escape("class indices must lie between 0 and 255, got [300]")):
        check_rule("values", {"#ff0000": 300})


def test_rules_are_told_apart():
    assert is_by_colour(COLOURS)
    assert not is_by_colour("nonzero")
    assert not is_by_colour({"0": 0})
    assert [threshold_of(rule) for rule in ("nonzero", "above:9", "binary", COLOURS)] == [0, 9, None, None]


def test_binary_and_values_keep_their_channels():
    array = np.array([[[0, 255]], [[255, 0]]], np.uint8)
    assert classes_by_rule(array, "binary", "a").tolist() == [[[0, 1]], [[1, 0]]]
