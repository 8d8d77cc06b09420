from __future__ import annotations

import hashlib
import logging

import pytest

from volseg.checks import InputError
from volseg.data.case_dataset import check_cases
from volseg.data.hashes import add_hashes, check_hashes


@pytest.fixture
def cases(tmp_path):
    """Two cases with hashes, one of them with all three files."""
    for name in ("a.png", "a_mask.png", "a_view.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    items = [
        {"image": "a.png", "label": "a_mask.png", "field_of_view": "a_view.png", "case": "a"},
        {"image": "b.png", "case": "b"},
    ]
    hashed = add_hashes(items, tmp_path)
    paths = ("image", "label", "field_of_view")
    return [{key: str(tmp_path / v) if key in paths else v for key, v in item.items()} for item in hashed]


def test_each_file_gets_the_hash_of_its_content(cases):
    assert cases[0]["image_sha256"] == hashlib.sha256(b"a.png").hexdigest()
    assert cases[0]["label_sha256"] == hashlib.sha256(b"a_mask.png").hexdigest()
    assert cases[0]["field_of_view_sha256"] == hashlib.sha256(b"a_view.png").hexdigest()
    assert sorted(cases[1]) == ["case", "image", "image_sha256"]


def test_folders_and_missing_files_get_no_hash(tmp_path):
    (tmp_path / "slices").mkdir()
    items = [{"image": "slices", "case": "a"}, {"image": "nothing.tif", "case": "b"}]
    assert add_hashes(items, tmp_path) == items


def test_unchanged_files_pass_and_are_counted(cases):
    assert check_hashes(cases) == 4


def test_cases_without_hashes_pass(tmp_path):
    assert check_hashes([{"image": str(tmp_path / "nothing.tif"), "case": "a"}]) == 0


def test_a_changed_file_is_refused_by_its_name(cases, tmp_path):
    (tmp_path / "a_mask.png").write_bytes(b"corrected")
    with pytest.raises(InputError) as refusal:
        check_hashes(cases)
    lines = str(refusal.value).splitlines()
    assert lines[0] == "1 of 4 files are not those that the datalist was made from:"
    old, new = (hashlib.sha256(text).hexdigest()[:12] for text in (b"a_mask.png", b"corrected"))
    assert lines[1] == f"  {tmp_path / 'a_mask.png'}: expected SHA-256 {old}…, got {new}…"
    assert lines[2] == "restore them, or run `volseg prepare` again"


def test_a_file_that_is_gone_is_refused(cases, tmp_path):
    (tmp_path / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png: No such file"):
        check_hashes(cases)


def test_no_more_than_five_files_are_named(tmp_path):
    cases = [
        {"image": str(tmp_path / f"{k}.png"), "image_sha256": "0" * 64, "case": f"{k}"} for k in range(7)
    ]
    with pytest.raises(InputError) as refusal:
        check_hashes(cases)
    lines = str(refusal.value).splitlines()
    assert lines[0].startswith("7 of 7 files")
    assert lines[0].endswith("the first 5:")
    assert len(lines) == 7


def test_more_than_the_stated_bytes_are_not_read(cases, tmp_path, caplog):
    (tmp_path / "b.png").write_bytes(b"changed")
    with caplog.at_level(logging.INFO, logger="volseg.data.hashes"):
        assert check_hashes(cases, max_bytes=10) == 0
    assert "hashes of 4 files not compared" in caplog.text


def test_a_run_begins_with_the_comparison(tmp_path):
    from PIL import Image

    Image.new("L", (5, 3)).save(tmp_path / "a.png")
    (case,) = add_hashes([{"image": str(tmp_path / "a.png"), "case": "a", "group": "a"}], tmp_path)
    check_cases([case], spatial_dims=2)
    Image.new("L", (5, 3), 7).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="1 of 1 files are not those"):
        check_cases([case], spatial_dims=2)
