"""Which slices of a volume are shown, how large, and what is where in them."""

import numpy as np
import pytest

from volseg.reports import VolumeView

SHAPE = (7, 5, 9)  # x, y, z


def volume(**voxels):
    labels = np.zeros(SHAPE, np.uint8)
    for name, place in voxels.items():
        labels[place] = int(name[1:])
    return labels


def view(pred=None, truth=None, **options):
    return VolumeView(np.zeros(SHAPE), volume() if pred is None else pred, truth, **options)


@pytest.mark.parametrize(
    ("spacing", "size"),
    [(None, (70, 50)), ((1, 1, 9), (70, 50)), ((2, 1, 1), (70, 25)), ((0.5, 2, 1), (24, 70))],
    ids=["none", "thick slices", "wide pixels", "high pixels"],
)
def test_panels_have_the_proportions_of_the_tissue(spacing, size):
    assert np.abs(np.subtract(view(spacing_mm=spacing).panel_size(70), size)).max() <= 1


def test_x_runs_to_the_right_and_y_down():
    shown = view(volume(_3=(6, 1, 4)))
    assert np.argwhere(shown.labels(shown.pred, 4, (7, 5))).tolist() == [[1, 6]]
    image = np.zeros(SHAPE)
    image[6, 1] = 1
    grey = VolumeView(image, volume()).grey(4, (7, 5))
    assert np.argwhere(grey == 255).tolist() == [[1, 6]]


def test_an_image_of_another_size_is_shown_over_the_same_place():
    image = np.zeros((14, 10, 3))
    image[12:14, 2:10, 1] = 1
    shown = VolumeView(image, volume())
    bright = [shown.grey(index, (7, 5))[2, 6] > 128 for index in (2, 3, 5, 6)]
    assert bright == [False, True, True, False]
    assert not shown.grey(3, (7, 5))[2, :5].any()


def test_slices_of_one_volume_have_one_brightness():
    image = np.zeros(SHAPE)
    image[..., 3] = np.linspace(0, 1, 35).reshape(SHAPE[:2])
    image[..., 4] = image[..., 3] / 2
    shown = VolumeView(image, volume())
    bright, half = (shown.grey(index, (7, 5)).astype(int) for index in (3, 4))
    below = bright < 250
    assert np.abs(bright - 2 * half)[below].max() <= 1


def test_a_thin_structure_stays_visible_in_a_small_panel():
    labels = np.zeros((40, 40, 1), np.uint8)
    labels[18] = 2
    shown = VolumeView(np.zeros(labels.shape), labels)
    small = shown.labels(shown.pred, 0, (10, 10))
    assert (small[:, 4] == 2).all()
    assert np.count_nonzero(small) == 10


def test_few_slices_are_all_shown():
    assert view().spread(9) == view().most_telling(9) == list(range(9))


@pytest.mark.parametrize("most", [1, 2, 4, 8])
def test_many_slices_are_thinned_evenly_in_order(most):
    chosen = view().spread(most)
    assert len(chosen) == most
    assert chosen == sorted(set(chosen))
    steps = np.diff([-1, *chosen, 9])
    assert steps.max() - steps.min() <= 2


@pytest.mark.parametrize("most", [2, 3, 5])
def test_the_slices_where_classes_are_largest_are_always_shown(most):
    labels = volume(_1=(slice(0, 4), 0, 0), _2=(0, slice(0, 3), 8))
    labels[0, 4, 3:6] = 1
    for shown in (view(labels), view(volume(), labels), view(labels * 0 + 1, labels)):
        for chosen in (shown.spread(most), shown.most_telling(most)):
            assert {0, 8} <= set(chosen)
            assert len(set(chosen)) == most


def test_the_single_slice_shown_is_the_fullest():
    labels = volume(_1=(slice(None), slice(None), 7))
    labels[0, 0, 2] = 1
    assert view(labels).spread(1) == view(labels).most_telling(1) == [7]


def test_slices_with_a_class_come_before_others():
    labels = volume(_1=(0, 0, slice(5, 8)))
    assert {5, 6, 7} <= set(view(labels).most_telling(4))
    assert set(view(labels).most_telling(2)) <= {5, 6, 7}


def test_unlabelled_voxels_are_nothing_that_is_searched_for():
    assert view(volume(), volume(_255=(0, 0, 8))).most_telling(1) == [4]


def test_the_legend_names_what_is_named_or_present():
    shown = view(volume(_2=(0, 0, 0)), volume(_255=(0, 0, 0)), class_names={1: "fluid"})
    assert shown.names == {1: "fluid", 2: "class 2", 255: "not labelled"}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.zeros((2, 3)), volume()), r"image must be a volume \(x, y, z\), got \(2, 3\)"),
        ((volume(), np.zeros((0, 1, 1))), r"pred must be a volume"),
        ((volume(), volume(), np.zeros((7, 5, 8))), "truth and pred must have one shape"),
        ((volume(), np.full(SHAPE, 300)), "labels from 0 to 255, got 300 to 300"),
    ],
    ids=["flat", "empty", "sizes", "labels"],
)
def test_what_is_no_volume_of_labels_is_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        VolumeView(*arrays)


def test_a_spacing_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="spacing_mm must be positive"):
        view(spacing_mm=(1, 0, 1))
