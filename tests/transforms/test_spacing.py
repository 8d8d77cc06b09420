from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Flipd, Resized

from volseg.geometry import affine_from_spacing, spacing_of
from volseg.transforms.spacing import AssignSpacingd, MatchSpacingd, RestoreShaped

SPACING = (0.5, 0.8, 1.25)


def oblique(spacing_mm: tuple[float, ...] = SPACING) -> np.ndarray:
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing_mm)
    affine[:3, 3] = (-40.0, 12.0, 7.0)
    return affine


def volume(values: torch.Tensor, affine: np.ndarray, **meta) -> MetaTensor:
    return MetaTensor(values, affine=torch.from_numpy(affine), meta={"spacing_is_known": True, **meta})


def ball(
    shape: tuple[int, ...] = (31, 27, 23), centre: tuple[float, ...] = (14.2, 12.7, 10.4)
) -> torch.Tensor:
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"))
    square = ((grid - np.array(centre).reshape(3, 1, 1, 1)) ** 2).sum(0)
    return torch.from_numpy(np.exp(-square / 18).astype(np.float32))[None]


def centre_of_mass_mm(image: MetaTensor) -> np.ndarray:
    weights = image.as_tensor()[0].double().numpy()
    voxels = np.array([(weights * index).sum() / weights.sum() for index in np.indices(weights.shape)])
    return (image.affine.numpy() @ np.append(voxels, 1))[:3]


@pytest.mark.parametrize("target", [(0.7, 0.8, 0.9), (0.4, 1.2, 2.0)], ids=["coarser and finer", "mixed"])
def test_the_centre_of_mass_stays_where_it_is_in_the_world(target: tuple[float, ...]) -> None:
    image = volume(ball(), oblique())
    found = MatchSpacingd("image", target)({"image": image})["image"]
    assert found.shape != image.shape
    distance = np.linalg.norm(centre_of_mass_mm(found) - centre_of_mass_mm(image))
    assert distance < 0.1 * min(SPACING)
    extents = np.array(spacing_of(found.affine)) * found.shape[1:]
    assert np.allclose(extents, np.array(SPACING) * image.shape[1:])
    assert np.allclose(spacing_of(found.affine), target, rtol=0.05)  # half a voxel in the shortest axis


def test_the_outer_corner_stays_where_it_is_in_the_world() -> None:
    image = volume(ball(), oblique())
    found = MatchSpacingd("image", (0.7, 0.8, 0.9))({"image": image})["image"]
    for corner in np.ndindex(2, 2, 2):
        ends = [np.array(corner) * one.shape[1:] - 0.5 for one in (image, found)]
        places = [
            one.affine.numpy() @ np.append(end, 1) for one, end in zip((image, found), ends, strict=True)
        ]
        assert np.allclose(*places)


def test_restoring_gives_the_source_grid_back() -> None:
    image = volume(ball(), oblique(), filename_or_obj="kidney.nii.gz")
    item = MatchSpacingd("image", (0.7, 1.0, 0.9))({"image": image})
    item["pred"] = item["image"].clone()
    restored = RestoreShaped()(item)["pred"]
    assert restored.shape == image.shape
    assert torch.equal(restored.affine, image.affine)
    assert "source_shape" not in restored.meta
    assert (
        float((restored.as_tensor() - image.as_tensor()).abs().max()) < 0.1
    )  # a ball of 3 voxels, blurred a little


def test_the_record_survives_a_batch() -> None:
    image = volume(ball(), oblique())
    item = MatchSpacingd("image", (0.7, 1.0, 0.9))({"image": image})
    batch = list_data_collate([item])
    batch["pred"] = batch["image"].as_tensor() * 2
    for one in decollate_batch(batch):
        restored = RestoreShaped()(one)["pred"]
        assert restored.shape == image.shape
        assert torch.equal(restored.affine.double(), image.affine.double())


def test_a_prediction_without_resampling_passes_unchanged() -> None:
    item = {"image": volume(ball(), oblique()), "pred": ball()}
    assert RestoreShaped()(item)["pred"] is item["pred"]


def test_a_prediction_on_another_grid_is_refused() -> None:
    item = {"image": volume(ball(), oblique(), filename_or_obj="a.nii"), "pred": ball((5, 6, 7))}
    with pytest.raises(ValueError, match=re.escape("a.nii: pred must be 31x27x23, got 5x6x7")):
        RestoreShaped()(item)


def test_classes_and_ignored_voxels_stay_whole_numbers() -> None:
    label = torch.zeros(1, 24, 22, 20, dtype=torch.uint8)
    label[0, 4:12], label[0, 12:20], label[0, :, 16:] = 1, 3, 255
    for mode in ("nearest", "classes"):
        found = MatchSpacingd("label", (0.75, 0.75, 0.75), mode=mode)(
            {"label": volume(label, oblique((0.5, 0.5, 0.5)))}
        )["label"]
        assert found.dtype == torch.uint8
        assert found.shape == (1, 16, 15, 13)
        assert set(np.unique(found)) == {0, 1, 3, 255}
        assert float((found == 1).float().mean()) == pytest.approx(
            float((label == 1).float().mean()), abs=0.03
        )


def test_integers_are_rounded_and_keep_their_type() -> None:
    image = (ball() * 50000).to(torch.int32)
    narrow = volume(torch.from_numpy(image.numpy().astype(np.uint16)), oblique())
    exact = MatchSpacingd("image", (0.7, 0.8, 0.9))({"image": volume(ball() * 50000, oblique())})["image"]
    found = MatchSpacingd("image", (0.7, 0.8, 0.9))({"image": narrow})["image"]
    assert found.dtype == torch.uint16
    assert (
        float((found.as_tensor().float() - exact.as_tensor()).abs().max()) <= 2
    )  # two roundings and a truncation


@pytest.mark.parametrize(
    "spacing_mm", [None, (0.5, 0.8, 1.25), (0.51, 0.79, 1.2)], ids=["off", "equal", "near"]
)
def test_voxels_are_left_alone_when_nothing_is_to_be_done(spacing_mm) -> None:
    image = volume(ball(), oblique())
    assert MatchSpacingd("image", spacing_mm)({"image": image})["image"] is image


def test_an_unknown_spacing_is_left_alone() -> None:
    image = MetaTensor(ball(), affine=torch.eye(4), meta={"spacing_is_known": False})
    assert MatchSpacingd("image", (0.6, 0.6, 0.6))({"image": image})["image"] is image


def test_a_spacing_too_far_off_is_left_alone_and_told_once() -> None:
    image = volume(ball(), oblique(), filename_or_obj="far.nii")
    match = MatchSpacingd("image", (0.05, 0.05, 0.05))
    message = "far.nii: voxels of 0.5x0.8x1.25 mm are too far from the 0.05x0.05x0.05 mm of the training"
    with pytest.warns(UserWarning, match=re.escape(message)):
        assert match({"image": image})["image"] is image
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        match({"image": image})


@pytest.mark.parametrize("shape", [(1, 9, 8, 7), (9, 8, 7)], ids=["channel", "no channel"])
def test_the_stated_spacing_replaces_the_scale_and_keeps_the_directions(shape: tuple[int, ...]) -> None:
    image = MetaTensor(
        torch.zeros(shape), affine=torch.from_numpy(oblique()), meta={"spacing_is_known": False}
    )
    found = AssignSpacingd("image")({"image": image, "spacing_mm": [0.05, 0.06, 0.07]})["image"]
    assert np.allclose(spacing_of(found.affine), (0.05, 0.06, 0.07))
    assert np.allclose(
        found.affine.numpy()[:3, :3] @ np.diag([10, 0.8 / 0.06, 1.25 / 0.07]), oblique()[:3, :3]
    )
    assert np.allclose(found.affine[:3, 3], oblique()[:3, 3])
    assert found.meta["spacing_is_known"] is True
    assert image.meta["spacing_is_known"] is False
    assert np.allclose(spacing_of(image.affine), SPACING)


def test_without_a_stated_spacing_nothing_changes() -> None:
    image = volume(ball(), affine_from_spacing(SPACING))
    assert AssignSpacingd("image")({"image": image})["image"] is image


def test_a_wrong_stated_spacing_is_told() -> None:
    item = {"image": volume(ball(), oblique()), "case": "kidney_1", "spacing_mm": [0.05]}
    message = "kidney_1 (image): spacing_mm must be 3 numbers, got [0.05]; correct the datalist"
    with pytest.raises(ValueError, match=re.escape(message)):
        AssignSpacingd("image")(item)
    with pytest.raises(ValueError, match="spacing_mm must be positive and finite"):
        AssignSpacingd("image")({**item, "spacing_mm": [1, 0, 1]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spacing_mm": (1, -1, 1)}, "spacing_mm must be positive and finite"),
        ({"mode": "cubic"}, "mode must be one of classes, linear, nearest, got 'cubic'"),
        ({"min_ratio": 1.5}, "ratios must satisfy 0 < min <= 1 <= max, got 1.5 and 2.0"),
        ({"tolerance": -1}, "tolerance must be at least 0, got -1"),
        ({"keys": ("image", "label")}, "mode must be one per key, got 'linear' for 2; labels need another"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_told(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MatchSpacingd(**arguments)
    if "mode" in arguments:
        with pytest.raises(ValueError, match=re.escape(message)):
            RestoreShaped(mode=arguments["mode"])


def picture(shape=(1, 9, 6)) -> MetaTensor:
    affine = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return volume(values, affine, spatial_shape=np.array(shape[1:]), spacing_is_known=False)


@pytest.mark.parametrize("spacing_mm", [[0.5, 0.25], [0.5, 0.25, 3.0]])
def test_a_picture_takes_the_spacing_along_its_rows_first(spacing_mm) -> None:
    found = AssignSpacingd("image")({"image": picture(), "spacing_mm": spacing_mm})["image"]
    expected = [[0, -0.5, 0, 0], [-0.25, 0, 0, 0], [0, 0, (*spacing_mm, 1)[2], 0], [0, 0, 0, 1]]
    assert found.affine.tolist() == expected
    assert found.meta["spacing_is_known"] is True


def test_one_number_is_no_spacing_of_a_picture() -> None:
    with pytest.raises(ValueError, match=re.escape("spacing_mm must be 3 numbers, got [0.5]")):
        AssignSpacingd("image")({"image": picture(), "spacing_mm": [0.5]})


@pytest.mark.parametrize("image", [picture(), volume(ball(), oblique())], ids=["picture", "volume"])
def test_a_resize_of_monai_alone_is_undone(image) -> None:
    size = (5, 11, 4)[: image.ndim - 1]
    resized = Resized("image", size)({"image": image})
    item = RestoreShaped("pred")({**resized, "pred": resized["image"].clone()})
    assert item["pred"].shape == image.shape
    assert np.allclose(item["pred"].affine, image.affine)


def test_a_resize_of_monai_behind_another_transform_is_left_to_the_user() -> None:
    item = Resized("image", (5, 11))(Flipd("image", 0)({"image": picture()}))
    assert RestoreShaped("pred")({**item, "pred": item["image"]})["pred"].shape == (1, 5, 11)


def test_an_axis_without_a_wanted_length_keeps_its_own() -> None:
    volume = MetaTensor(torch.rand(1, 8, 6, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0])))
    item = MatchSpacingd("image", (2.0, 1.5, None))({"image": volume})
    assert item["image"].shape == (1, 4, 4, 5)


def test_volumes_of_unknown_spacing_are_taken_to_show_the_field() -> None:
    unknown = MetaTensor(torch.rand(1, 8, 6, 5), meta={"spacing_is_known": False, "affine": torch.eye(4)})
    match = MatchSpacingd("image", (1.0, 1.0, 1.0), field_mm=(16.0, 3.0, None), min_ratio=0.1, max_ratio=10)
    assert match({"image": unknown})["image"].shape == (1, 16, 3, 5)
    restored = RestoreShaped("pred")({**match({"image": unknown}), "pred": torch.rand(2, 16, 3, 5)})
    assert restored["pred"].shape == (2, 8, 6, 5)
    assert torch.equal(restored["pred"].affine, torch.eye(4, dtype=torch.float64))
    known = MetaTensor(torch.rand(1, 8, 6, 5), affine=torch.eye(4))
    assert match({"image": known})["image"] is known
    assert MatchSpacingd("image", (2.0, 2.0, 2.0))({"image": unknown})["image"] is unknown


def test_a_text_is_no_spacing() -> None:
    with pytest.raises(ValueError, match="spacing_mm must be three lengths or None, got the text 'null'"):
        MatchSpacingd("image", "null")
