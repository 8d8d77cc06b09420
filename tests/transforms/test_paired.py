from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from volseg.checks import InputError
from volseg.geometry import affine_from_spacing
from volseg.transforms.paired import CheckPaird

SHAPE = (7, 5, 6)
AFFINE = affine_from_spacing((0.5, 0.8, 1.25), (10.0, -20.0, 30.0))


def pair(label: torch.Tensor | None = None, affine: np.ndarray = AFFINE) -> dict:
    values = torch.arange(7 * 5 * 6).reshape(1, *SHAPE)
    meta = {"filename_or_obj": "labels/kidney.nii"}
    return {
        "image": MetaTensor(values, affine=torch.from_numpy(AFFINE)),
        "label": MetaTensor(values if label is None else label, affine=torch.from_numpy(affine), meta=meta),
    }


def test_a_label_on_its_image_passes_unchanged() -> None:
    item = pair()
    assert CheckPaird()(item)["label"] is item["label"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("flips", [(), (1,), (0, 2)], ids=str)
def test_another_storage_of_the_same_place_is_turned_onto_the_image(order: tuple, flips: tuple) -> None:
    values = pair()["image"].as_tensor()
    stored = values.permute(0, *[axis + 1 for axis in order]).flip([axis + 1 for axis in flips])
    to_image = np.zeros((4, 4))
    to_image[3, 3] = 1
    for axis, source in enumerate(order):
        to_image[source, axis] = -1 if axis in flips else 1
        to_image[source, 3] = SHAPE[source] - 1 if axis in flips else 0
    found = CheckPaird()(pair(stored, AFFINE @ to_image))["label"]
    assert torch.equal(found.as_tensor(), values)
    assert np.allclose(found.affine, AFFINE)
    assert found.meta["filename_or_obj"] == "labels/kidney.nii"


def test_a_label_elsewhere_is_refused() -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 40
    message = (
        "labels/kidney.nii: expected the place of its image, got 40 mm off; resample the label onto the image"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        CheckPaird()(pair(affine=moved))


def test_a_label_mirrored_in_the_world_is_refused() -> None:
    with pytest.raises(InputError, match="expected the place of its image"):
        CheckPaird()(pair(affine=AFFINE @ np.diag([-1.0, 1, 1, 1])))


def test_a_label_of_other_spacing_or_angle_is_refused() -> None:
    with pytest.raises(InputError, match="mm off"):
        CheckPaird()(pair(affine=AFFINE @ np.diag([2.0, 1, 1, 1])))
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    with pytest.raises(InputError, match="mm off"):
        CheckPaird()(pair(affine=turn @ AFFINE))


def test_a_rounding_error_is_no_other_place() -> None:
    item = pair(affine=AFFINE.astype(np.float32).astype(np.float64) + 1e-4)
    assert CheckPaird()(item)["label"] is item["label"]


def test_a_transposed_label_is_refused_in_plain_words() -> None:
    item = pair(torch.zeros(1, 5, 7, 6))
    item["label"].meta["spacing_is_known"] = False
    message = "labels/kidney.nii: 5x7x6, but its image is 7x5x6; labels must not be transposed"
    with pytest.raises(InputError, match=re.escape(message)):
        CheckPaird()(item)


def test_a_label_of_another_size_is_refused() -> None:
    message = "labels/kidney.nii: 7x5x4, but its image is 7x5x6; a label needs one voxel per image voxel"
    with pytest.raises(InputError, match=re.escape(message)):
        CheckPaird()(pair(torch.zeros(1, 7, 5, 4)))


def test_plain_pictures_are_compared_by_size() -> None:
    item = {"image": torch.zeros(3, 8, 9), "label": torch.zeros(1, 8, 9)}
    assert CheckPaird()(item)["label"] is item["label"]
    with pytest.raises(
        InputError, match=re.escape("a case (label): 9x8, but its image is 8x9; labels must not be")
    ):
        CheckPaird()({**item, "label": torch.zeros(1, 9, 8)})


def test_the_tolerance_must_be_positive() -> None:
    with pytest.raises(ValueError, match="tolerance_voxels must be positive"):
        CheckPaird(tolerance_voxels=0)
