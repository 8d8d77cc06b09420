"""The attention U-Net under the contract, and its maps."""

import pytest
import torch

from volseg.networks import AttentionUNet

from .contract import NetworkContract


class TestAttentionUNet(NetworkContract):
    def build(self, **keywords):
        return AttentionUNet(features=(4, 6, 8), **keywords)


class TestAttentionUNetWithEverything(NetworkContract):
    def build(self, **keywords):
        options = {"norm": "instance", "residual": True, "scse": True, "upsample": "bilinear", "dropout": 0.1}
        return AttentionUNet(features=(4, 6), **{**options, **keywords})


def test_attention_comes_with_unchanged_logits_and_one_map_per_gate():
    network = AttentionUNet(features=(4, 6, 8), seed=0).eval()
    stack = torch.rand(2, 3, 17, 12)
    logits, maps = network.forward_with_attention(stack)
    assert torch.equal(logits, network(stack))
    assert [tuple(each.shape) for each in maps] == [(2, 1, 17, 12)] * 2
    assert all(each.min() > 0 and each.max() < 1 for each in maps)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # of torch itself
def test_a_scripted_network_gives_its_maps_too():
    network = AttentionUNet(features=(4, 6), seed=0).eval()
    stack = torch.rand(1, 3, 9, 5)
    _, maps = torch.jit.script(network).forward_with_attention(stack)
    torch.testing.assert_close(maps[0], network.forward_with_attention(stack)[1][0])


def test_a_closed_gate_cuts_its_skip():
    network = AttentionUNet(features=(4, 6), seed=0).eval()
    with torch.no_grad():
        network.gates[0].score.weight.zero_()
        network.gates[0].score.bias.fill_(-1e4)
        network.up[0].body.weight.zero_()
        network.up[0].body.bias.zero_()
        first, second = network(torch.rand(1, 3, 8, 8)), network(torch.rand(1, 3, 8, 8))
    assert torch.equal(first, second)
