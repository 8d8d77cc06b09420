"""One channel of a picture, and contrast that is even from tile to tile."""

import sys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from volseg.transforms import ChooseChanneld, LimitContrastd

ROWS, COLUMNS = np.ogrid[:61, :47]
DISC = (ROWS - 33) ** 2 + (COLUMNS - 21) ** 2 < 20**2
AFFINE = torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0], dtype=torch.float64))


def eye(dtype=np.uint8, scale=1):
    """A picture that grows dark to the right, with a thin vessel all across."""
    light = 180.0 - 3 * np.broadcast_to(COLUMNS, (61, 47))
    light = np.where(abs(ROWS - 31) < 2, 0.9 * light, light)
    return (np.stack([light, light // 2, light // 4]) * scale).astype(dtype)


def limited(picture, *, field=None, **arguments):
    item = {"image": picture} | ({} if field is None else {"field_of_view": field[None].astype(np.uint8)})
    return LimitContrastd("image", **arguments)(item)["image"].numpy()


def test_the_chosen_channel_keeps_values_dtype_and_place():
    source = MetaTensor(torch.from_numpy(eye()), affine=AFFINE)
    image = ChooseChanneld("image", channel=1)({"image": source})["image"]
    assert image.dtype == torch.uint8
    assert torch.equal(image.as_tensor(), source.as_tensor()[1:2])
    assert torch.equal(image.affine, AFFINE)


def test_choosing_a_channel_leaves_the_source_alone():
    source = torch.from_numpy(eye())
    ChooseChanneld("image", 0)({"image": source})["image"].zero_()
    assert source[0].any()


@pytest.mark.parametrize(
    ("channels", "remedy"), [(3, "use a channel from 0 to 2"), (1, "use channel 0, or leave this out")]
)
def test_a_channel_that_the_picture_lacks_is_refused(channels, remedy):
    with pytest.raises(ValueError, match=rf"7 \(image\): must have channel 3, got {channels} .*{remedy}"):
        ChooseChanneld("image", 3)({"case": "7", "image": torch.zeros(channels, 4, 5)})


@pytest.mark.parametrize("channel", [-1, 1.0, True, "green"])
def test_a_channel_that_is_no_number_from_zero_is_refused(channel):
    with pytest.raises(ValueError, match="channel must be a whole number from 0"):
        ChooseChanneld("image", channel)


@pytest.mark.parametrize("on", ["luminance", "channels"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_range_of_the_picture_is_kept_in_float32(dtype, on):
    picture = eye(dtype, scale=200 if dtype == np.uint16 else 1)
    result = limited(picture, on=on)
    assert result.dtype == np.float32
    assert result.shape == picture.shape
    assert result.max() == pytest.approx(picture.max())
    assert result.min() >= 0


@pytest.mark.parametrize("on", ["luminance", "channels"])
def test_the_exposure_of_the_camera_does_not_matter(on):
    bright = limited(eye().astype(np.uint16) * 257, on=on)
    assert np.allclose(bright / 257, limited(eye(), on=on), atol=0.01)  # of 180 grey levels


def test_a_vessel_in_the_dark_gains_contrast():
    before, after = eye()[:1].astype(float), limited(eye()[:1], tiles=4, clip_limit=0.05)
    dark = np.s_[0, :, 35:]
    steps = [abs(np.diff(picture[dark], axis=0)).max() for picture in (before, after)]
    assert steps[1] > 2 * steps[0]


def test_colours_keep_their_proportions_on_luminance():
    picture = eye().astype(np.float32) + 1
    result = limited(picture, on="luminance")
    assert np.allclose(result[1] * picture[0], result[0] * picture[1], rtol=1e-5)


def test_each_channel_by_itself_is_the_channel_alone():
    result = limited(eye(), on="channels")
    for index in range(3):
        assert np.array_equal(result[index], limited(eye()[index : index + 1])[0])


@pytest.mark.parametrize("on", ["luminance", "channels"])
def test_outside_the_field_everything_is_zero_and_nothing_matters(on):
    black, noisy = eye() * DISC, eye() * DISC
    noisy[:, ~DISC] = np.random.default_rng(0).integers(0, 255, (3, int((~DISC).sum())))
    result = limited(black, field=DISC, on=on)
    assert not result[:, ~DISC].any()
    assert np.array_equal(result, limited(noisy, field=DISC, on=on))
    assert eye()[:, DISC].min() <= result[:, DISC].min()


def test_a_field_that_is_not_asked_for_is_ignored():
    assert np.array_equal(limited(eye(), field=DISC, mask_key=None), limited(eye()))


def test_an_empty_field_leaves_nothing():
    assert not limited(eye(), field=np.zeros_like(DISC)).any()


@pytest.mark.parametrize("on", ["luminance", "channels"])
@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_picture_passes_unchanged(value, on):
    picture = np.full((3, 9, 5), value, np.uint8)
    assert np.array_equal(limited(picture, on=on), picture.astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1, 17), (3, 5, 3), (2, 64, 33), (1, 19, 40)])
def test_any_size_and_number_of_channels_works(shape):
    picture = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    result = limited(picture)
    assert result.shape == shape
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() == pytest.approx(picture.max(), rel=1e-6)


def test_the_source_and_its_place_stay_as_they_are():
    source = MetaTensor(torch.from_numpy(eye()), affine=AFFINE)
    image = LimitContrastd("image")({"image": source})["image"]
    assert torch.equal(image.affine, AFFINE)
    assert np.array_equal(source.numpy(), eye())


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((1, 4, 5, 6)), r"7 \(image\): must be a picture \(C, H, W\), got shape \(1, 4, 5, 6\)"),
        (np.full((1, 4, 5), np.nan), "must be finite, got NaN or infinity"),
        (np.full((3, 4, 5), -1.5), "must not be negative, got -1.5; put LimitContrastd before"),
    ],
    ids=["volume", "not finite", "negative"],
)
def test_a_picture_that_has_no_contrast_to_equalise_is_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        LimitContrastd("image")({"case": "7", "image": picture})


def test_a_field_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"field_of_view\): must be 61x47, got 47x61"):
        limited(eye(), field=DISC.T)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip_limit": 0}, "clip_limit must be positive"),
        ({"clip_limit": 2}, "clip_limit must lie between 0 and 1"),
        ({"tiles": 0}, "tiles must be positive"),
        ({"on": "luminence"}, "did you mean 'luminance'"),
    ],
)
def test_an_argument_outside_its_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LimitContrastd("image", **arguments)


def test_the_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.exposure", None)
    with pytest.raises(ImportError, match=r"pip install volseg\[contrast\]"):
        LimitContrastd("image")
