"""One unreadable case costs one case, and headers tell before the work."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor, decollate_batch
from monai.transforms import Compose, EnsureChannelFirstd, Flipd, LoadImaged
from PIL import Image

from volseg.checks import InputError
from volseg.data import read_header
from volseg.data.case_dataset import CaseDataset, check_cases, collate_cases, root_cause

SHAPE = (5, 7, 3)
AFFINE = np.diag([-0.5, -0.5, 2.0, 1.0])


def save(path, shape=SHAPE, affine=AFFINE):
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), affine), path)
    return str(path)


def nested(*errors):
    """Raise the first error from the second, that from the third, and so on."""
    error = errors[0]
    for link, cause in itertools.pairwise(errors):
        link.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (nested(RuntimeError("applying transform"), InputError("a: bad")), "a: bad"),
        (nested(RuntimeError("x"), InputError("a: bad"), OSError(5, "io")), "a: bad"),
        (nested(RuntimeError("x"), KeyError("image")), "KeyError: 'image'"),
        (MemoryError(), "MemoryError"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
    ],
)
def test_the_reason_is_the_refusal_or_the_first_cause_in_one_line(error, told):
    assert root_cause(error) == told


def test_a_long_reason_is_cut():
    reason = root_cause(ValueError("x" * 1000))
    assert (len(reason), reason[-3:]) == (300, "...")


def test_a_chain_that_loops_ends():
    error = ValueError("a")
    error.__cause__ = KeyError("b")
    error.__cause__.__cause__ = error
    assert root_cause(error) == "KeyError: 'b'"


def transform(item):
    if item["case"] == "bad":
        raise RuntimeError("applying transform") from InputError("bad.nii: expected x, got y; do z")
    item["spacing_mm"].append(9)
    return {"image": torch.ones(1, 2, 3), "label": None, "nested": item["spacing_mm"]}


def test_a_case_that_fails_becomes_a_reason_and_the_others_stay():
    cases = [{"case": name, "spacing_mm": [1.0]} for name in ("a", "bad", "c")]
    items = list(DataLoader(CaseDataset(cases, transform), batch_size=1, collate_fn=collate_cases))
    assert items[1] == {
        "case": ["bad"],
        "failure": ["bad.nii: expected x, got y; do z"],
        "failure_stage": ["read"],
    }
    assert [item["case"] for item in items] == [["a"], ["bad"], ["c"]]
    assert items[2]["image"].shape == (1, 1, 2, 3)


def test_reading_a_case_does_not_change_its_item():
    data = CaseDataset([{"case": "a", "spacing_mm": [1.0]}], transform)
    assert len(data) == 1
    first, second = data[0], data[0]
    assert first["nested"] == second["nested"] == [1.0, 9]
    assert "label" not in first


def test_a_transform_that_returns_no_dictionary_fails_the_case():
    assert (
        "must return one dictionary per case, got list"
        in CaseDataset([{"case": "a"}], lambda _: [])[0]["failure"]
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_failure_of_a_case(error):
    def interrupt(item):
        raise error

    with pytest.raises(error):
        CaseDataset([{"case": "a"}], interrupt)[0]


def test_a_batch_holds_one_case():
    with pytest.raises(ValueError, match="must hold one case, got 2; use batch_size=1"):
        collate_cases([{"case": "a"}, {"case": "b"}])


def test_what_cannot_be_collated_fails_alone():
    assert collate_cases([{"case": "a", "image": object()}])["failure_stage"] == ["read"]


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")  # LoadImage tries all its readers
@pytest.mark.parametrize("workers", [0, 1])
def test_meta_data_and_applied_operations_outlive_the_batch(tmp_path, workers):
    item = {"case": "a", "image": save(tmp_path / "a.nii.gz")}
    chain = Compose(
        [
            LoadImaged("image", reader="volseg.data.VolumeReader"),
            EnsureChannelFirstd("image"),
            Flipd("image", spatial_axis=0),
        ]
    )
    loader = DataLoader(
        CaseDataset([item], chain), batch_size=1, collate_fn=collate_cases, num_workers=workers
    )
    batch = next(iter(loader))
    assert isinstance(batch["image"], MetaTensor)
    assert batch["image"].shape == (1, 1, *SHAPE)
    one = decollate_batch(batch)[0]
    assert one["case"] == "a"
    restored = chain.transforms[2].inverse(one)["image"]
    assert np.allclose(restored.affine, read_header(item["image"]).affine)


def test_headers_that_fit_are_accepted(tmp_path):
    image = save(tmp_path / "image.nii.gz")
    turned = nib.as_closest_canonical(nib.load(image))
    nib.save(turned, tmp_path / "turned.nii.gz")
    permuted = nib.Nifti1Image(
        np.ones((3, 5, 7), np.uint8),
        AFFINE @ np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    )
    nib.save(permuted, tmp_path / "permuted.nii.gz")
    labels = [image, str(tmp_path / "turned.nii.gz"), str(tmp_path / "permuted.nii.gz"), None]
    check_cases([{"case": str(k), "image": image, "label": label} for k, label in enumerate(labels)])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shape": (7, 5, 3)}, r"expected the size of its image, \(5, 7, 3\), got \(7, 5, 3\)"),
        ({"affine": AFFINE}, None),
        ({"affine": np.array([[-0.5, 0, 0, 40], [0, -0.5, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])}, "40 mm away"),
        ({"affine": np.diag([0.5, -0.5, 2.0, 1.0])}, "mm away"),
        ({"affine": np.diag([-0.5, -0.5, 2.5, 1.0])}, "up to 1 mm away"),
    ],
    ids=["size", "same", "shifted", "mirrored", "spacing"],
)
def test_a_label_elsewhere_is_refused(tmp_path, options, told):
    case = {
        "case": "k1",
        "image": save(tmp_path / "image.nii.gz"),
        "label": save(tmp_path / "label.nii.gz", **options),
    }
    if told is None:
        check_cases([case])
        return
    with pytest.raises(InputError, match=told) as refused:
        check_cases([case])
    assert str(refused.value).splitlines()[0] == "1 of 1 cases cannot be used:"
    assert "k1: " in str(refused.value)


def test_a_label_may_hold_its_labelled_slices_only(tmp_path):
    case = {
        "case": "k1",
        "image": save(tmp_path / "image.nii.gz", (5, 7, 9)),
        "label": save(tmp_path / "label.nii.gz", (5, 7, 4)),
    }
    check_cases([{**case, "labelled_range": [2, 6]}])
    with pytest.raises(InputError, match="size of its image"):
        check_cases([{**case, "labelled_range": [2, 7]}])
    with pytest.raises(InputError, match=r"labelled_range: expected slices within 0 and 9, got \[2, 12\]"):
        check_cases([{**case, "labelled_range": [2, 12]}])


def test_all_faults_are_told_at_once_and_at_most_five(tmp_path):
    cases = [{"case": f"k{number}", "image": str(tmp_path / f"{number}.nii.gz")} for number in range(8)]
    save(tmp_path / "0.nii.gz")
    with pytest.raises(InputError) as refused:
        check_cases(cases)
    lines = str(refused.value).splitlines()
    assert lines[0] == "7 of 8 cases cannot be used; the first 5:"
    assert [line.split(":")[0] for line in lines[1:]] == ["  k1", "  k2", "  k3", "  k4", "  k5"]


def test_no_case_at_all_is_refused():
    with pytest.raises(InputError, match="expected at least one case, got none"):
        check_cases([])


def picture(path, shape, mode="RGB"):
    Image.new(mode, shape[::-1]).save(path)
    return str(path)


def test_headers_of_pictures_are_checked_in_2d(tmp_path):
    case = {"case": "01", "image": picture(tmp_path / "i.png", (7, 5)), "spacing_mm": [0.5, 0.25]}
    case |= {
        "label": picture(tmp_path / "l.gif", (7, 5), "L"),
        "field_of_view": picture(tmp_path / "f.png", (7, 5)),
    }
    check_cases([case, {**case, "label": None}], spatial_dims=2)
    turned = {**case, "label": picture(tmp_path / "t.png", (5, 7), "1")}
    expected = (
        r"t\.png: expected the size of its image, 7 rows of 5 pixels, got 5 rows of 7; a label must not be t"
    )
    with pytest.raises(InputError, match=expected):
        check_cases([turned], spatial_dims=2)
    other = {**case, "field_of_view": picture(tmp_path / "o.png", (7, 6))}
    with pytest.raises(InputError, match="got 7 rows of 6; use the field of view of this image"):
        check_cases([other], spatial_dims=2)
    with pytest.raises(InputError, match=r"01: .*lost\.png: expected a file"):
        check_cases([{**case, "image": str(tmp_path / "lost.png")}], spatial_dims=2)


def test_other_dimensions_are_told():
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 1"):
        check_cases([{}], spatial_dims=1)


def sparse(folder, images, labels, label_size=(4, 3), **keys):
    for name, numbers, size in (("images", images, (4, 3)), ("labels", labels, label_size)):
        (folder / name).mkdir(parents=True)
        for number in numbers:
            Image.new("L", size).save(folder / name / f"{number:03d}.png")
    return {"case": "eye", "image": str(folder / "images"), "label": str(folder / "labels"), **keys}


@pytest.mark.parametrize(
    ("images", "labels", "keys"),
    [
        (range(20), [3, 8, 12], {}),
        ([3, 8, 12], [3, 8, 12], {}),
        ([3, 8, 12], [4, 9, 13], {"label_offset": 1}),
        ([3, 8, 12], [3, 8, 12], {"labelled_range": [0, 10]}),
    ],
    ids=["some labelled", "all labelled", "numbered otherwise", "a range of the grid"],
)
def test_slices_that_are_missing_are_accepted_where_gaps_are_kept(tmp_path, images, labels, keys):
    case = sparse(tmp_path, images, labels, **keys)
    check_cases([case], gaps="keep")
    with pytest.raises(InputError, match="1 of 1 cases cannot be used"):
        check_cases([case])


@pytest.mark.parametrize(
    ("labels", "keys", "told"),
    [
        ([3, 9], {}, "expected image slice 9 for label slice 9, got none"),
        ([3, 8], {"label_offset": 1}, "expected image slice 2 for label slice 3, got none"),
        ([3, 8], {"label_size": (3, 4)}, r"expected the size of its image, \(4, 3, 3\), got \(3, 4, 2\)"),
        ([3, 8], {"labelled_range": [0, 11]}, "slices within 0 and 10"),
    ],
    ids=["no image", "wrong offset", "transposed", "beyond the grid"],
)
def test_labels_that_do_not_fit_are_refused_where_gaps_are_kept(tmp_path, labels, keys, told):
    with pytest.raises(InputError, match=told):
        check_cases([sparse(tmp_path, [3, 8, 12], labels, **keys)], gaps="keep")
