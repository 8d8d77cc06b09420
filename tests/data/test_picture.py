from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data.picture import PICTURE_SUFFIXES, decode_picture, grey_of, read_picture_header

PIXELS = np.random.default_rng(0).integers(0, 255, (13, 9)).astype(np.uint8)


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_a_header_tells_what_the_pixels_are(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PIXELS).save(path)
    header = read_picture_header(path)
    pixels = decode_picture(path)
    assert (header.width, header.height) == (9, 13)
    assert pixels.shape == (13, 9)
    assert pixels.dtype == header.dtype == np.uint8
    if suffix not in (".jpg", ".jpeg"):
        np.testing.assert_array_equal(pixels, PIXELS)


def test_only_a_jpeg_states_a_resolution(tmp_path):
    for name, expected in (("a.jpg", (300, 150)), ("a.png", None), ("a.bmp", None)):
        Image.fromarray(PIXELS).save(tmp_path / name, dpi=(300, 150))
        assert read_picture_header(tmp_path / name).resolution_per_inch == expected


def test_grey_colours_become_one_channel_and_others_are_refused():
    shown = np.stack([PIXELS] * 3, -1)
    np.testing.assert_array_equal(grey_of("a.png", shown), PIXELS)
    shown[0, 0, 2] ^= 1
    with pytest.raises(InputError, match="got colours"):
        grey_of("a.png", shown)


def test_a_large_picture_warns_of_nothing(tmp_path):
    Image.new("1", (10000, 9100)).save(tmp_path / "a.png")
    assert read_picture_header(tmp_path / "a.png").width == 10000
