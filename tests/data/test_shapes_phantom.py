from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data.phantoms import draw_shapes, write_shapes
from volseg.data.phantoms import shapes as module

IMAGES = [draw_shapes((11, k)) for k in range(40)]


def test_the_same_seed_gives_the_same_pixels():
    for first, second in zip(draw_shapes(5), draw_shapes(5), strict=True):
        assert np.array_equal(first, second)
    assert not np.array_equal(draw_shapes(5)[0], draw_shapes(6)[0])


def test_global_random_state_is_left_as_found():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    draw_shapes(0)
    assert np.random.random() == expected


def test_every_image_holds_lines_and_ellipses_on_background():
    for image, classes in IMAGES:
        assert image.dtype == classes.dtype == np.uint8
        assert image.shape == classes.shape == (400, 200)
        assert set(np.unique(classes)) == {0, 1, 2}


def test_the_background_is_gaussian_noise_cut_at_both_ends():
    values = np.concatenate([image[classes == 0] for image, classes in IMAGES]) / 255
    means = [image[classes == 0].mean() / 255 for image, classes in IMAGES]
    assert (values.min(), values.max()) == (153 / 255, 254 / 255)
    # measured in the published images: mean of an image 0.726 to 0.870, standard deviation 0.078 to 0.088
    assert min(means) > 0.72
    assert max(means) < 0.88
    assert all(0.077 < (image[classes == 0] / 255).std() < 0.09 for image, classes in IMAGES)


def test_shapes_are_flat_and_darker_than_the_background():
    for image, classes in IMAGES:
        for kind in (1, 2):
            greys, counts = np.unique(image[classes == kind], return_counts=True)
            assert greys.max() <= 0.7 * 255
            assert 1 <= (counts > 0).sum() <= 9


def test_class_shares_are_those_of_the_published_images():
    shares = np.array([[(classes == kind).mean() for kind in (1, 2)] for _, classes in IMAGES]).mean(axis=0)
    # 2.2 % and 4.0 % there; 40 images have a standard error of 0.2 % and 0.4 %
    assert np.abs(shares - (0.022, 0.040)).max() < 0.012


@pytest.mark.parametrize("thickness", [1, 2])
def test_an_upright_line_is_a_diamond_wide(monkeypatch, thickness):
    monkeypatch.setattr(module, "_THICKNESSES", (thickness,))
    draws = iter([np.array([50.0, 40.0]), 30.0, np.pi / 2])

    class Fixed:
        def uniform(self, *_):
            return next(draws)

        def choice(self, options):
            return options[0]

    mask = module._line(Fixed(), (100, 81))
    assert np.flatnonzero(mask[50]).tolist() == list(range(40 - thickness, 41 + thickness))
    assert np.flatnonzero(mask.any(axis=1)).tolist() == list(range(35 - thickness, 66 + thickness))
    assert np.flatnonzero(mask[35 - thickness]).tolist() == [40]


def test_an_ellipse_across_the_border_comes_back_on_the_other_side():
    class Fixed:
        def __init__(self, centre):
            self.draws = iter([np.array(centre), 0.3, 1.5])

        def uniform(self, *_):
            return next(self.draws)

        def random(self):
            return 0.5

    middle = module._ellipse(Fixed((50.0, 40.0)), (101, 81))
    corner = module._ellipse(Fixed((0.0, 80.0)), (101, 81))
    assert middle.sum() > 300
    assert np.array_equal(np.roll(middle, (-50, 40), axis=(0, 1)), corner)


def test_a_size_without_room_for_a_line_is_refused():
    with pytest.raises(ValueError, match=r"more than 20 rows and columns, got \(40, 20\); use \(400, 200\)"):
        draw_shapes(0, size=(40, 20))


def test_written_pictures_read_back_as_drawn(tmp_path):
    write_shapes(tmp_path, 2, seed=(4, 1))
    image, classes = draw_shapes((4, 1, 1))
    read = np.asarray(Image.open(tmp_path / "images/Img_1.png"))
    mask = np.asarray(Image.open(tmp_path / "masks/Mask_1.png"))
    assert np.array_equal(read, np.stack([image] * 3, axis=-1))
    assert np.array_equal(mask[..., 0] == 255, classes == 1)
    assert np.array_equal(mask[..., 1] == 255, classes == 2)
    assert not mask[..., 2].any()


def test_more_images_begin_with_the_same(tmp_path):
    write_shapes(tmp_path / "one", 1, seed=8)
    write_shapes(tmp_path / "two", 2, seed=8)
    name = "images/Img_0.png"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_existing_pictures_are_replaced_only_when_asked(tmp_path):
    write_shapes(tmp_path, 1, seed=1)
    before = (tmp_path / "masks/Mask_0.png").read_bytes()
    with pytest.raises(
        InputError, match=r"Img_0\.png: expected a new file, got one that exists; use --overwr"
    ):
        write_shapes(tmp_path, 1, seed=2)
    write_shapes(tmp_path, 1, seed=2, overwrite=True)
    assert (tmp_path / "masks/Mask_0.png").read_bytes() != before


def test_other_pictures_are_never_mixed_with_generated_ones(tmp_path):
    write_shapes(tmp_path, 3)
    with pytest.raises(InputError, match=r"Img_1\.png: expected a folder for generated pictures alone"):
        write_shapes(tmp_path, 1, overwrite=True)


def test_nothing_to_generate_is_refused(tmp_path):
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        write_shapes(tmp_path, 0)
