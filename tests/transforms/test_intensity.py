from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from volseg.transforms.intensity import (
    IntensityStatisticsd,
    NormalizeByStatisticsd,
    intensity_statistics,
    soft_clip,
)

SHAPE = (2, 17, 12, 9)


def noise(dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("percentiles", [(0.1, 99.9), (5, 90), (0, 100)], ids=str)
def test_statistics_equal_those_of_numpy(dtype: str, percentiles: tuple[float, float]) -> None:
    volume = noise(dtype)
    low = np.percentile(volume, percentiles[0], method="higher")
    high = np.percentile(volume, percentiles[1], method="lower")
    clipped = np.clip(volume.astype(np.float64), low, high)
    expected = [low, high, clipped.mean(), clipped.std()]
    assert np.allclose(intensity_statistics(volume, *percentiles), expected, rtol=1e-6)


def test_storage_order_and_negative_values_do_not_matter() -> None:
    volume = noise("int16") - 110
    turned = np.asfortranarray(volume[:, ::-1]).transpose(3, 1, 0, 2)
    assert np.array_equal(intensity_statistics(turned, 1, 99), intensity_statistics(volume, 1, 99))


def test_wide_integers_are_sampled_like_floats() -> None:
    volume = noise("int64") * 1_000_000
    assert np.allclose(intensity_statistics(volume, 1, 99), intensity_statistics(volume.astype(float), 1, 99))


def test_a_sample_on_a_lattice_is_close_to_the_whole(monkeypatch) -> None:
    volume = noise("float32", (1, 60, 50, 40)) + np.arange(40, dtype=np.float32)
    whole = intensity_statistics(volume, 1, 99)
    monkeypatch.setattr("volseg.transforms.intensity.MAX_SAMPLE", 10_000)
    sample = intensity_statistics(volume, 1, 99)
    assert not np.array_equal(sample, whole)
    assert np.allclose(sample, whole, atol=1.5)  # 100 of 10000 voxels lie beyond a percentile, sigma is 23


@pytest.mark.parametrize("size", [5, 50, 5000])
def test_one_huge_outlier_does_not_crush_the_rest(size: int) -> None:
    volume = np.linspace(0, 1, size, dtype=np.float32).reshape(1, size, 1, 1)
    volume[0, size // 2] = 3e38
    lower, upper, mean, std = intensity_statistics(volume, 0.1, 99.9)
    assert 0 <= lower < upper <= 1
    assert 0.3 < mean < 0.7
    assert 0.1 < std < 0.5


def test_non_finite_voxels_are_left_out() -> None:
    volume = noise("float32")
    clean = intensity_statistics(volume[:, 3:], 1, 99)
    volume[:, 0], volume[:, 1], volume[:, 2] = np.nan, np.inf, -np.inf
    assert np.allclose(intensity_statistics(volume, 1, 99), clean, rtol=1e-6)


def test_a_constant_volume_has_deviation_one_and_an_empty_one_is_zero() -> None:
    assert intensity_statistics(np.full(SHAPE, 7, np.uint16), 1, 99).tolist() == [7, 7, 7, 1]
    assert intensity_statistics(np.full(SHAPE, np.nan), 1, 99).tolist() == [0, 0, 0, 1]
    item = {"image": torch.full((1, 3, 4, 5), 7, dtype=torch.uint8)}
    found = NormalizeByStatisticsd()(IntensityStatisticsd()(item))["image"]
    assert torch.equal(found, torch.zeros(1, 3, 4, 5))


def test_a_volume_of_little_else_than_background_keeps_its_objects() -> None:
    volume = np.zeros((1, 30, 30, 30), np.uint8)
    volume[0, 5, 5, 5:9] = 200
    lower, upper, _, std = intensity_statistics(volume, 0.1, 99.9)
    assert (lower, upper) == (0, 200)
    assert std > 0


def test_normalising_is_clip_standardise_and_soft_clip() -> None:
    volume = noise("uint16", (1, 17, 12, 9))
    item = IntensityStatisticsd(lower=2, upper=98)(
        {"image": MetaTensor(torch.from_numpy(volume.astype(np.int32)))}
    )
    lower, upper, mean, std = item["image_statistics"].tolist()
    expected = (np.clip(volume.astype(np.float64), lower, upper) - mean) / std
    found = NormalizeByStatisticsd(soft_clip=None)(item)["image"]
    assert isinstance(found, MetaTensor)
    assert found.dtype == torch.float32
    assert np.allclose(found, expected, atol=1e-5)
    assert float(found.mean()) == pytest.approx(0, abs=1e-5)
    assert float(found.std(correction=0)) == pytest.approx(1, abs=1e-5)
    softer = NormalizeByStatisticsd(soft_clip=(-1, 1))(item)["image"]
    assert torch.allclose(softer, soft_clip(found, -1, 1), atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_stack_is_normalised_like_its_volume(dtype: str, monkeypatch) -> None:
    item = IntensityStatisticsd()({"image": torch.from_numpy(noise(dtype, (1, 17, 12, 9)))})
    whole = NormalizeByStatisticsd()(item)["image"]
    stack = NormalizeByStatisticsd()({**item, "image": item["image"][0, 3:6].to(torch.float32)})["image"]
    assert torch.equal(stack, whole[0, 3:6])
    monkeypatch.setattr("volseg.transforms.volume.SLAB_VOXELS", 100)
    assert torch.equal(NormalizeByStatisticsd()(item)["image"], whole)


def test_non_finite_voxels_become_the_mean_and_the_input_stays() -> None:
    volume = torch.from_numpy(noise("float32", (1, 17, 12, 9)))
    volume[0, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    before = volume.clone()
    found = NormalizeByStatisticsd()(IntensityStatisticsd()({"image": volume}))["image"]
    assert found[0, 0, 0, :3].tolist() == [0, 0, 0]
    assert torch.isfinite(found).all()
    assert torch.equal(volume.nan_to_num(), before.nan_to_num())


@given(st.floats(-(2.0**99), 2.0**99, width=32), st.floats(-(2.0**99), 2.0**99, width=32))
def test_soft_clip_is_monotonic_bounded_and_the_identity_within(one: float, other: float) -> None:
    low, high = sorted((one, other))
    clipped = soft_clip(torch.tensor([low, high]), -3, 5).tolist()
    assert clipped[0] <= clipped[1]
    assert clipped[0] >= -4
    assert clipped[1] <= 6
    if -3 <= low <= 5:
        assert clipped[0] == low


def test_soft_clip_has_no_kink() -> None:
    ends = torch.tensor([-3.0, 5.0], dtype=torch.float64)
    inside, outside = torch.tensor([1e-6, -1e-6]), torch.tensor([-1e-6, 1e-6])
    slopes = (soft_clip(ends + outside, -3, 5) - soft_clip(ends + inside, -3, 5)) / (outside - inside)
    assert torch.allclose(slopes, torch.ones(2, dtype=slopes.dtype), atol=1e-5)


def test_missing_statistics_are_told() -> None:
    message = "kidney_1 (image): expected image_statistics, got none; put IntensityStatisticsd before"
    with pytest.raises(ValueError, match=re.escape(message)):
        NormalizeByStatisticsd()({"image": torch.zeros(1, 2, 2, 2), "case": "kidney_1"})


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="percentiles must satisfy 0 <= lower < upper <= 100, got 99 and 1"):
        IntensityStatisticsd(lower=99, upper=1)
    with pytest.raises(ValueError, match=re.escape("soft_clip must be (lowest, highest), got (5, -3)")):
        NormalizeByStatisticsd(soft_clip=(5, -3))


def test_each_channel_of_a_picture_has_its_own_statistics_when_asked() -> None:
    image = torch.from_numpy(noise("uint8", (3, 19, 13)) // np.array([1, 2, 4], np.uint8)[:, None, None])
    item = IntensityStatisticsd("image", channel_wise=True)({"image": image})
    assert item["image_statistics"].shape == (3, 4)
    normal = NormalizeByStatisticsd("image")(item)["image"]
    for channel in range(3):
        alone = {"image": image[channel : channel + 1]}
        alone = NormalizeByStatisticsd("image")(IntensityStatisticsd("image")(alone))["image"]
        assert torch.equal(normal[channel], alone[0])


def test_statistics_of_other_channels_are_told() -> None:
    item = {"image": torch.zeros(2, 5, 7), "image_statistics": torch.ones(3, 4), "case": "a"}
    with pytest.raises(
        ValueError, match="expected one per channel, got 3 rows of image_statistics for 2 chan"
    ):
        NormalizeByStatisticsd("image")(item)


def test_padding_at_the_extremes_can_be_left_out() -> None:
    tissue = np.random.default_rng(0).integers(20, 120, 4000).astype(np.uint8)
    padded = np.concatenate([tissue, np.full(3000, 255, np.uint8), np.zeros(500, np.uint8)])
    expected = intensity_statistics(tissue, 0.1, 99.9)
    assert np.array_equal(intensity_statistics(padded, 0.1, 99.9, without_extremes=True), expected)
    assert intensity_statistics(padded, 0.1, 99.9)[1] == 255


def test_two_values_are_no_padding() -> None:
    mask = np.array([0, 0, 255], np.uint8)
    plain = intensity_statistics(mask, 0.1, 99.9)
    assert np.array_equal(intensity_statistics(mask, 0.1, 99.9, without_extremes=True), plain)
