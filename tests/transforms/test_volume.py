from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor

from volseg.transforms.volume import bare_array, name_of, replaced_array, slabs


def test_a_bare_array_shares_its_memory() -> None:
    tensor = torch.zeros(1, 2, 3, 4, dtype=torch.uint16)
    for volume in (tensor, MetaTensor(tensor), tensor.numpy()):
        array = bare_array(volume)
        assert array.dtype == np.uint16
        assert np.shares_memory(array, tensor.numpy())


def test_a_replaced_array_keeps_name_and_place_without_sharing_them() -> None:
    source = MetaTensor(
        torch.zeros(1, 2, 3, 4), meta={"affine": torch.eye(4) * 2, "filename_or_obj": "a.nii"}
    )
    new = replaced_array(source, np.ones((1, 2, 3, 4), np.uint8))
    assert isinstance(new, MetaTensor)
    assert torch.equal(new.affine, source.affine)
    assert new.meta["filename_or_obj"] == "a.nii"
    new.affine[0, 3] = 9
    assert float(source.affine[0, 3]) == 0
    moved = replaced_array(source, np.ones((1, 2, 3, 4)), affine=np.eye(4))
    assert torch.equal(moved.affine, torch.eye(4, dtype=torch.float64))
    assert type(replaced_array(np.zeros(3), np.ones(3))) is torch.Tensor


def test_a_volume_is_named_by_file_then_case_then_key() -> None:
    named = MetaTensor(torch.zeros(1), meta={"filename_or_obj": "a.nii"})
    listed = MetaTensor(torch.zeros(1), meta={"filename_or_obj": ["0000.tif", "0001.tif"]})
    assert name_of({"image": named, "case": "one"}, "image") == "a.nii"
    assert name_of({"image": listed}, "image") == "0000.tif"
    assert name_of({"image": torch.zeros(1), "case": "one"}, "image") == "one (image)"
    assert name_of({}, "label") == "a case (label)"


def test_slabs_cover_a_volume_once(monkeypatch) -> None:
    monkeypatch.setattr("volseg.transforms.volume.SLAB_VOXELS", 50)
    array = np.arange(2 * 7 * 3 * 5).reshape(2, 7, 3, 5)
    parts = list(slabs(array))
    assert len(parts) == 7
    assert np.array_equal(np.concatenate([part for _, part in parts], axis=1), array)
    assert all(np.array_equal(array[:, rows], part) for rows, part in parts)
