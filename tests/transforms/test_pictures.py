"""Pictures go through the same transforms as volumes, from the file to the label map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from PIL import Image

from volseg.checks import InputError
from volseg.transforms import (
    AssignSpacingd,
    CheckPaird,
    DecideLabelsd,
    ForegroundIndicesd,
    IntensityStatisticsd,
    MapLabelsd,
    MatchSized,
    NormalizeByStatisticsd,
    RestoreShaped,
)

pytestmark = [  # LoadImage tries all its readers
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
]
H, W = 37, 23
RNG = np.random.default_rng(0)
MASK = np.zeros((H, W), np.uint8)
MASK[3:9, 15:21] = 255


@pytest.fixture
def case(tmp_path):
    Image.fromarray(RNG.integers(0, 255, (H, W, 3)).astype(np.uint8)).save(
        tmp_path / "image.tif", dpi=(72, 72)
    )
    Image.fromarray(MASK).save(tmp_path / "label.png")
    return {"case": "01", "image": str(tmp_path / "image.tif"), "label": str(tmp_path / "label.png")}


def reading(label_channels="grey"):
    reader = {"reader": "volseg.data.PictureReader", "dtype": None}
    return [
        LoadImaged("image", channels="rgb", **reader),
        LoadImaged("label", channels=label_channels, **reader),
        EnsureChannelFirstd(["image", "label"]),
        AssignSpacingd(["image", "label"]),
        MapLabelsd("label", rule_key="label_rule"),
        CheckPaird(),
    ]


def test_a_picture_and_its_mask_go_through_all_transforms(case):
    item = Compose([
        *reading(),
        MatchSized(["image", "label"], 20, mode=["linear", "classes"]),
        IntensityStatisticsd("image", channel_wise=True),
        NormalizeByStatisticsd("image"),
        ForegroundIndicesd("label"),
    ])({**case, "spacing_mm": [0.5, 0.25]})  # fmt: skip
    assert item["image"].shape == (3, 20, 12)
    assert item["label"].shape == (1, 20, 12)
    assert torch.allclose(item["image"].mean((1, 2)), torch.zeros(3), atol=1e-2)
    rows, columns = np.unravel_index(item["label_foreground"].numpy(), (20, 12))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 4, 8, 10)
    assert list(map(len, item["label_rows"])) == [20, 12]
    probability = {"image": item["image"], "pred": item["label"].float()}
    done = Compose([RestoreShaped("pred"), DecideLabelsd(keep_probability=True)])(probability)
    assert done["pred"].shape == (1, H, W)
    assert done["pred"].dtype == torch.uint8
    assert done["probability"].shape == (1, H, W)
    assert done["pred"].affine.tolist()[:2] == [[0, -0.5, 0, 0], [-0.25, 0, 0, 0]]
    assert np.mean(done["pred"].numpy()[0] == MASK // 255) > 0.97


def test_a_mask_without_resolution_fits_a_picture_with_one(case):
    item = Compose(reading())(case)
    assert item["image"].meta["spacing_is_known"] is True
    assert item["label"].meta["spacing_is_known"] is False
    np.testing.assert_array_equal(item["label"].numpy()[0], MASK // 255)


def test_a_transposed_mask_is_refused_as_such(case):
    Image.fromarray(np.ascontiguousarray(MASK.T)).save(case["label"])
    with pytest.raises(RuntimeError) as failed:
        Compose(reading())(case)
    assert isinstance(failed.value.__cause__, InputError)
    assert "label.png: 23x37, but its image is 37x23; labels must not be transposed" in str(
        failed.value.__cause__
    )


def test_colours_of_a_mask_become_classes_of_one_channel(case):
    colours = np.zeros((H, W, 3), np.uint8)
    colours[3:5, 7] = 255, 0, 0
    colours[30, 1:4] = 0, 255, 0
    Image.fromarray(colours).save(case["label"])
    item = Compose(reading("any"))({**case, "label_rule": {"#ff0000": 1, "#00ff00": 2}})
    assert item["label"].shape == (1, H, W)
    assert np.argwhere(item["label"].numpy()[0] == 1).tolist() == [[3, 7], [4, 7]]
    assert np.argwhere(item["label"].numpy()[0] == 2).tolist() == [[30, 1], [30, 2], [30, 3]]


@pytest.mark.parametrize("classes", [1, 3])
def test_decisions_keep_the_grid_of_a_picture(case, classes):
    image = Compose(reading())(case)["image"]
    maps = image.float()[:classes] / 255
    labels = DecideLabelsd(classes=classes)({"pred": maps})["pred"]
    expected = maps.numpy()[0] >= 0.5 if classes == 1 else maps.numpy().argmax(0)
    np.testing.assert_array_equal(labels.numpy()[0], expected)
    assert torch.equal(labels.affine, image.affine)
