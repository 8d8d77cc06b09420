"""The 3D network under the contract of the 2D ones."""

import pytest
import torch

from volseg.networks import StackUNet3D

from .contract import NetworkContract


class TestStackUNet3D(NetworkContract):
    memory_format = torch.channels_last_3d

    def build(self, **keywords):
        return StackUNet3D(features=(4, 8), **keywords)


class TestStackDynUNet(NetworkContract):
    memory_format = torch.channels_last_3d

    def build(self, **keywords):
        return StackUNet3D(features=(4, 6, 8), architecture="dynunet", dropout=0.1, **keywords)


def test_thirty_one_slices_run_as_thirty_two():
    network = StackUNet3D(features=(2, 4, 4, 4), seed=0).eval()
    seen = []
    network.body.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape))
    with torch.no_grad():
        assert network(torch.rand(1, 31, 17, 12)).shape == (1, 31, 17, 12)
    assert seen == [(1, 1, 32, 24, 16)]


def test_one_output_slice_is_the_middle_one():
    whole = StackUNet3D(1, 5, 2, 5, features=(2, 4), seed=0).eval()
    middle = StackUNet3D(1, 5, 2, 1, features=(2, 4), seed=0).eval()
    stack = torch.rand(1, 5, 9, 7)
    with torch.no_grad():
        assert torch.equal(whole(stack).unflatten(1, (2, 5))[:, :, 2], middle(stack))


def test_channels_are_not_mixed_up_with_slices():
    network = StackUNet3D(2, 3, 1, 3, features=(2, 4), seed=0).eval()
    seen = []
    network.body.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    stack = torch.arange(6.0).reshape(1, 6, 1, 1).expand(1, 6, 8, 8)
    with torch.no_grad():
        network(stack)
    assert seen[0][0, :, :3, 0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_dynunet_of_two_levels_is_refused():
    with pytest.raises(ValueError, match=r"a dynunet needs at least three features, got \(4, 8\)"):
        StackUNet3D(architecture="dynunet", features=(4, 8))


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="architecture must be one of dynunet, unet, got 'vnet'"):
        StackUNet3D(architecture="vnet")
