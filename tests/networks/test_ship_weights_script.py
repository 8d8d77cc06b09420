"""Weights of a run become a file that a bundle takes."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from volseg.handlers import load_threshold
from volseg.networks import SliceStackUNet, load_weights

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Run the script over a network, and give the folder it wrote."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = importlib.import_module("ship_weights")

    def run(network, threshold):
        torch.save(network.state_dict(), tmp_path / "run.pt")
        own = [str(tmp_path / "run.pt"), "--threshold", threshold, "--write", str(tmp_path / "models")]
        monkeypatch.setattr(sys, "argv", ["ship_weights.py", *own])
        script.main()
        return tmp_path / "models"

    return run


def network(seed):
    return SliceStackUNet(in_slices=1, features=[4, 8], norm="batch", seed=seed)


def test_a_bundle_takes_kernels_of_16_bits_and_their_threshold(ship):
    trained = network(0)
    folder = ship(trained, "0.4")
    taken = load_weights(network(1), folder / "model.pt").state_dict()
    for name, value in torch.load(folder / "model.pt", weights_only=True).items():
        if value.is_floating_point():
            assert value.dtype == (torch.float16 if value.ndim > 1 else torch.float32)
        torch.testing.assert_close(taken[name], trained.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert load_threshold(folder / "model.pt", default=0.9) == 0.4


def test_a_threshold_above_one_is_refused_before_anything_is_written(ship, tmp_path):
    with pytest.raises(ValueError, match="threshold"):
        ship(network(0), "1.5")
    assert not (tmp_path / "models").exists()
