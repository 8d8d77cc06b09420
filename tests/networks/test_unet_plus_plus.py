"""UNet++ under the contract, and what it has beyond: heads, pruning, detection."""

import pytest
import torch

from volseg.networks import UNetPlusPlus

from .contract import NetworkContract

FEATURES = (4, 6, 8)


class TestUNetPlusPlus(NetworkContract):
    def build(self, **keywords):
        return UNetPlusPlus(
            features=FEATURES, dilated_centre=True, detection_classes=3, dropout=0.1, **keywords
        )


class TestUNetPlusPlusWithOneHead(NetworkContract):
    def build(self, **keywords):
        return UNetPlusPlus(features=FEATURES, deep_supervision=False, norm="instance", scse=True, **keywords)


@pytest.mark.parametrize(
    ("dilated", "published"), [(False, 2.95e6), (True, 5.32e6)], ids=["plain", "dilated"]
)
def test_published_sizes(dilated, published):
    network = UNetPlusPlus(out_channels=4, dilated_centre=dilated)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(published, rel=0.05)


def test_training_returns_a_mapping_whose_logits_are_the_mean_of_the_heads():
    network = UNetPlusPlus(out_channels=2, features=FEATURES, detection_classes=3, seed=0)
    outputs = network(torch.rand(2, 3, 17, 12))
    assert {name: tuple(each.shape) for name, each in outputs.items()} == {
        "logits": (2, 2, 17, 12),
        "deep": (2, 2, 2, 17, 12),
        "detection": (2, 3),
    }
    torch.testing.assert_close(outputs["logits"], outputs["deep"].mean(dim=1))


def test_training_returns_a_tensor_when_there_is_one_output():
    network = UNetPlusPlus(features=FEATURES, deep_supervision=False)
    assert isinstance(network(torch.rand(2, 3, 17, 12)), torch.Tensor)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_pruned_network_gives_the_mean_of_its_first_heads(depth):
    stack = torch.rand(2, 3, 33, 20)
    network = UNetPlusPlus(features=(4, 6, 8, 8), norm="group", seed=0)
    deep = network.train()(stack)["deep"]
    network.inference_depth = depth
    torch.testing.assert_close(network.eval()(stack), deep[:, :depth].mean(dim=1))


def test_pruning_leaves_the_deepest_blocks_out():
    network = UNetPlusPlus(features=FEATURES, inference_depth=1, seed=0).eval()
    calls = []
    network.down[-1].register_forward_hook(lambda *_: calls.append(1))
    network(torch.rand(1, 3, 17, 12))
    assert calls == []


@pytest.mark.parametrize("depth", [0, 3])
def test_an_impossible_depth_is_refused(depth):
    with pytest.raises(ValueError, match=f"inference_depth must be 1 to 2 .*, got {depth}"):
        UNetPlusPlus(features=FEATURES, inference_depth=depth)


def test_pruning_needs_the_heads_of_deep_supervision():
    with pytest.raises(ValueError, match="needs a head on that column; use deep_supervision=True"):
        UNetPlusPlus(features=FEATURES, inference_depth=1, deep_supervision=False)


def test_detection_is_the_same_in_training_and_by_its_method():
    network = UNetPlusPlus(features=FEATURES, norm="group", detection_classes=3, seed=0)
    stack = torch.rand(2, 3, 17, 12)
    torch.testing.assert_close(network.train()(stack)["detection"], network.eval().detect(stack))


def test_detection_grows_where_a_lesion_appears_and_does_not_mind_the_place():
    network = UNetPlusPlus(features=(4, 6), norm="group", detection_classes=1, seed=0).eval()
    left, right = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    left[..., 20:24, 16:20] = 1
    right[..., 20:24, 40:44] = 1
    torch.testing.assert_close(network.detect(left), network.detect(right), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network.detect(left), network.detect(torch.zeros(1, 3, 64, 64)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # of torch itself
def test_a_scripted_network_detects_too():
    network = UNetPlusPlus(features=FEATURES, detection_classes=3, seed=0).eval()
    stack = torch.rand(2, 3, 17, 12)
    torch.testing.assert_close(torch.jit.script(network).detect(stack), network.detect(stack))


def test_detecting_without_a_detection_head_is_refused():
    with pytest.raises(ValueError, match="no detection head; build it with detection_classes of at least 1"):
        UNetPlusPlus(features=FEATURES).detect(torch.rand(1, 3, 17, 12))
