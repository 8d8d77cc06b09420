"""Pictures brought to one size and back."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from volseg.transforms import MatchSized, RestoreShaped


@pytest.mark.parametrize(
    ("shape", "expected"), [((61, 47), (32, 25)), ((20, 64), (10, 32)), ((1, 7), (5, 32))]
)
def test_the_longest_side_is_as_asked_and_the_aspect_stays(shape, expected):
    assert (
        MatchSized("image", 32)({"image": MetaTensor(torch.zeros(3, *shape))})["image"].shape[1:] == expected
    )


def test_a_picture_of_the_size_passes_unchanged():
    image = MetaTensor(torch.rand(1, 32, 9))
    assert MatchSized("image", 32)({"image": image})["image"] is image


def test_outer_faces_stay_in_place():
    affine = torch.tensor([[0.0, -2, 0, 5], [-3, 0, 0, 7], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    image = MetaTensor(torch.zeros(1, 61, 47), affine=affine)
    small = MatchSized("image", 32)({"image": image})["image"]
    for corner in (-0.5, 1.0):
        old = np.array([*(np.array([61, 47]) * (corner > 0) - 0.5), 0, 1])
        new = np.array([*(np.array([32, 25]) * (corner > 0) - 0.5), 0, 1])
        assert np.allclose(affine.numpy() @ old, small.affine.numpy() @ new)


def test_predictions_return_to_the_shape_and_affine_of_their_picture():
    image = MetaTensor(torch.rand(3, 61, 47), affine=torch.diag(torch.tensor([2.0, 3, 1, 1])))
    small = MatchSized("image", 32)({"image": image})["image"]
    pred = RestoreShaped("pred")({"image": small, "pred": MetaTensor(torch.ones(1, 32, 25))})["pred"]
    assert pred.shape == (1, 61, 47)
    assert torch.equal(pred.affine, image.affine.double())
    assert torch.allclose(pred.as_tensor(), torch.ones(1, 61, 47))


def test_thin_classes_survive_as_classes():
    label = torch.zeros(1, 64, 64, dtype=torch.uint8)
    label[0, 20:24] = 2
    resized = MatchSized(["label"], 32, mode="classes")({"label": MetaTensor(label)})["label"]
    assert resized.dtype == torch.uint8
    assert resized[0, 10:12].eq(2).all()
    assert resized.unique().tolist() == [0, 2]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="longest"):
        MatchSized(longest=0)
    with pytest.raises(ValueError, match="mode"):
        MatchSized(mode="cubic")
