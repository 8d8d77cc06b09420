"""The parts of `volseg demo` that need no training."""

import importlib
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from PIL import Image

from volseg.cli import main
from volseg.data import read_volume, write_sennet_phantom

demo = importlib.import_module("volseg.cli.demo")


@pytest.fixture
def kidney(tmp_path):
    """A held-out kidney and its truth, without kidneys to train on."""
    raw = write_sennet_phantom(tmp_path / "phantom", shape=(25, 21, 17), cases=(), seed=3)
    truth, geometry = read_volume(raw / "truth" / "kidney_5" / "labels")
    return raw, (truth > 0).astype(np.uint8), geometry.affine


def predict(folder, labels, affine):
    (folder / "kidney_5").mkdir(parents=True)
    nib.save(nib.Nifti1Image(labels, affine), folder / "kidney_5" / "kidney_5_seg.nii.gz")
    return folder


def test_the_configs_of_the_bundle_are_found_beside_the_sources():
    for name in ("train", "evaluate", "inference"):
        assert (demo._configs() / f"{name}.json").is_file()


def test_sources_without_bundles_are_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "volseg" / "cli" / "demo.py"))
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--output-dir", str(tmp_path / "out")])
    assert ended.value.code == 1
    assert (
        "expected the bundles beside the sources, got none; install from a clone" in capsys.readouterr().err
    )


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--output-dir", str(tmp_path)])
    assert ended.value.code == 1
    assert "expected a new or empty folder, got one with files; pass another" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_step_that_fails_ends_the_demo_with_its_exit_code(monkeypatch, capsys):
    commands = []

    def fail(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(demo.subprocess, "run", fail)
    with pytest.raises(typer.Exit) as ended:
        demo._bundle(Path("train.json"), "--epochs=2")
    assert ended.value.exit_code == 3
    assert capsys.readouterr().out.strip() == f"python {' '.join(commands[0][1:])}"
    assert commands[0][1:] == ["-m", "monai.bundle", "run", "--config_file=train.json", "--epochs=2"]


def test_the_truth_itself_scores_1_and_is_drawn(kidney, tmp_path):
    raw, truth, affine = kidney
    predictions = predict(tmp_path / "predictions", truth, affine)
    assert demo._score_and_draw(raw, predictions, tmp_path) == 1.0
    with Image.open(tmp_path / "preview.png") as tiles, Image.open(tmp_path / "preview.gif") as animation:
        assert tiles.size == (21 + 25 + 25 + 2 * 4, 21)
        assert animation.size == (25, 21)


def test_a_shifted_prediction_scores_less_and_nothing_scores_0(kidney, tmp_path):
    raw, truth, affine = kidney
    shifted = predict(tmp_path / "shifted", np.roll(truth, 1, axis=0), affine)
    nothing = predict(tmp_path / "nothing", np.zeros_like(truth), affine)
    assert 0 < demo._score_and_draw(raw, shifted, tmp_path / "a") < 1
    assert demo._score_and_draw(raw, nothing, tmp_path / "b") == 0.0
