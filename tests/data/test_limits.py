from __future__ import annotations

import pytest

from volseg.checks import InputError
from volseg.data.limits import MAX_EXPANSION, SMALL_BYTES, byte_budget, check_budget, check_expansion

VARIABLE = "VOLSEG_MAX_INPUT_BYTES"


def test_the_argument_goes_before_the_variable_before_the_memory(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert byte_budget() > 2**20
    monkeypatch.setenv(VARIABLE, "5000")
    assert byte_budget() == 5000
    assert byte_budget(70) == 70


@pytest.mark.parametrize("text", ["0", "-3", "many", "1e9"])
def test_a_variable_that_is_no_size_is_an_error(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ValueError, match=f"{VARIABLE} must be a positive number of bytes"):
        byte_budget()


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_an_argument_that_is_no_size_is_an_error(size):
    with pytest.raises(ValueError, match="max_bytes must be a positive number of bytes"):
        byte_budget(size)


def test_a_volume_beyond_the_budget_is_refused():
    check_budget("a.nii", 100, 100)
    with pytest.raises(InputError, match=r"a\.nii: expected at most 100 bytes of voxels, got 101"):
        check_budget("a.nii", 101, 100)


def test_a_bomb_is_refused_unless_a_budget_was_stated(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    check_expansion("a.nii.gz", 1, SMALL_BYTES)
    check_expansion("a.nii.gz", 2**20, MAX_EXPANSION * 2**20)
    check_expansion("a.nii.gz", 2**20, 2**30, 2**31)
    with pytest.raises(InputError, match=r"a\.nii\.gz: expected compressed data that expand at most"):
        check_expansion("a.nii.gz", 2**20, 2**30)
