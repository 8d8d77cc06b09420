"""`volseg bake` on a copy of a bundle's layers."""

import shutil
from pathlib import Path

import pytest

from volseg.bundles import WORKFLOWS
from volseg.cli import main

ROOT = Path(__file__).parents[2] / "bundles"
NAME = "kidney_vessels"


def run(*words):
    with pytest.raises(SystemExit) as exit_code:
        main(["bake", *map(str, words)])
    return exit_code.value.code


@pytest.fixture
def bundles(tmp_path):
    shutil.copytree(ROOT / "_shared", tmp_path / "_shared")
    shutil.copytree(ROOT / NAME / "src", tmp_path / NAME / "src")
    return tmp_path


def test_every_config_that_is_written_is_told(bundles, capsys):
    assert run(bundles) == 0
    written = sorted((bundles / NAME / "configs").iterdir())
    assert sorted(map(Path, capsys.readouterr().out.split())) == written
    assert {path.name for path in written} == {f"{name}.json" for name in WORKFLOWS} | {"logging.conf"}


@pytest.mark.parametrize("which", [".", NAME], ids=["all", "one"])
def test_check_passes_on_what_was_just_baked(bundles, which):
    run(bundles)
    assert run(bundles / which, "--check") == 0


@pytest.mark.parametrize(
    "change",
    [lambda path: path.write_text(path.read_text() + "\n"), Path.unlink, lambda path: path.write_text("")],
    ids=["changed", "missing", "empty"],
)
def test_check_refuses_a_config_that_is_out_of_date(bundles, capsys, change):
    run(bundles)
    outdated = bundles / NAME / "configs" / "evaluate.json"
    change(outdated)
    assert run(bundles, "--check") == 1
    expected = f"{outdated}: expected the config baked from its layers, got another one; run: volseg bake "
    assert capsys.readouterr().err == f"volseg: {expected}{bundles / NAME}\n"


def test_check_writes_nothing(bundles):
    assert run(bundles, "--check") == 1
    assert not (bundles / NAME / "configs").exists()


def test_a_changed_layer_is_out_of_date_until_it_is_baked(bundles):
    run(bundles)
    layer = bundles / NAME / "src" / "common.json"
    layer.write_text(layer.read_text().replace('"seed": 0', '"seed": 7'))
    assert run(bundles, "--check") == 1
    assert run(bundles) == 0
    assert run(bundles, "--check") == 0


def test_a_folder_without_bundles_is_refused(tmp_path, capsys):
    assert run(tmp_path) == 1
    assert "expected a bundle, or a folder of bundles, got neither" in capsys.readouterr().err
