from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from volseg.data.datasets.picture_check import PictureCase, check_pictures

HEIGHT, WIDTH = 9, 7
COLOURS = {"#ff0000": 1, "#00ff00": 2}


def save(path, array, **options):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path, **options)
    return path


def blob(value=255, shape=(HEIGHT, WIDTH)):
    mask = np.zeros(shape, np.uint8)
    mask[2:5, 1:4] = value
    return mask


@pytest.fixture
def case(tmp_path):
    """A photograph with a mask of nine pixels."""
    image = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)))
    return PictureCase("a", "a", image, label=save(tmp_path / "m.png", blob()))


def faults_of(case, **options):
    check_pictures([case], root=case.image.parent, channels="rgb", **options)
    return case.faults


def test_a_good_case_gets_size_type_and_foreground(case):
    assert faults_of(case) == []
    assert (case.size, case.dtype) == ((HEIGHT, WIDTH), "uint8")
    assert case.foreground == pytest.approx(9 / (HEIGHT * WIDTH))
    assert case.is_labelled


def test_a_case_without_mask_has_no_foreground(case):
    case.label = None
    assert faults_of(case) == []
    assert case.foreground is None
    assert not case.is_labelled


def test_an_unreadable_picture_is_named_relative_to_the_data(case):
    case.image.write_bytes(b"<html>not a picture</html>")
    (fault,) = faults_of(case)
    assert fault.startswith("a.png: expected")
    assert case.size is None


def test_an_unreadable_mask_is_named(case):
    case.label.write_bytes(case.label.read_bytes()[:30])
    (fault,) = faults_of(case)
    assert fault.startswith("m.png: expected")


def test_a_missing_file_is_named(case):
    case.label.unlink()
    (fault,) = faults_of(case)
    assert "m.png" in fault


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [((WIDTH, HEIGHT), "masks must not be transposed"), ((9, 8), "a mask needs the size of its image")],
    ids=["transposed", "other"],
)
def test_a_mask_of_another_size_is_a_fault(case, shape, remedy):
    save(case.label, blob(shape=shape))
    rows = f"{shape[0]}x{shape[1]}"
    assert faults_of(case) == [f"m.png: expected 9x7 as a.png has, got {rows}; {remedy}"]


def test_grey_edges_are_a_fault_unless_the_masks_were_resized(case):
    grey = blob()
    grey[2, 1:4] = (3, 90, 140)
    save(case.label, grey)
    expected = (
        "m.png: expected 0 and one other value, got 5 values (0, 3, 90, 140, 255 …); threshold it first"
    )
    assert faults_of(case) == [expected]
    case.faults.clear()
    assert faults_of(case, has_grey_edges=True) == []
    assert case.foreground == pytest.approx(9 / (HEIGHT * WIDTH))


def test_a_mask_without_background_is_a_fault(case):
    save(case.label, blob() // 2 + 10)
    (fault,) = faults_of(case, has_grey_edges=True)
    expected = "expected background of 0, got no pixel below 10; check that it is the mask, and not inverted"
    assert fault == f"m.png: {expected}"


def test_a_photograph_as_mask_is_a_fault(case):
    case.label = case.image
    (fault,) = faults_of(case)
    assert fault.startswith("a.png: expected")


def test_a_lossy_mask_is_accepted_by_a_threshold_alone(case, tmp_path):
    case.label = save(tmp_path / "m.jpg", np.kron(blob()[:8, :6], np.ones((8, 8))), quality=95)
    save(case.image, np.zeros((64, 48, 3)))
    (fault,) = faults_of(case)
    assert fault.startswith("m.jpg: expected a lossless mask, got a JPEG; use the original file")
    case.faults.clear()
    case.label_rule = "above:127"
    assert faults_of(case) == []
    assert case.foreground == pytest.approx(9 / 48, abs=0.01)


def test_a_grey_picture_is_no_mask_for_a_threshold(case):
    case.label_rule = "above:127"
    save(case.label, np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 4)
    (fault,) = faults_of(case)
    assert "m.png: expected black and white, got 75 % of its pixels halfway between" in fault


def test_colours_of_the_rule_are_foreground(case):
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask[1, :3] = (255, 0, 0)
    mask[5, :2] = (0, 255, 0)
    save(case.label, mask)
    case.label_rule = COLOURS
    assert faults_of(case) == []
    assert case.foreground == pytest.approx(5 / (HEIGHT * WIDTH))


def test_other_colours_are_a_fault(case):
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask[1, 1], mask[2, 2] = (255, 255, 0), (1, 2, 3)
    save(case.label, mask)
    case.label_rule = COLOURS
    expected = "m.png: expected the colours #000000, #ff0000, #00ff00, got #010203, #ffff00"
    assert faults_of(case) == [f"{expected}; recolour it; masks must not be smoothed"]


def test_run_lengths_are_read_down_the_columns(case):
    case.label, case.run_lengths = None, "1 9 20 3"
    assert faults_of(case) == []
    assert case.foreground == pytest.approx(12 / 63)
    assert case.is_labelled


def test_run_lengths_beyond_the_picture_are_a_fault(case):
    case.label, case.run_lengths = None, "60 9"
    (fault,) = faults_of(case)
    assert fault.startswith("a: run-length code: expected runs within 1 to 63, got a run from 60 to 68")


@pytest.mark.parametrize(
    ("mask", "got"),
    [(np.zeros((HEIGHT, WIDTH)), "black alone"), (np.arange(63).reshape(9, 7), "63 values")],
    ids=["black", "photograph"],
)
def test_a_field_of_view_must_be_a_mask(case, tmp_path, mask, got):
    case.field_of_view = save(tmp_path / "view.png", mask)
    expected = f"view.png: expected a field of view of 0 and one other value, got {got}"
    assert faults_of(case) == [f"{expected}; check that it is the right file"]


def test_a_field_of_view_of_another_size_is_a_fault(case, tmp_path):
    case.field_of_view = save(tmp_path / "view.png", blob(shape=(8, 7)))
    assert faults_of(case) == [
        "view.png: expected 9x7 as a.png has, got 8x7; a mask needs the size of its image"
    ]
