from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from volseg.checks import InputError
from volseg.data.rle import decode_rle, encode_rle, read_rle_csv, write_rle_csv

MASKS = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@given(MASKS, st.sampled_from(["C", "F"]))
def test_decoding_undoes_encoding(mask, order):
    np.testing.assert_array_equal(decode_rle(encode_rle(mask, order=order), mask.shape, order=order), mask)


@given(MASKS, st.sampled_from(["C", "F"]))
def test_encoding_a_decoded_text_gives_the_same_bytes(mask, order):
    text = encode_rle(mask, order=order)
    assert encode_rle(decode_rle(text, mask.shape, order=order), order=order) == text


@given(MASKS)
def test_column_order_is_the_row_order_of_the_transposed_mask(mask):
    assert encode_rle(mask, order="F") == encode_rle(mask.T, order="C", empty="")


@given(MASKS)
def test_the_lengths_add_up_to_the_foreground(mask):
    numbers = [int(word) for word in encode_rle(mask).split()]
    assert sum(numbers[1::2]) == mask.sum()


@pytest.mark.parametrize(("order", "text"), [("C", "1 0"), ("F", "")])
def test_an_empty_mask_is_written_as_its_challenge_wants(order, text):
    assert encode_rle(np.zeros((3, 5)), order=order) == text
    assert not decode_rle(text, (3, 5), order=order).any()


def test_any_value_above_zero_is_foreground():
    assert encode_rle(np.array([[0, 255, 7]], np.uint8)) == "2 2"


def test_a_mask_decodes_to_uint8():
    assert decode_rle("1 6", (2, 3)).dtype == np.uint8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "expected pairs of start and length, got 1 numbers"),
        ("", "expected pairs of start and length, got 0 numbers"),
        ("1 x", "expected whole numbers, got 'x'"),
        ("1 -2", "expected whole numbers, got '-2'"),
        ("1 " + "9" * 30, "expected whole numbers, got '9999"),
        ("0 2", "expected runs within 1 to 12, got a run from 0 to 1"),
        ("11 3", "expected runs within 1 to 12, got a run from 11 to 13"),
        ("2 0", "expected runs of at least one pixel"),
        ("5 2 1 2", "expected sorted runs without overlap, got a run at 1 after one that ends at 6"),
        ("1 4 3 2", "expected sorted runs without overlap, got a run at 3 after one that ends at 4"),
    ],
)
def test_a_damaged_code_is_refused(text, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        decode_rle(text, (3, 4))


def test_runs_that_touch_are_accepted():
    assert decode_rle("1 2 3 2", (2, 3)).tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_volume_is_no_mask():
    with pytest.raises(ValueError, match="needs two axes"):
        encode_rle(np.zeros((2, 3, 4)))


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order must be one of C, F"):
        encode_rle(np.zeros((2, 3)), order="A")  # type: ignore[arg-type]


def test_a_csv_comes_back_byte_for_byte(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    write_rle_csv(first, [("kidney_1_0000", "1 0"), ("kidney_1_0001", "2 3 9 1")])
    write_rle_csv(second, (list(row.values()) for row in read_rle_csv(first)))
    assert first.read_bytes() == second.read_bytes() == b"id,rle\nkidney_1_0000,1 0\nkidney_1_0001,2 3 9 1\n"


def test_a_cell_longer_than_the_csv_module_allows_is_read(tmp_path):
    runs = " ".join(f"{2 * k + 1} 1" for k in range(40_000))
    write_rle_csv(tmp_path / "a.csv", [("a_0", runs)])
    assert read_rle_csv(tmp_path / "a.csv") == [{"id": "a_0", "rle": runs}]


def test_columns_of_another_challenge_are_read(tmp_path):
    path = tmp_path / "train_masks.csv"
    path.write_text("subject,img,pixels\r\n1,1,5 2\r\n1,2,\r\n")
    rows = read_rle_csv(path, ("subject", "img", "pixels"))
    assert rows == [{"subject": "1", "img": "1", "pixels": "5 2"}, {"subject": "1", "img": "2", "pixels": ""}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the columns id,rle, got ''"),
        (b"id,pixels\n", "expected the columns id,rle, got 'id,pixels'"),
        (b"id,rle\na_0\n", "line 2: expected 2 cells, got 1"),
        (b"id,rle\na_0,1 2\na_0,1 3\n", "line 3: expected each mask once"),
        (b"\xff\xfe\x00", "expected a readable CSV"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_rle_csv(path)


def test_a_missing_csv_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: expected a readable CSV"):
        read_rle_csv(tmp_path / "none.csv")


@pytest.mark.parametrize("row", [("a,b", "1 0"), ("a\nb", "1 0"), ("a",)], ids=["comma", "newline", "short"])
def test_a_cell_that_would_break_the_csv_is_refused_and_no_file_is_left(tmp_path, row):
    with pytest.raises(ValueError, match="needs 2 cells without commas"):
        write_rle_csv(tmp_path / "a.csv", [row])
    assert list(tmp_path.iterdir()) == []


def test_an_existing_csv_is_kept(tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(InputError):
        write_rle_csv(tmp_path / "a.csv", [("a_0", "1 0")])
    assert (tmp_path / "a.csv").read_text() == "mine"
