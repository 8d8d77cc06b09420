"""Masked Dice plus focal loss: the contract, and MONAI's unmasked losses as oracle."""

import pytest
import torch
from monai.losses import DiceFocalLoss, DiceLoss, FocalLoss

from volseg.losses import MaskedDiceFocalLoss

from .contract import LossContract


class TestMaskedDiceFocalLoss(LossContract):
    def build(self):
        return MaskedDiceFocalLoss()


class TestMaskedDiceFocalLossWithEverything(LossContract):
    def build(self):
        return MaskedDiceFocalLoss(2.0, 0.5, gamma=0.5, batch=True, include_background=False, smooth=1.0)


def pair(seed=0, shape=(2, 3, 9, 7)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), (torch.rand(shape, generator=generator) > 0.6).float()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("batch", [False, True])
def test_without_ignored_voxels_it_is_monai_s_loss(gamma, batch):
    logits, labels = pair(shape=(4, 1, 9, 7))
    oracle = DiceFocalLoss(sigmoid=True, gamma=gamma, batch=batch, lambda_dice=0.7, lambda_focal=2.0)
    ours = MaskedDiceFocalLoss(0.7, 2.0, gamma=gamma, batch=batch)
    torch.testing.assert_close(ours(logits, labels), oracle(logits, labels))


def test_alpha_weighs_as_in_monai():
    logits, labels = pair()
    oracle = FocalLoss(alpha=0.25)(logits, labels)
    torch.testing.assert_close(MaskedDiceFocalLoss(0.0, 1.0, alpha=0.25)(logits, labels), oracle)


def test_ignoring_is_the_same_as_cropping():
    logits, labels = pair()
    masked = labels.clone()
    masked[..., 5:, :] = 255
    torch.testing.assert_close(
        MaskedDiceFocalLoss()(logits, masked), MaskedDiceFocalLoss()(logits[..., :5, :], labels[..., :5, :])
    )


def test_softmax_dice_is_monai_s():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 9, 7, generator=generator)
    labels = torch.randint(0, 4, (2, 1, 9, 7), generator=generator)
    oracle = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)(logits, labels)
    ours = MaskedDiceFocalLoss(1.0, 0.0, include_background=False)(logits, labels)
    torch.testing.assert_close(ours, oracle)


def test_class_weights_and_gamma_zero_are_torch_s_weighted_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 9, 7, generator=generator)
    labels = torch.randint(0, 4, (2, 1, 9, 7), generator=generator)
    labels[0, 0, :3] = 255
    weights = (1.0, 5.0, 10.0, 20.0)
    oracle = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights), ignore_index=255)
    ours = MaskedDiceFocalLoss(0.0, 1.0, gamma=0.0, class_weights=weights)
    torch.testing.assert_close(ours(logits, labels), oracle(logits, labels[:, 0]))


def test_several_slices_are_several_pictures():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 9, 7, generator=generator)
    labels = torch.randint(0, 4, (2, 3, 9, 7), generator=generator)
    alone = [MaskedDiceFocalLoss()(logits[:, :, m], labels[:, m : m + 1]) for m in range(3)]
    torch.testing.assert_close(MaskedDiceFocalLoss()(logits.flatten(1, 2), labels), torch.stack(alone).mean())


def test_volumes_are_allowed():
    logits, labels = pair(shape=(2, 1, 5, 4, 3))
    oracle = DiceFocalLoss(sigmoid=True)(logits, labels)
    torch.testing.assert_close(MaskedDiceFocalLoss()(logits, labels), oracle)


def test_soft_labels_are_best_met_by_themselves():
    labels = torch.full((1, 1, 4, 4), 0.3)
    loss = MaskedDiceFocalLoss(0.0, 1.0)
    met, missed = loss(torch.logit(labels), labels), loss(torch.logit(labels) + 1, labels)
    assert met < 1e-6 < missed


@pytest.mark.parametrize("arguments", [(-1.0, 1.0), (0.0, 0.0)], ids=["negative", "nothing"])
def test_impossible_weights_are_refused(arguments):
    with pytest.raises(ValueError, match="lambda_dice, lambda_focal and gamma must be at least 0"):
        MaskedDiceFocalLoss(*arguments)


def test_class_weights_must_be_one_per_class():
    with pytest.raises(ValueError, match="one weight for each of 4 classes, got 2"):
        MaskedDiceFocalLoss(class_weights=(1, 2))(torch.zeros(1, 4, 3, 3), torch.zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match="with one channel a slice use alpha"):
        MaskedDiceFocalLoss(class_weights=(1, 2))(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3))
