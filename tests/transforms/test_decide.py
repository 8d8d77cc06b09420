"""From probabilities to class indices."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from volseg.transforms import DecideLabelsd

SHAPE = (5, 4, 3)
AFFINE = torch.tensor(np.array([[0.5, 0.1, 0, 3], [0, 0.7, 0, -2], [0, 0, 2.0, 5], [0, 0, 0, 1]]))


def maps(channels, seed=0):
    values = torch.rand(channels, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=AFFINE)


def test_a_probability_at_the_threshold_is_foreground():
    levels = torch.tensor([0.29, 0.3, 0.31]).reshape(1, 3, 1, 1)
    assert DecideLabelsd(threshold=0.3)({"pred": levels})["pred"].flatten().tolist() == [0, 1, 1]


@pytest.mark.parametrize("threshold", [percent / 100 for percent in range(1, 100, 7)])
def test_a_float32_probability_that_is_printed_as_the_threshold_is_foreground(threshold):
    level = torch.full((1, 1, 1, 1), threshold, dtype=torch.float32)
    assert DecideLabelsd(threshold=threshold)({"pred": level})["pred"].item() == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_higher_threshold_never_adds_a_voxel(seed):
    pred = maps(1, seed)
    masks = [DecideLabelsd(threshold=level)({"pred": pred})["pred"] for level in (0.2, 0.5, 0.8)]
    assert (masks[0] >= masks[1]).all()
    assert (masks[1] >= masks[2]).all()


def test_of_several_classes_the_most_probable_wins():
    pred = maps(3)
    found = DecideLabelsd(classes=3)({"pred": pred})["pred"]
    assert np.array_equal(found[0].numpy(), pred.numpy().argmax(axis=0))


def test_permuting_classes_permutes_labels():
    pred, order = maps(3), torch.tensor([2, 0, 1])
    decide = DecideLabelsd(classes=3)
    labels, permuted = decide({"pred": pred})["pred"], decide({"pred": pred[order]})["pred"]
    assert torch.equal(order[permuted.as_tensor().long()], labels.as_tensor().long())


@pytest.mark.parametrize("classes", [1, 3])
def test_labels_are_uint8_with_one_channel(classes):
    found = DecideLabelsd(classes=classes)({"pred": maps(classes)})["pred"]
    assert (found.dtype, tuple(found.shape)) == (torch.uint8, (1, *SHAPE))


@pytest.mark.parametrize("classes", [1, 3])
def test_every_map_keeps_the_affine(classes):
    item = DecideLabelsd(classes=classes, keep_probability=True)({"pred": maps(2 * classes)})
    for key in ("pred", "probability", "disagreement"):
        assert torch.equal(item[key].affine, AFFINE.to(item[key].affine))


@pytest.mark.parametrize("classes", [1, 3])
def test_probability_and_disagreement_are_the_halves_of_what_came(classes):
    pred = maps(2 * classes)
    item = DecideLabelsd(classes=classes, keep_probability=True)({"pred": pred})
    assert torch.equal(torch.cat([item["probability"], item["disagreement"]]), pred)
    assert item["probability"].dtype == torch.float32


def test_the_disagreement_does_not_change_the_decision():
    pred = maps(6)
    decide = DecideLabelsd(classes=3)
    assert torch.equal(decide({"pred": pred})["pred"], decide({"pred": pred[:3]})["pred"])


def test_probabilities_are_dropped_unless_asked_for():
    assert set(DecideLabelsd()({"pred": maps(1), "case": "a"})) == {"pred", "case"}


def test_the_item_that_came_is_left_as_it_was():
    item = {"pred": maps(1)}
    before = item["pred"].clone()
    DecideLabelsd(keep_probability=True)(item)
    assert list(item) == ["pred"]
    assert torch.equal(item["pred"], before)


@pytest.mark.parametrize(("classes", "channels"), [(1, 3), (3, 1), (3, 4)])
def test_another_number_of_channels_is_refused(classes, channels):
    with pytest.raises(
        ValueError, match=rf"pred must have {classes} channels, .* got {channels}; check `classes`"
    ):
        DecideLabelsd(classes=classes)({"pred": maps(channels)})


def test_a_threshold_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"threshold must lie between 0 and 1, got 1\.5"):
        DecideLabelsd(threshold=1.5)


def test_more_classes_than_uint8_holds_are_refused():
    with pytest.raises(ValueError, match="classes must be at most 255, because labels are uint8, got 256"):
        DecideLabelsd(classes=256)
