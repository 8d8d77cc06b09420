import numpy as np
import pytest

from volseg.checks import InputError
from volseg.data.audit.masks import classes_of, foreground_dice

COLOURS = np.uint8([[[0, 0, 0], [255, 0, 0], [0, 255, 0]]])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("nonzero", [[0, 1, 1]]), ("binary", [[0, 1, 1]]), ("above:127", [[0, 0, 1]])],
    ids=["nonzero", "binary", "above"],
)
def test_a_threshold_makes_two_classes(rule, expected):
    assert classes_of(np.uint8([[0, 127, 128]]), rule, "m.png").tolist() == expected


def test_colours_and_values_become_their_classes():
    rule = {"#ff0000": 1, "#00ff00": 2}
    assert classes_of(COLOURS, rule, "m.png", has_colours=True).tolist() == [[0, 1, 2]]
    assert classes_of(np.uint8([[0, 128, 255]]), {"128": 3, "255": 1}, "m.png").tolist() == [[0, 3, 1]]


def test_any_colour_counts_as_foreground():
    assert classes_of(COLOURS, "nonzero", "m.png", has_colours=True).tolist() == [[0, 1, 1]]


def test_a_volume_of_three_slices_is_no_colour_picture():
    assert classes_of(np.ones((2, 4, 3), np.uint8), "nonzero", "v.nii").shape == (2, 4, 3)


def test_a_value_without_rule_is_refused():
    with pytest.raises(InputError, match=r"m\.png: expected the values 255, got 1 pixels of others"):
        classes_of(np.uint8([[0, 7, 255]]), {"255": 1}, "m.png")


def test_two_empty_masks_agree_and_exchanged_classes_do_not():
    assert foreground_dice(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)) == 1
    assert foreground_dice(np.uint8([[1, 2]]), np.uint8([[2, 1]])) == 0
