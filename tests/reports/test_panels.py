"""What stands beside what in the picture of a 2D case, and in which colour."""

import numpy as np
import pytest

from volseg.reports import AGREEMENT_COLOURS, CLASS_COLOURS, draw_panels

ROWS, COLUMNS, GAP = 5, 7, 4


def split(picture, columns=COLUMNS):
    return [picture[:, start : start + columns] for start in range(0, picture.shape[1], columns + GAP)]


def labels(**places):
    shown = np.zeros((ROWS, COLUMNS), np.uint8)
    for name, place in places.items():
        shown[place] = int(name[1:])
    return shown


IMAGE = np.zeros((1, ROWS, COLUMNS))
TRUTH = labels(_1=(0, 1), _2=(1, 2), _3=(2, 3), _255=(4, 6))
PRED = labels(_1=(0, 1), _3=(1, 2), _2=(3, 5))


def test_classes_have_their_colours_in_their_rows_and_columns():
    image, truth, pred = split(draw_panels(IMAGE, PRED, TRUTH, opacity=1.0))
    assert not image.any()
    for panel, shown in ((truth, TRUTH), (pred, PRED)):
        for place, index in np.ndenumerate(shown):
            expected = (0, 0, 0) if index in (0, 255) else CLASS_COLOURS[index - 1]
            assert tuple(panel[place].tolist()) == expected


def test_errors_have_their_colours_and_a_wrong_class_is_one():
    panel = split(draw_panels(IMAGE, PRED, TRUTH, colours="errors", opacity=1.0))[-1]
    expected = {
        (0, 1): "true positive",
        (1, 2): "wrong class",
        (2, 3): "false negative",
        (3, 5): "false positive",
    }
    for place, name in expected.items():
        assert tuple(panel[place].tolist()) == AGREEMENT_COLOURS[name]
    assert np.count_nonzero(panel.any(axis=-1)) == 4


def test_a_boolean_mask_is_right_for_every_class():
    panel = split(draw_panels(IMAGE, PRED > 0, TRUTH > 0, colours="errors", opacity=1.0))[-1]
    assert tuple(panel[1, 2].tolist()) == AGREEMENT_COLOURS["true positive"]


def test_without_truth_there_are_two_panels():
    assert len(split(draw_panels(IMAGE, PRED, colours="errors"))) == 2


@pytest.mark.parametrize(("channels", "is_grey"), [(1, True), (2, True), (3, False)])
def test_three_channels_are_colours(channels, is_grey):
    image = np.zeros((channels, ROWS, COLUMNS))
    image[0, 2:] = 1
    panel = split(draw_panels(image, PRED * 0))[0]
    assert panel[3, 3].tolist() == ([255, 255, 255] if is_grey else [255, 0, 0])


def test_an_image_of_another_size_is_shown_on_the_grid_of_the_prediction():
    image = np.zeros((1, 2 * ROWS, 3 * COLUMNS))
    image[0, 2:4, 3:6] = 1
    panel = split(draw_panels(image, PRED * 0))[0]
    assert np.argwhere(panel.any(axis=-1)).tolist() == [[1, 1]]


def test_large_panels_are_reduced():
    pred = np.zeros((40, 60), np.uint8)
    pred[:20] = 1
    picture = draw_panels(np.zeros((1, 40, 60)), pred, longest_side=30, opacity=1.0)
    assert picture.shape == (20, 2 * 30 + GAP, 3)
    assert np.count_nonzero(picture[:, 34:].any(axis=-1)) == 10 * 30


def test_a_truth_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(5, 6\) and \(5, 7\); bring the prediction"):
        draw_panels(IMAGE, PRED, TRUTH[:, :6])


def test_unknown_colours_are_refused():
    with pytest.raises(ValueError, match="colours must be one of classes, errors, got 'error'"):
        draw_panels(IMAGE, PRED, TRUTH, colours="error")
