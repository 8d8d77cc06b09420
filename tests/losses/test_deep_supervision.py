"""One loss on every head."""

import pytest
import torch
from torch import nn

from volseg.losses import DeepSupervisionLoss, MaskedDiceFocalLoss

from .contract import LossContract

HEADS = torch.randn(2, 3, 1, 9, 7, generator=torch.Generator().manual_seed(0))
LABELS = (torch.rand(2, 1, 9, 7, generator=torch.Generator().manual_seed(1)) > 0.5).float()


class TestDeepSupervisionLoss(LossContract):
    """Through two heads that differ by a factor."""

    def build(self):
        loss = DeepSupervisionLoss(MaskedDiceFocalLoss(), (1.0, 2.0))
        return lambda logits, labels: loss({"deep": torch.stack([logits, 2 * logits], dim=1)}, labels)


def test_it_is_the_weighted_mean_over_the_heads():
    base = MaskedDiceFocalLoss()
    each = torch.stack([base(HEADS[:, head], LABELS) for head in range(3)])
    outputs = {"logits": HEADS.mean(1), "deep": HEADS}
    torch.testing.assert_close(DeepSupervisionLoss(base)(outputs, LABELS), each.mean())
    weighted = (each * torch.tensor([1.0, 2.0, 5.0])).sum() / 8
    torch.testing.assert_close(DeepSupervisionLoss(base, (1, 2, 5))(outputs, LABELS), weighted)


@pytest.mark.parametrize(
    "wrap", [lambda logits: logits, lambda logits: {"logits": logits}], ids=["tensor", "mapping"]
)
def test_one_head_is_the_plain_loss(wrap):
    base = MaskedDiceFocalLoss()
    logits = HEADS[:, 0]
    assert torch.equal(DeepSupervisionLoss(base, (1, 2, 5))(wrap(logits), LABELS), base(logits, LABELS))


def test_all_heads_get_a_gradient_and_ignored_voxels_none():
    heads, labels = HEADS.clone().requires_grad_(), LABELS.clone()
    labels[..., 5:, :] = 255
    DeepSupervisionLoss(MaskedDiceFocalLoss())({"deep": heads}, labels).backward()
    assert (heads.grad[..., :5, :] != 0).any(dim=-1).any(dim=-1).all()
    assert (heads.grad[..., 5:, :] == 0).all()


def test_weights_must_be_positive_and_one_per_head():
    with pytest.raises(ValueError, match="weights must be positive and finite"):
        DeepSupervisionLoss(nn.MSELoss(), (1, 0))
    with pytest.raises(ValueError, match="weights needs one for each of 3 heads, got 2"):
        DeepSupervisionLoss(nn.MSELoss(), (1, 2))({"deep": HEADS}, LABELS)
