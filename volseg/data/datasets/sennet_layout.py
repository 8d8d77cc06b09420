"""Where the SenNet + HOA challenge puts images, labels and run lengths, in every way it is unpacked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from volseg.checks import InputError, nearest, refuse
from volseg.data.datasets.stack_check import StackFindings
from volseg.data.rle import read_rle_csv

__all__ = ["KIDNEY", "KidneyCase", "find_kidneys"]

KIDNEY = re.compile(r"kidney_[0-9]+")
"""Start of a case name that names the organ; all cases of one organ are one group."""


@dataclass
class KidneyCase:
    """One image stack with the labels that belong to it.

    Attributes:
        name: of the case, as in the challenge's ids.
        group: what must stay in one fold, normally the organ.
        images: folder of the slices; None where there are only labels.
        label_folder: folder of label slices, if there is one.
        run_lengths: slice number to run lengths, used without a label folder.
        is_test: whether it lies below `test`.
        borrows_images: whether the images belong to another case and labels may cover a part of them.
        findings: what the check of the slices found.
    """

    name: str
    group: str
    images: Path | None
    label_folder: Path | None = None
    run_lengths: dict[int, str] = field(default_factory=dict)
    is_test: bool = False
    borrows_images: bool = False
    findings: StackFindings = field(default_factory=StackFindings)

    @property
    def is_labelled(self) -> bool:
        """Whether there are labels in either form."""
        return self.label_folder is not None or bool(self.run_lengths)


def find_kidneys(folder: Path) -> tuple[list[KidneyCase], list[str]]:
    """Find every case below a folder.

    Returns:
        The cases, training before test, and what is wrong with the lists beside them.

    Raises:
        InputError: when there is no case at all.
    """
    base = _base_of(folder)
    if base is None:
        expected = "kidney folders with images and labels, or one such pair"
        refuse(folder, expected, "none", "give the folder that holds train/ or kidney_1_dense/")
    run_lengths, faults = _read_run_lengths(base)
    places = {base.name: base} if _is_case(base) else {}
    if not places:
        places = {child.name: child for parent in (base, base / "train") for child in _case_folders(parent)}
    for name in run_lengths:
        places.setdefault(name, base / name)
    cases = [_case_at(name, place, places, run_lengths) for name, place in sorted(places.items())]
    for child in _case_folders(base / "test"):
        if child.name in places:
            faults.append(f"{child}: expected a name that no training case has; rename it")
            continue
        cases.append(replace(_case_at(child.name, child, {}, {}), is_test=True))
    faults += _regroup(cases, base)
    return cases, faults


def _base_of(folder: Path) -> Path | None:
    """The folder itself or one in which the download is nested: it holds cases, or `train` with cases."""
    candidates = [folder]
    for _ in range(3):
        for place in candidates:
            is_base = _is_case(place) or (place / "train_rles.csv").is_file()
            if is_base or any(_case_folders(place / part) for part in ("", "train", "test")):
                return place
        candidates = [child for place in candidates for child in _subfolders(place)]
    return None


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _is_case(folder: Path) -> bool:
    # a folder labels that holds folders is what a former run decoded, not a case
    labels = folder / "labels"
    has_labels = labels.is_dir() and (KIDNEY.match(folder.name) or any(map(Path.is_file, labels.iterdir())))
    return (folder / "images").is_dir() or bool(has_labels)


def _case_folders(folder: Path) -> list[Path]:
    return [child for child in _subfolders(folder) if _is_case(child)]


def _case_at(
    name: str, place: Path, places: Mapping[str, Path], run_lengths: Mapping[str, dict[int, str]]
) -> KidneyCase:
    kidney = KIDNEY.match(name)
    case = KidneyCase(name, group=kidney.group() if kidney else name, images=None)
    if (place / "images").is_dir():
        case.images = place / "images"
    elif name.endswith("_dense"):
        # kidney_3_dense: a better labelling of some slices of the images in kidney_3_sparse
        sibling = places.get(name.removesuffix("_dense") + "_sparse", place)
        case.images = sibling / "images" if (sibling / "images").is_dir() else None
        case.borrows_images = True
    if (place / "labels").is_dir():
        case.label_folder = place / "labels"
    else:
        case.run_lengths = run_lengths.get(name, {})
    return case


def _read_run_lengths(base: Path) -> tuple[dict[str, dict[int, str]], list[str]]:
    """Case to slice number to run lengths, from `train_rles.csv`."""
    found: dict[str, dict[int, str]] = {}
    faults = []
    for path in (base / "train_rles.csv", base / "train" / "train_rles.csv"):
        if not path.is_file():
            continue
        try:
            rows = read_rle_csv(path)
        except InputError as error:
            faults.append(str(error))
            continue
        for row in rows:
            name, _, number = row["id"].rpartition("_")
            if name and "/" not in name and name not in (".", "..") and number.isascii() and number.isdigit():
                found.setdefault(name, {})[int(number)] = row["rle"]
            else:
                faults.append(
                    f"{path}: expected ids like kidney_1_dense_0000, got {row['id'][:60]!r}; correct it"
                )
    return found, faults


def _regroup(cases: Sequence[KidneyCase], base: Path) -> list[str]:
    """Apply `groups.json`, an object of case name to group name."""
    path = base / "groups.json"
    if not path.is_file():
        return []
    try:
        groups = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return [f"{path}: expected a JSON object of case to group, got {error}; correct it"]
    if not isinstance(groups, dict) or not all(isinstance(group, str) and group for group in groups.values()):
        return [f"{path}: expected a JSON object of case name to group name; correct it"]
    names = [case.name for case in cases]
    for case in cases:
        case.group = groups.get(case.name, case.group)
    return [f"{path}: no case {name!r}; {nearest(name, names)}" for name in groups if name not in names]
