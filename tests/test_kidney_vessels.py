"""The kidney_vessels bundle as its users run it, on a small generated kidney."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its documentation calls it so
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from volseg.data import prepare_sennet, root_cause, write_sennet_phantom

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).parent.parent / "bundles" / "kidney_vessels"
CONFIGS = BUNDLE / "configs"
SMALL = {"network_def::features": [4, 8], "amp": "off", "tta": "none"}
TRAINING = {
    **SMALL,
    "epochs": 2,
    "samples_per_epoch": 16,
    "batch_size": 4,
    "train::roi_size": [24, 24],
    "learning_rate": 0.01,
}


@pytest.fixture(scope="module")
def kidney(tmp_path_factory):
    root = tmp_path_factory.mktemp("kidney")
    write_sennet_phantom(root, shape=(33, 28, 21), seed=3)
    prepare_sennet(root)
    return root


def run(workflow, **overrides):
    instance = ConfigWorkflow(
        config_file=str(CONFIGS / f"{workflow}.json"), logging_file=False, workflow_type=None, **overrides
    )
    instance.initialize()
    instance.run()
    instance.finalize()
    return instance


def as_options(values):
    return [
        f"--{name}={json.dumps(value) if not isinstance(value, str) else value}"
        for name, value in values.items()
    ]


def command(*arguments, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def trained(kidney, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    run("train", dataset_dir=str(kidney), output_dir=str(output), **TRAINING)
    return output


def test_training_leaves_weights_state_and_a_threshold_bound_to_them(trained):
    weights = torch.load(trained / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    state = torch.load(trained / "models" / "last.pt", weights_only=True)
    assert state["epoch"] == 2
    threshold = json.loads((trained / "models" / "threshold.json").read_text())
    assert 0 < threshold["threshold"] < 1
    assert threshold["val_surface_dice"] == pytest.approx(state["best"]["metric"])


def test_tensorboard_shows_loss_score_rate_memory_and_pictures(trained):
    events = EventAccumulator(str(trained / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert {"train_loss", "val_surface_dice", "run/learning_rate", "run/peak_memory_gib"} <= set(
        events.Tags()["scalars"]
    )
    assert {f"validation_1/across_{axis}" for axis in "xyz"} <= set(events.Tags()["images"])
    assert [event.step for event in events.Scalars("val_surface_dice")] == [1, 2]


def test_a_run_stopped_after_an_epoch_and_started_again_ends_in_the_same_bytes(kidney, trained, tmp_path):
    values = {"dataset_dir": str(kidney), "output_dir": str(tmp_path), **TRAINING}
    run("train", **values, **{"train::trainer::max_epochs": 1})
    run("train", **values)
    resumed = torch.load(tmp_path / "models" / "last.pt", weights_only=True)
    undisturbed = torch.load(trained / "models" / "last.pt", weights_only=True)
    assert all(torch.equal(resumed["network"][name], value) for name, value in undisturbed["network"].items())
    assert resumed["best"] == undisturbed["best"]


def test_a_finished_run_is_not_trained_over(kidney, trained):
    with pytest.raises(RuntimeError) as caught:
        run("train", dataset_dir=str(kidney), output_dir=str(trained), **TRAINING)
    assert "raise --epochs" in root_cause(caught.value)


def read_scores(folder):
    with open(folder / "scores.csv") as file:
        return {row["case"]: float(row["surface_dice"]) for row in csv.DictReader(file)}


def test_evaluation_tables_every_case_and_their_mean(kidney, trained, tmp_path):
    values = {"dataset_dir": str(kidney), "ckpt_dir": str(trained / "models"), "section": "training"}
    run("evaluate", output_dir=str(tmp_path), **values, **SMALL)
    scores = read_scores(tmp_path)
    mean = scores.pop("mean")
    assert len(scores) == 2
    assert mean == pytest.approx(np.mean(list(scores.values())))


def test_evaluating_cases_without_labels_is_refused(kidney, trained, tmp_path):
    values = {"dataset_dir": str(kidney), "ckpt_dir": str(trained / "models"), "section": "test"}
    with pytest.raises(RuntimeError) as caught:
        run("evaluate", output_dir=str(tmp_path), **values, **SMALL)
    assert "expected a label for every case, got none for kidney_5" in root_cause(caught.value)


def torchrun(workflow, overrides, cwd):
    return command(
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run"),
        *("--config_file", CONFIGS / f"{workflow}.json", *as_options(overrides)),
        cwd=cwd,
    )


@pytest.mark.parametrize("section", ["training", "validation"], ids=["a_case_each", "fewer_cases_than_ranks"])
def test_two_processes_score_what_one_scores(kidney, trained, tmp_path, section):
    values = {"dataset_dir": str(kidney), "ckpt_dir": str(trained / "models"), "section": section, **SMALL}
    run("evaluate", output_dir=str(tmp_path / "one"), **values)
    result = torchrun("multi_gpu_evaluate", {**values, "output_dir": str(tmp_path / "two")}, tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert read_scores(tmp_path / "two") == pytest.approx(read_scores(tmp_path / "one"), abs=1e-6)


def test_two_processes_train_one_model(kidney, tmp_path):
    values = {"dataset_dir": str(kidney), "output_dir": str(tmp_path), **TRAINING, "epochs": 1}
    result = torchrun("multi_gpu_train", values, tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert torch.load(tmp_path / "models" / "last.pt", weights_only=True)["epoch"] == 1
    assert (tmp_path / "models" / "model.pt").is_file()


def test_inference_from_a_foreign_directory_writes_the_geometry_simpleitk_reads(kidney, trained, tmp_path):
    output = tmp_path / "out"
    arguments = (
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        CONFIGS / "inference.json",
        "--output_dir",
        output,
    )
    values = {
        "dataset_dir": str(kidney / "test"),
        "ckpt_dir": str(trained / "models"),
        "save_probability": True,
    }
    result = command(*arguments, *as_options(values | SMALL), cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    prediction = sitk.ReadImage(str(output / "kidney_5" / "kidney_5_seg.nii.gz"))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sorted(map(str, (kidney / "test" / "kidney_5" / "images").glob("*.tif"))))
    source = reader.Execute()
    assert prediction.GetPixelID() == sitk.sitkUInt8
    assert prediction.GetSize() == source.GetSize()
    assert prediction.GetOrigin() == source.GetOrigin()
    assert prediction.GetDirection() == source.GetDirection()
    assert prediction.GetSpacing() == pytest.approx((0.05, 0.05, 0.05), rel=1e-6)
    probability = nib.load(output / "kidney_5" / "kidney_5_prob.nii.gz").get_fdata()
    threshold = json.loads((trained / "models" / "threshold.json").read_text())["threshold"]
    assert np.array_equal(sitk.GetArrayFromImage(prediction).T, probability >= np.float32(threshold))
    again = command(*arguments, *as_options(values | SMALL), cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-2000:]
    assert json.loads((output / "summary.json").read_text())["delivered"] == 1


@pytest.mark.parametrize(
    "network",
    [
        {"_target_": "volseg.networks.AttentionUNet", "features": [4, 8, 8]},
        {"_target_": "volseg.networks.UNetPlusPlus", "features": [4, 8, 8], "deep_supervision": True},
        {"_target_": "volseg.networks.StackUNet3D", "in_slices": 5, "out_slices": 5, "features": [4, 8, 8]},
        {"_target_": "volseg.networks.FlexibleUNetStack", "encoder_name": "resnet18"},
    ],
    ids=["attention", "plus_plus", "3d", "encoder"],
)
def test_other_networks_train_by_override(kidney, tmp_path, network):
    slices = network.get("in_slices", 3)
    network = {"in_slices": "@in_slices", "out_slices": "@out_slices", **network}
    values = {name: value for name, value in TRAINING.items() if not name.startswith("network_def")}
    values |= {"epochs": 1, "samples_per_epoch": 4, "in_slices": slices, "out_slices": slices, "axes": [2]}
    run("train", dataset_dir=str(kidney), output_dir=str(tmp_path), network_def=network, **values)
    assert (tmp_path / "models" / "last.pt").is_file()


@pytest.mark.parametrize("workflow", ["train", "evaluate", "inference"])
def test_the_zoo_finds_every_property_it_requires(workflow, kidney, trained, tmp_path):
    values = {"dataset_dir": str(kidney), "output_dir": str(tmp_path), **SMALL}
    values |= {} if workflow == "train" else {"ckpt_dir": str(trained / "models")}
    instance = ConfigWorkflow(
        config_file=str(CONFIGS / f"{workflow}.json"),
        logging_file=False,
        workflow_type="train" if workflow == "train" else "infer",
        **values,
    )
    instance.initialize()
    assert instance.check_properties() == []


def test_the_zoo_verifies_the_shapes_of_the_network():
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
        bundle_root=str(BUNDLE),
    )


def test_the_zoo_exports_the_shipped_weights_to_torchscript(tmp_path):
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(BUNDLE / "models" / "model.pt"),
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
        bundle_root=str(BUNDLE),
    )
    assert torch.jit.load(tmp_path / "model.ts")(torch.zeros(1, 3, 33, 28)).shape == (1, 3, 33, 28)


def test_the_metadata_has_what_the_schema_of_20240725_requires():
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    required = {
        *(
            "schema",
            "version",
            "monai_version",
            "pytorch_version",
            "numpy_version",
            "required_packages_version",
        ),
        *("task", "description", "authors", "copyright", "network_data_format"),
    }
    assert required <= set(metadata)
    assert metadata["version"] in metadata["changelog"]
    for tensor in (
        *metadata["network_data_format"]["inputs"].values(),
        *metadata["network_data_format"]["outputs"].values(),
    ):
        assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"} <= set(tensor)
