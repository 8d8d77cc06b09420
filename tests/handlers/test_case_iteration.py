"""A lost case costs one case, whatever goes wrong in its iteration."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CopyItemsd,
    EnsureChannelFirstd,
    EnsureTyped,
    Flipd,
    Invertd,
    LoadImaged,
    Orientationd,
)
from PIL import Image

from volseg.data import predictions as predictions_module
from volseg.data.case_dataset import CaseDataset, collate_cases
from volseg.data.detection_table import read_detection
from volseg.data.predictions import PredictionFolder
from volseg.handlers import SliceDetection
from volseg.handlers.case_iteration import CaseIteration
from volseg.handlers.case_previews import CaseCompanions
from volseg.transforms import DecideLabelsd, MatchSized, RestoreShaped

pytestmark = [  # LoadImage tries all its readers
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
]
SHAPE = (5, 7, 3)
AFFINE = np.array([[0, 0.5, 0, 3], [-0.7, 0, 0, 4], [0, 0, 2.0, 5], [0, 0, 0, 1]])


class Threshold(torch.nn.Module):
    """Logits of "brighter than 0.5"; a brightness of 7 and above stands for a fault."""

    def forward(self, image):
        """Give logits of the image's shape."""
        highest = float(image.max())
        if highest == 7:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB.")
        if highest == 8:
            return image * float("nan")
        return image - 0.5


def image_of(name):
    values = np.random.default_rng(ord(name[0])).random(SHAPE).astype(np.float32)
    values[0, 0, 0] = {"memory": 7, "nan": 8}.get(name, 0)
    return values


@pytest.fixture
def cases(tmp_path):
    made = []
    for name in ("a", "missing", "memory", "nan", "z"):
        path = tmp_path / f"{name}.nii.gz"
        if name == "missing":
            path.write_bytes(b"no nifti")
        else:
            nib.save(nib.Nifti1Image(image_of(name), AFFINE), path)
        made.append({"case": name, "image": str(path), "label": None})
    return made


def evaluator_for(folder, cases, *, extra=(), network=None, **options):
    before = Compose(
        [
            LoadImaged("image", reader="volseg.data.VolumeReader"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            EnsureTyped("image", dtype=torch.float32),
        ]
    )
    after = Compose(
        [
            Activationsd("pred", sigmoid=True),
            CopyItemsd("pred", names="probability"),
            AsDiscreted("pred", threshold=0.5),
            Invertd(["pred", "probability"], before, "image", nearest_interp=False, to_tensor=True),
            *extra,
        ]
    )
    data = CaseDataset(folder.pending(cases), before)
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data, batch_size=1, collate_fn=collate_cases),
        network=network or Threshold(),
        inferer=SimpleInferer(),
        postprocessing=after,
        **{"iteration_update": CaseIteration(folder), **options},
    )


def finish(folder, out):
    with pytest.raises(SystemExit) as stopped:
        folder.finish()
    records = json.loads((out / "summary.json").read_text())["cases"]
    return stopped.value.code, {record["case"]: record for record in records}


def check_delivered(tmp_path, name):
    image = nib.load(tmp_path / "out" / name / f"{name}_seg.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), image_of(name) > 0.5)
    assert np.array_equal(image.affine, nib.load(tmp_path / f"{name}.nii.gz").affine)


def test_every_fault_costs_its_own_case_only(tmp_path, cases):
    folder = PredictionFolder(tmp_path / "out")
    evaluator_for(folder, cases).run()
    code, records = finish(folder, tmp_path / "out")
    assert code == 2
    stages = {name: (record["status"], record.get("stage")) for name, record in records.items()}
    assert stages == {
        "a": ("done", None),
        "missing": ("failed", "read"),
        "memory": ("failed", "predict"),
        "nan": ("failed", "predict"),
        "z": ("done", None),
    }
    assert records["memory"]["reason"].startswith("OutOfMemoryError: CUDA out of memory.")
    assert records["nan"]["reason"].startswith("network: expected finite output, got NaN or infinity")
    assert "missing.nii.gz" in records["missing"]["reason"]
    for name in ("a", "z"):
        check_delivered(tmp_path, name)


def test_probabilities_and_disagreement_lie_beside_the_labels(tmp_path, cases):
    folder = PredictionFolder(tmp_path / "out")
    extra = [CopyItemsd("probability", names="disagreement")]
    evaluator_for(folder, cases[:1], extra=extra).run()
    folder.finish()
    kinds = sorted(path.name for path in (tmp_path / "out" / "a").iterdir())
    assert kinds == ["a_disagreement.nii.gz", "a_prob.nii.gz", "a_seg.nii.gz"]
    written = np.asarray(nib.load(tmp_path / "out" / "a" / "a_prob.nii.gz").dataobj)
    # float32 sigmoid
    assert np.allclose(written, 1 / (1 + np.exp(0.5 - image_of("a"))), atol=1e-6)


@pytest.mark.parametrize("names", [None, ["fluid"]], ids=["no names", "names"])
def test_a_table_of_slices_lies_beside_the_labels_of_a_network_that_detects(tmp_path, cases, names):
    folder = PredictionFolder(tmp_path / "out")
    companions = None if names is None else CaseCompanions(class_names=names)
    evaluator = evaluator_for(
        folder,
        cases[:1],
        val_handlers=[SliceDetection(axis=2)],
        iteration_update=CaseIteration(folder, companions),
    )
    evaluator.run()
    folder.finish()
    path = tmp_path / "out" / "a" / "a_detection.csv"
    table = read_detection(path)
    assert path.read_text().splitlines()[0] == f"slice,{'class 1' if names is None else 'fluid'}"
    assert table.shape == (SHAPE[2], 1)
    record = json.loads((tmp_path / "out" / "summary.json").read_text())["cases"][0]
    assert "a/a_detection.csv" in record["outputs"]
    again = PredictionFolder(tmp_path / "out")
    assert again.pending(cases[:1]) == []  # journalled: the same run has nothing left to do
    again.finish()
    path.write_text("by hand")
    changed = PredictionFolder(tmp_path / "out")
    changed.pending(cases[:1])
    code, records = finish(changed, tmp_path / "out")
    assert (code, path.read_text()) == (1, "by hand")
    assert "one that was changed or made otherwise" in records["a"]["reason"]


class FiniteThreshold(Threshold):
    """Takes a NaN for dark, as a normalisation before the network does."""

    def forward(self, image):
        """Give finite logits of the image's shape."""
        return super().forward(torch.nan_to_num(image))


def test_an_image_with_nan_voxels_is_delivered_with_a_warning(tmp_path):
    values = image_of("a")
    values[1, 2, 1] = np.nan
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "a.nii.gz")
    folder = PredictionFolder(tmp_path / "out")
    cases = [{"case": "a", "image": str(tmp_path / "a.nii.gz"), "label": None}]
    evaluator_for(folder, cases, network=FiniteThreshold()).run()
    folder.finish()
    record = json.loads((tmp_path / "out" / "summary.json").read_text())["cases"][0]
    assert record["warnings"] == ["1 voxels are NaN or infinite; the mean took their place"]


def test_a_disk_that_fills_up_costs_the_case_being_written(tmp_path, cases, monkeypatch):
    write = predictions_module.write_nifti

    def full_for_a(path, *args, **kwargs):
        if path.name.startswith("a_"):
            raise OSError(28, "No space left on device", str(path))
        write(path, *args, **kwargs)

    monkeypatch.setattr(predictions_module, "write_nifti", full_for_a)
    folder = PredictionFolder(tmp_path / "out")
    evaluator_for(folder, [cases[0], cases[-1]]).run()
    code, records = finish(folder, tmp_path / "out")
    assert (code, records["a"]["stage"], records["z"]["status"]) == (2, "write", "done")
    assert "No space left on device" in records["a"]["reason"]


def test_a_result_that_is_not_on_the_image_grid_is_not_written(tmp_path, cases):
    class Wrong(torch.nn.Module):
        def forward(self, image):
            return torch.zeros(1, 1, 4, 4, 4)

    folder = PredictionFolder(tmp_path / "out")
    evaluator_for(folder, cases[:1], network=Wrong()).run()
    code, records = finish(folder, tmp_path / "out")
    assert (code, records["a"]["status"]) == (1, "failed")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_postprocessing_that_fails_costs_one_case(tmp_path, cases):
    folder = PredictionFolder(tmp_path / "out")
    evaluator_for(folder, cases[:1], extra=[Flipd("no such key")]).run()
    code, records = finish(folder, tmp_path / "out")
    assert (code, records["a"]["stage"]) == (1, "predict")
    assert "no such key" in records["a"]["reason"]


def test_an_interrupt_ends_the_run(tmp_path, cases):
    class Interrupted(torch.nn.Module):
        def forward(self, image):
            raise KeyboardInterrupt

    folder = PredictionFolder(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        evaluator_for(folder, cases[:1], network=Interrupted()).run()
    finish(folder, tmp_path / "out")


def test_whole_number_output_is_taken_as_it_is(tmp_path, cases):
    class Labels(torch.nn.Module):
        def forward(self, image):
            return (image > 0.5).long()

    folder = PredictionFolder(tmp_path / "out")
    evaluator = evaluator_for(folder, cases[:1], network=Labels())
    evaluator.run()
    assert len(evaluator.state.output) == 1
    folder.finish()


@pytest.mark.parametrize("classes", [1, 3])
def test_pictures_are_delivered_as_nifti_and_png(tmp_path, classes):
    pixels = np.random.default_rng(0).integers(0, 255, (7, 5, 3)).astype(np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "p.png")
    case = {"case": "p", "image": str(tmp_path / "images" / "p.png")}
    chain = Compose(
        [
            LoadImaged("image", reader="volseg.data.PictureReader", channels="rgb"),
            EnsureChannelFirstd("image"),
            MatchSized("image", 14),
        ]
    )
    folder = PredictionFolder(tmp_path / "out", classes=classes)
    decide = DecideLabelsd(classes=classes, threshold=0.5, keep_probability=True)
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(
            CaseDataset(folder.pending([case]), chain), batch_size=1, collate_fn=collate_cases
        ),
        network=Brightness(classes),
        inferer=SimpleInferer(),
        postprocessing=Compose([RestoreShaped("pred"), decide]),
        iteration_update=CaseIteration(folder),
    ).run()
    folder.finish()
    files = tmp_path / "out" / "p"
    assert sorted(path.name for path in files.iterdir()) == ["p_prob.nii.gz", "p_seg.nii.gz", "p_seg.png"]
    seen = np.asarray(Image.open(files / "p_seg.png"))
    stored = np.asarray(nib.load(files / "p_seg.nii.gz").dataobj)
    assert seen.shape == (7, 5)
    assert np.array_equal(stored[..., 0].T * (255 if classes == 1 else 1), seen)
    probability = np.asarray(nib.load(files / "p_prob.nii.gz").dataobj)
    assert probability.shape == ((5, 7, 1) if classes == 1 else (5, 7, 1, 3))
    if classes == 1:
        clear = np.abs(pixels[..., 0] / 255 - 0.5) > 0.1
        assert np.mean((seen == 255)[clear] == (pixels[..., 0] > 127)[clear]) > 0.8  # resized and back


class Brightness(torch.nn.Module):
    """Takes the first channels of a picture for probabilities."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, image):
        """Give the first `classes` channels between 0 and 1."""
        return image[:, : self.classes] / 255
