"""Laws of the building blocks."""

import pytest
import torch
from torch import nn

from volseg.networks.blocks import (
    ConvBlock,
    DilatedCentre,
    InstanceNorm,
    SpatialChannelExcitation,
    Upsample,
    make_norm,
    pad_to_multiple,
    seeded,
    unpad,
)


@pytest.mark.parametrize("size", [(1, 1), (7, 16), (16, 16), (17, 33)], ids=str)
def test_unpadding_undoes_padding(size):
    stack = torch.rand(2, 3, *size)
    padded = pad_to_multiple(stack, 8)
    assert all(length % 8 == 0 and length >= 16 for length in padded.shape[-2:])
    assert torch.equal(unpad(padded, *size), stack)


def test_padding_repeats_the_edge_and_copies_nothing_when_it_fits():
    stack = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert pad_to_multiple(stack, 2)[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5]] + [[3, 4, 5, 5]] * 2
    fitting = torch.rand(1, 1, 8, 4)
    assert pad_to_multiple(fitting, 2) is fitting


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_instance_norm_equals_torch_and_keeps_channels_last(training):
    ours, theirs = InstanceNorm(5).train(training), nn.InstanceNorm2d(5, affine=True)
    with torch.no_grad():
        ours.weight.copy_(torch.rand(5))
        theirs.weight.copy_(ours.weight)
    stack = torch.rand(3, 5, 9, 7).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(stack), theirs(stack))
    assert ours(stack).is_contiguous(memory_format=torch.channels_last)


def test_a_constant_item_does_not_become_nan_by_instance_norm():
    result = InstanceNorm(2)(torch.full((1, 2, 4, 4), 7.0))
    # Rounding of the mean, enlarged by 1 / sqrt(eps).
    torch.testing.assert_close(result, torch.zeros_like(result), rtol=0, atol=1e-3)


@pytest.mark.parametrize("mode", ["transposed", "transposed4", "bilinear"])
def test_upsampling_doubles_height_and_width(mode):
    assert Upsample(3, 2, mode)(torch.rand(1, 3, 5, 7)).shape == (1, 2, 10, 14)


def test_a_residual_block_without_weights_is_a_relu():
    block = ConvBlock(3, 3, residual=True).eval()
    nn.init.zeros_(block.body[4].weight)
    stack = torch.randn(2, 3, 9, 7)
    assert torch.equal(block(stack), stack.relu())


def test_excitation_without_weights_leaves_the_map_as_it_is():
    excitation = SpatialChannelExcitation(4)
    for parameter in excitation.parameters():
        nn.init.zeros_(parameter)
    stack = torch.rand(2, 4, 5, 3)
    torch.testing.assert_close(excitation(stack), stack)  # sigmoid(0) + sigmoid(0) = 1


def test_the_dilated_centre_sees_fifteen_pixels_each_way():
    centre = DilatedCentre(1)
    for convolution in centre.chain:
        nn.init.ones_(convolution.weight)
    impulse = torch.zeros(1, 1, 41, 41)
    impulse[..., 20, 20] = 1
    seen = (centre(impulse) - centre(torch.zeros_like(impulse)))[0, 0].abs().sum(0).nonzero().flatten()
    assert (seen.min().item(), seen.max().item()) == (5, 35)


def test_an_error_inside_a_seeded_block_restores_the_generator():
    before = torch.get_rng_state()

    def fail():
        with seeded(1):
            torch.rand(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm must be one of batch, group, instance, got 'layer'"):
        make_norm("layer", 4)
