"""Which prediction belongs to which truth: masks listed on both sides, matched by name, none left out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from volseg.checks import refuse
from volseg.data.datalist import DATALIST_NAME, load_cases, read_datalist
from volseg.data.itk_formats import ITK_SUFFIXES
from volseg.data.raster import RASTER_SUFFIXES
from volseg.files import safe_name

__all__ = ["MASK_ENDINGS", "MaskPair", "Matching", "detection_path", "match_masks", "probability_path"]

MASK_ENDINGS = (
    *("_seg", "_pred", "_mask", "_masks", "_label", "_labels", "_gt", "_segmentation", "_labelMark"),
    *("_manual1", "_manual2", "_1stHO", "_2ndHO", "_training", "_test"),
)
"""Endings of names; one is taken off when all names of a side have it."""

_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img", *ITK_SUFFIXES, *RASTER_SUFFIXES)
_MASK_FOLDERS = ("labels", "label", "masks", "mask", "label_images", "labelsTr", "labelsTs", "1st_manual")
_SIDE_MAPS = ("_prob", "_disagreement")
_SHOWN = 5

Section = Literal["training", "validation", "test", "all"]


@dataclass(frozen=True)
class MaskPair:
    """One case: its files, before any of them is opened.

    Attributes:
        case: name that both sides share.
        pred: file or folder of slices.
        truth: likewise.
        group: what is resampled together; the case itself without groups.
        other: prediction of the second folder, or None.
        view: field of view, or None.
        spacing_mm: edge lengths that a datalist states, or None.
        labelled_range: first and end slice of the image that the truth labels, or None.
        label_rule: how the truth's values or colours become classes as a datalist states it, or None.
        image: as a datalist states it, or None; the names of its slices tell their numbers.
        label_offset: what the number of a slice of the truth is above that of its image.
    """

    case: str
    pred: Path
    truth: Path
    group: str
    other: Path | None = None
    view: Path | None = None
    spacing_mm: tuple[float, ...] | None = None
    labelled_range: tuple[int, int] | None = None
    label_rule: str | Mapping[str, int] | None = None
    image: Path | None = None
    label_offset: int = 0


@dataclass(frozen=True)
class Matching:
    """All pairs of two sides.

    Attributes:
        pairs: in natural order of the names.
        classes: index to name as the truth's datalist states them; empty without one.
        has_groups: whether a datalist or the caller named groups.
    """

    pairs: list[MaskPair]
    classes: dict[int, str]
    has_groups: bool


@dataclass(frozen=True)
class _Side:
    place: Path
    masks: dict[str, Path]
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: dict[int, str] = field(default_factory=dict)
    is_one_volume: bool = False


def match_masks(
    pred: str | Path,
    truth: str | Path,
    *,
    other: str | Path | None = None,
    view: str | Path | None = None,
    groups: Mapping[str, str] | str | None = None,
    section: Section | None = None,
    as_volumes: bool = False,
) -> Matching:
    """Pair the masks of two places.

    Args:
        pred: folder of predictions, or one file; of a prepared folder or its datalist the labels, as those
            of a second observer.
        truth: folder of masks, prepared folder or its datalist, or one file.
        other: second place of predictions, of the same cases.
        view: folder of field-of-view masks of the same cases.
        groups: case to group, or a regular expression whose first bracket finds the group in the name.
        section: of the datalists; None is the test section where that has labels, else every labelled case.
        as_volumes: the pictures that lie in `pred` or `truth` itself are the slices of one volume.

    Raises:
        InputError: when a case is missing or too many on any side, named twice, or without a group.
    """
    as_volumes = as_volumes or any(_is_mask_file(Path(place)) for place in (pred, truth))
    truths = _truth_side(Path(truth), section, as_volumes)
    preds = _named_alike(_pred_side(Path(pred), section, as_volumes), truths)
    found, names = _joined(preds, truths, "prediction")
    others = None if other is None else _pred_side(Path(other), section, as_volumes)
    views = None if view is None else _folder_side(Path(view), as_volumes)
    more = {
        key: {} if side is None else _joined_to(side, found, truths)
        for key, side in (("other", others), ("view", views))
    }
    grouping = _groups(groups, list(found), {case: truths.items.get(names[case], {}) for case in found})
    pairs = [
        MaskPair(
            case,
            *found[case],
            group=grouping.get(case, case),
            other=more["other"].get(case),
            view=more["view"].get(case),
            **_stated(truths.items.get(names[case], {})),
        )
        for case in sorted(found, key=_natural)
    ]
    return Matching(pairs, truths.classes, bool(grouping))


def probability_path(pred: Path) -> Path:
    """Name the probability map that inference writes beside a prediction.

    Example:
        >>> str(probability_path(Path("a/a_seg.nii.gz")))
        'a/a_prob.nii.gz'
    """
    return pred.with_name(_stem(pred).removesuffix("_seg") + "_prob.nii.gz")


def detection_path(pred: Path) -> Path:
    """Name the table of slices that inference writes beside a prediction.

    Example:
        >>> str(detection_path(Path("a/a_seg.nii.gz")))
        'a/a_detection.csv'
    """
    return pred.with_name(_stem(pred).removesuffix("_seg") + "_detection.csv")


def _pred_side(place: Path, section: Section | None, as_volumes: bool) -> _Side:
    if _datalist_of(place) is None:
        return _folder_side(place, as_volumes)
    side = _truth_side(place, section, as_volumes)
    for item in side.items.values():
        if item.get("label_rule") is not None or item.get("labelled_range") is not None:
            expected = "masks of whole volumes, of 0 and 255 or class indices, as predictions"
            got = f"a label_rule or labelled_range of {item['case']}"
            refuse(place, expected, got, "swap the two sides, or score the folder of its masks")
    return side


def _datalist_of(place: Path) -> Path | None:
    listed = place / DATALIST_NAME if place.is_dir() else place
    return listed if listed.suffix == ".json" and listed.is_file() else None


def _truth_side(place: Path, section: Section | None, as_volumes: bool) -> _Side:
    listed = _datalist_of(place)
    if listed is None:
        if section is not None:
            refuse(place, f"a prepared folder, to take section {section!r} of", "no datalist", "drop section")
        return _folder_side(place, as_volumes)
    datalist = read_datalist(listed)
    chosen = section or ("test" if any("label" in item for item in datalist.test) else "all")
    cases = load_cases(listed.parent, chosen, datalist=listed.name, must_exist=("label",))
    items = [item for item in cases if "label" in item]
    if not items:
        refuse(listed, f"labels in section {chosen!r}", "none", "choose another section")
    masks = {safe_name(item["case"]): Path(item["label"]) for item in items}
    return _Side(place, masks, {safe_name(item["case"]): item for item in items}, dict(datalist.classes))


def _folder_side(place: Path, as_volumes: bool) -> _Side:
    if not place.exists():
        refuse(place, "a folder of masks or one file", "nothing there", "check the path")
    if not place.is_dir():
        if not _is_mask_file(place):
            refuse(place, f"one of {' '.join(_SUFFIXES)}", repr(place.suffix), "convert it, or give a folder")
        return _Side(place, {_stem(place): place}, is_one_volume=True)
    inner = [place / name for name in _MASK_FOLDERS if (place / name).is_dir()]
    if len(inner) > 1:
        refuse(place, "one folder of masks", " and ".join(path.name for path in inner), "give one of them")
    folder = inner[0] if inner else place
    files, folders = _listed(folder)
    if as_volumes and files and not folders and all(_is_raster(path) for path in files):
        return _Side(place, {folder.name: folder}, is_one_volume=True)
    found = [*files, *folders]
    if not found:
        refuse(place, f"masks ({' '.join(_SUFFIXES)}) or folders of slices", "none", "check the path")
    masks: dict[str, Path] = {}
    for path in found:
        name = path.name if path in folders else _stem(path)
        if name in masks:
            refuse(place, "one mask for each case", f"{masks[name].name} and {path.name}", "keep one of them")
        masks[name] = _mask_of_case(path) if path in folders else path
    return _Side(place, masks)


def _listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """Mask files and sub-folders, without hidden ones and without what inference writes beside a mask."""
    paths = [folder / name for name in sorted(os.listdir(folder), key=_natural) if name[0] not in "._"]
    files = [path for path in paths if not path.is_dir() and _is_mask_file(path)]
    names = {path.name for path in files}
    stems = {_stem(path) for path in files}

    def is_beside(path: Path) -> bool:
        stem = _stem(path)
        is_map = any(
            stem.endswith(ending) and f"{stem.removesuffix(ending)}_seg" in stems for ending in _SIDE_MAPS
        )
        is_second = path.name.endswith("_seg.png") and f"{stem}.nii.gz" in names
        return is_map or is_second or (path.suffix == ".img" and f"{stem}.hdr" in names)

    return [path for path in files if not is_beside(path)], [path for path in paths if path.is_dir()]


def _mask_of_case(folder: Path) -> Path:
    """Find the mask in the folder of one case."""
    files, folders = _listed(folder)
    written = [path for path in files if _stem(path).endswith("_seg")]
    inner = [path for path in folders if path.name in _MASK_FOLDERS]
    if len(written) == 1:
        return written[0]
    if len(inner) == 1 and not written:
        return inner[0]
    if files and all(_is_raster(path) for path in files) and not written:
        return folder
    if len(files) == 1:
        return files[0]
    got = f"{len(files)} mask files" if files else "none"
    refuse(folder, "one mask or the slices of one", got, "remove the folder, or what is too much in it")


def _named_alike(pred: _Side, truth: _Side) -> _Side:
    """Call the one volume of a side as the one of the other: two given paths need no common name."""
    is_alone = len(pred.masks) == len(truth.masks) == 1
    if not (is_alone and (pred.is_one_volume or truth.is_one_volume)):
        return pred
    return replace(pred, masks={next(iter(truth.masks)): next(iter(pred.masks.values()))})


def _joined(pred: _Side, truth: _Side, noun: str) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """Pair two sides by name; the endings taken off are those with which the names agree best."""
    tried = [(p, t) for p in _stripped(list(pred.masks)) for t in _stripped(list(truth.masks))]
    best = max(tried, key=lambda pair: len(pair[0].keys() & pair[1].keys()))
    left, right = best
    if right.keys() != left.keys():
        left, right = _by_group(left, right, truth)
    missing, extra = right.keys() - left.keys(), left.keys() - right.keys()
    if missing or extra:
        lost = f"none for {_few(missing)}" if missing else ""
        added = f"{_few(extra)} without a truth" if extra else ""
        got = "; ".join(part for part in (lost, added) if part)
        expected = f"one {noun} for each of the {len(right)} cases of {truth.place}"
        refuse(pred.place, expected, got, "add what is missing and remove what is too much, or rename it")
    pairs = {case: (pred.masks[left[case]], truth.masks[right[case]]) for case in right}
    return pairs, right


def _by_group(
    left: dict[str, str], right: dict[str, str], truth: _Side
) -> tuple[dict[str, str], dict[str, str]]:
    # both labelled parts of one volume are scored on the one prediction, which is called after their group
    for case, name in right.items():
        item = truth.items.get(name, {})
        group = safe_name(item["group"]) if item.get("same_volume") else None
        if case not in left and group in left:
            left = {**left, case: left[group]}
    used = {left[case] for case in right if case in left}
    return {case: name for case, name in left.items() if case in right or name not in used}, right


def _joined_to(side: _Side, found: Mapping[str, Any], truth: _Side) -> dict[str, Path]:
    cases = _Side(truth.place, {case: Path(case) for case in found}, is_one_volume=truth.is_one_volume)
    pairs, _ = _joined(_named_alike(side, cases), cases, "mask")
    return {case: pair[0] for case, pair in pairs.items()}


def _stripped(names: Sequence[str]) -> list[dict[str, str]]:
    """Names as they are, and without each ending that all of them share; each to the name it came from."""
    levels = [{name: name for name in names}]
    while True:
        last = levels[-1]
        ending = next((end for end in MASK_ENDINGS if all(name.endswith(end) for name in last)), None)
        if ending is None or any(name == ending for name in last):
            return levels
        levels.append({name.removesuffix(ending): origin for name, origin in last.items()})


def _groups(
    groups: Mapping[str, str] | str | None, cases: Sequence[str], items: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    if groups is None:
        return {case: str(item["group"]) for case, item in items.items() if "group" in item}
    if isinstance(groups, str):
        return {case: _group_in(case, groups) for case in cases}
    lost = [case for case in cases if case not in groups]
    if lost:
        refuse("groups", "a group for each case", f"none for {_few(lost)}", "add them to the list")
    return {case: str(groups[case]) for case in cases}


def _group_in(case: str, pattern: str) -> str:
    try:
        match = re.search(pattern, case)
    except re.error as error:
        refuse("groups", "a file or a regular expression", f"{pattern!r} ({error})", "correct it")
    if match is None or not match.re.groups or match[1] is None:
        remedy = "write one with a bracket, like '^([^_]+)'"
        refuse("groups", f"a bracket of {pattern!r} in every name", f"none in {case}", remedy)
    return match[1]


def _stated(item: Mapping[str, Any]) -> dict[str, Any]:
    stated = {key: tuple(item[key]) for key in ("spacing_mm", "labelled_range") if item.get(key) is not None}
    if len(stated.get("spacing_mm", ())) == 2:  # of a picture, which is one slice here
        stated["spacing_mm"] += (1.0,)
    stated |= {key: item[key] for key in ("label_rule", "label_offset") if item.get(key) is not None}
    return {**stated, "image": Path(item["image"])} if "image" in item else stated


def _few(names: Collection[str]) -> str:
    shown = sorted(names, key=_natural)[:_SHOWN]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _is_mask_file(path: Path) -> bool:
    return path.name.lower().endswith(_SUFFIXES) and not path.is_dir()


def _is_raster(path: Path) -> bool:
    return path.name.lower().endswith(RASTER_SUFFIXES)


def _stem(path: Path) -> str:
    ending = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(ending)] or path.name


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]
