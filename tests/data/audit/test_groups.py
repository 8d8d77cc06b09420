"""Groups of pictures and of pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from volseg.checks import InputError
from volseg.data.audit import find_same_pictures, group_pictures, join_pairs


def photograph(seed):
    noise = np.random.default_rng(seed).normal(size=(120, 120))
    smooth = sum(ndimage.gaussian_filter(noise, width) * width for width in (2, 5))
    return np.uint8(np.clip(128 + 45 * smooth / smooth.std(), 0, 255))


def test_versions_of_a_photograph_are_one_group(tmp_path):
    versions = {
        "a": photograph(0),
        "other": photograph(1),
        "flipped": photograph(0)[::-1],
        "brighter": np.uint8(photograph(0) * 0.8 + 40),
        "coloured": np.stack([photograph(0), photograph(0) // 2, photograph(0) // 3], axis=-1),
        "other_turned": np.rot90(photograph(1)),
    }
    for name, pixels in versions.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
    assert group_pictures([tmp_path / f"{name}.png" for name in versions]) == [0, 1, 0, 0, 0, 1]


def test_no_picture_gives_no_group():
    assert group_pictures([]) == []


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        group_pictures([tmp_path / "broken.png"])


def test_the_same_pictures_are_those_of_one_size_that_hardly_differ(tmp_path):
    picture = photograph(0)
    nearly = picture.copy()
    nearly[5, 7:17] ^= 1
    versions = {
        "a": picture,
        "smaller": picture[:-1],
        "other": photograph(1),
        "nearly": nearly,
        "coloured": np.stack([picture] * 3, axis=-1),
        "turned": np.rot90(picture),
        "blank": np.zeros_like(picture),
        "blank_too": np.zeros_like(picture),
    }
    paths = [tmp_path / f"{name}.png" for name in versions]
    for path, pixels in zip(paths, versions.values(), strict=True):
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    assert find_same_pictures(paths) == [(0, 3), (0, 4), (3, 4)]
    assert find_same_pictures(paths, below=10) == [(0, 4)]


def test_pictures_of_other_types_are_not_compared(tmp_path):
    paths = [tmp_path / name for name in ("a.tif", "b.tif")]
    for path in paths:
        Image.fromarray(photograph(0).astype(np.float32)).save(path)
    assert find_same_pictures(paths) == []


def test_a_single_picture_is_like_no_other(tmp_path):
    assert find_same_pictures([tmp_path / "not_even_read.png"]) == []


def test_one_of_two_pictures_that_cannot_be_read_is_named(tmp_path):
    Image.fromarray(photograph(0)).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        find_same_pictures([tmp_path / "good.png", tmp_path / "broken.png"])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_groups_are_what_pairs_connect(pairs):
    numbers = join_pairs(10, pairs)
    reach = np.eye(10, dtype=int)
    for first, second in pairs:
        reach[first, second] = reach[second, first] = 1
    reach = np.linalg.matrix_power(reach, 10) > 0
    assert (np.equal.outer(numbers, numbers) == reach).all()
    assert list(dict.fromkeys(numbers)) == list(range(max(numbers) + 1))


@pytest.mark.parametrize("pair", [(0, 3), (-1, 1)])
def test_a_pair_of_an_unknown_item_is_refused(pair):
    with pytest.raises(ValueError, match="from 0 to 2"):
        join_pairs(3, [pair])
