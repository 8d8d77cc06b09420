"""What a person sees in the animation of a volume."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from volseg.checks import InputError
from volseg.reports import CLASS_COLOURS, VolumeView, volume_gif, write_volume_gif
from volseg.reports.captions import LINE_HEIGHT

SHAPE = (8, 4, 5)  # x, y, z
SIDE, GAP = 80, 4  # ten pixels of a panel are a voxel


@pytest.fixture
def labels():
    pred, truth = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    pred[1, 2, 3] = 1
    truth[6, 0, 3] = 2
    truth[0, 3, 3] = 255
    return pred, truth


def frames_of(content):
    with Image.open(io.BytesIO(content)) as animation:
        assert animation.info["loop"] == 0
        return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(animation)]


def panels(frame, width=SIDE):
    return [frame[LINE_HEIGHT:, left : left + width] for left in range(0, frame.shape[1], width + GAP)]


def drawn(pred, truth=None, image=None, **options):
    view = VolumeView(np.zeros(pred.shape) if image is None else image, pred, truth)
    return frames_of(volume_gif(view, longest_side=SIDE, **options))


def voxel(panel, x, y):
    return panel[10 * y + 5, 10 * x + 5]


def tint(colour, grey=0.0):
    return 0.55 * grey + 0.45 * np.array(colour)


def test_there_is_a_frame_for_each_slice_with_three_panels(labels):
    frames = drawn(*labels)
    assert len(frames) == 5
    assert {frame.shape for frame in frames} == {(40 + 2 * LINE_HEIGHT, 3 * SIDE + 2 * GAP, 3)}


def test_without_truth_there_are_two_panels(labels):
    assert drawn(labels[0])[0].shape[1] == 2 * SIDE + GAP


def test_classes_have_their_colours_at_their_places_in_their_slice(labels):
    frames = drawn(*labels)
    image, truth, pred = panels(frames[3])
    assert np.abs(voxel(pred, 1, 2) - tint(CLASS_COLOURS[0])).max() <= 1
    assert np.abs(voxel(truth, 6, 0) - tint(CLASS_COLOURS[1])).max() <= 1
    assert np.abs(voxel(truth, 0, 3) - tint((128, 128, 128))).max() <= 1
    for panel, shown in ((truth, labels[1]), (pred, labels[0]), (image, labels[0] * 0)):
        for (x, y), label in np.ndenumerate(shown[:, :, 3]):
            assert voxel(panel, x, y).any() == (label > 0)
    assert not any(panel[:40].any() for panel in panels(frames[2]))


def test_the_image_is_in_all_panels_and_shines_through(labels):
    image = np.zeros(SHAPE)
    image[4:] = image[:, 2:] = 1
    shown, truth, pred = panels(drawn(*labels, image=image)[3])
    assert voxel(shown, 0, 0).tolist() == [0, 0, 0]
    assert all((voxel(panel, 5, 1) == 255).all() for panel in (shown, truth, pred))
    assert np.abs(voxel(pred, 1, 2) - tint(CLASS_COLOURS[0], 255)).max() <= 1


def test_the_legend_shows_the_pure_colours(labels):
    legend = drawn(*labels)[0][-LINE_HEIGHT:].reshape(-1, 3).tolist()
    for colour in (*CLASS_COLOURS[:2], (128, 128, 128)):
        assert list(colour) in legend


def test_many_slices_are_thinned_and_the_fullest_kept():
    pred = np.zeros((8, 4, 40), np.uint8)
    pred[1, 2, 13] = 1
    frames = drawn(pred, most_frames=5)
    assert len(frames) == 5
    assert sum(bool(panels(frame)[1][:40].any()) for frame in frames) == 1


def test_an_empty_volume_still_has_a_frame_for_each_slice():
    assert len(drawn(np.zeros(SHAPE, bool))) == 5


def test_a_single_slice_is_a_picture():
    assert len(drawn(np.ones((8, 4, 1), np.uint8))) == 1


def test_more_classes_than_colours_are_shown():
    pred = np.zeros(SHAPE, np.uint8)
    pred[1, 2, 3] = 9
    assert np.abs(voxel(panels(drawn(pred)[3])[1], 1, 2) - tint(CLASS_COLOURS[0])).max() <= 1


def test_the_same_volume_gives_the_same_bytes(labels, rng):
    image = rng.random(SHAPE)
    one, other = (volume_gif(VolumeView(image, *labels)) for _ in range(2))
    assert one == other


def test_a_file_is_replaced_only_when_asked(tmp_path, labels):
    path = tmp_path / "a.gif"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match="expected a new file"):
        write_volume_gif(path, np.zeros(SHAPE), *labels)
    write_volume_gif(
        path, np.zeros(SHAPE), *labels, spacing_mm=(1, 2, 3), class_names={1: "a"}, overwrite=True
    )
    assert len(frames_of(path.read_bytes())) == 5


def test_an_animation_that_stands_still_is_refused(labels):
    with pytest.raises(ValueError, match="frames_per_second must be positive"):
        drawn(*labels, frames_per_second=0)
