"""The forward pass of training."""

import pytest
import torch

from volseg.inferers import AutocastInferer, training


class Recorder(torch.nn.Module):
    """A convolution that remembers the dtype it computed in, and the layout it was given."""

    def __init__(self, form=lambda tensor: tensor):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 2, 3, padding=1)
        self.form = form

    def forward(self, inputs, scale=1.0):
        """Give (B, 2, H, W) in the form asked for."""
        self.is_channels_last = inputs.is_contiguous(memory_format=torch.channels_last)
        result = self.convolution(inputs)
        self.dtype = result.dtype
        return self.form(scale * result)


@pytest.fixture
def stack():
    return torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def test_bfloat16_inside_is_float32_outside(stack):
    network = Recorder()
    output = AutocastInferer("bf16")(stack, network)
    assert (network.dtype, output.dtype) == (torch.bfloat16, torch.float32)


def test_off_is_the_network_itself(stack):
    network = Recorder()
    assert torch.equal(AutocastInferer("off")(stack, network), network(stack))


def test_bfloat16_is_near_float32(stack):
    network = Recorder()
    exact, rounded = AutocastInferer("off")(stack, network), AutocastInferer("bf16")(stack, network)
    assert torch.allclose(exact, rounded, atol=0.02)  # 8 bits of mantissa for values below 1


def test_off_holds_inside_a_callers_autocast(stack):
    network = Recorder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        AutocastInferer("off")(stack, network)
    assert network.dtype == torch.float32


def test_the_network_sees_channels_last(stack):
    network = Recorder()
    AutocastInferer("off")(stack, network)
    assert network.is_channels_last


def test_named_outputs_stay_named_in_float32(stack):
    network = Recorder(lambda tensor: {"logits": tensor, "deep": [tensor, tensor[:, :1]]})
    output = AutocastInferer("bf16")(stack, network)
    assert list(output) == ["logits", "deep"]
    assert {tensor.dtype for tensor in (output["logits"], *output["deep"])} == {torch.float32}


def test_further_arguments_reach_the_network(stack):
    network = Recorder()
    inferer = AutocastInferer("off")
    assert torch.equal(inferer(stack, network, scale=2.0), 2.0 * inferer(stack, network))


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_the_gradient_reaches_the_weights_in_float32(stack, amp):
    network = Recorder()
    AutocastInferer(amp)(stack, network).square().mean().backward()
    gradient = network.convolution.weight.grad
    assert gradient.dtype == torch.float32
    assert gradient.abs().sum() > 0


def test_a_device_that_has_only_float16_trains_in_float32(stack, monkeypatch):
    monkeypatch.setattr(training, "dtype_for", lambda amp, device: torch.float16)
    network = Recorder()
    AutocastInferer("auto")(stack, network)
    assert network.dtype == torch.float32


def test_float16_is_refused():
    with pytest.raises(ValueError, match="amp must be one of auto, bf16, off, got 'fp16'"):
        AutocastInferer("fp16")
