"""Colours and places of what is drawn over a slice."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from volseg.checks import InputError
from volseg.reports import AGREEMENT_COLOURS, draw_agreement, plane_pictures, tile, write_gif, write_png

SHAPE = (7, 5)  # x, y
HIT, LOST, FALSE = (3, 1), (4, 2), (6, 4)


@pytest.fixture
def masks():
    """Prediction and truth with one voxel of each kind."""
    pred, truth = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    pred[HIT] = pred[FALSE] = truth[HIT] = truth[LOST] = 1
    return pred, truth


def pixel(picture, place):
    x, y = place
    return tuple(picture[y, x].tolist())


@pytest.mark.parametrize(
    ("place", "name"), [(HIT, "true positive"), (LOST, "false negative"), (FALSE, "false positive")]
)
def test_every_kind_of_voxel_has_its_colour_in_row_y_and_column_x(masks, place, name):
    picture = draw_agreement(np.zeros(SHAPE), *masks, opacity=1.0)
    assert picture.shape == (5, 7, 3)
    assert pixel(picture, place) == AGREEMENT_COLOURS[name]


def test_nothing_else_is_coloured(masks):
    picture = draw_agreement(np.zeros(SHAPE), *masks)
    assert np.count_nonzero(picture.any(axis=-1)) == 3


def test_swapping_prediction_and_truth_swaps_missed_and_invented(masks):
    pred, truth = masks
    image = np.zeros(SHAPE)
    there, back = (
        draw_agreement(image, pred, truth, opacity=1.0),
        draw_agreement(image, truth, pred, opacity=1.0),
    )
    assert pixel(there, LOST) == AGREEMENT_COLOURS["false negative"]
    assert pixel(back, LOST) == AGREEMENT_COLOURS["false positive"]
    assert pixel(there, HIT) == pixel(back, HIT)


def test_voxels_that_nobody_labelled_have_no_colour(masks):
    pred, truth = masks
    truth[FALSE] = truth[0, 0] = 255
    picture = draw_agreement(np.zeros(SHAPE), pred, truth)
    assert pixel(picture, FALSE) == pixel(picture, (0, 0)) == (0, 0, 0)


def test_opacity_mixes_colour_and_image(masks):
    image = np.zeros(SHAPE)
    image[3:] = 100.0
    picture = draw_agreement(image, *masks, opacity=0.25)
    assert pixel(picture, HIT) == tuple(round(0.75 * 255 + 0.25 * part) for part in (160, 32, 240))


def test_the_image_is_grey_from_its_dark_to_its_bright():
    image = np.arange(35, dtype=np.float32).reshape(SHAPE)
    picture = draw_agreement(image, np.zeros(SHAPE), np.zeros(SHAPE))
    assert (picture == picture[..., :1]).all()
    assert pixel(picture, (0, 0)) == (0, 0, 0)
    assert pixel(picture, (6, 4)) == (255, 255, 255)
    assert (np.diff(picture[..., 0].T.ravel().astype(int)) >= 0).all()


def test_the_grey_does_not_depend_on_scale_and_offset(rng):
    image = rng.random(SHAPE)
    mask = np.zeros(SHAPE)
    one, other = draw_agreement(image, mask, mask), draw_agreement(1000 * image + 7, mask, mask)
    assert np.abs(one.astype(int) - other).max() <= 1  # float32 rounding


@pytest.mark.parametrize("value", [0.0, -3.0, 6e4, np.nan], ids=str)
def test_a_constant_image_is_black(value, masks):
    picture = draw_agreement(np.full(SHAPE, value), *masks)
    assert pixel(picture, (0, 0)) == (0, 0, 0)
    assert pixel(picture, HIT) != (0, 0, 0)


def test_voxels_that_are_no_number_are_black_and_crush_nothing():
    image = np.arange(35, dtype=np.float32).reshape(SHAPE)
    whole = draw_agreement(image, np.zeros(SHAPE), np.zeros(SHAPE))
    image[3, 2] = np.nan
    holed = draw_agreement(image, np.zeros(SHAPE), np.zeros(SHAPE))
    assert pixel(holed, (3, 2)) == (0, 0, 0)
    rest = np.ones((5, 7), bool)
    rest[2, 3] = False
    assert np.abs(whole.astype(int) - holed)[rest].max() <= 1


def test_without_truth_the_outline_of_the_prediction_is_drawn():
    pred = np.zeros(SHAPE, bool)
    pred[1:6, 1:4] = True
    picture = draw_agreement(np.zeros(SHAPE), pred)
    assert pixel(picture, (1, 1)) == AGREEMENT_COLOURS["true positive"]
    assert pixel(picture, (3, 2)) == (0, 0, 0)
    assert np.count_nonzero(picture.any(axis=-1)) == 15 - 3


def test_each_axis_is_cut_where_most_of_the_truth_lies():
    image = np.zeros((7, 5, 3))
    truth = np.zeros(image.shape, np.uint8)
    truth[1:6, 4, 2] = 1  # a rod along x
    truth[0] = 255
    pictures = plane_pictures(image, truth > 1, truth)
    assert {name: picture.shape[:2] for name, picture in pictures.items()} == {
        "x": (3, 5),
        "y": (3, 7),
        "z": (5, 7),
    }
    yellow = {
        name: np.argwhere(picture.any(axis=-1)).tolist() for name, picture in pictures.items() if name != "x"
    }
    assert yellow == {"y": [[2, x] for x in range(1, 6)], "z": [[4, x] for x in range(1, 6)]}


def test_an_empty_volume_is_cut_in_the_middle():
    image = np.zeros((7, 5, 3))
    image[:, :, 1] = np.arange(7)[:, None]
    picture = plane_pictures(image, np.zeros(image.shape))["z"]
    assert picture.max() == 255


def test_a_resampled_image_is_shown_on_the_grid_of_the_prediction():
    pred = np.zeros((7, 5, 3), bool)
    pred[3, 2, 1] = True
    pictures = plane_pictures(np.zeros((14, 3, 3)), pred, pred)
    assert {name: picture.shape[:2] for name, picture in pictures.items()} == {
        "x": (3, 5),
        "y": (3, 7),
        "z": (5, 7),
    }


def test_a_picture_of_two_dimensions_is_seen_across_z(masks):
    assert list(plane_pictures(np.zeros(SHAPE), *masks)) == ["z"]


def test_tiles_stand_side_by_side_with_black_between():
    red, blue = np.zeros((2, 3, 3), np.uint8), np.zeros((4, 1, 3), np.uint8)
    red[..., 0], blue[..., 2] = 9, 7
    sheet = tile([red, blue], gap=2)
    assert sheet.shape == (4, 6, 3)
    assert np.array_equal(sheet[:2, :3], red)
    assert np.array_equal(sheet[:, 5:], blue)
    assert not sheet[:, 3:5].any()
    assert not sheet[2:, :3].any()


def test_a_png_comes_back_pixel_for_pixel(tmp_path, rng):
    picture = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)


def test_a_gif_comes_back_frame_for_frame(tmp_path):
    pictures = [np.full((5, 7, 3), 40 * number, np.uint8) for number in range(4)]
    pictures[2][1, 3] = AGREEMENT_COLOURS["false negative"]
    write_gif(tmp_path / "a.gif", pictures, frames_per_second=5)
    with Image.open(tmp_path / "a.gif") as animation:
        assert (animation.n_frames, animation.info["duration"], animation.info["loop"]) == (4, 200, 0)
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
    assert np.array_equal(np.stack(frames), np.stack(pictures))


@pytest.mark.parametrize(
    "write", [write_png, lambda path, picture, **options: write_gif(path, [picture], **options)]
)
def test_an_existing_picture_is_replaced_only_when_asked(tmp_path, write):
    path = tmp_path / "a.png" if write is write_png else tmp_path / "a.gif"
    path.write_bytes(b"mine")
    picture = np.zeros((5, 7, 3), np.uint8)
    with pytest.raises(InputError, match="expected a new file"):
        write(path, picture)
    assert path.read_bytes() == b"mine"
    write(path, picture, overwrite=True)
    with Image.open(path) as written:
        assert written.size == (7, 5)


@pytest.mark.parametrize(
    ("sizes", "got"), [([], "no picture"), ([(5, 7, 3), (5, 6, 3)], r"\(5, 6, 3\)")], ids=["none", "two"]
)
def test_an_animation_of_no_or_several_sizes_is_refused(tmp_path, sizes, got):
    with pytest.raises(ValueError, match=f"needs pictures of one size, got .*{got}"):
        write_gif(tmp_path / "a.gif", [np.zeros(size, np.uint8) for size in sizes])


def test_an_animation_that_stands_still_is_refused(tmp_path):
    with pytest.raises(ValueError, match="frames_per_second must be positive"):
        write_gif(tmp_path / "a.gif", [np.zeros((5, 7, 3), np.uint8)], frames_per_second=0)
