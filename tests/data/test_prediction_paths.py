"""Names of the files of a run."""

import pytest

from volseg.checks import InputError
from volseg.data.prediction_paths import COMPANIONS, PredictionPaths, check_distinct, shown_name


def test_the_files_of_a_case_carry_its_name_in_its_folder(tmp_path):
    paths = PredictionPaths(tmp_path)
    assert paths.path("a", "seg") == tmp_path / "a" / "a_seg.nii.gz"
    assert paths.relative(paths.path("a", "itk_snap")) == "a/a_seg.label.txt"
    assert paths.path("summary.json", "seg").parent != tmp_path / "summary.json"


def test_others_are_all_kinds_that_were_not_written(tmp_path):
    names = {path.name for path in PredictionPaths(tmp_path).others("a", {"seg": 1, "prob": 2})}
    endings = {"_disagreement.nii.gz", "_seg.png", "_detection.csv", *COMPANIONS.values()}
    assert names == {f"a{ending}" for ending in endings}


def test_existing_files_have_their_checksums(tmp_path):
    paths = PredictionPaths(tmp_path)
    assert paths.existing("a") == {}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a_sheet.png").write_bytes(b"")
    (tmp_path / "a" / "other.txt").write_bytes(b"")
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing
    assert paths.existing("a") == {"a/a_sheet.png": digest}


def test_names_that_differ_are_distinct_and_equal_ones_refused():
    items = [{"case": "a/b", "image": "1"}, {"case": "a_b", "image": "2"}]
    check_distinct(items)
    with pytest.raises(InputError, match="1 and 2 both called a_b"):
        check_distinct([{**items[1], "image": "1"}, items[1]])


def test_a_name_of_several_lines_is_shown_in_one():
    assert (shown_name("größe"), shown_name("a\nb")) == ("größe", "'a\\nb'")
