"""The U-Net with the EfficientNet-Lite0 encoder, under the contract, and its reading of ImageNet weights."""

import pytest
import torch

from volseg.checks import InputError
from volseg.networks import EfficientNetLiteUNet
from volseg.networks.efficientnet_lite_unet import LiteEncoder

from .contract import NetworkContract

NAMES = {"expand": "_expand_conv", "expand_norm": "_bn0", "depthwise": "_depthwise_conv",
         "depthwise_norm": "_bn1", "project": "_project_conv", "project_norm": "_bn2"}  # fmt: skip


class TestEfficientNetLiteUNet(NetworkContract):
    def build(self, **keywords):
        return EfficientNetLiteUNet(features=(8, 6, 6, 4, 4), **keywords)


class TestEfficientNetLiteUNetWithEverything(NetworkContract):
    def build(self, **keywords):
        options = {"norm": "group", "upsample": "transposed", "dropout": 0.1}
        return EfficientNetLiteUNet(features=(8, 6, 6, 4, 4), **{**options, **keywords})


def imagenet_file(path, drop=()):
    """A file with the names of the published package, and what the encoder that reads it must be."""
    source = LiteEncoder(3)
    state = {}
    for name, value in source.state_dict().items():
        first, *rest = name.split(".")
        if first == "blocks":
            state[".".join(["_blocks", rest[0], NAMES[rest[1]], rest[2]])] = value
        else:
            state[".".join(["_conv_stem" if first == "stem" else "_bn0", *rest])] = value
    state["_conv_head.weight"] = torch.zeros(1280, 320, 1, 1)
    state["_fc.bias"] = torch.zeros(1000)
    torch.save({name: value for name, value in state.items() if name not in drop}, path)
    return source.eval()


def test_the_encoder_has_the_published_number_of_weights():
    # 4.65 M with the head (1x1 to 1280, its norm and 1000 classes), as the published file holds.
    head = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    count = sum(parameter.numel() for parameter in LiteEncoder(3).parameters())
    assert count + head == 4_652_008


def test_weights_of_the_published_names_reach_the_encoder(tmp_path):
    source = imagenet_file(tmp_path / "lite0.pth")
    network = EfficientNetLiteUNet(in_channels=3, in_slices=1, encoder_weights=tmp_path / "lite0.pth").eval()
    picture = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        pairs = zip(network.encoder(picture), source(picture), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_a_grey_stack_starts_as_the_grey_picture(tmp_path):
    source = imagenet_file(tmp_path / "lite0.pth")
    network = EfficientNetLiteUNet(in_slices=5, encoder_weights=tmp_path / "lite0.pth").eval()
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        ours, theirs = network.encoder(grey.repeat(1, 5, 1, 1)), source(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(ours[-1], theirs[-1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("missing", ["_conv_stem.weight", "_blocks.3._project_conv.weight"])
def test_a_file_that_lacks_a_weight_is_refused(tmp_path, missing):
    imagenet_file(tmp_path / "lite0.pth", drop=(missing,))
    with pytest.raises(InputError, match=r"lite0\.pth"):
        EfficientNetLiteUNet(encoder_weights=tmp_path / "lite0.pth")


def test_another_number_of_widths_is_refused():
    with pytest.raises(ValueError, match="three to five positive widths"):
        EfficientNetLiteUNet(features=(8, 8))


class TestEfficientNetLiteUNetOfAQuarterSize(NetworkContract):
    def build(self, **keywords):
        return EfficientNetLiteUNet(features=(8, 6, 6), **keywords)


@pytest.mark.parametrize(("features", "side"), [((8, 6, 6, 4, 4), 64), ((8, 6, 6, 4), 32), ((8, 6, 6), 16)])
def test_fewer_widths_decide_at_a_coarser_size(features, side):
    network = EfficientNetLiteUNet(features=features, seed=0).eval()
    sizes = []
    network.head.register_forward_hook(lambda _head, _inputs, out: sizes.append(tuple(out.shape[-2:])))
    with torch.no_grad():
        logits = network(torch.rand(1, 3, 60, 63))
    assert sizes == [(side, side)]
    assert logits.shape == (1, 1, 60, 63)


class TestEfficientNetLiteUNetWithDetection(NetworkContract):
    def build(self, **keywords):
        return EfficientNetLiteUNet(features=(8, 6, 6, 4, 4), detection_classes=2, **keywords)


def test_the_detection_head_speaks_in_training_and_when_asked():
    network = EfficientNetLiteUNet(features=(8, 6, 6, 4, 4), detection_classes=2, seed=0)
    assert network(torch.rand(3, 3, 40, 20))["detection"].shape == (3, 2)
    with torch.no_grad():
        assert network.eval().detect(torch.rand(3, 3, 40, 20)).shape == (3, 2)


def test_a_network_without_a_detection_head_says_so():
    with pytest.raises(ValueError, match="no detection head"):
        EfficientNetLiteUNet(features=(8, 6, 6, 4, 4)).detect(torch.rand(1, 3, 9, 9))
