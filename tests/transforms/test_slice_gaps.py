from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from PIL import Image

from volseg.checks import InputError
from volseg.data import collate_cases
from volseg.transforms import (
    IGNORE,
    GatherSlicesd,
    MapLabelsd,
    MatchSlicesd,
    MatchSpacingd,
    PlaceSparseLabeld,
    RestoreShaped,
    SpreadSlicesd,
)

SPACING = (0.5, 0.25, 3.0)
GAPPED = [[3, 5, 6, 9, 14], [0, 1, 2, 40], [7, 9], [1, 1000]]


def volume(numbers, dtype=torch.float32, channels=2, seed=0, shape=(4, 3)):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 200, (channels, *shape, len(numbers)), generator=generator).to(dtype)
    affine = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))
    return MetaTensor(values, meta={"affine": affine, "slice_numbers": list(numbers)})


def label(numbers, seed=1, shape=(4, 3)):
    made = volume(numbers, torch.uint8, channels=1, seed=seed, shape=shape)
    return MetaTensor(made.as_tensor() % 3, meta=made.meta)


@pytest.mark.parametrize("numbers", GAPPED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int32])
def test_gathering_what_was_spread_gives_it_back(numbers, dtype):
    image = volume(numbers, dtype)
    spread = SpreadSlicesd()({"image": image})
    assert spread["image"].shape == (2, 4, 3, numbers[-1] - numbers[0] + 1)
    gathered = GatherSlicesd(keys="image")(spread)["image"]
    assert gathered.dtype == dtype
    assert torch.equal(gathered.as_tensor(), image.as_tensor())
    assert torch.equal(gathered.affine, image.affine)


@pytest.mark.parametrize("numbers", GAPPED, ids=str)
def test_every_place_holds_the_nearest_slice_and_of_two_the_lower(numbers):
    image = volume(numbers)
    spread = SpreadSlicesd()({"image": image})["image"]
    for index in range(spread.shape[-1]):
        distances = [abs(number - numbers[0] - index) for number in numbers]
        nearest = distances.index(min(distances))
        assert torch.equal(spread[..., index].as_tensor(), image[..., nearest].as_tensor())


def test_a_volume_without_gaps_is_the_same_object_before_and_after():
    item = {"image": volume([4, 5, 6, 7]), "pred": torch.ones(1, 4, 3, 4)}
    assert SpreadSlicesd()(item)["image"] is item["image"]
    assert GatherSlicesd()(item)["pred"] is item["pred"]


def test_volumes_without_slice_numbers_pass():
    item = {"image": MetaTensor(torch.ones(1, 4, 3, 4)), "pred": torch.ones(1, 4, 3, 4)}
    item["label"] = MetaTensor(torch.zeros(1, 4, 3, 2))
    changed = MatchSlicesd()(GatherSlicesd()(SpreadSlicesd()(item)))
    assert all(changed[key] is item[key] for key in item)


def test_spreading_twice_is_spreading_once():
    once = SpreadSlicesd()({"image": volume([3, 5, 6])})
    assert SpreadSlicesd()(once)["image"] is once["image"]


def test_the_numbers_of_another_volume_are_refused():
    image = volume([1, 3, 4])
    image.meta["slice_numbers"] = [1, 5]
    with pytest.raises(ValueError, match="must have 2 slices, as many as numbers, got 3"):
        SpreadSlicesd()({"image": image})


def test_a_prediction_on_another_grid_is_refused():
    item = SpreadSlicesd()({"image": volume([3, 5, 9])}) | {"pred": torch.ones(1, 4, 3, 6)}
    with pytest.raises(ValueError, match="pred must have 7 slices, got 6"):
        GatherSlicesd()(item)


def test_a_missing_key_is_skipped_on_demand():
    item = SpreadSlicesd()({"image": volume([3, 5, 9])}) | {"pred": torch.ones(1, 4, 3, 7)}
    gathered = GatherSlicesd(("pred", "label"), allow_missing_keys=True)(item)
    beside_none = GatherSlicesd(("pred", "label"), allow_missing_keys=True)({**item, "label": None})
    assert torch.equal(beside_none["pred"], gathered["pred"])  # what MONAI's evaluator makes of no label
    assert beside_none["label"] is None
    assert gathered["pred"].shape[-1] == 3


@pytest.mark.parametrize("numbers", GAPPED[:3], ids=str)
def test_a_prediction_of_a_resampled_batch_comes_back_to_the_slices_that_were_read(numbers):
    image = volume(numbers, channels=1, shape=(8, 6))
    item = SpreadSlicesd()({"image": image, "case": "c"})
    item = MatchSpacingd("image", (1.0, 0.5, 3.5), tolerance=0)(item)
    (item,) = decollate_batch(collate_cases([item]))
    item["pred"] = torch.zeros(item["image"].shape)
    restored = Compose([RestoreShaped("pred"), GatherSlicesd()])(item)["pred"]
    assert restored.shape == image.shape
    assert torch.equal(restored.affine, image.affine)


def test_labels_of_some_slices_leave_the_others_unknown():
    item = {"image": volume(range(61)), "label": label([10, 15, 28, 60])}
    placed = MatchSlicesd()(item)["label"]
    assert placed.shape == (1, 4, 3, 61)
    assert placed.dtype == torch.uint8
    for index in range(61):
        slice_of = placed[..., index].as_tensor()
        if index in (10, 15, 28, 60):
            expected = item["label"][..., [10, 15, 28, 60].index(index)].as_tensor()
            assert torch.equal(slice_of, expected)
        else:
            assert (slice_of == IGNORE).all()


@pytest.mark.parametrize("is_spread", [True, False])
def test_repeated_slices_have_no_label(is_spread):
    item = {"image": volume([10, 15, 17]), "label": label([10, 15, 17])}
    expected = item["label"].as_tensor()
    item = SpreadSlicesd()(item) if is_spread else item
    placed = MatchSlicesd()(item)["label"]
    known = [k for k in range(placed.shape[-1]) if (placed[..., k] != IGNORE).all()]
    assert known == ([0, 5, 7] if is_spread else [0, 1, 2])
    assert torch.equal(placed.as_tensor()[..., known], expected)


def test_matching_and_gathering_give_the_label_back():
    item = {"image": volume([3, 5, 6, 9]), "label": label([3, 5, 6, 9])}
    matched = MatchSlicesd()(SpreadSlicesd()(item))
    gathered = GatherSlicesd("label")(matched)["label"]
    assert torch.equal(gathered.as_tensor(), item["label"].as_tensor())


def test_a_label_of_all_slices_of_a_full_volume_is_the_same_object():
    item = {"image": volume([4, 5, 6]), "label": label([4, 5, 6])}
    assert MatchSlicesd()(item)["label"] is item["label"]


@pytest.mark.parametrize("offset", [1, -1])
def test_the_offset_of_an_item_pairs_labels_that_count_otherwise(offset):
    numbers = [4, 6, 9]
    item = {"image": volume(numbers), "label": label([n + offset for n in numbers]), "label_offset": offset}
    shifted = MatchSlicesd()(SpreadSlicesd()(item))["label"]
    plain = MatchSlicesd()(SpreadSlicesd()({"image": volume(numbers), "label": label(numbers)}))["label"]
    assert torch.equal(shifted.as_tensor(), plain.as_tensor())


def test_a_label_slice_without_an_image_is_refused_by_number():
    item = {"image": volume([4, 6, 9]), "label": label([4, 5]), "case": "eye"}
    with pytest.raises(
        InputError, match=r"eye \(label\): expected image slice 5 for label slice 5, got none"
    ):
        MatchSlicesd()(SpreadSlicesd()(item))


def test_a_transposed_label_is_refused():
    item = {"image": volume([4, 6, 9]), "label": label([4], shape=(3, 4))}
    with pytest.raises(InputError, match="3x4, but its image is 4x3; labels must not be transposed"):
        MatchSlicesd()(item)


def test_a_labelled_range_counts_on_the_spread_grid():
    item = {"image": volume([10, 12, 15]), "label": label([10, 12, 15]), "labelled_range": [0, 3]}
    placed = PlaceSparseLabeld()(MatchSlicesd()(SpreadSlicesd()(item)))["label"]
    assert [k for k in range(6) if (placed[..., k] != IGNORE).all()] == [0, 2]


def test_files_go_all_the_way_and_back(tmp_path, rng):
    slices = {number: rng.integers(0, 255, (7, 5)).astype(np.uint8) for number in (8, 10, 15)}
    masks = {number: (rng.random((7, 5)) < 0.3).astype(np.uint8) * 255 for number in (10, 15)}
    for name, pages in (("images", slices), ("labels", masks)):
        (tmp_path / name).mkdir()
        for number, page in pages.items():
            Image.fromarray(page).save(tmp_path / name / f"{number:03d}.png")
    keys = ("image", "label")
    load = Compose(
        [
            LoadImaged(keys, reader="volseg.data.VolumeReader", gaps="keep", dtype=None),
            EnsureChannelFirstd(keys),
            MapLabelsd("label"),
            SpreadSlicesd(),
            MatchSlicesd(),
        ]
    )
    item = load({"image": str(tmp_path / "images"), "label": str(tmp_path / "labels"), "case": "eye"})
    assert item["image"].shape == item["label"].shape == (1, 5, 7, 8)
    (item,) = decollate_batch(collate_cases([item]))
    item["pred"] = item["image"].clone()
    pred = GatherSlicesd(("pred", "label"))(item)
    np.testing.assert_array_equal(pred["pred"][0].numpy(), np.stack(list(slices.values())).T)
    assert (pred["label"][..., 0] == IGNORE).all()
    np.testing.assert_array_equal(pred["label"][0, ..., 1].numpy(), masks[10].T // 255)
