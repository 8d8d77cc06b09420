"""The default 2.5D network, with each of its options, under the contract."""

import pytest
import torch

from volseg.networks import SliceStackUNet

from .contract import NetworkContract


class TestSliceStackUNet(NetworkContract):
    def build(self, **keywords):
        return SliceStackUNet(features=(4, 6, 8), **keywords)


class TestSliceStackUNetWithEverything(NetworkContract):
    def build(self, **keywords):
        options = {"norm": "instance", "residual": True, "scse": True, "upsample": "bilinear", "dropout": 0.1}
        return SliceStackUNet(features=(4, 6, 8), **{**options, **keywords})


class TestSliceStackUNetWithGroups(NetworkContract):
    def build(self, **keywords):
        return SliceStackUNet(features=(4, 6), norm="group", upsample="transposed4", **keywords)


class TestSliceStackUNetWithDetection(NetworkContract):
    def build(self, **keywords):
        return SliceStackUNet(features=(4, 6, 8), detection_classes=2, dropout=0.1, **keywords)


def parameter_count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_published_u_net_has_its_published_size():
    # 2.47 M parameters for three slices in and four classes out.
    network = SliceStackUNet(out_channels=4, features=(16, 32, 64, 128, 256), upsample="transposed4")
    assert parameter_count(network) == pytest.approx(2.47e6, rel=0.05)


def test_logits_move_with_the_picture_by_the_divisor():
    network = SliceStackUNet(features=(4, 6), seed=0).eval()
    stack = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        whole, shifted = network(stack), network(stack.roll(2, dims=-1))
    torch.testing.assert_close(whole.roll(2, dims=-1)[..., 12:20, 12:20], shifted[..., 12:20, 12:20])


def test_padding_does_not_change_what_is_far_from_the_edge():
    network = SliceStackUNet(features=(4, 6), seed=0).eval()
    stack = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        whole, odd = network(stack), network(stack[..., :31, :29])
    torch.testing.assert_close(whole[..., :16, :16], odd[..., :16, :16])


def test_it_learns_to_copy_the_middle_slice():
    network = SliceStackUNet(features=(4, 8), seed=0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    stack = (torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(stack), stack[:, 1:2])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize("features", [(16,), (0, 4), ()], ids=["one level", "no width", "none"])
def test_impossible_features_are_refused(features):
    with pytest.raises(ValueError, match="features must be at least two positive widths, got"):
        SliceStackUNet(features=features)


@pytest.mark.parametrize(("option", "value"), [("norm", "bach"), ("upsample", "nearest")])
def test_unknown_options_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must be one of .*, got '{value}'"):
        SliceStackUNet(**{option: value})


def test_the_detection_head_adds_weights_of_its_own_and_changes_no_other():
    plain = SliceStackUNet(features=(4, 6, 8), seed=0).state_dict()
    both = SliceStackUNet(features=(4, 6, 8), detection_classes=2, seed=0).state_dict()
    assert set(both) - set(plain) == {"detection.score.weight", "detection.score.bias"}
    assert all(torch.equal(both[name], value) for name, value in plain.items())


def test_detection_is_the_same_in_training_and_by_its_method():
    network = SliceStackUNet(features=(4, 6, 8), norm="group", detection_classes=3, seed=0)
    stack = torch.rand(2, 3, 17, 12)
    outputs = network.train()(stack)
    assert {name: tuple(each.shape) for name, each in outputs.items()} == {
        "logits": (2, 1, 17, 12),
        "detection": (2, 3),
    }
    torch.testing.assert_close(outputs["detection"], network.eval().detect(stack))
    torch.testing.assert_close(outputs["logits"], network(stack))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # of torch itself
def test_a_scripted_network_detects_too():
    network = SliceStackUNet(features=(4, 6), detection_classes=3, seed=0).eval()
    stack = torch.rand(2, 3, 17, 12)
    torch.testing.assert_close(torch.jit.script(network).detect(stack), network.detect(stack))


def test_detecting_without_a_detection_head_is_refused():
    with pytest.raises(ValueError, match="no detection head; build it with detection_classes of at least 1"):
        SliceStackUNet(features=(4, 6)).detect(torch.rand(1, 3, 17, 12))
