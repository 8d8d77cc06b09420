from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandGridDistortiond,
    RandRotate90d,
)

from volseg.inferers import TriAxisInferer
from volseg.transforms.foreground import ForegroundIndicesd
from volseg.transforms.labels import IGNORE
from volseg.transforms.rand_slice_stack import RandSliceStackd, SliceDraw

SHAPE = (23, 17, 29)


def case(channels: int = 1, shape: tuple[int, ...] = SHAPE) -> dict:
    generator = np.random.default_rng(3)
    image = generator.integers(0, 60000, (channels, *shape), dtype=np.uint16)
    label = (generator.random((1, *shape)) > 0.9).astype(np.uint8)
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(label)}


def smooth_pair(size: int = 64) -> dict:
    """An image of waves along all axes, and the label of where it is above one half."""
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"))
    wave = 0.5 + 0.5 * np.mean(
        np.sin(grid * 2 * np.pi / 32 + np.array([0.3, 1.1, 2.0]).reshape(3, 1, 1, 1)), axis=0
    )
    wave = wave.astype(np.float32)
    return {
        "image": torch.from_numpy(wave[None]),
        "label": torch.from_numpy((wave > 0.5).astype(np.uint8)[None]),
    }


def share_of_agreement(sample: dict, middle: int = 1) -> float:
    image, label = sample["image"][middle], sample["label"][0]
    is_told = (label != IGNORE) & ((image - 0.5).abs() > 0.06)
    return float(((image > 0.5) == (label == 1))[is_told].float().mean())


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("centre", [(11, 8, 14), (0, 0, 0), (22, 16, 28)], ids=["middle", "first", "last"])
def test_a_straight_sample_equals_slicing_by_hand(axis: int, centre: tuple[int, int, int]) -> None:
    item = case(channels=2)
    cutter = RandSliceStackd(in_slices=3, out_slices=3, roi_size=(9, 11))
    draw = SliceDraw(axis, centre)
    image = cutter.cut(item["image"].numpy(), draw, is_label=False)
    label = cutter.cut(item["label"].numpy(), draw, is_label=True)
    others = [other for other in range(3) if other != axis]
    starts = [min(max(centre[o] - s // 2, 0), SHAPE[o] - s) for o, s in zip(others, (9, 11), strict=True)]
    for position in range(3):
        row = min(max(centre[axis] + position - 1, 0), SHAPE[axis] - 1)
        window = np.s_[..., starts[0] : starts[0] + 9, starts[1] : starts[1] + 11]
        for channel in range(2):
            expected = item["image"].numpy()[channel].take(row, axis)[window].astype(np.float32)
            assert np.array_equal(image[channel * 3 + position].numpy(), expected)
        assert np.array_equal(label[position].numpy(), item["label"].numpy()[0].take(row, axis)[window])
    assert image.dtype == torch.float32
    assert label.dtype == torch.uint8


def test_the_label_is_that_of_the_middle_slice() -> None:
    item = case()
    draw = SliceDraw(1, (11, 8, 14))
    cutter = RandSliceStackd(in_slices=5, out_slices=1, roi_size=(9, 11))
    all_slices = RandSliceStackd(in_slices=5, out_slices=5, roi_size=(9, 11))
    one = cutter.cut(item["label"].numpy(), draw, is_label=True)
    assert one.shape == (1, 9, 11)
    assert torch.equal(one[0], all_slices.cut(item["label"].numpy(), draw, is_label=True)[2])


def test_beyond_a_small_volume_the_image_repeats_its_edge_and_the_label_is_ignored() -> None:
    item = case()
    cutter = RandSliceStackd(in_slices=1, roi_size=(20, 34))
    draw = SliceDraw(0, (5, 3, 3))
    image = cutter.cut(item["image"].numpy(), draw, is_label=False)[0]
    label = cutter.cut(item["label"].numpy(), draw, is_label=True)[0]
    rows, columns = slice(1, 18), slice(2, 31)  # 17 in 20 and 29 in 34, one and two before
    assert torch.equal(image[rows, columns], item["image"][0, 5].float())
    assert torch.equal(label[rows, columns], item["label"][0, 5])
    assert int((label == IGNORE).sum()) == 20 * 34 - 17 * 29
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[:, -1], image[:, -4])


def test_no_window_means_the_whole_slice() -> None:
    item = case()
    image = RandSliceStackd(roi_size=None).cut(
        item["image"].numpy(), SliceDraw(2, (1, 1, 28)), is_label=False
    )
    assert torch.equal(image[1], item["image"][0, :, :, 28].float())
    assert torch.equal(image[2], image[1])


def test_a_plane_tilted_by_nothing_is_the_straight_slice() -> None:
    item = case()
    cutter = RandSliceStackd(roi_size=(9, 11))
    for axis in range(3):
        straight = SliceDraw(axis, (11, 8, 14))
        tilted = SliceDraw(axis, (11, 8, 14), tilt=1e-9)
        for key in ("image", "label"):
            array = item[key].numpy()
            expected = cutter.cut(array, straight, is_label=key == "label")
            found = cutter.cut(array, tilted, is_label=key == "label")
            assert torch.allclose(
                found.float(), expected.float(), rtol=0, atol=0.05
            )  # 60000 * float32 epsilon * 8


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_linear_ramp_stays_linear_in_a_tilted_plane(axis: int) -> None:
    grid = np.stack(np.meshgrid(*[np.arange(64.0)] * 3, indexing="ij"))
    ramp = (grid * np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1)).sum(0)[None]
    cutter = RandSliceStackd(in_slices=3, roi_size=(15, 17))
    draw = SliceDraw(axis, (32, 32, 32), scale=0.8, tilt=math.radians(25), direction=0.7)
    plane = cutter.cut(ramp, draw, is_label=False).double()
    steps = [plane.diff(dim=dim) for dim in range(3)]
    for step in steps:
        assert torch.allclose(step, step.mean().expand_as(step), atol=2e-3)  # float32 of values up to 7000
    lengths = torch.tensor([float(step.mean()) for step in steps]) / torch.tensor([1.0, 0.8, 0.8])
    assert float(lengths.norm()) == pytest.approx(math.sqrt(1 + 100 + 10000), rel=1e-4)  # a rotation


def test_a_tilted_plane_beyond_the_volume_is_ignored() -> None:
    label = np.ones((1, 5, 40, 40), np.uint8)
    cutter = RandSliceStackd(roi_size=(33, 33))
    found = cutter.cut(label, SliceDraw(0, (2, 20, 20), tilt=math.radians(30), direction=0.0), is_label=True)[
        0
    ]
    assert found[16, 16] == 1
    assert found[:, 0].tolist().count(IGNORE) in (0, 33)
    reached = 2.5 / math.sin(math.radians(30))  # from the centre along the plane to the volume's face
    assert (found == 1).float().mean() == pytest.approx(2 * reached / 33, abs=0.04)


@pytest.mark.parametrize("scale", [0.55, 1.0, 1.6])
@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_image_and_label_stay_aligned_through_scale_and_tilt(scale: float, tilt: float) -> None:
    pair = smooth_pair()
    cutter = RandSliceStackd(roi_size=(32, 32))
    for axis in range(3):
        draw = SliceDraw(axis, (31, 30, 33), scale=scale, tilt=tilt, direction=1.0)
        sample = {key: cutter.cut(pair[key].numpy(), draw, is_label=key == "label") for key in pair}
        assert share_of_agreement(sample) > 0.999


def test_scale_reads_a_larger_window() -> None:
    image = np.broadcast_to(np.arange(40.0), (1, 40, 40, 40))
    cutter = RandSliceStackd(in_slices=1, roi_size=(10, 10))
    half = cutter.cut(image, SliceDraw(0, (20, 20, 20), scale=2.0), is_label=False)
    assert torch.allclose(half[0, 5, 1:-1].diff(), torch.tensor(2.0), atol=1e-4)
    assert float(half[0, 5].mean()) == pytest.approx(19.5, abs=1e-4)


def test_image_and_label_stay_aligned_through_the_full_chain_of_monai_transforms() -> None:
    both = ("image", "label")
    modes = ("bilinear", "nearest")
    chain = Compose(
        [
            ForegroundIndicesd(),
            RandSliceStackd(
                roi_size=(48, 48), scale_range=(0.8, 1.25), max_tilt_degrees=30, tilt_probability=0.5
            ),
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandRotate90d(both, prob=0.75),
            RandAffined(
                both,
                prob=1.0,
                rotate_range=0.2,
                scale_range=0.1,
                mode=modes,
                padding_mode=("reflection", "reflection"),
            ),
            RandGridDistortiond(
                both, prob=1.0, distort_limit=0.1, mode=modes, padding_mode=("reflection", "reflection")
            ),
            RandAdjustContrastd("image", prob=0.0, gamma=(0.5, 2)),
            RandGaussianSmoothd("image", prob=0.5, sigma_x=(0.2, 0.3), sigma_y=(0.2, 0.3)),
            RandGaussianNoised("image", prob=0.5, std=0.005),
        ]
    )
    chain.set_random_state(seed=1)
    pair = smooth_pair()
    for _ in range(12):
        sample = chain(dict(pair))
        assert sample["image"].shape == (3, 48, 48)
        assert set(np.unique(sample["label"])) <= {0, 1, IGNORE}
        assert (
            share_of_agreement(sample) > 0.98
        )  # two nearest-neighbour steps shift an edge by up to one pixel


def test_ignored_margins_survive_spatial_transforms_only_when_they_do_not_pad_with_zero() -> None:
    label = torch.full((1, 32, 32), IGNORE, dtype=torch.uint8)
    zoom_out = {"prob": 1.0, "scale_range": ((0.5, 0.5), (0.5, 0.5)), "mode": "nearest"}
    kept = RandAffined("label", padding_mode="border", **zoom_out)({"label": label})["label"]
    assert set(np.unique(kept)) == {IGNORE}


def test_the_same_seed_gives_the_same_sample_and_another_seed_another() -> None:
    item = ForegroundIndicesd()(case())
    cutter = RandSliceStackd(
        roi_size=(9, 9), scale_range=(0.7, 1.4), max_tilt_degrees=20, tilt_probability=0.5
    )
    first = [cutter.set_random_state(seed=7)(item) for _ in range(2)]
    other = cutter.set_random_state(seed=8)(item)
    assert torch.equal(first[0]["image"], first[1]["image"])
    assert torch.equal(first[0]["label"], first[1]["label"])
    assert not torch.equal(first[0]["image"], other["image"])


def test_global_random_state_and_volumes_are_left_as_found() -> None:
    item = case()
    before = {key: value.clone() for key, value in item.items()}
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    RandSliceStackd(roi_size=(9, 9), tilt_probability=0.5, max_tilt_degrees=10)(item)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(torch.equal(item[key], before[key]) for key in before)


def test_foreground_is_the_centre_as_often_as_asked() -> None:
    label = torch.zeros(1, 41, 43, 45, dtype=torch.uint8)
    label[0, 20, 21, 22] = 1
    item = ForegroundIndicesd()({"image": label.clone(), "label": label})
    cutter = RandSliceStackd(in_slices=1, roi_size=(5, 5), foreground_fraction=0.5).set_random_state(seed=0)
    hits = sum(int(cutter(item)["label"][0, 2, 2]) for _ in range(400))
    assert hits == pytest.approx(200, abs=40)  # four standard deviations


def test_samples_are_centred_where_the_label_is_known() -> None:
    label = torch.full((1, 41, 43, 45), IGNORE, dtype=torch.uint8)
    label[..., 10:14] = 0
    item = ForegroundIndicesd()({"image": label.clone(), "label": label})
    cutter = RandSliceStackd(in_slices=1, axes=(2,), roi_size=(5, 5)).set_random_state(seed=0)
    assert all(int(cutter(item)["label"].max()) == 0 for _ in range(50))


def test_axes_are_drawn_by_their_weights() -> None:
    cutter = RandSliceStackd(axes=(0, 2), axis_weights=(1, 3)).set_random_state(seed=0)
    drawn = [cutter.randomize(SHAPE).axis for _ in range(400)]
    assert set(drawn) == {0, 2}
    assert drawn.count(2) == pytest.approx(300, abs=40)  # more than four standard deviations


def test_metatensors_arrays_and_memory_maps_give_the_same_sample(tmp_path) -> None:
    item = case()
    expected = RandSliceStackd(roi_size=(9, 9)).set_random_state(seed=2)(item)
    np.save(tmp_path / "image.npy", item["image"].numpy())
    mapped = {"image": np.load(tmp_path / "image.npy", mmap_mode="r"), "label": item["label"].numpy()}
    wrapped = {key: MetaTensor(value) for key, value in item.items()}
    for same in (mapped, wrapped):
        found = RandSliceStackd(roi_size=(9, 9)).set_random_state(seed=2)(same)
        assert torch.equal(found["image"], expected["image"])
        assert type(found["image"]) is torch.Tensor


def test_image_and_label_of_different_shape_are_refused() -> None:
    item = {**case(), "case": "kidney_1"}
    item["label"] = item["label"].permute(0, 2, 1, 3)
    message = "kidney_1 (label): label must be Cx23x17x29, got 1x17x23x29; check it with CheckPaird"
    with pytest.raises(ValueError, match=re.escape(message)):
        RandSliceStackd()(item)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_slices": 2}, "in_slices must be an odd number of slices, got 2"),
        ({"out_slices": 2}, "out_slices must be 1 or in_slices (3), got 2"),
        ({"axes": (0, 3)}, "axes must be distinct and among 0, 1 and 2, got (0, 3)"),
        ({"axis_weights": (1, 1)}, "axis_weights must be 3 numbers >= 0 with a positive sum, got (1, 1)"),
        ({"roi_size": (64,)}, "roi_size must be (h, w), got (64,)"),
        ({"foreground_fraction": 2}, "foreground_fraction must lie between 0 and 1, got 2"),
        ({"max_tilt_degrees": 60}, "max_tilt_degrees must lie between 0 and 45, got 60"),
        ({"tilt_probability": -1}, "tilt_probability must lie between 0 and 1, got -1"),
        ({"scale_range": (2, 1)}, "scale_range must be (lowest, highest), got (2, 1)"),
        ({"scale_range": (0, 1)}, "scale_range must be positive and finite, got (0, 1)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_told(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        RandSliceStackd(**arguments)


def test_a_zoomed_sample_shows_fewer_voxels_along_the_long_ones() -> None:
    item = case()
    cutter = RandSliceStackd(in_slices=1, axes=(0, 2), roi_size=(9, 12), axis_zoom=((1, 4), (1, 1)))
    draw = SliceDraw(0, (11, 8, 14))
    sample = cutter.cut(item["image"].numpy(), draw, is_label=False)
    window = item["image"][:, 11, 4:13, 13:16].float()
    expected = torch.nn.functional.interpolate(window[None], size=(9, 12), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(sample, expected)
    straight = cutter.cut(item["image"].numpy(), SliceDraw(2, (11, 8, 14)), is_label=False)
    assert torch.equal(straight[0], item["image"][0, 7:16, 2:14, 14].float())


def test_centres_lie_in_known_slices_only() -> None:
    item = case()
    item["label"][:] = IGNORE
    item["label"][..., [3, 9, 21]] = 0
    item["image"][:] = torch.arange(29, dtype=torch.int32).to(torch.uint16)
    item = ForegroundIndicesd()(item)
    cutter = RandSliceStackd(in_slices=1, axes=(2,), roi_size=(5, 7))
    cutter.set_random_state(0)
    drawn = {int(cutter(item)["image"].unique()) for _ in range(40)}
    assert drawn == {3, 9, 21}


def test_tilted_planes_cannot_be_zoomed() -> None:
    with pytest.raises(ValueError, match="axis_zoom needs"):
        RandSliceStackd(axis_zoom=((1, 1),) * 3, tilt_probability=0.1, max_tilt_degrees=10)


@pytest.mark.parametrize(("axis", "dim"), [(0, 3), (1, 2), (2, 2)])
def test_a_mirrored_sample_swaps_left_and_right_but_not_up_and_down(axis: int, dim: int) -> None:
    item = case()
    cutter = RandSliceStackd(in_slices=3, out_slices=3, roi_size=(9, 11))
    volume = item["image"].numpy()
    plain = cutter.cut(volume, SliceDraw(axis, (11, 8, 14)), is_label=False)
    mirrored = cutter.cut(volume, SliceDraw(axis, (11, 8, 14), is_mirrored=True), is_label=False)
    assert torch.equal(mirrored, plain.flip(dim - 1))


@pytest.mark.parametrize("is_label", [False, True])
@pytest.mark.parametrize(
    "draw",
    [
        SliceDraw(0, (11, 8, 14)),
        SliceDraw(0, (0, 16, 3), scale=1.3),
        SliceDraw(0, (11, 8, 14), is_mirrored=True),
        SliceDraw(0, (11, 8, 14), tilt=0.3, direction=0.4),
    ],
    ids=["straight", "scaled", "mirrored", "tilted"],
)
def test_an_upright_sample_across_axis_0_is_the_transposed_one(draw: SliceDraw, is_label: bool) -> None:
    volume = case()["label" if is_label else "image"].numpy()
    upright = RandSliceStackd(roi_size=(9, 12), upright=True).cut(volume, draw, is_label=is_label)
    plain = RandSliceStackd(roi_size=(12, 9)).cut(volume, draw, is_label=is_label)
    assert upright.is_contiguous()
    assert torch.equal(upright, plain.transpose(1, 2))


def test_upright_and_zoom_agree_with_the_inferer_on_the_order_of_axes() -> None:
    options = {"axes": (0,), "axis_zoom": ((1, 2),), "in_slices": 1, "upright": True}
    volume = case(shape=(1, 12, 8))["image"].numpy()
    sample = RandSliceStackd(roi_size=(16, 12), **options).cut(
        volume, SliceDraw(0, (0, 6, 4)), is_label=False
    )
    seen = []
    TriAxisInferer(**options, activation=None, amp="off")(
        torch.from_numpy(volume.astype(np.float32))[None], lambda stacks: seen.append(stacks) or stacks
    )
    torch.testing.assert_close(sample, seen[0][0])


@pytest.mark.parametrize("axis", [1, 2])
def test_upright_changes_no_sample_across_the_other_axes(axis: int) -> None:
    volume, draw = case()["image"].numpy(), SliceDraw(axis, (11, 8, 14), is_mirrored=True)
    samples = [
        RandSliceStackd(roi_size=(9, 12), upright=upright).cut(volume, draw, is_label=False)
        for upright in (False, True)
    ]
    assert torch.equal(*samples)


def test_the_share_of_mirrored_samples_is_what_was_asked() -> None:
    cutter = RandSliceStackd(mirror_probability=0.3).set_random_state(0)
    assert 0.24 < np.mean([cutter.randomize(SHAPE).is_mirrored for _ in range(1000)]) < 0.36
