"""The lit field of a fundus picture."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from volseg.transforms import FieldOfViewd
from volseg.transforms.field_of_view import find_field_of_view

ROWS, COLUMNS = np.ogrid[:61, :47]
DISC = (ROWS - 33) ** 2 + (COLUMNS - 21) ** 2 < 20**2


def lit(disc=DISC):
    picture = np.where(disc, 120, 4).astype(np.uint8)
    picture = np.stack([picture, picture // 2, picture // 4])
    picture[:, 30:34, 15:18] = 0  # a vessel darker than the surroundings of the field
    return picture


def test_the_field_is_one_piece_without_holes():
    picture = lit()
    picture[:, 2, 2] = 255  # a hot pixel outside
    assert np.array_equal(find_field_of_view(picture), DISC)


@pytest.mark.parametrize("factor", [0.2, 1.0, 2.0])
def test_the_field_does_not_depend_on_the_exposure(factor):
    assert np.array_equal(find_field_of_view(lit() * factor), DISC)


def test_a_black_picture_counts_as_seen_everywhere():
    assert find_field_of_view(np.zeros((3, 5, 4))).all()


def test_pictures_are_zero_outside_their_field():
    item = FieldOfViewd("image")({"image": MetaTensor(torch.from_numpy(lit()))})
    assert item["field_of_view"].shape == (1, 61, 47)
    assert item["field_of_view"].dtype == item["image"].dtype == torch.uint8
    assert not item["image"][:, ~DISC].any()
    assert torch.equal(item["image"][:, DISC], torch.from_numpy(lit())[:, DISC])


def test_a_field_that_the_item_brings_is_kept():
    given = torch.zeros(1, 61, 47, dtype=torch.uint8)
    given[0, 5:9] = 255
    item = FieldOfViewd("image")({"image": torch.from_numpy(lit()), "field_of_view": given})
    assert torch.equal(item["field_of_view"], given // 255)
    assert not item["image"][:, 9:].any()


def test_a_field_of_another_size_is_refused():
    item = {"case": "7", "image": torch.from_numpy(lit()), "field_of_view": torch.ones(1, 47, 61)}
    with pytest.raises(ValueError, match=r"7 \(field_of_view\): must be 61x47, got 47x61"):
        FieldOfViewd("image")(item)


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ValueError, match="level"):
        FieldOfViewd(level=1.5)
