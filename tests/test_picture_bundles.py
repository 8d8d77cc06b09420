"""The bundles for pictures as their users run them, on small generated data sets."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its documentation calls it so
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from volseg.data import prepare_chase, prepare_nerve, prepare_shapes

pytestmark = pytest.mark.slow

BUNDLES = Path(__file__).parent.parent / "bundles"
NAMES = ["fundus_vessels", "synthetic_shapes", "ultrasound_nerve"]
SCORE = {"fundus_vessels": "iou", "synthetic_shapes": "mean_iou", "ultrasound_nerve": "dice"}
CHANNELS = {"fundus_vessels": 3, "synthetic_shapes": 1, "ultrasound_nerve": 1}
SHAPE = (45, 37)  # rows and columns differ, so that a transposition shows


def draw_eyes(root):
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    disc = (rows - 22) ** 2 + (columns - 18) ** 2 < 17**2
    for number, name in enumerate(f"{subject:02d}{eye}" for subject in range(1, 7) for eye in "LR"):
        vessel = (abs(columns - 12 - number % 5 - rows // 6) < 2) & disc
        eye = np.where(vessel, 90, 170) * disc + np.random.default_rng(number).integers(0, 8, SHAPE)
        picture = np.stack([eye, eye * 0.6, eye * 0.3], axis=-1).astype(np.uint8)
        Image.fromarray(picture).save(root / "images" / f"Image_{name}.jpg", quality=95)
        for observer in ("1stHO", "2ndHO"):
            Image.fromarray(vessel).save(root / "labels" / f"Image_{name}_{observer}.png")
    prepare_chase(root, folds=3)


def draw_frames(root):
    (root / "train").mkdir(parents=True)
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    for subject in range(1, 7):
        for frame in range(1, 4):
            nerve = (rows - 20 - frame) ** 2 + (columns - 15 - subject) ** 2 < 49
            noise = np.random.default_rng(10 * subject + frame).integers(0, 60, SHAPE)
            name = root / "train" / f"{subject}_{frame}"
            Image.fromarray((noise + 120 * nerve).astype(np.uint8)).save(f"{name}.tif")
            Image.fromarray(nerve.astype(np.uint8) * 255).save(f"{name}_mask.tif")
    prepare_nerve(root, folds=3)


def draw_shapes(root):
    prepare_shapes(root, generate=6, generate_test=2, folds=3)


DRAW = {"fundus_vessels": draw_eyes, "synthetic_shapes": draw_shapes, "ultrasound_nerve": draw_frames}


FEATURES = {"fundus_vessels": [4, 8], "synthetic_shapes": [4, 8], "ultrasound_nerve": [8, 6, 6, 4, 4]}
SMALL = {
    name: {"network_def::features": features, "amp": "off", "tta": "none"}
    for name, features in FEATURES.items()
}


def training(name):
    values = {**SMALL[name], "epochs": 2, "samples_per_epoch": 16, "batch_size": 4, "val_interval": 1}
    values |= {} if name == "synthetic_shapes" else {"longest_side": 40}
    return values | ({} if name == "ultrasound_nerve" else {"train::roi_size": [24, 24]})


@pytest.fixture(scope="module", params=NAMES)
def bundle(request):
    return request.param


@pytest.fixture(scope="module")
def pictures(bundle, tmp_path_factory):
    root = tmp_path_factory.mktemp(bundle)
    DRAW[bundle](root / "raw")
    return root / "raw"


@pytest.fixture(scope="module")
def trained(bundle, pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    run(bundle, "train", dataset_dir=str(pictures), output_dir=str(output), **training(bundle))
    return output


def run(bundle, workflow, **overrides):
    file = str(BUNDLES / bundle / "configs" / f"{workflow}.json")
    instance = ConfigWorkflow(config_file=file, logging_file=False, workflow_type=None, **overrides)
    instance.initialize()
    instance.run()
    instance.finalize()


def command(*arguments, overrides, cwd):
    options = [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in overrides.items()
    ]
    result = subprocess.run(
        [sys.executable, "-m", *map(str, arguments), *options],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def read_scores(folder, name):
    with open(folder / "scores.csv") as file:
        return {row["case"]: float(row[SCORE[name]]) for row in csv.DictReader(file)}


def test_training_leaves_weights_and_the_rule_of_decision(bundle, trained):
    assert torch.load(trained / "models" / "last.pt", weights_only=True)["epoch"] == 2
    threshold = json.loads((trained / "models" / "threshold.json").read_text())["threshold"]
    assert threshold is None if bundle == "synthetic_shapes" else 0 < threshold < 1


def test_tensorboard_shows_loss_score_and_pictures(bundle, trained):
    events = EventAccumulator(str(trained / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert {"train_loss", f"val_{SCORE[bundle]}", "run/learning_rate"} <= set(events.Tags()["scalars"])
    assert any(tag.startswith("validation_1") for tag in events.Tags()["images"])


def test_a_run_stopped_after_an_epoch_and_started_again_ends_in_the_same_bytes(
    bundle, pictures, trained, tmp_path
):
    values = {"dataset_dir": str(pictures), "output_dir": str(tmp_path), **training(bundle)}
    run(bundle, "train", **values, **{"train::trainer::max_epochs": 1})
    run(bundle, "train", **values)
    resumed = torch.load(tmp_path / "models" / "last.pt", weights_only=True)
    undisturbed = torch.load(trained / "models" / "last.pt", weights_only=True)
    assert all(torch.equal(resumed["network"][name], value) for name, value in undisturbed["network"].items())
    assert resumed["best"] == undisturbed["best"]


def test_training_can_start_from_given_weights(bundle, pictures, trained, tmp_path):
    values = {"dataset_dir": str(pictures), "output_dir": str(tmp_path), **training(bundle)}
    weights = trained / "models" / "model.pt"
    values |= {"pretrained": str(weights), "learning_rate": 0.0, "epochs": 1, "samples_per_epoch": 4}
    run(bundle, "train", **values)
    start = torch.load(weights, weights_only=True)
    state = torch.load(tmp_path / "models" / "last.pt", weights_only=True)["network"]
    learnt = [name for name in start if name.endswith("weight")]
    assert learnt
    assert all(torch.equal(start[name], state[name]) for name in learnt)


def test_two_processes_score_what_one_scores(bundle, pictures, trained, tmp_path):
    values = {"dataset_dir": str(pictures), "ckpt_dir": str(trained / "models"), **SMALL[bundle]}
    run(bundle, "evaluate", output_dir=str(tmp_path / "one"), **values)
    one = read_scores(tmp_path / "one", bundle)
    assert len(one) > 2
    file = BUNDLES / bundle / "configs" / "multi_gpu_evaluate.json"
    command(
        *("torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        *("-m", "monai.bundle", "run", "--config_file", file),
        overrides={**values, "output_dir": str(tmp_path / "two")},
        cwd=tmp_path,
    )
    assert read_scores(tmp_path / "two", bundle) == pytest.approx(one, abs=1e-6)


def test_two_processes_train_one_model(tmp_path):
    draw_frames(tmp_path / "raw")
    values = {"dataset_dir": str(tmp_path / "raw"), "output_dir": str(tmp_path / "out")}
    command(
        *("torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run"),
        *("--config_file", BUNDLES / "ultrasound_nerve" / "configs" / "multi_gpu_train.json"),
        overrides={**values, **training("ultrasound_nerve"), "epochs": 1},
        cwd=tmp_path,
    )
    assert torch.load(tmp_path / "out" / "models" / "last.pt", weights_only=True)["epoch"] == 1
    assert (tmp_path / "out" / "models" / "model.pt").is_file()


def test_inference_from_a_foreign_directory_writes_the_pixels_of_the_picture(
    bundle, pictures, trained, tmp_path
):
    image = json.loads((pictures / "datalist.json").read_text())["training"][0]["image"]
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / f"case_7{Path(image).suffix}"
    source.write_bytes((pictures / image).read_bytes())
    file = BUNDLES / bundle / "configs" / "inference.json"
    values = {"dataset_dir": str(source.parent), "ckpt_dir": str(trained / "models"), **SMALL[bundle]}
    values |= {"output_dir": str(tmp_path / "out"), "save_probability": True}
    command("monai.bundle", "run", "--config_file", file, overrides=values, cwd=tmp_path)
    folder = tmp_path / "out" / "case_7"
    mask = np.asarray(Image.open(folder / "case_7_seg.png"))
    with Image.open(source) as picture:
        assert mask.shape == (picture.height, picture.width)
    volume = sitk.ReadImage(str(folder / "case_7_seg.nii.gz"))
    seen = sitk.ReadImage(str(source))
    assert volume.GetSize() == (*seen.GetSize(), 1)
    assert volume.GetOrigin()[:2] == seen.GetOrigin()
    assert volume.GetSpacing()[:2] == pytest.approx(seen.GetSpacing())
    assert volume.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    classes = sitk.GetArrayFromImage(volume)[0]
    assert np.array_equal(classes * (1 if bundle == "synthetic_shapes" else 255), mask)
    probability = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "case_7_prob.nii.gz"))).squeeze()
    if bundle == "synthetic_shapes":
        assert np.array_equal(probability.argmax(axis=np.argmin(probability.shape)), classes)
    else:
        threshold = json.loads((trained / "models" / "threshold.json").read_text())["threshold"]
        assert 0 < probability.max() < 1
        assert np.array_equal(probability >= np.float32(threshold), classes)


def test_the_zoo_finds_its_properties_and_verifies_the_network(bundle, pictures, trained, tmp_path):
    configs = BUNDLES / bundle / "configs"
    for workflow in ("train", "evaluate", "inference"):
        values = {"dataset_dir": str(pictures), "output_dir": str(tmp_path / workflow), **SMALL[bundle]}
        values |= {} if workflow == "train" else {"ckpt_dir": str(trained / "models")}
        instance = ConfigWorkflow(
            config_file=str(configs / f"{workflow}.json"),
            logging_file=False,
            workflow_type="train" if workflow == "train" else "infer",
            **values,
        )
        instance.initialize()
        assert instance.check_properties() == []
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        bundle_root=str(configs.parent),
    )


def test_the_zoo_exports_the_shipped_weights_to_torchscript(bundle, tmp_path):
    root = BUNDLES / bundle
    assert (root / "models" / "model.pt").stat().st_size < 12_000_000
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(root / "models" / "model.pt"),
        meta_file=str(root / "configs" / "metadata.json"),
        config_file=str(root / "configs" / "inference.json"),
        bundle_root=str(root),
    )
    scripted = torch.jit.load(tmp_path / "model.ts")
    channels = CHANNELS[bundle]
    outputs = 3 if bundle == "synthetic_shapes" else 1
    assert scripted(torch.zeros(1, channels, 45, 37)).shape == (1, outputs, 45, 37)
