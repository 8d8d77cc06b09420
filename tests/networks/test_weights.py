"""Weights come in whole and finite, or not at all; nothing in a file runs."""

import copy
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from volseg.checks import InputError
from volseg.networks import SliceStackUNet, load_weights


def network(seed=0, **keywords):
    return SliceStackUNet(features=(4, 6), seed=seed, **keywords)


def equal(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class RunsCode:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(network(seed=1).state_dict(), path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "optimizer": {"state": {}, "lr": 0.1}, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: {"network": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
        lambda state: {
            name: value.double() if value.is_floating_point() else value for name, value in state.items()
        },
    ],
    ids=["plain", "training checkpoint", "state_dict", "distributed", "compiled", "float64"],
)
def test_weights_come_in(tmp_path, wrap):
    given, own = network(seed=1), network()
    torch.save(wrap(given.state_dict()), tmp_path / "model.pt")
    assert load_weights(own, tmp_path / "model.pt") is own
    assert equal(own, given)


def test_the_old_file_format_comes_in(tmp_path):
    given, own = network(seed=1), network()
    torch.save(given.state_dict(), tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    assert equal(load_weights(own, tmp_path / "model.pt"), given)


def damage(path, how):
    content = path.read_bytes()
    middle = content.index(network(seed=1).state_dict()["head.weight"].numpy().tobytes())
    if how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "random":
        path.write_bytes(bytes(range(1, 256)) * 40)
    elif how == "html":
        path.write_text("<!DOCTYPE html><html><body>404 not found</body></html>")
    elif how == "cut":
        path.write_bytes(content[:middle])
    elif how == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif how == "deflated":
        with zipfile.ZipFile(path) as source:
            members = {name: source.read(name) for name in source.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for name, member in members.items():
                target.writestr(name, member)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("missing", "no such file; check the path"),
        ("folder", "a folder or device"),
        ("empty", "an empty file"),
        ("random", "damaged content"),
        ("html", "damaged content|a pickle that would run code"),
        ("cut", "damaged content"),
        ("flipped", "wrong checksum|an error"),
        ("deflated", "a compressed archive"),
    ],
)
def test_a_damaged_file_is_refused_by_name(file, how, told):
    own = network()
    before = copy.deepcopy(own)
    damage(file, how)
    with pytest.raises(InputError, match=f"model.pt: .*({told})") as refusal:
        load_weights(own, file)
    assert str(refusal.value).count("\n") == 0
    assert equal(own, before)


def test_a_named_pipe_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(InputError, match="a folder or device"):
        load_weights(network(), tmp_path / "model.pt")


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "plain pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, modern):
    path, trace = tmp_path / "model.pt", tmp_path / "it_ran"
    if modern:
        torch.save({"model": RunsCode(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(RunsCode(trace), protocol=2))
    with pytest.raises(
        InputError, match=r"model.pt: expected tensors only, got a pickle that would run code"
    ):
        load_weights(network(), path)
    assert not trace.exists()


def test_a_pickle_of_a_newer_protocol_is_refused_and_does_not_run(tmp_path):
    path, trace = tmp_path / "model.pt", tmp_path / "it_ran"
    path.write_bytes(pickle.dumps(RunsCode(trace), protocol=4))
    with pytest.raises(InputError, match=r"model.pt: expected a PyTorch checkpoint, got damaged content"):
        load_weights(network(), path)
    assert not trace.exists()


def altered(change):
    state = network(seed=1).state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (altered(lambda state: state.pop("head.bias")), r"1 missing \(head.bias\), 0 unexpected"),
        (altered(lambda state: state.update(extra=torch.zeros(1))), r"0 missing, 1 unexpected \(extra\)"),
        (altered(lambda state: state["head.bias"].fill_(torch.nan)), "finite weights, got 1 NaN or infinite"),
        (
            altered(lambda state: state.update({"head.bias": torch.zeros(2)})),
            r"head.bias of shape \(1,\), got \(2,\)",
        ),
        (
            altered(lambda state: state.update({"head.bias": torch.zeros(1, dtype=int)})),
            "of type torch.float32",
        ),
        (network(norm="group").state_dict(), r"\d+ missing \(.*\.\.\.\), 0 unexpected"),
        (SliceStackUNet(features=(4, 8)).state_dict(), "of shape"),
        (nn.Linear(2, 2).state_dict(), "got 0 of them"),
        ({"epoch": 3, "loss": 0.5}, r"a mapping with 2 keys \(epoch, loss\)"),
        ({}, "a mapping with 0 keys"),
        ([1, 2], "got list"),
        (torch.zeros(3), "got Tensor"),
    ],
    ids=[
        "key less",
        "key more",
        "NaN",
        "shape",
        "integers",
        "norm",
        "width",
        "stranger",
        "no weights",
        "empty",
        "list",
        "tensor",
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(tmp_path, state, told):
    own = network()
    before = copy.deepcopy(own)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match=f"model.pt: .*{told}"):
        load_weights(own, tmp_path / "model.pt")
    assert equal(own, before)


def test_not_strict_takes_what_fits_but_needs_something_to_fit(tmp_path):
    given, own = network(seed=1), network()
    state = given.state_dict()
    state.pop("head.bias")
    torch.save(state, tmp_path / "part.pt")
    load_weights(own, tmp_path / "part.pt", strict=False)
    assert torch.equal(own.head.weight, given.head.weight)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"none.pt: .*got 0 of them"):
        load_weights(own, tmp_path / "none.pt", strict=False)
