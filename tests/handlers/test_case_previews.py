"""What lies beside predictions and scores for a person to look at."""

import io
import json
import logging

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from volseg.data import PredictionFolder
from volseg.geometry import Geometry
from volseg.handlers import CaseCompanions, CasePreviews, case_previews
from volseg.handlers.case_iteration import CaseIteration

SHAPE = (9, 5, 3)
SPACING = (0.1, 0.2, 0.5)


def labels(label=2):
    values = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    values[0, 2:5, 1:3, 1] = label
    return values


def image():
    return torch.arange(135.0).reshape(1, *SHAPE)


def size_of(content):
    with Image.open(io.BytesIO(content)) as picture:
        return picture.size, getattr(picture, "n_frames", 1)


def test_label_colours_are_always_made():
    contents, warnings = CaseCompanions(classes=3, class_names=["line", "ellipse"])(
        image(), labels(), SPACING
    )
    assert list(contents) == ["itk_snap", "slicer"]
    assert b'"ellipse"' in contents["itk_snap"]
    assert b"\n2 ellipse 50 190 70 255\n" in contents["slicer"]
    assert warnings == []


def test_animation_and_sheet_are_made_when_asked_in_true_proportions():
    contents, _ = CaseCompanions(classes=3, previews="true")(image(), labels(), SPACING)
    assert list(contents) == ["itk_snap", "slicer", "preview", "sheet"]
    (width, height), frames = size_of(contents["preview"])
    assert (width, frames) == (2 * 288 + 4, 3)
    assert height == 320 + 2 * 20
    assert size_of(contents["sheet"])[1] == 1


def test_masks_are_drawn_as_classes():
    masks = torch.cat([labels() > 0, labels() * 0 > 0, labels() > 0])
    drawn, _ = CaseCompanions(classes=4, previews=True)(image(), masks, SPACING)
    assert drawn == CaseCompanions(classes=4, previews=True)(image(), labels(3), SPACING)[0]


def test_a_preview_that_fails_costs_no_prediction(tmp_path, monkeypatch):
    def fail(view):
        raise MemoryError("no room")

    monkeypatch.setattr(case_previews, "volume_gif", fail)
    contents, warnings = CaseCompanions(previews=True)(image(), labels(1), SPACING)
    assert list(contents) == ["itk_snap", "slicer"]
    assert warnings == ["no preview was drawn: MemoryError: no room"]


def test_the_iteration_saves_them_beside_the_prediction(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "a.nii.gz"
    source.write_bytes(b"a")
    geometry = Geometry(SHAPE, np.diag([*SPACING, 1.0]))
    monkeypatch.setattr("volseg.data.read_header", lambda *args, **options: geometry)
    folder = PredictionFolder(tmp_path / "out")
    folder.pending([{"case": "a", "image": str(source)}])
    iteration = CaseIteration(folder, CaseCompanions(previews=True))
    iteration._save("a", labels(1), {"image": image()})
    folder.finish()
    names = {path.name for path in (tmp_path / "out" / "a").iterdir()}
    assert names == {"a_seg.nii.gz", "a_seg.label.txt", "a_seg.ctbl", "a_preview.gif", "a_sheet.png"}
    record = json.loads((tmp_path / "out" / "summary.json").read_text())["cases"][0]
    assert {name.removeprefix("a/") for name in record["outputs"]} == names


def evaluated(folder, item, *, name="case_1", runs=1, **options):
    engine = Engine(lambda engine, batch: [item])
    CasePreviews(folder, **options).attach(engine)
    for _ in range(runs):
        engine.run([{"case": [name]}], max_epochs=1)
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def volume_item():
    truth = MetaTensor(labels(), affine=torch.diag(torch.tensor([*SPACING, 1.0])))
    return {"image": image(), "pred": labels(1), "label": truth}


def test_an_evaluated_volume_is_shown_beside_its_truth(tmp_path):
    assert evaluated(tmp_path / "out", volume_item(), classes=3) == ["case_1.gif", "case_1_sheet.png"]
    (width, _), frames = size_of((tmp_path / "out" / "case_1.gif").read_bytes())
    assert (width, frames) == (3 * 288 + 2 * 4, 3)


def test_an_evaluated_picture_is_shown_in_one_file(tmp_path):
    flat = torch.zeros(1, 5, 7, dtype=torch.uint8)
    flat_item = {"image": torch.zeros(3, 5, 7), "pred": flat, "label": flat}
    assert evaluated(tmp_path / "out", flat_item) == ["case_1.png"]
    assert size_of((tmp_path / "out" / "case_1.png").read_bytes())[0] == (3 * 7 + 2 * 4, 5)


def test_nothing_is_written_unless_asked(tmp_path):
    assert evaluated(tmp_path / "out", volume_item(), previews="false", classes=3) == []


def test_a_name_cannot_lead_out_of_the_folder(tmp_path):
    names = evaluated(tmp_path / "out", volume_item(), name="../a", classes=3)
    assert len(names) == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_an_existing_file_is_kept_with_a_warning_unless_replaced(tmp_path, caplog):
    (tmp_path / "case_1.gif").write_text("mine")
    with caplog.at_level(logging.WARNING):
        evaluated(tmp_path, volume_item(), classes=3)
    assert "case_1: no preview: " in caplog.text
    assert (tmp_path / "case_1.gif").read_text() == "mine"
    evaluated(tmp_path, volume_item(), classes=3, overwrite=True, runs=2)
    assert size_of((tmp_path / "case_1.gif").read_bytes())[1] == 3


def test_names_of_no_class_are_refused(tmp_path):
    with pytest.raises(ValueError, match="class_names must name labels 1 to 1"):
        CasePreviews(tmp_path, class_names=["a", "b"])
    with pytest.raises(ValueError, match="previews must be true or false"):
        CaseCompanions(previews="maybe")
