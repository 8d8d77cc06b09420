"""One colour and one name for each class."""

import pytest

from volseg.reports import CLASS_COLOURS, class_colour, name_classes


def test_colours_differ_until_they_begin_anew():
    colours = [class_colour(label) for label in range(1, 9)]
    assert tuple(colours) == CLASS_COLOURS
    assert len(set(colours)) == 8
    assert class_colour(9) == colours[0]


def test_unlabelled_voxels_are_grey():
    assert class_colour(255) == (128, 128, 128)


@pytest.mark.parametrize(
    ("classes", "given", "names"),
    [
        (1, None, {1: "class 1"}),
        (2, ["fluid"], {1: "fluid"}),
        (4, ["a", "b", "c"], {1: "a", 2: "b", 3: "c"}),
        (4, {"3": "c", 0: "background"}, {1: "class 1", 2: "class 2", 3: "c"}),
    ],
    ids=["one channel", "two channels", "list", "mapping"],
)
def test_every_class_but_the_background_has_a_name(classes, given, names):
    assert name_classes(classes, given) == names


@pytest.mark.parametrize("given", [["a", "b", "c"], {5: "e"}], ids=["list", "mapping"])
def test_a_name_of_no_class_is_refused(given):
    with pytest.raises(ValueError, match=r"labels 1 to 2, without the background, got one for label [35]"):
        name_classes(3, given)


def test_a_single_text_is_no_list_of_names():
    with pytest.raises(ValueError, match="must be a list or a mapping, got 'fluid'"):
        name_classes(2, "fluid")
