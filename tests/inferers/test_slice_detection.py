"""The detection head asked about every slice of a volume."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import nn

from volseg.inferers import SliceDetectionInferer
from volseg.networks import SliceStackUNet, UNetPlusPlus

SHAPE = (2, 2, 17, 12, 9)


def volume(shape=SHAPE, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Brightest(nn.Module):
    """Says the largest value of each slice of the stack, as a logit; one class per slice and channel."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def detect(self, stack):
        self.batches.append(len(stack))
        return stack.amax(dim=(2, 3))


class LeftEdge(nn.Module):
    """Sees the first column of a B-scan, which is the first place along x, the rows of the plane (x, y)."""

    def detect(self, stack):
        return stack[:, :, 0].mean(dim=-1)


def network(**options):
    options = {"in_channels": 2, "out_channels": 4, "features": (4, 8), "detection_classes": 3} | options
    return UNetPlusPlus(**options, seed=0).eval()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_slice_is_the_middle_of_its_stack_and_edges_are_repeated(axis):
    seen = SliceDetectionInferer(3, axis=axis, amp="off")(volume(), Brightest())
    slices = volume().movedim(axis + 2, -1).amax(dim=(2, 3)).sigmoid()  # (B, C, S)
    stacks = torch.cat([slices[..., :1], slices, slices[..., -1:]], dim=-1).unfold(-1, 3, 1)
    expected = stacks.movedim(-1, 2).flatten(1, 2)  # channels, within them the slices of a stack
    assert seen.shape == (2, 6, SHAPE[axis + 2])
    torch.testing.assert_close(seen, expected)


def test_a_real_head_is_asked_as_by_hand():
    head = network()
    expected = [
        head.detect(volume()[:, :, :, :, [max(s - 1, 0), s, min(s + 1, 8)]].movedim(-1, 2).flatten(1, 2))
        for s in range(9)
    ]
    seen = SliceDetectionInferer(3, amp="off")(volume(), head)
    torch.testing.assert_close(seen, torch.stack(expected, dim=-1).sigmoid(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch_size", "batches"), [(4, [4, 4, 4, 4, 2]), (8, [8, 8, 2]), (100, [18])])
def test_batches_hold_slices_of_all_cases_and_change_nothing(batch_size, batches):
    head = Brightest()
    seen = SliceDetectionInferer(1, batch_size=batch_size, amp="off")(volume(), head)
    assert head.batches == batches
    assert torch.equal(seen, SliceDetectionInferer(1, amp="off")(volume(), Brightest()))


def test_a_view_with_left_and_right_exchanged_is_averaged():
    plain, other, both = (
        SliceDetectionInferer(1, tta=tta, amp="off")(x, LeftEdge())
        for tta, x in (("none", volume()), ("none", volume().flip(2)), ("mirror", volume()))
    )
    torch.testing.assert_close(both, (plain + other) / 2)
    assert not torch.allclose(plain, both)


def test_reversing_the_slices_reverses_what_a_symmetric_head_says():
    seen = SliceDetectionInferer(1, amp="off")(volume(), Brightest())
    turned = SliceDetectionInferer(1, amp="off")(volume().flip(4), Brightest())
    assert torch.equal(turned, seen.flip(2))


def test_low_precision_says_nearly_the_same_and_hands_out_float32():
    exact = SliceDetectionInferer(3, amp="off")(volume(), network())
    rough = SliceDetectionInferer(3, amp="bf16")(volume(), network())
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.02)  # bfloat16 keeps 8 bits


def test_the_network_is_left_as_it_was():
    head = network()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    SliceDetectionInferer(3)(volume(), head)
    assert not head.training
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


def test_a_scripted_network_says_the_same():
    scripted = torch.jit.script(network())
    inferer = SliceDetectionInferer(3, amp="off")
    torch.testing.assert_close(inferer(volume(), scripted), inferer(volume(), network()))


def test_it_is_an_inferer_and_takes_meta_tensors_of_integers():
    image = MetaTensor((volume() * 10).to(torch.int16))
    seen = SliceDetectionInferer(3, amp="off")(image, network())
    assert isinstance(SliceDetectionInferer(3), Inferer)
    assert type(seen) is torch.Tensor
    assert torch.equal(seen, SliceDetectionInferer(3, amp="off")(image.as_tensor().float(), network()))


@pytest.mark.parametrize(
    "head",
    [network(detection_classes=0), SliceStackUNet(in_channels=2, features=(4, 8))],
    ids=["not built", "no method"],
)
def test_a_network_without_a_head_is_refused(head):
    with pytest.raises(ValueError, match="the network has no detection head"):
        SliceDetectionInferer(3)(volume(), head)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="in_slices must be an odd number"):
        SliceDetectionInferer(2)
    with pytest.raises(ValueError, match="axis must be 0, 1 or 2, got 3"):
        SliceDetectionInferer(3, axis=3)
    with pytest.raises(ValueError, match="batch_size must be positive"):
        SliceDetectionInferer(3, batch_size=0)
    with pytest.raises(ValueError, match="amp must be one of"):
        SliceDetectionInferer(3, amp="half")
    with pytest.raises(ValueError, match="the input must be volumes"):
        SliceDetectionInferer(1)(torch.zeros(1, 1, 4, 4), Brightest())
    head = nn.Module()
    head.detect = lambda stack: stack
    with pytest.raises(ValueError, match=r"`detect` must return logits \(N=4, K\)"):
        SliceDetectionInferer(1)(torch.zeros(1, 1, 4, 4, 4), head)
