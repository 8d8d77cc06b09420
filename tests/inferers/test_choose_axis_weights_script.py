"""The search for axis weights scores what the inferer would say, without running the network again."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from monai.transforms import Compose

from volseg.checks import InputError
from volseg.data import prepare_oct_edema
from volseg.data.phantoms import write_oct_edema
from volseg.inferers import TriAxisInferer
from volseg.metrics import compute_confusion_matrix, compute_confusion_measure
from volseg.networks import UNetPlusPlus
from volseg.transforms import DecideLabelsd

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "choose_axis_weights.py"
FEATURES = (4, 6)


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A bundle with lesions to validate on, and weights that know nothing yet."""
    root = tmp_path_factory.mktemp("oct")
    write_oct_edema(root / "train", 2, seed=3, size=(24, 40, 6))
    prepare_oct_edema(root, spacing_mm=(0.0469, 0.0104, 0.0938), folds=2)
    options = {"out_channels": 4, "dilated_centre": True, "detection_classes": 3}
    torch.save(UNetPlusPlus(features=FEATURES, seed=1, **options).state_dict(), root / "model.pt")
    own = [ROOT / "bundles" / "oct_edema", "--dataset_dir", root, "--checkpoint", root / "model.pt"]
    return [*map(str, own), "--", "--network_def::features", str(list(FEATURES)), "--device", "cpu"]


def told(text):
    """Scores by the name of the weights, and the override in the last line."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    return {row[0]: (row[1], float(row[2])) for row in cells[2:]}, text.strip().splitlines()[-1]


@pytest.mark.slow
def test_the_table_scores_what_the_inferer_of_the_config_says(script, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    script["main"]()
    rows, override = told(capsys.readouterr().out)
    assert list(rows) == ["best", "as configured", "equal", "axis 0 alone", "axis 1 alone", "axis 2 alone"]
    assert override == f'--axis_weights "[{rows["best"][0]}]"'

    config = script["read_config"](script["parse"]())
    network, inferer = config.get_parsed_content("network"), config.get_parsed_content("ensemble_inferer")
    finish = Compose(config.get_parsed_content("postprocessing"))
    matrix = torch.zeros(4, 4, dtype=torch.int64)
    for item in config.get_parsed_content("dataset"):
        done = finish({**item, "pred": inferer(item["image"][None], network)[0]})
        matrix += compute_confusion_matrix(done["pred"], done["label"], classes=4)
    assert rows["as configured"] == (
        ", ".join(f"{weight:.3g}" for weight in inferer.inferers[0].weights),
        pytest.approx(compute_confusion_measure(matrix, "mean_dice"), abs=1e-3),
    )


def test_all_tenths_are_tried_and_none_is_zero(script):
    for axes, number in ((2, 9), (3, 36)):
        choices = script["grid"](axes)
        assert len(set(choices)) == number
        assert all(min(weights) > 0 and sum(weights) == pytest.approx(1.0) for weights in choices)


@pytest.mark.parametrize("right", [0, 1, 2])
def test_the_axis_that_is_right_gets_the_weight_that_it_needs(script, right):
    label = (torch.rand(1, 5, 6, 7, generator=torch.Generator().manual_seed(0)) > 0.5).to(torch.uint8)
    # The right axis is a little sure, the two others are very sure of the contrary: 0.7 w > 0.5 from 0.8 on.
    maps = [1.0 - label.float()] * 3
    maps[right] = 0.3 + 0.4 * label
    decide = DecideLabelsd(classes=1, threshold=0.5)
    choices = script["grid"](3)
    scores = {
        weights: script["mean_dice"](script["count"](maps, weights, label, decide=decide, classes=1))
        for weights in choices
    }
    assert script["best_of"](scores, choices)[right] == 0.8
    assert set(scores.values()) == {0.0, 1.0}


def test_of_equal_scores_the_most_even_weights_are_taken(script):
    choices = script["grid"](2)
    assert script["best_of"](dict.fromkeys(choices, 0.7), choices) == (0.5, 0.5)


@pytest.mark.parametrize(
    "inferer", [TriAxisInferer(axes=(2,)), TriAxisInferer(fusion="vote")], ids=["one axis", "vote"]
)
def test_what_has_no_weights_to_choose_is_refused(script, inferer):
    with pytest.raises(InputError, match="two axes or three, fused by the mean"):
        script["check_inferers"]([inferer])


def test_a_folder_that_is_no_bundle_is_refused(script, arguments, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), *arguments[1:]])
    with pytest.raises(InputError, match=r"a bundle with configs/evaluate\.json"):
        script["main"]()
