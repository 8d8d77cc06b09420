"""What TensorBoard finds in the event files."""

import io
import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from volseg.checks import InputError
from volseg.handlers import CaseImages, CaseScores, RunScalars, open_writer
from volseg.handlers.monitoring import SilentWriter
from volseg.reports import CLASS_COLOURS

SHAPE = (9, 7, 5)
PURPLE = (160, 32, 240)


def events_of(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


@pytest.fixture
def writer(tmp_path):
    with open_writer(tmp_path) as opened:
        yield opened


def pictures_of(tmp_path, writer, items, *, epochs=1, **options):
    """Event file after a validation whose output in each iteration is one of `items`."""
    engine = Engine(lambda engine, item: [item])
    CaseImages(writer, **options).attach(engine)
    for epoch in range(epochs):  # a validation is a run of its own
        engine.run(items, max_epochs=epoch + 1)
    writer.flush()
    return events_of(tmp_path)


def item(**changes):
    """A case of which one voxel is found and true."""
    mask = torch.zeros(1, *SHAPE)
    mask[0, 6, 2, 3] = 1
    return {"image": torch.zeros(1, *SHAPE), "pred": 0.7 * mask, "label": mask.to(torch.uint8), **changes}


def picture(events, tag):
    return np.asarray(Image.open(io.BytesIO(events.Images(tag)[0].encoded_image_string)))


def coloured(events, axis="z"):
    return picture(events, f"validation_1/across_{axis}").any()


def test_learning_rate_seconds_and_memory_of_every_epoch_are_curves(tmp_path, writer):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
    engine = Engine(lambda engine, batch: None)
    RunScalars(writer, optimizer).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: optimizer.param_groups[0].update(lr=0.125))
    engine.run([0], max_epochs=2)
    events = events_of(tmp_path)
    rates = [(event.step, event.value) for event in events.Scalars("run/learning_rate")]
    assert rates == [(1, 0.25), (2, 0.125)]
    assert all(0 <= event.value < 60 for event in events.Scalars("run/seconds_per_epoch"))
    assert all(event.value > 0.01 for event in events.Scalars("run/peak_memory_gib"))


def test_a_case_is_shown_across_all_three_axes(tmp_path, writer):
    events = pictures_of(tmp_path, writer, [item()])
    assert set(events.Tags()["images"]) == {f"validation_1/across_{axis}" for axis in "xyz"}


def test_the_picture_has_its_colour_where_the_voxel_is(tmp_path, writer):
    shown = picture(pictures_of(tmp_path, writer, [item()]), "validation_1/across_z")
    assert shown.shape == (7, 9, 3)
    rows, columns = np.nonzero(shown.any(axis=-1))
    assert (rows.tolist(), columns.tolist()) == ([2], [6])


def test_only_the_first_cases_are_shown_in_every_epoch(tmp_path, writer):
    events = pictures_of(tmp_path, writer, [item()] * 4, epochs=2, most_cases=2)
    assert {tag.split("/")[0] for tag in events.Tags()["images"]} == {"validation_1", "validation_2"}
    assert [event.step for event in events.Images("validation_2/across_x")] == [1, 2]


@pytest.mark.parametrize(("threshold", "is_shown"), [(0.69, True), (0.75, True), (0.76, False)])
def test_a_probability_at_the_threshold_is_foreground(tmp_path, writer, threshold, is_shown):
    class Sweep:
        best_threshold = threshold

    case = item(label=None)
    case["pred"] = case["pred"] / 0.7 * 0.75
    assert coloured(pictures_of(tmp_path, writer, [case], threshold_of=Sweep())) == is_shown


def test_before_the_first_sweep_a_half_is_the_threshold(tmp_path, writer):
    class Sweep:
        best_threshold = None

    assert coloured(pictures_of(tmp_path, writer, [item(label=None)], threshold_of=Sweep()))


@pytest.mark.parametrize("index", [0, 2])
def test_of_several_classes_the_most_probable_is_drawn(tmp_path, writer, index):
    pred = torch.full((3, *SHAPE), 0.2)
    pred[index, 6, 2, 3] = 0.6
    pred[0, 0, 0, 0] = 0.3  # background everywhere else too: the first of equals
    events = pictures_of(tmp_path, writer, [item(pred=pred, label=None)], classes=3)
    assert coloured(events) == (index > 0)


def test_several_classes_of_a_volume_are_shown_in_their_colours(tmp_path, writer):
    pred = torch.zeros(3, *SHAPE)
    pred[0] = 0.5
    pred[2, 5:8, 2:5, 3] = 1
    events = pictures_of(tmp_path, writer, [item(pred=pred)], classes=3, class_names=["line", "ellipse"])
    tags = {f"validation_1/{name}" for name in ("across_x", "across_y", "across_z", "slices")}
    assert set(events.Tags()["images"]) == tags
    shown = picture(events, "validation_1/slices").reshape(-1, 3).tolist()
    assert [list(colour) in shown for colour in CLASS_COLOURS[:3]] == [True, True, False]


def flat_item(**changes):
    """A 2D case of 5 rows and 7 columns: a hit, a miss and a false alarm."""
    pred, label = torch.zeros(1, 5, 7), torch.zeros(1, 5, 7, dtype=torch.uint8)
    pred[0, 1, 2] = pred[0, 1, 5] = 0.7
    label[0, 1, 2] = label[0, 3, 4] = 1
    return {"image": torch.zeros(3, 5, 7), "pred": pred, "label": label, **changes}


def panels(tmp_path, writer, case, **options):
    """The pictures side by side: image, truth and prediction."""
    events = pictures_of(tmp_path, writer, [case], **options)
    assert events.Tags()["images"] == ["validation_1/picture"]
    shown = picture(events, "validation_1/picture")
    return [shown[:, start : start + 7] for start in range(0, shown.shape[1], 11)]


def coloured_pixels(panel):
    return {tuple(place): tuple(panel[tuple(place)].tolist()) for place in np.argwhere(panel.any(axis=-1))}


def test_a_2d_case_is_shown_beside_its_truth_and_prediction_untransposed(tmp_path, writer):
    image, truth, pred = panels(tmp_path, writer, flat_item())
    assert image.shape == truth.shape == pred.shape == (5, 7, 3)
    assert not image.any()
    assert coloured_pixels(truth).keys() == {(1, 2), (3, 4)}
    assert coloured_pixels(pred).keys() == {(1, 2), (1, 5)}


def test_the_errors_of_a_2d_case_have_their_colours(tmp_path, writer):
    pred = panels(tmp_path, writer, flat_item(), colours="errors")[-1]
    half = {
        name: tuple(round(part / 2) for part in colour)
        for name, colour in {"hit": PURPLE, "miss": (255, 215, 0), "false": (0, 200, 80)}.items()
    }
    found = coloured_pixels(pred)
    assert found.keys() == {(1, 2), (3, 4), (1, 5)}
    for place, name in {(1, 2): "hit", (3, 4): "miss", (1, 5): "false"}.items():
        assert np.abs(np.subtract(found[place], half[name])).max() <= 1


def test_a_colour_picture_keeps_its_colours(tmp_path, writer):
    image = torch.zeros(3, 5, 7)
    image[0, :, :4] = 2.0
    shown = panels(tmp_path, writer, flat_item(image=image))[0]
    assert (shown[:, :4] == (255, 0, 0)).all()
    assert not shown[:, 4:].any()


def test_a_2d_case_without_truth_is_shown_beside_its_prediction(tmp_path, writer):
    image, pred = panels(tmp_path, writer, flat_item(label=None), colours="errors")
    assert not image.any()
    assert coloured_pixels(pred).keys() == {(1, 2), (1, 5)}


def test_a_decision_is_drawn_as_it_is(tmp_path, writer):
    decided = torch.zeros(1, 5, 7, dtype=torch.uint8)
    decided[0, 1, 2], decided[0, 2, 2] = 1, 2
    pred = coloured_pixels(panels(tmp_path, writer, flat_item(pred=decided), classes=3)[-1])
    assert pred.keys() == {(1, 2), (2, 2)}
    assert len(set(pred.values())) == 2


def test_a_metric_without_a_threshold_draws_from_a_half_on(tmp_path, writer):
    pred = panels(tmp_path, writer, flat_item(), threshold_of=object())[-1]
    assert coloured_pixels(pred).keys() == {(1, 2), (1, 5)}


def test_unknown_colours_are_refused(writer):
    with pytest.raises(ValueError, match="colours must be one of classes, errors, got 'error'"):
        CaseImages(writer, colours="error")


def scores_of(tmp_path, writer, details):
    engine = Engine(lambda engine, batch: None)
    engine.state.metric_details = {} if details is None else {"dice": details}
    CaseScores(writer, "dice").attach(engine)
    engine.run([0], max_epochs=1)
    events = events_of(tmp_path)
    return {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}


def test_every_case_has_a_curve(tmp_path, writer):
    found = scores_of(tmp_path, writer, torch.tensor([[0.25], [0.75]]))
    assert found == {"dice/case_1": 0.25, "dice/case_2": 0.75}


def test_of_a_sweep_the_best_threshold_is_shown(tmp_path, writer):
    assert scores_of(tmp_path, writer, torch.tensor([[[0.25, 0.5, math.nan]]])) == {"dice/case_1": 0.5}


def test_of_classes_the_mean_is_shown(tmp_path, writer):
    found = scores_of(tmp_path, writer, torch.tensor([[0.25, 0.75, math.nan]]))
    assert found == {"dice/case_1": 0.5, "dice/class_1": 0.25, "dice/class_2": 0.75}


def test_classes_are_shown_at_the_threshold_of_the_best_mean(tmp_path, writer):
    details = torch.tensor([[[0.25, 0.5], [0.75, 1.0]]])
    found = scores_of(tmp_path, writer, details)
    assert found == {"dice/case_1": 0.75, "dice/class_1": 0.5, "dice/class_2": 1.0}


def test_of_many_cases_the_distribution_is_shown(tmp_path, writer):
    found = scores_of(tmp_path, writer, torch.tensor([*[[k / 32] for k in range(33)], [math.nan]]))
    names = ("lowest", "quartile_1", "median", "quartile_3", "highest")
    assert found == {f"dice/{name}": k / 4 for k, name in enumerate(names)}


def test_of_many_undefined_cases_nothing_is_shown(tmp_path, writer):
    assert scores_of(tmp_path, writer, torch.full((33, 1), math.nan)) == {}


def test_an_undefined_score_is_no_point(tmp_path, writer):
    assert scores_of(tmp_path, writer, torch.tensor([math.nan, 0.5])) == {"dice/case_2": 0.5}


@pytest.mark.parametrize("details", [None, torch.zeros(0, 1)], ids=["no_metric", "no_case"])
def test_without_scores_nothing_is_written(tmp_path, writer, details):
    assert scores_of(tmp_path, writer, details) == {}


def test_ranks_behind_the_first_write_no_events(tmp_path, monkeypatch):
    for name, value in {"is_available": True, "is_initialized": True, "get_rank": 1}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    writer = open_writer(tmp_path)
    assert isinstance(writer, SilentWriter)
    writer.add_scalar("a", 1.0, 1)
    writer.add_image("b", np.zeros((1, 1, 3), np.uint8), 1, dataformats="HWC")
    writer.flush()
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_log_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="expected a folder that can be written"):
        open_writer(tmp_path / "file" / "tensorboard")
