"""Several networks as one module: under the contract of networks, and the laws of a mean."""

import pytest
import torch
from torch import nn

from volseg.networks import AttentionUNet, Ensemble, SliceStackUNet, UNetPlusPlus, Vgg16Fcn
from volseg.networks.ensemble import member_shares

from .contract import NetworkContract

STACK = torch.rand(2, 3, 17, 12, generator=torch.Generator().manual_seed(1))


class TestEnsemble(NetworkContract):
    def build(self, seed=0, **keywords):
        seeds = (None, None) if seed is None else (seed, seed + 100)
        members = [
            SliceStackUNet(features=(4, 8), norm="instance", seed=seeds[0], **keywords),
            AttentionUNet(features=(4, 8), norm="instance", seed=seeds[1], **keywords),
        ]
        return Ensemble(members, weights=(1, 3))


def detecting(seed, **keywords):
    return UNetPlusPlus(features=(4, 8), detection_classes=3, seed=seed, **keywords).eval()


def plain(seed):
    return SliceStackUNet(features=(4, 8), seed=seed).eval()


@pytest.mark.parametrize("copies", [1, 2, 3, 7])
def test_equal_members_give_the_logits_of_one_to_the_last_bit(copies):
    with torch.no_grad():
        assert torch.equal(Ensemble([plain(0)] * copies, range(1, copies + 1))(STACK), plain(0)(STACK))


def test_the_logits_are_the_weighted_mean_of_the_members():
    members = [plain(seed) for seed in range(3)]
    with torch.no_grad():
        expected = sum(
            weight * member(STACK) for weight, member in zip((0.5, 0.3, 0.2), members, strict=True)
        )
        torch.testing.assert_close(Ensemble(members, (5, 3, 2))(STACK), expected)


def test_detection_is_the_logit_of_the_weighted_mean_of_probabilities():
    members = [detecting(0), detecting(1)]
    with torch.no_grad():
        expected = sum(w * m.detect(STACK).sigmoid() for w, m in zip((0.75, 0.25), members, strict=True))
        torch.testing.assert_close(Ensemble(members, (3, 1)).detect(STACK).sigmoid(), expected)


def test_members_that_cannot_detect_have_no_say_in_detection():
    vgg = Vgg16Fcn(in_channels=1, in_slices=3, presence_head=False, seed=0).eval()
    members = [plain(0), detecting(0), vgg, detecting(1)]
    with torch.no_grad():
        one = Ensemble(members[:3], (5, 1, 5)).detect(STACK)
        two = Ensemble(members, (5, 1, 5, 2)).detect(STACK)
        torch.testing.assert_close(one, members[1].detect(STACK))
        torch.testing.assert_close(two, Ensemble([members[1], members[3]], (1, 2)).detect(STACK))


class Certain(nn.Module):
    """Detects with a logit whose probability rounds to 1 or 0."""

    detection = True

    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def detect(self, stack):
        return torch.full((len(stack), 1), self.logit)


@pytest.mark.parametrize("logit", [-300.0, 300.0])
def test_certain_members_keep_a_finite_logit(logit):
    torch.testing.assert_close(Ensemble([Certain(logit)] * 2).detect(STACK), torch.full((2, 1), logit))


def test_certain_members_that_contradict_each_other_cancel():
    torch.testing.assert_close(
        Ensemble([Certain(200.0), Certain(-200.0)]).detect(STACK), torch.zeros(2, 1), atol=1e-6, rtol=0
    )


def test_an_ensemble_without_a_detection_head_says_so():
    with pytest.raises(ValueError, match="the network has no detection head"):
        Ensemble([plain(0), UNetPlusPlus(features=(4, 8))]).detect(STACK)


def test_a_member_with_several_outputs_in_training_is_told_apart():
    with pytest.raises(TypeError, match="eval mode"):
        Ensemble([detecting(0)]).train()(STACK)


@pytest.mark.parametrize(
    ("weights", "members", "message"),
    [
        (None, 0, "at least one member"),
        ((1, 2), 3, r"one per member \(3\), got 2"),
        ((1, 0), 2, "positive and finite"),
        ((1, float("nan")), 2, "positive and finite"),
    ],
    ids=["no member", "too few", "zero", "not a number"],
)
def test_weights_that_do_not_fit_the_members_are_refused(weights, members, message):
    with pytest.raises(ValueError, match=message):
        member_shares(weights, members)
