"""Scores inside the mask that a batch carries, through MONAI's evaluator."""

import math

import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose

from volseg.checks import InputError
from volseg.handlers import FieldOfViewHandler
from volseg.metrics import compute_field_of_view_scores
from volseg.transforms import DecideLabelsd

SHAPE = (1, 9, 13)


def case(seed, **changes):
    generator = torch.Generator().manual_seed(seed)
    image, label, mask = (torch.rand(SHAPE, generator=generator) for _ in range(3))
    item = {"image": image, "label": (label < 0.3).to(torch.uint8), "field_of_view": (mask < 0.7) * 255}
    return {**item, "case": f"eye_{seed}", **changes}


def evaluate(cases, *, keep_probability=True, **handlers):
    decide = DecideLabelsd(threshold=0.4, keep_probability=keep_probability)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=torch.utils.data.DataLoader(cases, batch_size=1),
        network=torch.nn.Identity(),
        postprocessing=Compose([decide]),
        key_val_metric={"auc": FieldOfViewHandler("auc")},
        additional_metrics=handlers,
    )
    evaluator.run()
    return evaluator.state


def test_each_score_is_the_mean_over_images_inside_their_masks():
    names = ("accuracy", "sensitivity", "specificity")
    handlers = {name: FieldOfViewHandler(name, threshold=0.4) for name in names}
    cases = [case(0), case(1)]
    state = evaluate(cases, **handlers)
    rows = [
        compute_field_of_view_scores(c["image"], c["label"], c["field_of_view"], threshold=0.4) for c in cases
    ]
    for name in ("auc", *names):
        own = [getattr(row, name) for row in rows]
        assert state.metrics[name] == pytest.approx(sum(own) / 2)
        assert state.metric_details[name].flatten().tolist() == pytest.approx(own)


def test_a_case_without_a_mask_is_scored_on_all_pixels():
    alone = case(0)
    del alone["field_of_view"]
    expected = compute_field_of_view_scores(alone["image"], alone["label"], torch.ones(SHAPE))
    assert evaluate([alone]).metrics["auc"] == pytest.approx(expected.auc)


def test_a_decision_has_no_auc():
    with pytest.raises(ValueError, match=r"got a decision; set decide::keep_probability to true"):
        evaluate([case(0)], keep_probability=False)


def test_probabilities_before_any_decision_are_taken_as_they_are():
    handler = FieldOfViewHandler("auc")
    engine = type("Engine", (), {})()
    item = case(3)
    engine.state = type("State", (), {"output": [{"pred": item["image"], **item}], "batch": [item]})()
    handler.reset()
    handler.iteration_completed(engine)
    expected = compute_field_of_view_scores(item["image"], item["label"], item["field_of_view"])
    assert handler.metric_fn.aggregate().item() == pytest.approx(expected.auc)
    assert not math.isnan(expected.auc)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("mask.png", r"eye_0, field_of_view: expected a mask, got str; add a LoadImaged"),
        (torch.ones(1, 9, 12), r"eye_0, field_of_view: expected a mask of the label's size 9x13, got 9x12"),
    ],
    ids=["path", "size"],
)
def test_a_mask_that_does_not_fit_is_refused(mask, message):
    with pytest.raises(InputError, match=message):
        evaluate([case(0, field_of_view=mask)])
