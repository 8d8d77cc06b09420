from __future__ import annotations

import nibabel
import numpy as np
import pytest

from volseg.cli import main
from volseg.data.datalist import Datalist, write_datalist
from volseg.data.rle import decode_rle, encode_rle, read_rle_csv, write_rle_csv

HEIGHT, WIDTH, DEPTH = 9, 7, 5


def run(*words):
    with pytest.raises(SystemExit) as exit_code:
        main([str(word) for word in words])
    return exit_code.value.code


def predict(folder, case, labels, dtype=np.uint8):
    """Save (x, y, z) labels as inference does."""
    (folder / case).mkdir(parents=True)
    image = nibabel.Nifti1Image(labels.astype(dtype), np.diag([-0.05, -0.05, 0.05, 1.0]))
    nibabel.save(image, folder / case / f"{case}_seg.nii.gz")


def random_labels(seed=0, depth=DEPTH):
    return (np.random.default_rng(seed).random((WIDTH, HEIGHT, depth)) < 0.3).astype(np.uint8)


def slices(folder, numbers):
    folder.mkdir(parents=True)
    import tifffile

    for number in numbers:
        tifffile.imwrite(folder / f"{number:04d}.tif", np.ones((HEIGHT, WIDTH), np.uint16))


def test_masks_of_the_challenges_csv_come_back_byte_for_byte(tmp_path):
    masks = {case: random_labels(seed) for seed, case in enumerate(("kidney_1_dense", "kidney_2"))}
    masks["kidney_2"][:, :, 2] = 0
    rows = [
        (f"{case}_{k:04d}", encode_rle(mask[:, :, k].T)) for case, mask in masks.items() for k in range(DEPTH)
    ]
    write_rle_csv(tmp_path / "train_rles.csv", rows)
    decoded = {case: np.zeros((WIDTH, HEIGHT, DEPTH), np.uint8) for case in masks}
    for row in read_rle_csv(tmp_path / "train_rles.csv"):
        case, _, number = row["id"].rpartition("_")
        decoded[case][:, :, int(number)] = decode_rle(row["rle"], (HEIGHT, WIDTH)).T
    for case, labels in decoded.items():
        predict(tmp_path / "out", case, labels)
    assert run("export", "rle", tmp_path / "out", "-o", tmp_path / "submission.csv") == 0
    assert (tmp_path / "submission.csv").read_bytes() == (tmp_path / "train_rles.csv").read_bytes()


def test_an_empty_slice_is_written_as_one_run_of_length_0(tmp_path):
    predict(tmp_path / "out", "k", np.zeros((WIDTH, HEIGHT, 2)))
    run("export", "rle", tmp_path / "out", "-o", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "id,rle\nk_0000,1 0\nk_0001,1 0\n"


def test_slice_numbers_come_from_the_file_names_of_the_images(tmp_path):
    slices(tmp_path / "data/test/kidney_5/images", range(496, 496 + DEPTH))
    predict(tmp_path / "out", "kidney_5", random_labels())
    run("export", "rle", tmp_path / "out", "-o", tmp_path / "a.csv", "--dataset-dir", tmp_path / "data")
    ids = [row["id"] for row in read_rle_csv(tmp_path / "a.csv")]
    assert ids == [f"kidney_5_{number:04d}" for number in range(496, 496 + DEPTH)]


def test_slice_numbers_come_from_a_prepared_folder_too(tmp_path):
    slices(tmp_path / "data/k/images", range(3, 3 + DEPTH))
    item = {"image": "k/images", "label": "k/images", "case": "k", "group": "k", "fold": 0}
    other = {"image": "t/images", "case": "t", "group": "t"}
    write_datalist(tmp_path / "data/datalist.json", Datalist("x", [item], [other]))
    predict(tmp_path / "out", "k", random_labels())
    run("export", "rle", tmp_path / "out", "-o", tmp_path / "a.csv", "--dataset-dir", tmp_path / "data")
    assert read_rle_csv(tmp_path / "a.csv")[0]["id"] == "k_0003"


def test_an_existing_csv_is_replaced_only_when_asked(tmp_path, capsys):
    predict(tmp_path / "out", "k", random_labels())
    (tmp_path / "a.csv").write_text("mine")
    assert run("export", "rle", tmp_path / "out", "-o", tmp_path / "a.csv") == 1
    assert (tmp_path / "a.csv").read_text() == "mine"
    assert run("export", "rle", tmp_path / "out", "-o", tmp_path / "a.csv", "--overwrite") == 0
    assert capsys.readouterr().out.endswith("1 case\n")


def test_a_folder_without_predictions_is_refused(tmp_path, capsys):
    assert run("export", "rle", tmp_path, "-o", tmp_path / "a.csv") == 1
    assert "expected predictions <case>/<case>_seg.nii.gz, got none" in capsys.readouterr().err
    assert run("export", "rle", tmp_path / "none", "-o", tmp_path / "a.csv") == 1
    assert "none: expected a folder of predictions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "dtype", "message"),
    [
        (
            np.full((3, 4, 2), 2),
            np.uint8,
            "expected the labels 0 and 1, which this CSV can hold, got values from 2",
        ),
        (np.full((3, 4, 2), -1), np.int16, "got values from -1"),
        (np.zeros((3, 4, 2)), np.float32, "whole numbers, got shape (3, 4, 2) of float32"),
        (
            np.zeros((3, 4, 2, 2)),
            np.uint8,
            "k_seg.nii.gz: expected one volume of three axes, got [3, 4, 2, 2]",
        ),
    ],
    ids=["three classes", "negative", "probabilities", "4D"],
)
def test_a_prediction_that_is_no_binary_volume_is_refused(tmp_path, capsys, labels, dtype, message):
    predict(tmp_path / "out", "k", labels, dtype)
    assert run("export", "rle", tmp_path / "out", "-o", tmp_path / "a.csv") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("kept", [0, 40, -40], ids=["empty", "header", "tail"])
def test_a_damaged_prediction_is_refused_by_name(tmp_path, capsys, kept):
    predict(tmp_path / "out", "k", random_labels())
    path = tmp_path / "out/k/k_seg.nii.gz"
    path.write_bytes(path.read_bytes()[:kept])
    assert run("export", "rle", tmp_path / "out", "-o", tmp_path / "a.csv") == 1
    assert "k_seg.nii.gz: expected" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_a_prediction_of_another_data_set_is_refused(tmp_path, capsys):
    slices(tmp_path / "data/k/images", range(DEPTH + 1))
    predict(tmp_path / "out", "k", random_labels())
    words = ["export", "rle", tmp_path / "out", "-o", tmp_path / "a.csv", "--dataset-dir", tmp_path / "data"]
    assert run(*words) == 1
    assert "expected the 6 slices of its image, got 5; check --dataset-dir" in capsys.readouterr().err
    predict(tmp_path / "out", "a", random_labels())
    assert run(*words) == 1
    assert "expected the case 'a' of the predictions, got none" in capsys.readouterr().err
