"""Members of an ensemble from config values, and the ensemble as users run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.inferers import SimpleInferer

from volseg.checks import InputError
from volseg.data import prepare_sennet, write_sennet_phantom
from volseg.ensembles import MemberList
from volseg.files import sha256_of
from volseg.inferers import TriAxisInferer
from volseg.networks import AttentionUNet, SliceStackUNet

BUNDLES = Path(__file__).parent.parent / "bundles"
STACK = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def unet(seed=0, **keywords):
    return SliceStackUNet(features=(4, 8), seed=seed, **keywords).eval()


def save(folder, network, threshold=None):
    """Write weights, and their threshold, as a training run leaves them."""
    folder.mkdir(parents=True)
    file = folder / "model.pt"
    torch.save(network.state_dict(), file)
    if threshold is not None:
        record = {"threshold": threshold, "weights_sha256": sha256_of(file)}
        (folder / "threshold.json").write_text(json.dumps(record))
    return str(file)


@pytest.fixture
def folds(tmp_path):
    thresholds = (0.2, 0.3, None)
    return [save(tmp_path / f"fold_{k}" / "models", unet(k), thresholds[k]) for k in range(3)]


def member_list(entries, network=None, inferer=None, **keywords):
    return MemberList(entries, network or unet(9), inferer or TriAxisInferer(), **keywords)


def logits(network):
    with torch.no_grad():
        return network(STACK)


def test_each_checkpoint_becomes_a_copy_of_the_network_with_its_weights(folds):
    ensemble = member_list(folds).load()
    for seed, member in enumerate(ensemble.members):
        assert torch.equal(logits(member), logits(unet(seed)))
    assert not ensemble.training


def test_the_network_of_the_config_is_a_member(folds):
    network = unet(9)
    assert member_list(folds, network).load().members[0] is network


def test_a_pattern_names_its_files_in_order(folds, tmp_path):
    found = member_list(str(tmp_path / "fold_*" / "models" / "model.pt"))
    assert found.names == folds
    assert member_list([str(tmp_path / "fold_[12]" / "models" / "*.pt"), folds[0]]).names == [
        *folds[1:],
        folds[0],
    ]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    file = save(tmp_path / "run [1]*", unet())
    assert member_list(file).names == [file]


def test_the_threshold_is_the_mean_of_those_stored_and_of_the_default(folds):
    assert member_list(folds).threshold == pytest.approx((0.2 + 0.3 + 0.5) / 3)
    assert member_list(folds[0]).threshold == 0.2


def test_weights_reach_the_ensemble(folds):
    assert member_list(folds[:2], weights=[3, 1]).load().shares == [0.75, 0.25]


def test_the_settings_tell_other_members_or_weights_but_not_their_order(folds):
    settings = member_list(folds, weights=(1, 2, 3)).settings
    assert member_list(folds[::-1], weights=(3, 2, 1)).settings == settings
    assert member_list(folds, weights=(3, 2, 1)).settings != settings
    assert member_list(folds[:2]).settings != member_list(folds[1:]).settings
    other = {"network": unet(0), "checkpoint": folds[0], "inferer": TriAxisInferer(axes=(2,))}
    same = {"network": unet(0), "checkpoint": folds[0]}
    assert member_list([other]).settings != member_list([same]).settings


def test_another_network_runs_with_the_inferer_of_its_entry_or_the_common_one(folds, tmp_path):
    attention = AttentionUNet(in_slices=5, features=(4, 8), seed=3).eval()
    file = save(tmp_path / "attention", attention)
    own, common = TriAxisInferer(in_slices=5), TriAxisInferer()
    entry = {"network": AttentionUNet(in_slices=5, features=(4, 8)), "checkpoint": file, "inferer": own}
    members = member_list([folds[0], entry], inferer=common)
    assert members.inferers == [common, own]
    five = torch.cat([STACK, STACK[:, :2]], dim=1)
    with torch.no_grad():
        assert torch.equal(members.load().members[1](five), attention(five))


def write_bundle(folder, **network):
    """A bundle whose root is an expression that no other bundle can evaluate."""
    (folder / "configs").mkdir(parents=True)
    config = {
        "imports": ["$import volseg.bundles"],
        "bundle_root": "$volseg.bundles.bundle_root('nowhere')",
        "in_slices": network.get("in_slices", 3),
        "network_def": {"_target_": "volseg.networks.SliceStackUNet", "features": [4, 8], **network},
        "inferer": {"_target_": "volseg.inferers.TriAxisInferer", "in_slices": "@in_slices", "tta": "d4"},
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    return {"bundle": str(folder)}


def test_a_bundle_gives_its_network_its_weights_and_its_slices(tmp_path):
    network = unet(4, in_slices=5)
    save(tmp_path / "b" / "models", network, 0.7)
    entry = write_bundle(tmp_path / "b", in_slices=5)
    members = member_list([entry], inferer=TriAxisInferer(axes=(2,), tta="none"))
    (inferer,) = members.inferers
    assert (inferer.in_slices, inferer.axes, len(inferer.views)) == (5, (2,), 1)
    assert members.threshold == 0.7
    (member,) = members.load().members
    assert all(torch.equal(value, member.state_dict()[name]) for name, value in network.state_dict().items())


def test_a_bundle_of_as_many_slices_runs_with_the_common_inferer(tmp_path):
    save(tmp_path / "b" / "models", unet())
    common = TriAxisInferer()
    assert member_list([write_bundle(tmp_path / "b")], inferer=common).inferers == [common]


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"in_channels": 2}, "expected 1 channels, as network_def takes, got 2"),
        ({"out_channels": 4}, "expected 1 classes of 1 slices, 1 maps, got 4"),
    ],
    ids=["channels", "classes"],
)
def test_another_network_of_other_counts_is_named(counts, told, folds, tmp_path):
    entry = {"network": unet(0, **counts), "checkpoint": save(tmp_path / "odd", unet(0, **counts))}
    with pytest.raises(InputError) as caught:
        member_list([folds[0], entry]).load()
    assert str(caught.value).startswith(f"member 2, {tmp_path}")
    assert told in str(caught.value)


def test_another_network_of_other_slices_without_an_inferer_is_named(folds, tmp_path):
    entry = {"network": unet(0, in_slices=7), "checkpoint": save(tmp_path / "odd", unet(0, in_slices=7))}
    with pytest.raises(InputError, match=r"member 2, .*expected a network for stacks of 3 slices"):
        member_list([folds[0], entry]).load()


def test_inferers_of_monai_are_taken_unseen(tmp_path):
    network = unet(0, in_channels=2)
    entry = {"network": network, "checkpoint": save(tmp_path / "other", network)}
    assert len(member_list([entry], inferer=SimpleInferer()).load().members) == 1


def test_a_checkpoint_of_another_network_is_named(folds, tmp_path):
    file = save(tmp_path / "wide", SliceStackUNet(features=(6, 8)))
    with pytest.raises(InputError, match=r"wide/model\.pt: expected"):
        member_list([folds[0], file]).load()


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([], "members: expected checkpoints, networks or bundles, got none; pass --members"),
        (["nowhere_*.pt"], "nowhere_*.pt: expected a checkpoint, or a pattern of some, got no such file"),
        ([3], "expected paths or mappings, got int 3"),
        ([{"netwrk": 1}], "did you mean 'network'?"),
        ([{"checkpoint": "a.pt"}], "a bundle or a network in each entry, got neither"),
        ([{"bundle": "a", "network": 1}], "a bundle or a network in each entry, got both"),
        ([{"network": "unet", "checkpoint": "a.pt"}], "expected a network with its _target_"),
        ([{"network": torch.nn.Identity()}], "expected a network with its _target_, and its checkpoint"),
        (
            [{"network": torch.nn.Identity(), "checkpoint": "a.pt"}],
            "a.pt: expected the weights of the member",
        ),
        ([{"bundle": "nowhere"}], "nowhere: expected a bundle with configs/inference.json"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:30],
)
def test_an_entry_that_is_none_is_refused(entries, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        member_list(entries)
    assert told in str(caught.value)


def test_a_bundle_without_a_network_is_refused(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text("{}")
    with pytest.raises(InputError, match="expected network_def and inferer, got no network_def"):
        member_list([{"bundle": str(tmp_path)}])


@pytest.mark.parametrize("workflow", ["ensemble", "evaluate"])
@pytest.mark.parametrize("name", sorted(path.parent.name for path in BUNDLES.glob("*/src")))
def test_the_configs_of_every_bundle_make_an_ensemble_of_networks_written_as_values(name, workflow, tmp_path):
    parser = ConfigParser(ConfigParser.load_config_file(str(BUNDLES / name / "configs" / f"{workflow}.json")))
    parser["device"] = "cpu"
    definition = dict(parser["network_def"])
    network = ConfigParser({**parser.config, "bundle_root": "."}).get_parsed_content("network_def")
    file = save(tmp_path / "one", network)
    parser["members"] = [file, {"network": definition, "checkpoint": file}]
    parser["member_weights"] = [1, 3]
    ensemble = parser.get_parsed_content("network")
    assert ensemble.shares == [0.25, 0.75]
    assert len(parser.get_parsed_content("ensemble_inferer").inferers) == 2


SMALL = {"network_def::features": [4, 8], "amp": "off", "tta": "none"}


CONFIGS = BUNDLES / "kidney_vessels" / "configs"


def run(workflow, **values):
    config = str(CONFIGS / f"{workflow}.json")
    instance = ConfigWorkflow(config_file=config, logging_file=False, workflow_type=None, **SMALL, **values)
    instance.initialize()
    instance.run()
    instance.finalize()


def command(workflow, cwd, **values):
    options = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in (SMALL | values).items()
    ]
    config = str(CONFIGS / f"{workflow}.json")
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *options],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def kidney(tmp_path_factory):
    """A volume and two checkpoints, in the folder that the commands run in."""
    folder = tmp_path_factory.mktemp("kidney")
    values = np.random.default_rng(0).integers(0, 4000, (19, 14, 11)).astype(np.uint16)
    image = nib.Nifti1Image(values, np.diag([0.05, 0.05, 0.05, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "scan.nii.gz")
    for seed, name in enumerate("ab"):
        network = SliceStackUNet(in_slices=3, out_slices=3, features=(4, 8), norm="instance", seed=seed)
        save(folder / name, network, 0.4 + seed / 5)
    for name in "ab":
        places = {"dataset_dir": "scan.nii.gz", "output_dir": f"out_{name}", "ckpt_dir": name}
        places = {key: str(folder / place) for key, place in places.items()}
        run("inference", save_probability=True, **places)
    return folder


def read(folder, kind):
    return nib.load(folder / "scan" / f"scan_{kind}.nii.gz").get_fdata()


@pytest.mark.slow
def test_an_ensemble_run_writes_the_mean_of_what_its_members_write(kidney):
    values = {"dataset_dir": "scan.nii.gz", "output_dir": "out", "members": "['a/model.pt','b/model.pt']"}
    values |= {"member_weights": [3, 1], "save_probability": True, "save_disagreement": True}
    result = command("ensemble", kidney, **values)
    assert result.returncode == 0, result.stderr[-2000:]
    one, two = read(kidney / "out_a", "prob"), read(kidney / "out_b", "prob")
    assert np.abs(one - two).max() > 0.01
    # float32 maps, each rounded once
    np.testing.assert_allclose(read(kidney / "out", "prob"), 0.75 * one + 0.25 * two, atol=1e-6)
    spread = np.sqrt(0.75 * 0.25) * np.abs(one - two)
    np.testing.assert_allclose(read(kidney / "out", "disagreement"), spread, atol=1e-6)
    assert np.array_equal(read(kidney / "out", "seg"), read(kidney / "out", "prob") >= np.float32(0.5))

    turned = {"members": "['b/model.pt','a/model.pt']", "member_weights": [1, 3]}
    again = command("ensemble", kidney, **{**values, **turned})
    assert again.returncode == 0, again.stderr[-2000:]
    (case,) = json.loads((kidney / "out" / "summary.json").read_text())["cases"]
    assert case["status"] == "skipped"
    other = command("ensemble", kidney, **{**values, "member_weights": [1, 1]})
    assert other.returncode == 1
    assert "one of another input or other settings" in other.stderr


@pytest.mark.slow
def test_an_ensemble_of_one_writes_what_inference_writes(kidney):
    values = {"dataset_dir": str(kidney / "scan.nii.gz"), "output_dir": str(kidney / "out_one")}
    run("ensemble", members=str(kidney / "a" / "*.pt"), save_probability=True, **values)
    for kind in ("seg", "prob"):
        assert np.array_equal(read(kidney / "out_one", kind), read(kidney / "out_a", kind))


@pytest.mark.slow
def test_an_ensemble_run_without_members_says_how_to_name_them(kidney):
    result = command("ensemble", kidney, dataset_dir="scan.nii.gz", output_dir="out_none")
    assert result.returncode == 1
    assert "error: members: expected checkpoints, networks or bundles, got none" in result.stderr


@pytest.mark.slow
def test_an_ensemble_of_equal_members_scores_what_one_scores(kidney):
    write_sennet_phantom(kidney / "data", shape=(27, 22, 18), seed=3)
    prepare_sennet(kidney / "data")
    scores = []
    for count in (1, 2):
        output = kidney / f"eval_{count}"
        members = [str(kidney / "a" / "model.pt")] * count
        run("evaluate", dataset_dir=str(kidney / "data"), output_dir=str(output), members=members)
        scores.append(json.loads((output / "scores.json").read_text()))
    assert scores[0]["mean"] == scores[1]["mean"]
    assert [len(each["settings"]["members"]) for each in scores] == [1, 2]
