"""U-Nets on encoders from the shelf under the contract, and the loading of their encoders."""

import sys

import pytest
import torch
from monai.networks.nets import FlexibleUNet

from volseg.checks import InputError
from volseg.networks import FlexibleUNetStack, SmpStack, load_encoder_weights

from .contract import NetworkContract


@pytest.mark.slow
class TestFlexibleUNetStack(NetworkContract):
    sizes = ((1, 1), (65, 70))

    def build(self, **keywords):
        return FlexibleUNetStack(encoder_name="resnet10", **keywords)


@pytest.mark.slow
class TestEfficientNetStack(NetworkContract):
    sizes = ((1, 1), (65, 70))

    def build(self, **keywords):
        return FlexibleUNetStack(encoder_name="efficientnet-b0", **keywords)

    def test_gradients_reach_every_parameter(self):
        network = self.network().train()
        network(self.stack(33, 20)).sum().backward()
        # EfficientNet keeps its last stage and classifier, which a U-Net does not use.
        idle = {name.split(".")[2] for name, p in network.named_parameters() if p.grad is None}
        assert idle <= {"_conv_head", "_bn1", "_fc", "_blocks"}


@pytest.mark.slow
class TestSmpStack(NetworkContract):
    sizes = ((1, 1), (65, 70))

    def build(self, **keywords):
        pytest.importorskip("segmentation_models_pytorch")
        return SmpStack(encoder_name="resnet18", **keywords)


@pytest.mark.slow
@pytest.mark.parametrize("encoder_name", ["resnext50_32x4d", "mit_b2", "tu-convnext_tiny"])
def test_the_named_encoders_of_smp_take_a_stack(encoder_name):
    pytest.importorskip("segmentation_models_pytorch")
    network = SmpStack(in_slices=5, out_slices=5, encoder_name=encoder_name, seed=0).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 5, 33, 40)).shape == (1, 5, 33, 40)


def test_without_smp_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'volseg\[encoders\]'"):
        SmpStack()


def test_an_encoder_file_fits_a_stack_of_any_size(tmp_path):
    given = FlexibleUNet(in_channels=3, out_channels=1, backbone="resnet10", pretrained=False).encoder.eval()
    file = tmp_path / "resnet10.pt"
    torch.save(
        {**given.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, file
    )
    network = FlexibleUNetStack(in_slices=9, encoder_name="resnet10", weights_file=file, seed=0).eval()
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        deep = network.body.encoder(picture.repeat(1, 3, 1, 1))[-1]
        torch.testing.assert_close(deep, given(picture)[-1], rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # of torch itself
def test_resnet_18_has_trainable_shortcuts_and_can_be_scripted():
    network = FlexibleUNetStack(encoder_name="resnet18", seed=0)
    names = [name for name, _ in network.named_parameters() if "downsample.0" in name]
    assert len(names) == 3
    torch.jit.script(network.eval())


def test_a_prefix_of_a_whole_network_is_taken_off(tmp_path):
    given = FlexibleUNetStack(encoder_name="resnet10", seed=1)
    torch.save(given.body.state_dict(), tmp_path / "unet.pt")
    network = FlexibleUNetStack(encoder_name="resnet10", seed=0)
    load_encoder_weights(network, tmp_path / "unet.pt")
    pairs = zip(network.body.encoder.parameters(), given.body.encoder.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_file_of_another_encoder_is_refused(tmp_path):
    other = FlexibleUNetStack(encoder_name="resnet18", seed=1)
    torch.save(other.body.encoder.state_dict(), tmp_path / "resnet18.pt")
    network = FlexibleUNetStack(encoder_name="resnet10", seed=0)
    with pytest.raises(InputError, match=r"resnet18.pt: expected the .* weights of ResNetEncoder, got"):
        load_encoder_weights(network, tmp_path / "resnet18.pt")
