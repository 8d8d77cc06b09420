from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

from volseg.data.phantoms import grow_vessel_tree

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "render_kidney_training_set.py"


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    for seed, name in enumerate(("oak", "elm")):
        tree = grow_vessel_tree((50, 44, 90), seed=seed)
        nib.save(nib.Nifti1Image(tree, np.eye(4)), folder / f"{name}.nii.gz")
    return [folder / "oak.nii.gz", folder / "elm.nii.gz"]


def test_validation_cubes_never_touch_training_cubes(monkeypatch, tmp_path, trees):
    _run(monkeypatch, "--trees", *trees, "--output_dir", tmp_path, "--volumes", 4, "--size", 20)
    renderings = json.loads((tmp_path / "renderings.json").read_text())
    assert len(renderings) == 10
    for case in renderings.values():
        first, last = case["corner"][2], case["corner"][2] + case["edge"]
        assert last <= 63 if case["part"] == "train" else first >= 67
    groups = json.loads((tmp_path / "groups.json").read_text())
    assert groups == {case: told["part"] for case, told in renderings.items()}


def test_cases_lie_in_the_layout_of_the_challenge(monkeypatch, tmp_path, trees):
    _run(
        *(monkeypatch, "--trees", *trees, "--output_dir", tmp_path),
        *("--volumes", 1, "--validation_volumes", 0, "--size", 18),
    )
    for name, dtype in (("images", np.uint16), ("labels", np.uint8)):
        slices = sorted((tmp_path / "rendered_000" / name).glob("*.tif"))
        assert [path.name for path in slices] == [f"{k:04d}.tif" for k in range(18)]
        picture = tifffile.imread(slices[9])
        assert (picture.shape, picture.dtype) == ((18, 18), dtype)


def test_a_held_out_tree_only_validates(monkeypatch, tmp_path, trees):
    _run(
        *(monkeypatch, "--trees", *trees, "--output_dir", tmp_path, "--holdout", "elm"),
        *("--volumes", 2, "--validation_volumes", 2, "--size", 18),
    )
    renderings = json.loads((tmp_path / "renderings.json").read_text())
    assert {(told["tree"], told["part"]) for told in renderings.values()} == {
        ("oak", "train"),
        ("elm", "validate"),
    }


def test_holding_out_every_tree_is_refused(monkeypatch, tmp_path, trees, capsys):
    with pytest.raises(SystemExit):
        _run(monkeypatch, "--trees", *trees, "--output_dir", tmp_path, "--holdout", "elm", "oak")
    assert "--holdout names every tree; leave one to train on" in capsys.readouterr().err


def test_a_cube_far_larger_than_its_region_is_refused(monkeypatch, tmp_path, trees):
    with pytest.raises(SystemExit, match="voxels wide; give --size 44 or less"):
        _run(monkeypatch, "--trees", *trees, "--output_dir", tmp_path, "--size", 100)


def test_renderings_without_the_wanted_contrast_are_drawn_again(monkeypatch, tmp_path, trees):
    _run(
        *(monkeypatch, "--trees", *trees, "--output_dir", tmp_path, "--min_contrast", 1.5),
        *("--volumes", 4, "--validation_volumes", 0, "--size", 24),
    )
    renderings = json.loads((tmp_path / "renderings.json").read_text())
    visible = [told for told in renderings.values() if told["vessel_share"] > 0]
    assert len(visible) == 4
    assert min(abs(told["contrast"]) for told in visible) >= 1.5
