"""A run delivers each case once, continues where it was killed, replaces nothing that is not its own."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import MetaTensor
from PIL import Image

from volseg.checks import InputError
from volseg.data import picture_geometry
from volseg.data import predictions as predictions_module
from volseg.data.picture_reader import picture_affine
from volseg.data.predictions import PredictionFolder
from volseg.files import OutputLock, sha256_of
from volseg.geometry import Geometry

SHAPE = (5, 7, 3)
GEOMETRY = Geometry(SHAPE, np.diag([0.5, 0.5, 2.0, 1.0]))


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "images").mkdir()
    made = []
    for name in ("a", "b", "c"):
        path = tmp_path / "images" / f"{name}.nii.gz"
        path.write_bytes(name.encode())
        made.append({"case": name, "image": str(path)})
    return made


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def labels_of(name):
    return np.random.default_rng(ord(name[0])).integers(0, 3, SHAPE).astype(np.uint8)


def deliver(folder, cases):
    """Compute what is pending; return the names that were computed."""
    names = [item["case"] for item in folder.pending(cases)]
    for name in names:
        folder.save(name, labels_of(name), GEOMETRY)
    return names


def run(out, cases, **options):
    folder = PredictionFolder(out, **options)
    names = deliver(folder, cases)
    folder.finish()
    return names


def summary_of(out):
    summary = json.loads((out / "summary.json").read_text())
    return summary, {record["case"]: record for record in summary["cases"]}


def exit_code(folder):
    with pytest.raises(SystemExit) as stopped:
        folder.finish()
    return stopped.value.code


def test_every_case_gets_its_file_and_its_record(out, cases):
    assert run(out, cases, settings={"fusion": "mean"}) == ["a", "b", "c"]
    for name in "abc":
        assert np.array_equal(
            np.asarray(nib.load(out / name / f"{name}_seg.nii.gz").dataobj), labels_of(name)
        )
    summary, records = summary_of(out)
    assert (summary["delivered"], summary["failed"], summary["settings"]) == (3, 0, {"fusion": "mean"})
    assert set(summary["versions"]) == {"volseg", "monai", "torch", "numpy", "nibabel"}
    record = records["a"]
    assert record["outputs"] == {"a/a_seg.nii.gz": sha256_of(out / "a" / "a_seg.nii.gz")}
    assert sum(record["voxels"].values()) == np.prod(SHAPE)
    assert (record["status"], record["warnings"]) == ("done", [])
    assert record["seconds"] >= 0
    assert record["input"]


def test_the_same_command_again_computes_nothing(out, cases):
    run(out, cases)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.gz")}
    assert run(out, cases) == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.gz")} == before
    _, records = summary_of(out)
    assert {record["status"] for record in records.values()} == {"skipped"}
    assert records["a"]["outputs"]


def test_overwrite_computes_everything_anew(out, cases):
    run(out, cases)
    (out / "a" / "a_seg.nii.gz").write_text("corrected")
    assert run(out, cases, overwrite=True) == ["a", "b", "c"]
    assert np.array_equal(np.asarray(nib.load(out / "a" / "a_seg.nii.gz").dataobj), labels_of("a"))


def test_overwrite_false_from_a_command_line_keeps_results(out, cases):
    run(out, cases)
    assert run(out, cases, overwrite="false") == []
    with pytest.raises(ValueError, match="overwrite must be true or false"):
        PredictionFolder(out, overwrite="maybe")


def test_a_lost_result_is_computed_again(out, cases):
    run(out, cases)
    (out / "b" / "b_seg.nii.gz").unlink()
    assert run(out, cases) == ["b"]


def test_a_hand_corrected_result_is_kept_and_the_others_delivered(out, cases, capsys):
    run(out, cases)
    (out / "b" / "b_seg.nii.gz").write_text("corrected by hand")
    (out / "c" / "c_seg.nii.gz").unlink()
    folder = PredictionFolder(out)
    assert deliver(folder, cases) == ["c"]
    assert exit_code(folder) == 2
    assert (out / "b" / "b_seg.nii.gz").read_text() == "corrected by hand"
    _, records = summary_of(out)
    assert [records[name]["status"] for name in "abc"] == ["skipped", "failed", "done"]
    assert (records["b"]["stage"], "--overwrite true" in records["b"]["reason"]) == ("write", True)
    assert "b_seg.nii.gz: expected no file, or one that volseg wrote" in capsys.readouterr().err


def test_a_file_that_volseg_did_not_write_is_kept(out, cases):
    (out / "a").mkdir(parents=True)
    (out / "a" / "a_seg.nii.gz").write_text("mine")
    folder = PredictionFolder(out)
    assert deliver(folder, cases) == ["b", "c"]
    assert exit_code(folder) == 2
    assert (out / "a" / "a_seg.nii.gz").read_text() == "mine"


def test_a_result_that_is_corrected_during_the_run_is_kept(out, cases):
    folder = PredictionFolder(out)
    folder.pending(cases)
    (out / "a").mkdir()
    (out / "a" / "a_seg.nii.gz").write_text("mine")
    with pytest.raises(InputError, match="changed or made otherwise"):
        folder.save("a", labels_of("a"), GEOMETRY)
    exit_code(folder)
    assert (out / "a" / "a_seg.nii.gz").read_text() == "mine"


@pytest.mark.parametrize("change", ["settings", "input"])
def test_results_of_other_settings_or_another_input_are_neither_done_nor_replaced(out, cases, change):
    run(out, cases, settings={"threshold": 0.5})
    if change == "input":
        Path(cases[0]["image"]).write_text("another image")
    folder = PredictionFolder(out, settings={"threshold": 0.5 if change == "input" else 0.4})
    assert folder.pending(cases) == []
    assert exit_code(folder) == (2 if change == "input" else 1)
    assert "another input or other settings" in summary_of(out)[1]["a"]["reason"]


def test_an_input_that_changes_during_the_run_is_refused(out, cases):
    folder = PredictionFolder(out)
    folder.pending(cases)
    Path(cases[0]["image"]).write_text("another image")
    with pytest.raises(InputError, match="a changed one"):
        folder.save("a", labels_of("a"), GEOMETRY)
    exit_code(folder)
    assert not (out / "a").exists()


def test_a_missing_input_fails_alone(out, cases):
    Path(cases[1]["image"]).unlink()
    folder = PredictionFolder(out)
    assert deliver(folder, cases) == ["a", "c"]
    assert exit_code(folder) == 2
    record = summary_of(out)[1]["b"]
    assert (record["stage"], "No such file" in record["reason"]) == ("read", True)


def test_nothing_to_do_is_an_error(out):
    with pytest.raises(InputError, match="expected at least one case, got none; check dataset_dir"):
        PredictionFolder(out).pending([])
    assert exit_code(PredictionFolder(out)) == 1


def test_two_cases_of_one_name_are_refused(out, cases):
    cases[2]["case"] = "a"
    with pytest.raises(InputError, match=r"a\.nii\.gz and .*c\.nii\.gz both called a"):
        PredictionFolder(out).pending(cases)


@pytest.mark.parametrize(
    "name",
    [
        "../escape",
        "a\nb",
        "@output_dir",
        "größe 日本",
        "x" * 240,
        "$import('os')",
        "-rf",
        "summary.json",
        ".",
        "a/b",
    ],
    ids=lambda name: ascii(name)[:20],
)
def test_any_case_name_stays_below_the_output_folder(tmp_path, out, cases, name):
    before = set(tmp_path.iterdir())
    item = {"case": name, "image": cases[0]["image"]}
    assert run(out, [item]) == [name]
    assert set(tmp_path.iterdir()) == before | {out}
    written = list(out.rglob("*_seg.nii.gz"))
    assert len(written) == 1
    assert written[0].parent.parent == out
    assert written[0].name == f"{written[0].parent.name}_seg.nii.gz"
    assert list(summary_of(out)[1]) == [name]
    assert run(out, [item]) == []


def test_failures_are_told_in_six_lines_at_most(out, cases, capsys):
    items = [{"case": f"c\n{number}", "image": cases[0]["image"]} for number in range(20)]
    folder = PredictionFolder(out)
    folder.pending(items)
    for item in items[:9]:
        folder.fail(item["case"], "predict", "lost\nin space")
    assert exit_code(folder) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("20 of 20 cases failed; see ")
    assert lines[1] == "  'c\\n0': lost in space"
    assert lines[-1] == "  and 16 more"


def test_a_case_that_was_never_reached_counts_as_failed(out, cases):
    folder = PredictionFolder(out)
    folder.pending(cases)
    folder.save("a", labels_of("a"), GEOMETRY)
    assert exit_code(folder) == 2
    assert summary_of(out)[1]["c"]["reason"] == "the run ended before this case"


def test_a_failed_case_is_tried_again(out, cases):
    folder = PredictionFolder(out)
    folder.pending(cases)
    folder.fail("a", "predict", MemoryError())
    exit_code(folder)
    assert summary_of(out)[1]["a"]["reason"] == "MemoryError"
    assert run(out, cases) == ["a", "b", "c"]


def test_an_unknown_stage_or_case_is_refused(out, cases):
    folder = PredictionFolder(out)
    with pytest.raises(ValueError, match="stage must be one of predict, read, write"):
        folder.fail("a", "reed", "x")
    with pytest.raises(ValueError, match="case must be one that pending has seen, got 'x'"):
        folder.item("x")


def test_two_runs_do_not_share_a_folder(out, cases):
    folder = PredictionFolder(out)
    folder.pending(cases)
    with pytest.raises(InputError, match="no other run is writing into"):
        PredictionFolder(out).pending(cases)
    exit_code(folder)
    with OutputLock(out):
        pass


@pytest.mark.parametrize("place", ["images", "images/..", "images/scan", "images/scan/deeper", "."])
def test_outputs_do_not_become_inputs(tmp_path, cases, place):
    scan = tmp_path / "images" / "scan"
    (scan / "deeper").mkdir(parents=True)
    items = [{"case": "scan", "image": str(scan)}]
    if place in ("images/..", "."):
        items = [
            {"case": "images", "image": str(tmp_path / "images" / "a.nii.gz")}
        ]  # ./images/images_seg.nii.gz
    with pytest.raises(InputError, match="apart from the inputs"):
        PredictionFolder(tmp_path / place).pending(items)


def test_a_foreign_summary_is_kept(out, cases):
    out.mkdir()
    (out / "summary.json").write_text("mine")
    with pytest.raises(InputError, match="a file without a journal"):
        PredictionFolder(out).pending(cases)
    with OutputLock(out):
        assert (out / "summary.json").read_text() == "mine"


def test_a_link_in_place_of_a_case_folder_is_not_followed(tmp_path, out, cases):
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "a").symlink_to(tmp_path / "elsewhere")
    folder = PredictionFolder(out)
    assert deliver(folder, cases) == ["b", "c"]
    assert exit_code(folder) == 2
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_full_disk_costs_one_case_and_leaves_no_half_file(out, cases, monkeypatch):
    folder = PredictionFolder(out)
    folder.pending(cases)
    folder.save("a", labels_of("a"), GEOMETRY)
    with monkeypatch.context() as patch:
        patch.setattr(predictions_module, "write_nifti", no_space)
        with pytest.raises(OSError, match="No space left") as full:
            folder.save("b", labels_of("b"), GEOMETRY)
    folder.fail("b", "write", full.value)
    folder.save("c", labels_of("c"), GEOMETRY)
    assert exit_code(folder) == 2
    assert [summary_of(out)[1][name]["status"] for name in "abc"] == ["done", "failed", "done"]
    assert run(out, cases) == ["b"]


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "b_seg.nii.gz")


def test_a_disk_too_full_for_journal_and_summary_still_ends_with_a_reason(out, cases, monkeypatch, capsys):
    folder = PredictionFolder(out)
    deliver(folder, cases)
    monkeypatch.setattr(folder._journal, "append", no_space)
    folder.fail("b", "write", "x")
    monkeypatch.setattr(predictions_module, "write_json", no_space)
    assert exit_code(folder) == 2
    assert "No space left" in capsys.readouterr().err
    with OutputLock(out):
        pass


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_label_maps_of_any_type_are_stored_as_small_integers(out, cases, kind):
    labels = torch.as_tensor(labels_of("a") > 0).to(kind)
    folder = PredictionFolder(out)
    folder.pending(cases[:1])
    paths = folder.save("a", labels[None], GEOMETRY, probability=labels[None].float() / 2)
    folder.finish()
    assert nib.load(paths["seg"]).get_data_dtype() == np.uint8
    assert nib.load(paths["prob"]).get_data_dtype() == np.float32
    assert np.asarray(nib.load(paths["prob"]).dataobj).max() == 0.5


def test_several_masks_are_counted_apart(out, cases):
    masks = np.stack([labels_of("a") == 1, labels_of("a") == 2])
    folder = PredictionFolder(out)
    folder.pending(cases[:1])
    folder.save("a", masks, GEOMETRY)
    folder.finish()
    assert nib.load(out / "a" / "a_seg.nii.gz").shape == (*SHAPE, 2)
    assert summary_of(out)[1]["a"]["voxels"] == {"1": int(masks[0].sum()), "2": int(masks[1].sum())}


@pytest.mark.parametrize("bad", ["size", "fraction"])
def test_what_is_no_label_map_of_the_image_is_refused(out, cases, bad):
    folder = PredictionFolder(out)
    folder.pending(cases)
    pred = np.zeros((7, 5, 3)) if bad == "size" else np.full(SHAPE, 0.5)
    with pytest.raises(ValueError, match="undo the resampling" if bad == "size" else "threshold it"):
        folder.save("a", pred, GEOMETRY)
    exit_code(folder)


def test_a_stale_probability_does_not_stay_beside_a_new_result(out, cases):
    folder = PredictionFolder(out)
    folder.pending(cases[:1])
    folder.save("a", labels_of("a"), GEOMETRY, probability=np.ones(SHAPE), disagreement=np.ones(SHAPE))
    folder.finish()
    assert sorted(path.name for path in (out / "a").iterdir()) == [
        "a_disagreement.nii.gz",
        "a_prob.nii.gz",
        "a_seg.nii.gz",
    ]
    run(out, cases[:1], overwrite=True)
    assert [path.name for path in (out / "a").iterdir()] == ["a_seg.nii.gz"]


def test_a_picture_gets_a_png_of_class_indices_beside_the_nifti(out, cases):
    shape = (6, 4, 1)
    labels = np.arange(24, dtype=np.uint8).reshape(shape)
    folder = PredictionFolder(out)
    folder.pending(cases[:1])
    paths = folder.save(
        "a", torch.as_tensor(labels[None, ..., 0]), Geometry(shape, np.eye(4), spacing_is_known=False)
    )
    folder.finish()
    with Image.open(paths["png"]) as picture:
        assert np.array_equal(np.asarray(picture), labels[:, :, 0].T)
    assert summary_of(out)[1]["a"]["warnings"] == ["the image states no spacing; 1 mm was assumed"]
    assert run(out, cases[:1]) == []


def test_an_empty_result_is_warned_of(out, cases):
    folder = PredictionFolder(out)
    folder.pending(cases[:1])
    folder.save("a", np.zeros(SHAPE, np.uint8), GEOMETRY)
    folder.finish()
    assert summary_of(out)[1]["a"]["warnings"] == ["nothing was found"]


def test_voxels_that_were_not_finite_are_told(out, cases):
    folder = PredictionFolder(out)
    folder.pending(cases[:1])
    folder.save("a", np.ones(SHAPE, np.uint8), GEOMETRY, non_finite_voxels=7)
    folder.finish()
    assert summary_of(out)[1]["a"]["warnings"] == ["7 voxels are NaN or infinite; the mean took their place"]


def test_a_link_in_a_circle_fails_alone(tmp_path, out, cases):
    (tmp_path / "loop.nii.gz").symlink_to(tmp_path / "loop.nii.gz")
    folder = PredictionFolder(out)
    pending = folder.pending([*cases, {"case": "loop", "image": str(tmp_path / "loop.nii.gz")}])
    assert [item["case"] for item in pending] == [item["case"] for item in cases]
    deliver(folder, pending)
    assert exit_code(folder) == 2
    assert "symbolic links" in summary_of(out)[1]["loop"]["reason"]


COMPANIONS = {"itk_snap": b"labels", "preview": b"animation"}


def run_with_companions(out, cases, companions=None, **options):
    folder = PredictionFolder(out, **options)
    pending = [item["case"] for item in folder.pending(cases)]
    for name in pending:
        folder.save(name, labels_of(name), GEOMETRY, companions=companions or COMPANIONS, warnings=["a word"])
    return folder, pending


def test_companions_lie_beside_the_result_and_are_part_of_it(out, cases):
    folder, _ = run_with_companions(out, cases[:1])
    folder.finish()
    assert (out / "a" / "a_seg.label.txt").read_bytes() == b"labels"
    assert (out / "a" / "a_preview.gif").read_bytes() == b"animation"
    record = summary_of(out)[1]["a"]
    assert set(record["outputs"]) == {"a/a_seg.nii.gz", "a/a_seg.label.txt", "a/a_preview.gif"}
    assert record["warnings"] == ["a word"]
    folder, pending = run_with_companions(out, cases[:1])
    folder.finish()
    assert pending == []
    (out / "a" / "a_preview.gif").unlink()
    folder, pending = run_with_companions(out, cases[:1])
    folder.finish()
    assert pending == ["a"]


def test_a_companion_that_volseg_did_not_write_is_kept(out, cases):
    (out / "a").mkdir(parents=True)
    (out / "a" / "a_preview.gif").write_text("mine")
    folder, pending = run_with_companions(out, cases)
    assert exit_code(folder) == 2
    assert pending == ["b", "c"]
    assert (out / "a" / "a_preview.gif").read_text() == "mine"


def test_a_companion_that_the_disk_refuses_costs_no_prediction(out, cases, monkeypatch):
    folder = PredictionFolder(out)
    folder.pending(cases[:1])
    with monkeypatch.context() as patch:
        patch.setattr(predictions_module, "write_atomically", no_space)
        folder.save("a", labels_of("a"), GEOMETRY, companions=COMPANIONS)
    folder.finish()
    assert [path.name for path in (out / "a").iterdir()] == ["a_seg.nii.gz"]
    warnings = summary_of(out)[1]["a"]["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == [
        "a_seg.label.txt was not written",
        "a_preview.gif was not written",
    ]


def test_a_table_that_the_disk_refuses_costs_the_case(out, cases, monkeypatch):
    folder = PredictionFolder(out)
    folder.pending(cases[:1])
    with monkeypatch.context() as patch:
        patch.setattr(predictions_module, "write_atomically", no_space)
        with pytest.raises(OSError, match="No space left") as full:
            folder.save("a", labels_of("a"), GEOMETRY, detection=b"slice,fluid\n")
    folder.fail("a", "write", full.value)
    assert exit_code(folder) == 1
    again = PredictionFolder(out)
    assert [item["case"] for item in again.pending(cases[:1])] == ["a"]
    paths = again.save("a", labels_of("a"), GEOMETRY, detection=b"slice,fluid\n")
    again.finish()
    assert paths["detection"].read_bytes() == b"slice,fluid\n"
    assert set(summary_of(out)[1]["a"]["outputs"]) == {"a/a_seg.nii.gz", "a/a_detection.csv"}


def test_a_stale_companion_does_not_stay_beside_a_new_result(out, cases):
    folder, _ = run_with_companions(out, cases[:1])
    folder.finish()
    run(out, cases[:1], overwrite=True)
    assert [path.name for path in (out / "a").iterdir()] == ["a_seg.nii.gz"]


def test_an_unknown_companion_is_refused_before_anything_is_written(out, cases):
    with pytest.raises(ValueError, match=r"kind of companion must be one of .*, got 'movie'"):
        run_with_companions(out, cases, {"movie": b""})
    assert not (out / "a").exists()


KILLED = """
import os, signal, sys
import numpy as np
from volseg import files
from volseg.data.predictions import PredictionFolder
from volseg.geometry import Geometry

out, images, moment = sys.argv[1:]
shape = (5, 7, 3)
folder = PredictionFolder(out, settings={"threshold": 0.5})
calls = {"link": 0, "append": 0}

def after(name, function, number):
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        calls[name] += 1
        if calls[name] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

if moment != "never":
    name, number = moment.split()
    if name == "link":  # the file has its name, the journal does not yet say done
        os.link = after("link", os.link, int(number))
    else:
        files.Journal.append = after("append", files.Journal.append, int(number))
cases = [{"case": name, "image": f"{images}/{name}.nii.gz"} for name in "abc"]
for item in folder.pending(cases):
    labels = np.random.default_rng(ord(item["case"])).integers(0, 3, shape).astype(np.uint8)
    folder.save(item["case"], labels, Geometry(shape, np.eye(4)), probability=labels / 2)
folder.finish()
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["link 3", "link 4", "append 4", "append 5", "append 6"])
def test_a_killed_run_started_again_ends_like_the_undisturbed_one(tmp_path, cases, moment):
    def start(out, moment):
        command = [sys.executable, "-c", KILLED, str(out), str(tmp_path / "images"), moment]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert start(tmp_path / "killed", moment).returncode == -signal.SIGKILL
    again = start(tmp_path / "killed", "never")
    assert (again.returncode, again.stderr) == (0, "")
    assert start(tmp_path / "undisturbed", "never").returncode == 0
    results = [
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.nii.gz")}
        for root in (tmp_path / "killed", tmp_path / "undisturbed")
    ]
    assert len(results[0]) == 6
    assert results[0] == results[1]
    assert not list((tmp_path / "killed").rglob(".volseg-tmp-*"))


HW = (7, 5)


@pytest.fixture
def picture_case(tmp_path):
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "p.jpg"
    Image.new("RGB", HW[::-1]).save(path, dpi=(254, 127))
    return {"case": "p", "image": str(path)}


def mask_of(seed=0, classes=2):
    return np.random.default_rng(seed).integers(0, classes, HW).astype(np.uint8)


def save_picture(out, case, pred, *, maps=None, **options):
    folder = PredictionFolder(out, **options)
    folder.pending([case])
    paths = folder.save("p", pred, picture_geometry(case["image"]), **(maps or {}))
    folder.finish()
    return paths


def as_rows_first(array):
    return MetaTensor(torch.as_tensor(array[None]), affine=torch.as_tensor(picture_affine((0.1, 0.2))))


@pytest.mark.parametrize("kind", ["MetaTensor", "flag", "flag without channel"])
def test_a_picture_gets_a_nifti_as_itk_stores_it_and_a_png_as_a_person_sees_it(out, picture_case, kind):
    mask = mask_of()
    pred = {"MetaTensor": as_rows_first(mask), "flag": mask[None], "flag without channel": mask}[kind]
    paths = save_picture(out, picture_case, pred, maps={} if kind == "MetaTensor" else {"rows_first": True})
    assert sorted(path.name for path in (out / "p").iterdir()) == ["p_seg.nii.gz", "p_seg.png"]
    with Image.open(paths["png"]) as png:
        assert png.mode == "L"
        assert np.array_equal(np.asarray(png), mask * 255)
    image, written = sitk.ReadImage(picture_case["image"]), sitk.ReadImage(str(paths["seg"]))
    assert written.GetSize() == (*image.GetSize(), 1)
    assert np.allclose(written.GetSpacing()[:2], image.GetSpacing())
    assert written.GetOrigin() == (0, 0, 0)
    assert np.allclose(written.GetDirection(), np.eye(3).ravel())
    assert np.array_equal(sitk.GetArrayFromImage(written)[0], mask)
    assert np.asarray(nib.load(paths["seg"]).dataobj).dtype == np.uint8


def test_a_square_picture_is_not_transposed(out, tmp_path, picture_case):
    Image.new("L", (4, 4)).save(picture_case["image"])
    mask = np.triu(np.ones((4, 4), np.uint8), 1)
    paths = save_picture(out, picture_case, mask[None], maps={"rows_first": True})
    with Image.open(paths["png"]) as png:
        assert np.array_equal(np.asarray(png), mask * 255)
    assert np.array_equal(np.asarray(nib.load(paths["seg"]).dataobj)[..., 0], mask.T)


def test_a_png_of_several_classes_holds_their_indices(out, picture_case):
    for seed, classes in enumerate((3, 2)):  # the second picture lacks the class 2
        mask = mask_of(seed, classes)
        paths = save_picture(out / str(seed), picture_case, as_rows_first(mask), classes=3)
        with Image.open(paths["png"]) as png:
            assert np.array_equal(np.asarray(png), mask)


def test_more_labels_than_classes_are_told(out, picture_case):
    with pytest.raises(ValueError, match="pred must hold 0 and 1, got label 2 where classes is 1; tell Pred"):
        save_picture(out, picture_case, as_rows_first(mask_of(0, 3)))
    with pytest.raises(ValueError, match="classes must be positive"):
        PredictionFolder(out, classes=0)


def test_probabilities_of_a_picture_are_float32_with_a_last_axis_of_classes(out, picture_case):
    probability = np.random.default_rng(1).random((3, *HW)).astype(np.float32)
    maps = {"probability": torch.as_tensor(probability), "disagreement": torch.as_tensor(probability[:1])}
    paths = save_picture(out, picture_case, as_rows_first(mask_of(0, 3)), maps=maps, classes=3)
    written = nib.load(paths["prob"])
    assert written.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(written.dataobj), probability.transpose(2, 1, 0)[:, :, None])
    assert np.asarray(nib.load(paths["disagreement"]).dataobj).shape == (*HW[::-1], 1)


def test_masks_of_several_channels_have_no_png(out, picture_case):
    masks = np.stack([mask_of(0), mask_of(1)])
    paths = save_picture(out, picture_case, masks, maps={"rows_first": True})
    assert set(paths) == {"seg"}
    assert np.array_equal(np.asarray(nib.load(paths["seg"]).dataobj)[:, :, 0], masks.transpose(2, 1, 0))


def test_a_picture_that_is_done_is_not_computed_again_and_its_png_is_guarded(out, picture_case):
    paths = save_picture(out, picture_case, as_rows_first(mask_of()))
    before = paths["png"].read_bytes()
    folder = PredictionFolder(out)
    assert folder.pending([picture_case]) == []
    folder.finish()
    paths["png"].write_bytes(before + b"x")
    folder = PredictionFolder(out)
    assert folder.pending([picture_case]) == []
    assert exit_code(folder) == 1
    save_picture(out, picture_case, as_rows_first(mask_of()), overwrite=True)
    assert paths["png"].read_bytes() == before


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (7, 6)])
def test_a_prediction_of_another_size_is_refused(out, picture_case, shape):
    with pytest.raises(ValueError, match="array must have the image's size"):
        save_picture(out, picture_case, np.zeros(shape, np.uint8), maps={"rows_first": True})


def test_a_picture_on_the_grid_of_a_volume_is_refused(out, cases):
    folder = PredictionFolder(out)
    folder.pending(cases[:1])
    with pytest.raises(ValueError, match=r"geometry must be of one slice, got \(5, 7, 3\)"):
        folder.save("a", mask_of()[None], GEOMETRY, rows_first=True)
