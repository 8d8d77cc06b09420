"""The bundles for OCT volumes as their users run them, on small phantoms in the layouts of the real data."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its documentation calls it so
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from volseg.data import prepare_duke_dme, prepare_oct_edema
from volseg.data.phantoms import draw_oct_volume, write_oct_edema

pytestmark = pytest.mark.slow

BUNDLES = Path(__file__).parent.parent / "bundles"
NAMES = ["oct_edema", "oct_fluid"]
CLASSES = {"oct_edema": ["REA", "SRF", "PED"], "oct_fluid": ["fluid"]}
SIZE = (40, 56, 13)  # width, height and B-scans differ, so that a transposition shows
LABELLED = (1, 4, 6, 11)  # B-scans of a Duke-like subject that are there
PLUS_PLUS = {"features": [4, 8, 8], "dilated_centre": False}
LITE = {"features": [8, 6, 6, 4, 4]}
SMALL = {
    "oct_edema": {**{f"network_def::{name}": value for name, value in PLUS_PLUS.items()}, "amp": "off"},
    "oct_fluid": {**{f"network_def::{name}": value for name, value in LITE.items()}, "amp": "off"},
}
TRAINING = {
    "epochs": 2,
    "samples_per_epoch": 8,
    "batch_size": 4,
    "val_interval": 1,
    "train::roi_size": [32, 32],
    "spacing_mm": "$None",
}


def draw_edema(root):
    write_oct_edema(root / "train", 4, seed=5, name="a", size=SIZE)
    write_oct_edema(root / "test", 1, seed=6, name="b", size=SIZE)
    prepare_oct_edema(root, folds=2)
    return root / "test" / "original_images"


def draw_fluid(root):
    for number in range(1, 4):
        image, label = draw_oct_volume(SIZE, seed=number + 20)
        for kind, volume in (("images", image), ("labels", (label > 0) * np.uint8(255))):
            folder = root / f"Subject_{number:02d}" / kind
            folder.mkdir(parents=True)
            for index in LABELLED:
                Image.fromarray(volume[:, :, index].T).save(folder / f"{index:03d}.png")
    prepare_duke_dme(root, folds=3)
    return root


DRAW = {"oct_edema": draw_edema, "oct_fluid": draw_fluid}


@pytest.fixture(scope="module", params=NAMES)
def bundle(request):
    return request.param


@pytest.fixture(scope="module")
def scans(bundle, tmp_path_factory):
    """A prepared data set, and the folder of its scans for inference."""
    root = tmp_path_factory.mktemp(bundle)
    return root, DRAW[bundle](root)


def run(bundle, workflow, **overrides):
    config = BUNDLES / bundle / "configs" / f"{workflow}.json"
    instance = ConfigWorkflow(config_file=str(config), logging_file=False, workflow_type=None, **overrides)
    instance.initialize()
    instance.run()
    instance.finalize()
    return instance


@pytest.fixture(scope="module")
def trained(bundle, scans, tmp_path_factory):
    output = tmp_path_factory.mktemp(f"{bundle}_run")
    run(bundle, "train", dataset_dir=str(scans[0]), output_dir=str(output), **SMALL[bundle], **TRAINING)
    return output


def weights_of(trained):
    return {"ckpt_dir": str(trained / "models"), "spacing_mm": "$None"}


def test_training_leaves_weights_and_shows_the_lesions(bundle, trained):
    state = torch.load(trained / "models" / "last.pt", weights_only=True)
    assert state["epoch"] == 2
    events = EventAccumulator(str(trained / "tensorboard"), size_guidance={"images": 0}).Reload()
    key = "val_mean_dice" if bundle == "oct_edema" else "val_dice"
    assert {"train_loss", key} <= set(events.Tags()["scalars"])
    assert any(name.startswith("validation_1/") for name in events.Tags()["images"])
    values = [event.value for event in events.Scalars("train_loss")]
    assert values
    assert np.isfinite(values).all()


def test_evaluation_scores_segmentation_detection_and_continuity(bundle, scans, trained, tmp_path):
    values = {"dataset_dir": str(scans[0]), "output_dir": str(tmp_path), **weights_of(trained)}
    run(bundle, "evaluate", **values, **SMALL[bundle])
    with open(tmp_path / "scores.csv") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert {"dice", "detection_auc", "segmentation_auc", "continuity"} <= set(rows["mean"])
    assert len(rows) >= 2
    assert len(list(tmp_path.glob("*.gif"))) == len(rows) - 1


def test_inference_writes_the_grid_of_the_scans_with_detection_and_companions(
    bundle, scans, trained, tmp_path
):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    values = {"dataset_dir": str(scans[1]), "output_dir": str(tmp_path / "out"), "tta": "none"}
    values |= {**weights_of(trained), **SMALL[bundle]}
    options = [f"--{name}={value}" for name, value in values.items()]
    config = BUNDLES / bundle / "configs" / "inference.json"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config), *options]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    folders = sorted(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    slices = SIZE[2] if bundle == "oct_edema" else len(LABELLED)
    assert len(folders) == (1 if bundle == "oct_edema" else 3)
    for folder in folders:
        prediction = sitk.ReadImage(str(folder / f"{folder.name}_seg.nii.gz"))
        assert prediction.GetSize() == (*SIZE[:2], slices)
        assert prediction.GetPixelID() == sitk.sitkUInt8
        with open(folder / f"{folder.name}_detection.csv") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == slices
        assert list(rows[0])[1:] == CLASSES[bundle]
        assert all(0 <= float(row[name]) <= 1 for row in rows for name in CLASSES[bundle])
        names = {path.name.removeprefix(folder.name) for path in folder.iterdir()}
        assert {"_seg.label.txt", "_seg.ctbl", "_preview.gif", "_sheet.png"} <= names


def test_two_processes_train_and_score_subjects_with_missing_b_scans(tmp_path):
    draw_fluid(tmp_path)
    small = {name: value for name, value in TRAINING.items() if name != "spacing_mm"}
    values = {"dataset_dir": str(tmp_path), **SMALL["oct_fluid"]}
    folder = tmp_path / "run"
    for workflow, more in (
        ("multi_gpu_train", {**small, "epochs": 1, "output_dir": str(folder)}),
        ("multi_gpu_evaluate", {"ckpt_dir": str(folder / "models"), "output_dir": str(tmp_path / "eval")}),
    ):
        config = BUNDLES / "oct_fluid" / "configs" / f"{workflow}.json"
        options = [f"--{name}={value}" for name, value in {**values, **more}.items()]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
        command += ["monai.bundle", "run", "--config_file", str(config), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-2000:]
    assert (folder / "models" / "model.pt").is_file()
    assert (tmp_path / "eval" / "scores.csv").is_file()


def test_the_grid_is_that_of_simpleitk_s_series_reader(tmp_path):
    write_oct_edema(tmp_path / "data", 1, seed=8, size=SIZE)
    images = tmp_path / "data" / "original_images"
    network = ConfigWorkflow(
        config_file=str(BUNDLES / "oct_edema" / "configs" / "inference.json"),
        logging_file=False,
        **SMALL["oct_edema"],
    ).parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    values = {"dataset_dir": str(images), "output_dir": str(tmp_path / "out"), "spacing_mm": "$None"}
    values |= {
        "checkpoint": str(tmp_path / "model.pt"),
        "axes": [2],
        "axis_zoom": "$None",
        "axis_weights": "$None",
    }
    run("oct_edema", "inference", **values, tta="none", **SMALL["oct_edema"])
    (case,) = (path for path in images.iterdir() if path.is_dir())
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sorted(map(str, case.glob("*.bmp")), key=lambda path: int(Path(path).stem)))
    source = reader.Execute()
    (path,) = (tmp_path / "out").glob("*/*_seg.nii.gz")
    prediction = sitk.ReadImage(str(path))
    assert prediction.GetSize() == source.GetSize()
    assert prediction.GetOrigin() == source.GetOrigin()
    assert prediction.GetDirection() == source.GetDirection()
    assert nib.load(path).shape == SIZE


@pytest.mark.parametrize("workflow", ["train", "evaluate", "inference"])
def test_the_zoo_finds_every_property_it_requires(bundle, workflow, scans, trained, tmp_path):
    values = {"dataset_dir": str(scans[0]), "output_dir": str(tmp_path), **SMALL[bundle]}
    values |= {} if workflow == "train" else weights_of(trained)
    instance = ConfigWorkflow(
        config_file=str(BUNDLES / bundle / "configs" / f"{workflow}.json"),
        logging_file=False,
        workflow_type="train" if workflow == "train" else "infer",
        **values,
    )
    instance.initialize()
    assert instance.check_properties() == []


@pytest.mark.parametrize("name", NAMES)
def test_the_zoo_verifies_the_shapes_of_the_network(name):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(BUNDLES / name / "configs" / "metadata.json"),
        config_file=str(BUNDLES / name / "configs" / "inference.json"),
        bundle_root=str(BUNDLES / name),
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_zoo_exports_the_shipped_weights_to_torchscript(name, tmp_path):
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(BUNDLES / name / "models" / "model.pt"),
        meta_file=str(BUNDLES / name / "configs" / "metadata.json"),
        config_file=str(BUNDLES / name / "configs" / "inference.json"),
        bundle_root=str(BUNDLES / name),
    )
    channels = 4 if name == "oct_edema" else 1
    assert torch.jit.load(tmp_path / "model.ts")(torch.zeros(1, 3, 33, 28)).shape == (1, channels, 33, 28)


def test_a_subject_without_any_lesion_trains_and_scores(tmp_path):
    draw_fluid(tmp_path)
    empty = tmp_path / "Subject_02" / "labels"
    for path in empty.iterdir():
        Image.fromarray(np.zeros(SIZE[1::-1], np.uint8)).save(path)
    (tmp_path / "datalist.json").unlink()
    prepare_duke_dme(tmp_path, folds=3)
    values = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "run"), **TRAINING, "amp": "auto"}
    values |= {name: value for name, value in SMALL["oct_fluid"].items() if name != "amp"}
    run("oct_fluid", "train", **values)
    assert torch.load(tmp_path / "run" / "models" / "last.pt", weights_only=True)["epoch"] == 2
    shutil.rmtree(tmp_path / "run")
