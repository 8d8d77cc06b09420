"""Wording of errors."""

import pytest

from volseg.checks import (
    InputError,
    check_choice,
    check_flag,
    check_fraction,
    check_odd,
    check_positive,
    nearest,
    refuse,
)


def test_a_refusal_names_source_expectation_finding_and_remedy():
    with pytest.raises(InputError, match=r"^a\.tif: expected grey, got RGB; convert it$"):
        refuse("a.tif", "grey", "RGB", "convert it")


def test_a_newline_in_a_file_name_cannot_break_the_message_into_two():
    with pytest.raises(InputError) as caught:
        refuse("a\nb.tif", "grey", "RGB", "convert it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 2, -3, True, 3.0], ids=str)
def test_a_stack_needs_an_odd_number_of_slices(value):
    with pytest.raises(ValueError, match="in_slices must be an odd number"):
        check_odd("in_slices", value)


def test_an_even_number_of_slices_is_told_its_neighbours():
    with pytest.raises(ValueError, match="use 5 or 7"):
        check_odd("in_slices", 6)


def test_a_far_word_lists_the_choices():
    assert nearest("zzz", ["mean", "max"]) == "use one of max, mean"


def test_a_near_word_is_guessed():
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        check_choice("fusion", "meen", ["mean", "max"])


@pytest.mark.parametrize("values", [0, -1.0, float("nan"), float("inf"), (), (1, 0)], ids=str)
def test_what_is_not_positive_is_refused(values):
    with pytest.raises(ValueError, match="positive and finite"):
        check_positive("spacing_mm", values)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "high", None, True], ids=str)
def test_a_fraction_lies_between_0_and_1(value):
    with pytest.raises(ValueError, match="between 0 and 1"):
        check_fraction("threshold", value)


@pytest.mark.parametrize(
    ("value", "is_set"), [(True, True), (False, False), ("true", True), ("False", False)], ids=repr
)
def test_a_switch_is_understood_as_python_and_as_json_write_it(value, is_set):
    assert check_flag("overwrite", value) is is_set


@pytest.mark.parametrize("value", ["maybe", "", 1, None], ids=repr)
def test_what_is_no_switch_is_refused(value):
    with pytest.raises(ValueError, match="overwrite must be true or false"):
        check_flag("overwrite", value)
