"""The same picture is found however it is flipped, turned or brightened; another one is not."""

import numpy as np
import pytest
from scipy import ndimage

from volseg.data.audit import describe_picture, find_similar_pairs, turn_picture


def texture(seed, shape=(150, 150)):
    """Blobs and lines of several widths on a slope of brightness, as smooth as a photograph."""
    noise = np.random.default_rng(seed).normal(size=shape)
    mixture = sum(ndimage.gaussian_filter(noise, width) * width for width in (2, 4, 8))
    return 120 + 40 * mixture / np.std(mixture) + np.linspace(0, 30, shape[1])


def compare(first, second, above=0.0):
    (pair,) = find_similar_pairs([describe_picture(first), describe_picture(second)], above=above)
    return pair


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_each_of_the_eight_views_is_found_with_its_turn(angle, mirrored):
    picture = texture(0)
    view = np.rot90(picture, angle // 90)  # counter-clockwise, so that the way back is clockwise
    view = view[:, ::-1] if mirrored else view
    pair = compare(picture, view)
    assert pair.correlation == pytest.approx(1, abs=1e-4)
    back = turn_picture(view, angle_degrees=pair.angle_degrees, mirrored=pair.mirrored)
    np.testing.assert_array_equal(back, picture)


@pytest.mark.parametrize("angle", [-33, 8, 47, 130])
@pytest.mark.parametrize("mirrored", [False, True])
def test_any_angle_is_found_in_square_pictures(angle, mirrored):
    picture = texture(1)
    view = ndimage.rotate(picture, angle, reshape=False, order=1, mode="reflect")
    view = view[:, ::-1] if mirrored else view
    pair = compare(picture, view)
    assert pair.correlation > 0.8
    back = turn_picture(view, angle_degrees=pair.angle_degrees, mirrored=pair.mirrored)
    centre = (slice(50, 100), slice(50, 100))
    assert np.corrcoef(back[centre].ravel(), picture[centre].ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: 1.3 * picture + 20,
        lambda picture: 255 * (picture.clip(0) / 300) ** 1.5,
        lambda picture: picture + np.linspace(-40, 40, 150)[:, None],
        lambda picture: picture + np.random.default_rng(5).normal(0, 8, picture.shape),
        lambda picture: ndimage.gaussian_filter(picture, 1),
        lambda picture: ndimage.zoom(picture, (0.7, 0.9), order=1),
    ],
    ids=["contrast", "gamma", "shading", "noise", "blur", "size"],
)
def test_mild_changes_of_intensity_and_size_are_seen_through(change):
    picture = texture(2)
    assert compare(picture, change(picture)).correlation > 0.85
    assert compare(picture, change(picture)[::-1]).correlation > 0.85


def test_different_pictures_stay_apart():
    descriptors = [describe_picture(texture(seed)) for seed in range(12)]
    assert find_similar_pairs(descriptors, above=0.5) == []


def test_pictures_with_the_same_round_edge_stay_apart():
    rows, columns = np.ogrid[:150, :150]
    is_inside = np.hypot(rows - 75, columns - 75) < 71
    descriptors = [describe_picture(np.where(is_inside, texture(seed), 0)) for seed in range(8)]
    assert find_similar_pairs(descriptors, above=0.5) == []


def test_a_quarter_turn_of_an_oblong_picture_is_found():
    picture = texture(3, (90, 140))
    pair = compare(picture, np.rot90(picture))
    assert pair.correlation == pytest.approx(1, abs=0.02)
    assert pair.angle_degrees == 90
    assert not pair.mirrored


def test_pairs_beyond_one_block_are_found_once(monkeypatch):
    descriptors = [describe_picture(texture(seed % 4)) for seed in range(11)]
    whole = find_similar_pairs(descriptors)
    monkeypatch.setattr("volseg.data.audit.similarity._BLOCK", 3)
    parts = find_similar_pairs(descriptors)
    indices = [(pair.first, pair.second) for pair in parts]
    assert indices == [(pair.first, pair.second) for pair in whole]
    assert indices == [(i, j) for i in range(11) for j in range(i + 1, 11) if i % 4 == j % 4]


@pytest.mark.parametrize("value", [0, 7])
def test_a_picture_without_texture_is_similar_to_none(value):
    blank = describe_picture(np.full((20, 30), value, dtype=np.uint8))
    assert not blank.any()
    assert find_similar_pairs([blank, blank, describe_picture(texture(0))], above=0.1) == []


def test_one_picture_has_no_pair():
    assert find_similar_pairs([describe_picture(texture(0))]) == []


@pytest.mark.parametrize("shape", [(3,), (4, 4, 3), (0, 4)])
def test_a_picture_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(H, W\)"):
        describe_picture(np.zeros(shape))


def test_a_correlation_that_is_no_fraction_is_refused():
    with pytest.raises(ValueError, match="above must lie between 0 and 1"):
        find_similar_pairs([], above=1.2)
