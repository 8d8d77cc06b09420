"""Segmentation and detection together."""

import pytest
import torch

from volseg.losses import DeepSupervisionLoss, MaskedDiceFocalLoss, MultiTaskLoss
from volseg.losses.multi_task import presence


def labels():
    picture = torch.zeros(3, 1, 9, 7, dtype=torch.uint8)
    picture[0, 0, 2:4, 2:4] = 1
    picture[1, 0, 2:4, 2:4] = 3
    picture[1, 0, 0] = 255
    picture[2] = 255
    return picture


def test_presence_follows_from_the_labels_as_far_as_they_tell():
    present, known = presence(labels(), 3)
    assert present.tolist() == [[True, False, False], [False, False, True], [False, False, False]]
    assert known.tolist() == [[True, True, True], [False, False, True], [False, False, False]]


def test_it_is_the_sum_of_both_parts():
    base = MaskedDiceFocalLoss()
    logits, detection = torch.randn(3, 4, 9, 7), torch.randn(3, 3)
    present, known = presence(labels(), 3)
    oracle = torch.nn.functional.binary_cross_entropy_with_logits(detection[known], present[known].float())
    loss = MultiTaskLoss(base, 0.2)({"logits": logits, "detection": detection}, labels())
    torch.testing.assert_close(loss, base(logits, labels()) + 0.2 * oracle)


def test_deep_heads_go_to_the_segmentation_loss():
    base = DeepSupervisionLoss(MaskedDiceFocalLoss())
    outputs = {"logits": torch.randn(3, 4, 9, 7), "deep": torch.randn(3, 2, 4, 9, 7)}
    assert torch.equal(MultiTaskLoss(base)(outputs, labels()), base(outputs, labels()))


def test_a_plain_tensor_is_a_segmentation():
    base, logits = MaskedDiceFocalLoss(), torch.randn(3, 4, 9, 7)
    assert torch.equal(MultiTaskLoss(base)(logits, labels()), base(logits, labels()))


@pytest.mark.parametrize("sure", [1e4, -1e4], ids=["yes", "no"])
def test_value_and_gradient_are_finite_and_unknown_items_get_none(sure):
    detection = torch.full((3, 3), sure, dtype=torch.bfloat16, requires_grad=True)
    outputs = {"logits": torch.zeros(3, 4, 9, 7, dtype=torch.bfloat16), "detection": detection}
    loss = MultiTaskLoss(MaskedDiceFocalLoss())(outputs, labels())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(detection.grad).all()
    assert (detection.grad[2] == 0).all()


def test_the_gradients_of_both_heads_are_those_of_the_value():
    generator = torch.Generator().manual_seed(0)
    heads = [
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((3, 4, 9, 7), (3, 3))
    ]
    loss = MultiTaskLoss(MaskedDiceFocalLoss(), 0.2)
    assert torch.autograd.gradcheck(
        lambda logits, detection: loss({"logits": logits, "detection": detection}, labels()),
        heads,
        fast_mode=True,
    )


def test_bfloat16_heads_give_what_their_float32_values_give():
    generator = torch.Generator().manual_seed(0)
    outputs = {
        "logits": torch.randn(3, 4, 9, 7, generator=generator).bfloat16(),
        "detection": torch.randn(3, 3, generator=generator).bfloat16(),
    }
    loss = MultiTaskLoss(MaskedDiceFocalLoss())
    exact = loss({name: head.float() for name, head in outputs.items()}, labels())
    torch.testing.assert_close(loss(outputs, labels()), exact, rtol=1e-4, atol=1e-5)
