"""The fusion of several networks is an exact mean, whatever their inferers are."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SimpleInferer
from torch import nn

from volseg.inferers import EnsembleInferer, TriAxisInferer
from volseg.networks import Ensemble, SliceStackUNet

VOLUME = torch.rand(2, 1, 5, 9, 7, generator=torch.Generator().manual_seed(0))
WEIGHTS = (5.0, 3.0, 2.0)


def network(seed: int, in_slices: int = 3, classes: int = 2) -> nn.Module:
    return SliceStackUNet(in_slices=in_slices, out_channels=classes, features=(4, 8), seed=seed).eval()


def tri_axis(in_slices: int = 3, **options) -> TriAxisInferer:
    return TriAxisInferer(in_slices=in_slices, amp="off", activation="softmax", **options)


def different() -> tuple[list[TriAxisInferer], list[nn.Module]]:
    """Members that see other stacks, axes and windows."""
    inferers = [tri_axis(1, tta="flips"), tri_axis(3, axes=(2,)), tri_axis(5, roi_size=(4, 4))]
    return inferers, [network(seed, in_slices) for seed, in_slices in enumerate((1, 3, 5))]


def member_maps() -> list[torch.Tensor]:
    return [inferer(VOLUME, member) for inferer, member in zip(*different(), strict=True)]


def fuse(inferers, members, weights=None, **options) -> torch.Tensor:
    return EnsembleInferer(inferers, weights, **options)(VOLUME, Ensemble(members))


def test_an_ensemble_of_one_is_the_member():
    assert torch.equal(fuse(tri_axis(), [network(0)]), tri_axis()(VOLUME, network(0)))


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_equal_members_give_what_one_gives_and_agree(copies):
    members, weights = [network(0)] * copies, range(1, copies + 1)
    fused = fuse(tri_axis(), members, weights, outputs=("mean", "disagreement"))
    assert torch.equal(fused[:, :2], tri_axis()(VOLUME, network(0)))
    assert not fused[:, 2:].any()


def test_different_members_give_the_weighted_mean_of_their_probabilities():
    expected = sum(weight / 10 * each for weight, each in zip(WEIGHTS, member_maps(), strict=True))
    fused = fuse(*different(), WEIGHTS)
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(fused.sum(dim=1), torch.ones(2, 5, 9, 7))


def test_the_disagreement_is_the_standard_deviation_between_the_members():
    maps, shares = torch.stack(member_maps()), torch.tensor(WEIGHTS).reshape(3, 1, 1, 1, 1, 1) / 10
    expected = (shares * (maps - (shares * maps).sum(0)) ** 2).sum(0).sqrt()
    fused = fuse(*different(), WEIGHTS, outputs=("mean", "disagreement"))
    torch.testing.assert_close(fused[:, 2:], expected)


@pytest.mark.parametrize("outputs", [("mean",), ("mean", "disagreement")], ids=["mean", "disagreement"])
def test_members_and_their_weights_may_be_named_in_any_order(outputs):
    inferers, members = different()
    reference = fuse(inferers, members, WEIGHTS, outputs=outputs)
    for order in itertools.permutations(range(3)):
        permuted = [[each[place] for place in order] for each in (inferers, members, WEIGHTS)]
        # sums of float32 in another order; a standard deviation is the root of such a sum
        torch.testing.assert_close(fuse(*permuted, outputs=outputs), reference, atol=1e-5, rtol=0)


def test_only_the_ratio_of_weights_counts():
    inferers, members = different()
    torch.testing.assert_close(
        fuse(inferers, members, WEIGHTS), fuse(inferers, members, [7 * weight for weight in WEIGHTS])
    )


def test_the_weights_of_the_ensemble_hold_unless_others_are_given():
    inferers, members = different()
    ensemble = Ensemble(members, WEIGHTS)
    assert torch.equal(EnsembleInferer(inferers)(VOLUME, ensemble), fuse(inferers, members, WEIGHTS))
    given = EnsembleInferer(inferers, (1, 1, 1))(VOLUME, ensemble)
    assert torch.equal(given, fuse(inferers, members))


def test_a_meta_tensor_keeps_its_affine():
    affine = torch.diag(torch.tensor([0.5, 0.25, 2.0, 1.0], dtype=torch.float64))
    fused = EnsembleInferer(tri_axis())(MetaTensor(VOLUME, affine=affine), Ensemble([network(0), network(1)]))
    assert isinstance(fused, MetaTensor)
    assert torch.equal(fused.affine, affine)


def test_pictures_are_fused_too():
    pictures = VOLUME[..., 0]
    inferer = TriAxisInferer(in_slices=1, axes=(2,), amp="off")
    members = [network(seed, in_slices=1) for seed in range(2)]
    expected = (inferer(pictures, members[0]) + inferer(pictures, members[1])) / 2
    torch.testing.assert_close(EnsembleInferer(inferer)(pictures, Ensemble(members)), expected)


def test_inferers_of_monai_are_members_and_the_input_stays_as_it_was():
    before = VOLUME.clone()
    fused = EnsembleInferer(SimpleInferer())(VOLUME, Ensemble([nn.Identity(), nn.Sigmoid()]))
    assert torch.equal(VOLUME, before)
    torch.testing.assert_close(fused, (VOLUME + VOLUME.sigmoid()) / 2)


class Recorder(Inferer):
    """Notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

    def __call__(self, inputs, network, *args, **kwargs):
        self.calls.append(kwargs)
        return network(inputs)


def test_every_member_gets_the_named_arguments():
    recorder = Recorder()
    EnsembleInferer(recorder)(VOLUME, Ensemble([nn.Identity(), nn.Identity()]), keep="this")
    assert recorder.calls == [{"keep": "this"}] * 2


def test_a_member_with_other_classes_is_named():
    members = [network(0, classes=2), network(1, classes=2), network(2, classes=3)]
    with pytest.raises(ValueError, match=r"member 3 gave a map of \(2, 3, .* must agree in classes"):
        fuse(tri_axis(), members)


def test_a_network_that_is_no_ensemble_is_refused():
    with pytest.raises(TypeError, match=r"volseg\.networks\.Ensemble, got SliceStackUNet"):
        EnsembleInferer(tri_axis())(VOLUME, network(0))


def test_a_member_that_gives_no_tensor_is_named():
    class Several(Inferer):
        def __call__(self, inputs, network, *args, **kwargs):
            return {"pred": inputs}

    with pytest.raises(TypeError, match="member 1 gave dict"):
        EnsembleInferer(Several())(VOLUME, Ensemble([nn.Identity()] * 2))


@pytest.mark.parametrize(
    ("inferers", "weights", "message"),
    [
        ([tri_axis()] * 3, None, r"inferers must be one per member \(2\), got 3"),
        (tri_axis(), (1, 2, 3), r"weights must be one per member \(2\), got 3"),
    ],
    ids=["inferers", "weights"],
)
def test_one_inferer_and_one_weight_belong_to_each_member(inferers, weights, message):
    with pytest.raises(ValueError, match=message):
        fuse(inferers, [network(0), network(1)], weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inferers": []}, "got none"),
        ({"inferers": tri_axis(outputs=("mean", "disagreement"))}, "ask the EnsembleInferer"),
        ({"inferers": tri_axis(), "weights": (1, -1)}, "positive"),
        ({"inferers": tri_axis(), "outputs": ("disagreement",)}, "outputs must be"),
    ],
    ids=["no inferer", "own disagreement", "negative weight", "unknown outputs"],
)
def test_arguments_without_meaning_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EnsembleInferer(**arguments)
