"""The comparison of 2.5D with 2D changes nothing but what it compares, and continues where it was."""

import argparse
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data import prepare_duke_dme

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SMALL = (
    '{"_target_": "volseg.networks.UNetPlusPlus", "in_slices": "@in_slices", "features": [8, 16, 32], '
    '"detection_classes": 1, "seed": 0}'
)


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("compare_oct_fluid")


@pytest.fixture
def folds(script, monkeypatch):
    """Names of the configs that were run; the first evaluation is killed."""
    module, ran = sys.modules["cross_validate"], []

    def bundle(name, workflow, overrides):
        ran.append(workflow)
        if ran == ["train", "evaluate"]:
            raise KeyboardInterrupt
        if workflow == "evaluate":
            folder = Path(overrides[overrides.index("--output_dir") + 1])
            folder.mkdir(parents=True)
            (folder / "scores.json").write_text("{}")

    monkeypatch.setattr(module, "bundle", bundle)
    return module.train_and_evaluate, ran


def options_of(script, *overrides, same_network=False, choose=False):
    return argparse.Namespace(
        overrides=script.named(list(overrides)), same_network=same_network, choose=choose
    )


def test_of_one_override_given_twice_the_last_counts(script):
    assert script.named(["--epochs", "2", "--amp=off", "--loss#gamma", "1", "--epochs", "3"]) == {
        "epochs": "3",
        "amp": "off",
        "loss::gamma": "1",
    }


def test_the_unet_has_as_many_weights_as_the_bundle_and_one_slice(script):
    first, second = script.make_variants(options_of(script))
    assert abs(second.weights - first.weights) <= 0.05 * first.weights
    network = script.config_of(second.training).get_parsed_content("network_def")
    assert network.down[0].body[0].in_channels == 1
    assert network.detection is not None


def test_overrides_of_the_network_reach_the_bundles_alone(script):
    first, second = script.make_variants(options_of(script, "--network_def::dropout", "0.3", "--epochs=2"))
    assert first.training["network_def::dropout"] == "0.3"
    assert "network_def::dropout" not in second.training
    assert first.training["epochs"] == second.training["epochs"] == "2"


def test_the_same_network_differs_in_its_slices_alone(script):
    overrides = ("--network_def::dropout", "0.3")
    first, second = script.make_variants(options_of(script, *overrides, same_network=True))
    assert second.training == {**first.training, "in_slices": "1"}


def test_the_scored_subjects_choose_no_epoch_unless_asked(script):
    plain, _ = script.make_variants(options_of(script, "--epochs", "7", same_network=True))
    assert plain.training["val_interval"] == "7"
    chosen, _ = script.make_variants(options_of(script, "--epochs", "7", same_network=True, choose=True))
    assert "val_interval" not in chosen.training


def test_evaluation_takes_over_the_network_but_not_the_schedule(script):
    overrides = {"network_def::dropout": "0.3", "in_slices": "1", "epochs": "2", "tta": "none"}
    assert set(script.common_to_both("oct_fluid", overrides)) == {"network_def::dropout", "in_slices"}


def test_the_interval_of_one_difference_is_that_difference(script):
    row = script.mean_row(["a", "b"], np.array([[0.5, 0.25], [0.75, 0.5]]))
    assert [cell.strip() for cell in row.split("|")[3:6]] == [
        "**0.6250** [0.5000, 0.7500]",
        "**0.3750** [0.2500, 0.5000]",
        "**+0.2500** [+0.2500, +0.2500]",
    ]


def test_a_fold_stopped_in_its_evaluation_is_not_trained_again(folds, tmp_path):
    train_and_evaluate, ran = folds
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate("oct_fluid", ["--fold", "0"], tmp_path, training=["--epochs=2"])
    seconds = train_and_evaluate("oct_fluid", ["--fold", "0"], tmp_path, training=["--epochs=2"])
    assert ran == ["train", "evaluate", "evaluate"]
    assert seconds == json.loads((tmp_path / "run.json").read_text())["seconds"]


def test_a_fold_of_other_overrides_is_refused(folds, tmp_path):
    train_and_evaluate, _ = folds
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate("oct_fluid", ["--fold", "0"], tmp_path, training=["--epochs=2"])
    with pytest.raises(InputError, match="another --output_dir"):
        train_and_evaluate("oct_fluid", ["--fold", "0"], tmp_path, training=["--epochs=3"])


@pytest.mark.slow
def test_the_page_has_a_row_for_each_unseen_subject(script, tmp_path, monkeypatch):
    rows, columns = np.ogrid[:64, :48]
    for subject in range(1, 5):
        for number in range(1, 4):
            fluid = (rows - 30 - subject) ** 2 + (columns - 20 - 2 * number) ** 2 < 90
            noise = np.random.default_rng(10 * subject + number).integers(0, 60, fluid.shape)
            for part, picture in (("images", noise + 120 * ~fluid), ("labels", 255 * fluid)):
                folder = tmp_path / "raw" / f"Subject_{subject:02d}" / part
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number:03d}.png")
    prepare_duke_dme(tmp_path / "raw", folds=2, spacing_mm=(0.0117, 0.0077, 0.12))
    page = tmp_path / "page.md"
    own = ["--dataset_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "runs"), "--folds", "1"]
    small = ["--network_def", SMALL, "--epochs=1", "--samples_per_epoch=4", "--train::roi_size=[32,32]"]
    monkeypatch.setattr(
        sys, "argv", ["compare_oct_fluid.py", *own, "--write", str(page), "--", *small, "--amp=off"]
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script.main()
    lines = page.read_text().splitlines()
    assert sum(line.startswith("| Subject_") for line in lines) == 2
    assert any("the threshold is 0.5" in line for line in lines)
