"""What a person sees of a volume on one page."""

import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.reports import CLASS_COLOURS, VolumeView, contact_sheet, write_contact_sheet
from volseg.reports.captions import LINE_HEIGHT

SHAPE = (8, 4, 5)  # x, y, z
SIDE, GAP = 160, 6  # twenty pixels of a slice are a voxel
HEIGHT = 80 + LINE_HEIGHT


def sheet(pred, truth=None, **options):
    view = VolumeView(np.zeros(pred.shape), pred, truth)
    return contact_sheet(view, longest_side=SIDE, **options)


@pytest.fixture
def labels():
    pred, truth = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    pred[1:4, 1:3, 0] = 1
    truth[5:8, 1:3, 0] = 2
    return pred, truth


def test_slices_stand_in_rows_above_the_legend(labels):
    page = sheet(labels[0], columns=2)
    assert page.shape == (3 * (HEIGHT + GAP) + LINE_HEIGHT, 2 * SIDE + GAP, 3)


def test_the_truth_stands_above_the_prediction(labels):
    page = sheet(*labels, columns=5)
    assert page.shape[0] == 2 * HEIGHT + GAP + LINE_HEIGHT
    truth = page[LINE_HEIGHT : LINE_HEIGHT + 80, :SIDE]
    pred = page[HEIGHT + LINE_HEIGHT : HEIGHT + LINE_HEIGHT + 80, :SIDE]
    for panel, left, label in ((truth, 5, 2), (pred, 1, 1)):
        rows, columns = np.nonzero(panel.any(axis=-1))
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 59, 20 * left, 20 * left + 59)
        assert tuple(panel[20, 20 * left + 30]) == CLASS_COLOURS[label - 1]
        inside = 0.15 * np.array(CLASS_COLOURS[label - 1])
        assert np.abs(panel[40, 20 * left + 30] - inside).max() <= 1


def test_unlabelled_voxels_have_no_outline():
    truth = np.full(SHAPE, 255, np.uint8)
    page = sheet(truth * 0, truth, most_slices=1)
    panel = page[LINE_HEIGHT : LINE_HEIGHT + 80]
    assert len(np.unique(panel.reshape(-1, 3), axis=0)) == 1
    assert panel.any()


@pytest.mark.parametrize("depth", [1, 5], ids=["single slice", "volume"])
def test_an_empty_prediction_is_shown_without_colour(depth):
    page = sheet(np.zeros((8, 4, depth), bool))
    assert page.shape[1] == min(depth, 4) * (SIDE + GAP) - GAP
    assert (page == page[..., :1]).all()


def test_fewer_slices_than_columns_leave_no_black_cells(labels):
    assert sheet(labels[0], most_slices=2).shape[1] == 2 * SIDE + GAP


def test_a_file_is_replaced_only_when_asked(tmp_path, labels):
    path = tmp_path / "a.png"
    write_contact_sheet(path, np.zeros(SHAPE), *labels, spacing_mm=(1, 2, 1), class_names={2: "fluid"})
    with Image.open(path) as picture:
        assert picture.size == (4 * 320 + 3 * GAP, 2 * (2 * (320 + LINE_HEIGHT) + GAP) + LINE_HEIGHT)
    with pytest.raises(InputError, match="expected a new file"):
        write_contact_sheet(path, np.zeros(SHAPE), *labels)


def test_a_page_without_slices_is_refused(labels):
    with pytest.raises(ValueError, match="most_slices must be positive"):
        sheet(labels[0], most_slices=0)
