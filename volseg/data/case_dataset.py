"""Cases as a data set in which one unreadable case costs one case, and a check of all headers beforehand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from functools import partial
from typing import Any, get_args

import nibabel as nib
import numpy as np
import torch
from monai.data import list_data_collate
from torch.utils.data import Dataset, Sampler

from volseg.checks import InputError, check_choice, refuse
from volseg.data.hashes import check_hashes
from volseg.data.slice_folder import Gaps
from volseg.data.volume_reader import read_numbered_header
from volseg.geometry import Geometry

__all__ = ["CaseDataset", "CaseSampler", "check_cases", "collate_cases", "root_cause"]

_LONGEST_REASON = 300
_MOST_FAULTS = 5
_VOXEL_TOLERANCE = 0.1  # of a voxel, between the corners of an image and its label


class CaseDataset(Dataset[dict[str, Any]]):
    """Cases whose reading may fail one by one; MONAI's Dataset ends the run at the first unreadable file.

    An item is what `transform` makes of the case, with its name under "case" and without keys that hold None.
    A case that fails becomes `{"case": name, "failure": reason, "failure_stage": "read"}`.

    Args:
        data: case items.
        transform: called with a copy of the case item, returns a dictionary.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable[[Any], Any]) -> None:
        self.data = list(data)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = self.data[index]
        try:
            sample = self.transform(copy.deepcopy(dict(case)))
            if not isinstance(sample, Mapping):
                raise TypeError(f"transform must return one dictionary per case, got {type(sample).__name__}")
        except Exception as error:  # whatever is wrong with one case, the others are still to be delivered
            return _failure(case["case"], error)
        kept = {key: value for key, value in sample.items() if value is not None}
        return {**kept, "case": case["case"]}


class CaseSampler(Sampler[int]):
    """Give each rank of `torch.distributed` every N-th case, each case once; all of them to a single process.

    PyTorch's sampler repeats some cases to even the ranks out, which changes a mean; MONAI's refuses fewer
    cases than ranks, and its engines hang where a rank has none. Here, with fewer cases than ranks, every
    rank takes all cases: each then counts equally often, and the mean is that of one process.

    Args:
        data: what is sampled; only its length is used.
    """

    def __init__(self, data: Sized) -> None:
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if is_distributed else 0
        ranks = torch.distributed.get_world_size() if is_distributed else 1
        self.indices = range(rank, len(data), ranks) if len(data) >= ranks else range(len(data))

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank's cases."""
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def collate_cases(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a batch of exactly one case: tensors get a batch axis, strings a list around them.

    MetaTensors keep their meta data and applied operations. What cannot be collated becomes a failed case.

    Raises:
        ValueError: when the batch holds another number of cases; volumes differ in size.
    """
    if len(batch) != 1:
        raise ValueError(f"a batch must hold one case, got {len(batch)}; use batch_size=1")
    sample = dict(batch[0])
    try:
        return list_data_collate([sample])
    except Exception as error:  # see CaseDataset
        return list_data_collate([_failure(sample["case"], error)])


def check_cases(cases: Sequence[Mapping[str, Any]], *, spatial_dims: int = 3, gaps: Gaps = "refuse") -> None:
    """Look at the headers of all images and labels before the work begins.

    A label must cover the same place as its image, in any orientation. Where either states no spacing, or the
    label holds a range of the slices only, its size is checked but not its place. A label and a field of view
    of a picture must have its rows and columns. Files must still have the hashes that the datalist states.

    Args:
        cases: case items.
        spatial_dims: 3 for volumes, 2 for pictures.
        gaps: with "keep", numbers may be missing in slice folders, a label may have some slices of its image
            only (see `volseg.transforms.MatchSlicesd`), and `labelled_range` counts on the grid from the
            first to the last number.

    Raises:
        InputError: one for all cases, with the first five faults.
        ValueError: when `spatial_dims` is neither 2 nor 3, or `gaps` is unknown.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}; use 3 for a volume")
    check_choice("gaps", gaps, get_args(Gaps))
    check_case = partial(_check_case, gaps=gaps) if spatial_dims == 3 else _check_picture
    if not cases:
        raise InputError("cases: expected at least one case, got none; check dataset_dir and the datalist")
    faults = []
    for case in cases:
        try:
            check_case(case)
        except Exception as error:  # the reader's own faults must name the case as well
            faults.append(f"  {case['case']}: {root_cause(error)}")
    if faults:
        more = f"; the first {_MOST_FAULTS}:" if len(faults) > _MOST_FAULTS else ":"
        head = f"{len(faults)} of {len(cases)} cases cannot be used{more}"
        raise InputError("\n".join([head, *faults[:_MOST_FAULTS]]))
    check_hashes(cases)


def root_cause(error: BaseException) -> str:
    """Word an error in one line of at most 300 characters: the refusal or the first cause below all wrappers.

    Example:
        >>> try:
        ...     try:
        ...         raise InputError("a.tif: expected grey, got RGB; convert it")
        ...     except InputError as inner:
        ...         raise RuntimeError("applying transform LoadImaged") from inner
        ... except RuntimeError as outer:
        ...     root_cause(outer)
        'a.tif: expected grey, got RGB; convert it'
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    refusals = [link for link in chain if isinstance(link, InputError)]
    root = refusals[-1] if refusals else chain[-1]
    message = " ".join(str(root).split())
    if not isinstance(root, InputError):
        message = f"{type(root).__name__}: {message}" if message else type(root).__name__
    return message if len(message) <= _LONGEST_REASON else message[: _LONGEST_REASON - 3] + "..."


def _failure(name: str, error: BaseException) -> dict[str, Any]:
    return {"case": name, "failure": root_cause(error), "failure_stage": "read"}


def _check_case(case: Mapping[str, Any], gaps: Gaps) -> None:
    spacing_mm = case.get("spacing_mm")
    image, numbers = read_numbered_header(case["image"], spacing_mm=spacing_mm, gaps=gaps)
    if case.get("label") is None:
        return
    label, label_numbers = read_numbered_header(case["label"], spacing_mm=spacing_mm, gaps=gaps)
    labelled = case.get("labelled_range")
    if labelled is not None:
        first, end = labelled
        depth = image.shape[2] if numbers is None else numbers[-1] - numbers[0] + 1
        if not 0 <= first < end <= depth:
            refuse("labelled_range", f"slices within 0 and {depth}", labelled, "correct the datalist")
        if label.shape == (*image.shape[:2], end - first):
            return
    if gaps == "keep" and numbers is not None and label_numbers is not None:
        _check_numbers(case, numbers, label_numbers)
        if label.shape[2] < image.shape[2] and label.shape[:2] == image.shape[:2]:
            return
    fault = _misplacement(image, label)
    if fault:
        raise InputError(f"{case['label']}: expected {fault}; use the label that was drawn on this image")


def _check_numbers(case: Mapping[str, Any], images: Sequence[int], labels: Sequence[int]) -> None:
    offset = case.get("label_offset", 0)
    stranger = next((number for number in labels if number - offset not in set(images)), None)
    if stranger is not None:
        expected = f"image slice {stranger - offset} for label slice {stranger}"
        refuse(case["label"], expected, "none", "add the image or remove the label")


def _check_picture(case: Mapping[str, Any]) -> None:
    from volseg.data import picture_geometry

    columns, rows, _ = picture_geometry(case["image"], spacing_mm=case.get("spacing_mm")).shape
    for key in ("label", "field_of_view"):
        if case.get(key) is None:
            continue
        width, height, _ = picture_geometry(case[key]).shape
        if (width, height) != (columns, rows):
            is_turned = (height, width) == (columns, rows)
            what = key.replace("_", " ")
            remedy = f"a {what} must not be transposed" if is_turned else f"use the {what} of this image"
            got = f"{height} rows of {width}"
            refuse(case[key], f"the size of its image, {rows} rows of {columns} pixels", got, remedy)


def _misplacement(image: Geometry, label: Geometry) -> str:
    """Say how a label's grid differs from its image's, or nothing when it is the same up to orientation."""
    if not (image.spacing_is_known and label.spacing_is_known) or len(image.shape) != 3:
        same = label.shape == image.shape
        return "" if same else f"the size of its image, {image.shape}, got {label.shape}"
    turn = nib.orientations.ornt_transform(nib.io_orientation(label.affine), nib.io_orientation(image.affine))
    shape = tuple(label.shape[int(np.flatnonzero(turn[:, 0] == axis)[0])] for axis in range(3))
    if shape != image.shape:
        return f"the size of its image, {image.shape}, got {label.shape}"
    affine = label.affine @ nib.orientations.inv_ornt_aff(turn, label.shape)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(image.shape) - 1)
    difference = (affine - image.affine) @ np.c_[corners, np.ones(8)].T
    distance_mm = float(np.linalg.norm(difference[:3], axis=0).max())
    if distance_mm <= _VOXEL_TOLERANCE * min(image.spacing_mm):
        return ""
    return f"the place of its image, got one up to {distance_mm:.3g} mm away"
