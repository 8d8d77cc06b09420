"""Weights of several runs become one file that a bundle takes."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from volseg.checks import InputError
from volseg.handlers import load_threshold
from volseg.networks import SliceStackUNet, load_weights

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Run the script over networks, and give the folder it wrote."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = importlib.import_module("ship_weights")

    def run(*networks, threshold="0.4"):
        files = [tmp_path / f"run_{number}.pt" for number in range(len(networks))]
        for network, file in zip(networks, files, strict=True):
            torch.save(network.state_dict(), file)
        own = ["--threshold", threshold, "--write", str(tmp_path / "models")]
        monkeypatch.setattr(sys, "argv", ["ship_weights.py", *map(str, files), *own])
        script.main()
        return tmp_path / "models"

    return run


def network(seed, **keywords):
    return SliceStackUNet(in_slices=1, features=[4, 8], norm="batch", seed=seed, **keywords)


def test_each_weight_is_the_mean_with_16_bit_kernels(ship):
    one, two = network(0), network(1)
    for number, module in enumerate((one, two)):
        next(buffer for name, buffer in module.named_buffers() if "mean" in name).fill_(number)
    folder = ship(one, two)
    stored = torch.load(folder / "model.pt", weights_only=True)
    for name, value in stored.items():
        first, second = one.state_dict()[name], two.state_dict()[name]
        if value.is_floating_point():
            assert value.dtype == (torch.float16 if value.ndim > 1 else torch.float32)
            torch.testing.assert_close(value.float(), (first + second) / 2, rtol=1e-3, atol=1e-4)
    assert load_weights(network(2), folder / "model.pt").state_dict().keys() == stored.keys()
    assert load_threshold(folder / "model.pt") == 0.4


def test_runs_of_different_networks_are_refused(ship):
    with pytest.raises(InputError, match=r"run_1\.pt.*same names and shapes"):
        ship(network(0), network(0, out_channels=2))


def test_a_threshold_above_one_is_refused_before_anything_is_written(ship, tmp_path):
    with pytest.raises(ValueError, match="threshold"):
        ship(network(0), threshold="1.5")
    assert not (tmp_path / "models").exists()
