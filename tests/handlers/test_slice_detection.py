"""Detection beside segmentation, through MONAI's evaluator."""

from __future__ import annotations

import csv

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.transforms import Compose, Lambdad

from volseg.handlers import DetectionAUCHandler, ScoreTable, SliceDetection
from volseg.inferers import SliceDetectionInferer, TriAxisInferer
from volseg.metrics import DetectionAUCMetric, DiceMetric
from volseg.networks import UNetPlusPlus
from volseg.transforms import DecideLabelsd

SHAPE = (1, 9, 7, 11)
LESIONS = 3


def network(**options):
    options = {"features": (4, 8), "out_channels": 1 + LESIONS, "detection_classes": LESIONS} | options
    return UNetPlusPlus(**options, dropout=0.5, seed=0)


def case(seed):
    generator = torch.Generator().manual_seed(seed)
    image, chance = (torch.rand(SHAPE, generator=generator) for _ in range(2))
    label = torch.where(chance < 0.06, (chance * 50).long() + 1, 0).to(torch.uint8)
    return {"image": MetaTensor(image), "label": label, "case": f"eye_{seed}"}


def evaluate(cases, handlers, *, net=None, postprocessing=(), **metrics):
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=torch.utils.data.DataLoader(cases, batch_size=1),
        network=network() if net is None else net,
        inferer=TriAxisInferer(axes=(2,), activation="softmax", amp="off"),
        postprocessing=Compose([*postprocessing, DecideLabelsd(classes=1 + LESIONS)]),
        additional_metrics=metrics,
        key_val_metric={
            "dice": IgniteMetricHandler(DiceMetric(), output_transform=lambda items: _one_hot(items))
        },
        val_handlers=handlers,
    )
    evaluator.run()
    return evaluator


def _one_hot(items):
    preds, labels = from_engine(["pred", "label"])(items)
    return [torch.cat([p == k for k in range(1 + LESIONS)]).to(torch.uint8) for p in preds], labels


def by_hand(cases, net=None):
    net = (network() if net is None else net).eval()
    inferer = SliceDetectionInferer(3, amp="off")
    return torch.cat([inferer(each["image"][None], net) for each in cases])


def head(**options):
    return SliceDetection(SliceDetectionInferer(3, amp="off"), **options)


def test_the_output_of_a_case_holds_what_the_head_says_of_each_slice():
    cases = [case(0)]
    output = evaluate(cases, [head()]).state.output
    assert output[0]["detection"].shape == (LESIONS, SHAPE[-1])
    assert torch.equal(output[0]["detection"], by_hand(cases)[0])


def test_a_network_in_training_is_asked_in_eval_mode_and_goes_on_training():
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    evaluate([case(0), case(1)], [head()], net=net)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_score_is_the_auc_over_the_slices_of_all_cases():
    cases = [case(0), case(1)]
    state = evaluate(cases, [head()], auc=DetectionAUCHandler()).state
    metric = DetectionAUCMetric(first_class=1)
    metric(by_hand(cases), torch.stack([each["label"] for each in cases]))
    assert state.metrics["auc"] == pytest.approx(metric.aggregate().item())
    classes = [state.metrics[f"auc_class_{k + 1}"] for k in range(LESIONS)]
    assert classes == pytest.approx(metric.per_class.tolist())
    assert state.metric_details["auc"].shape == (2, LESIONS)


def test_the_segmentation_answers_where_there_is_no_head():
    cases, net = [case(0), case(1)], network(detection_classes=0)
    handlers = [SliceDetection(classes=1 + LESIONS, key="seen")]
    state = evaluate(cases, handlers, net=net, auc=DetectionAUCHandler("seen")).state
    inferer = TriAxisInferer(axes=(2,), activation="softmax", amp="off")
    soft = torch.cat([inferer(each["image"][None], net.eval()) for each in cases]).as_tensor()
    metric = DetectionAUCMetric()
    metric(soft, torch.stack([each["label"] for each in cases]))
    assert state.metrics["auc"] == pytest.approx(metric.aggregate().item())
    torch.testing.assert_close(state.output[0]["seen"], soft[1, 1:].amax(dim=(1, 2)))


def test_head_and_segmentation_stand_side_by_side():
    handlers = [head(), SliceDetection(classes=1 + LESIONS, key="seen")]
    state = evaluate([case(0)], handlers, a=DetectionAUCHandler(), b=DetectionAUCHandler("seen")).state
    assert {"a_class_2", "b_class_2"} <= state.metrics.keys()
    assert not torch.equal(state.output[0]["detection"], state.output[0]["seen"])


@pytest.mark.parametrize(("slices", "sources"), [(22, [s // 2 for s in range(22)]), (4, [1, 4, 6, 9])])
def test_resized_slices_take_what_the_nearest_one_has(slices, sources):
    resize = Lambdad("pred", lambda pred: torch.rand(4, 9, 7, slices))
    cases = [{**case(0), "label": torch.zeros(1, 9, 7, slices)}]
    output = evaluate(cases, [head()], postprocessing=[resize]).state.output
    assert torch.equal(output[0]["detection"], by_hand(cases)[0][:, sources])


def test_the_score_table_has_a_row_per_case_and_the_pooled_classes_last(tmp_path):
    cases = [case(0), case(1)]
    handlers = [head(), ScoreTable(tmp_path, ["dice", "auc"])]
    state = evaluate(cases, handlers, auc=DetectionAUCHandler()).state
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["eye_0", "eye_1", "mean"]
    for name in ("auc", "auc_class_1", "auc_class_2", "auc_class_3"):
        assert float(rows["mean"][name]) == pytest.approx(state.metrics[name])
    assert float(rows["eye_1"]["auc_class_2"]) == pytest.approx(state.metric_details["auc"][1, 1].item())
    # dice of classes stays the mean over cases
    assert float(rows["mean"]["dice_class_1"]) == pytest.approx(
        state.metric_details["dice"].nanmean(0)[0].item()
    )


def test_a_network_without_a_head_ends_the_evaluation_with_the_reason():
    with pytest.raises(ValueError, match="the network has no detection head"):
        evaluate([case(0)], [head()], net=network(detection_classes=0))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="axis must be 0, 1 or 2, got 4"):
        SliceDetection(axis=4)
    with pytest.raises(ValueError, match="classes must be positive"):
        SliceDetection(classes=0)
