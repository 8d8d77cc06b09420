"""Any of MONAI's losses without the unlabelled voxels."""

import pytest
import torch
from monai.losses import DiceCELoss, DiceFocalLoss, FocalLoss, TverskyLoss

from volseg.losses import IgnoreMaskLoss

from .contract import LossContract


class TestIgnoreMaskLossOnDiceCE(LossContract):
    @pytest.fixture(params=[1, 4], ids=["sigmoid", "softmax"])
    def classes(self, request):
        self.number = request.param
        return request.param

    number = 1

    def build(self):
        several = self.number > 1
        return IgnoreMaskLoss(DiceCELoss(sigmoid=not several, softmax=several, to_onehot_y=several))


LOSSES = {
    "DiceFocal": DiceFocalLoss(sigmoid=True),
    "Focal": FocalLoss(),
    "DiceCE": DiceCELoss(sigmoid=True),
    "Tversky": TverskyLoss(sigmoid=True),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_without_ignored_voxels_nothing_changes(loss):
    logits, labels = torch.randn(3, 1, 9, 7), (torch.rand(3, 1, 9, 7) > 0.6).float()
    torch.testing.assert_close(IgnoreMaskLoss(loss)(logits, labels), loss(logits, labels))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_ignoring_is_the_same_as_cropping(loss):
    logits, labels = torch.randn(3, 1, 9, 7), (torch.rand(3, 1, 9, 7) > 0.6).float()
    masked = labels.clone()
    masked[..., 5:, :] = 255
    torch.testing.assert_close(
        IgnoreMaskLoss(loss)(logits, masked), loss(logits[..., :5, :], labels[..., :5, :])
    )


def test_unequal_masks_give_the_mean_over_voxels():
    logits, labels = torch.randn(3, 2, 9, 7), (torch.rand(3, 2, 9, 7) > 0.6).float()
    labels[0, 0, 3:] = 255
    labels[2] = 255
    kept = labels != 255
    oracle = FocalLoss()(logits[kept][None, None], labels[kept][None, None])
    torch.testing.assert_close(IgnoreMaskLoss(FocalLoss())(logits, labels), oracle)


def test_it_moves_with_its_wrapped_loss():
    loss = IgnoreMaskLoss(FocalLoss(weight=torch.ones(4))).double()
    assert loss.loss.class_weight.dtype == torch.float64
