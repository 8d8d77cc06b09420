from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler

from volseg.handlers import class_masks
from volseg.metrics import DiceMetric, compute_dice

SHAPE = (1, 5, 7, 3)


def labels(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 3, SHAPE, generator=generator, dtype=torch.uint8)


def test_indices_and_probabilities_give_the_same_masks():
    soft = torch.rand(3, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    item = {"seen": soft.argmax(0, keepdim=True), "pred": MetaTensor(soft), "label": labels(0)}
    masks = [class_masks(3, key)([item])[0][0] for key in ("seen", "pred")]
    assert torch.equal(*masks)
    assert (masks[0].shape, masks[0].dtype) == (soft.shape, torch.bool)
    assert bool((masks[0].sum(dim=0) == 1).all())


def test_a_handler_scores_each_class():
    pairs = [(labels(k), labels(k + 10)) for k in range(2)]
    evaluator = Engine(lambda _, k: [{"pred": pairs[k][0], "label": pairs[k][1]}])
    metric = DiceMetric()
    IgniteMetricHandler(metric, output_transform=class_masks(3)).attach(evaluator, "dice")
    evaluator.run(range(2))
    expected = [sum(compute_dice(p == k, y == k) for p, y in pairs) / 2 for k in (1, 2)]
    assert metric.per_class.tolist() == pytest.approx(expected)
    assert evaluator.state.metrics["dice"] == pytest.approx(sum(expected) / 2)


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="pred must have 1 or 4 channels, got 3"):
        class_masks(4)([{"pred": torch.zeros(3, 2, 2), "label": torch.zeros(1, 2, 2)}])
    with pytest.raises(ValueError, match="classes must be positive"):
        class_masks(0)
