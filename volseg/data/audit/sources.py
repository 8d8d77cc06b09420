"""What to audit: cases of a prepared folder, or pictures with their masks, and the side of the split."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from volseg.checks import refuse
from volseg.data.cases import find_cases
from volseg.data.datalist import DATALIST_NAME, CaseItem, load_cases, read_datalist
from volseg.data.raster import RASTER_SUFFIXES

__all__ = ["find_audit_cases"]

_SIDES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "label_images")
_LOSSY = (".jpg", ".jpeg")


def find_audit_cases(
    path: str | Path, *, volumes: bool = False, datalist: str = DATALIST_NAME
) -> list[CaseItem]:
    """List the cases at a path, each with the `side` of the split that it is on.

    A prepared folder gives all its cases: the side is the fold, "training" or "test". Any other folder gives
    its pictures; folders named train, val or test in it are sides. The mask of `a.png` is `a_mask.*` beside
    it, or `a.*` or `a_mask.*` in a folder named mask(s) or label(s) beside the folder of the pictures; its
    foreground is what is not 0, in a JPEG what is above 127.

    Args:
        path: folder or file.
        volumes: take the pictures of a folder as the slices of one volume.
        datalist: file name of the list in a prepared folder.

    Raises:
        InputError: when nothing is there, or the datalist is wrong.
    """
    folder = Path(os.path.abspath(path))
    if (folder / datalist).is_file():
        return _listed(folder, datalist)
    if datalist != DATALIST_NAME:
        refuse(folder, f"a {datalist}", "none", "check the name of the list")
    dimensions = 3 if volumes else 2
    sides = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    sides = [each for each in sides if each.name.lower() in _SIDES]
    if len(sides) < 2:
        return [_with_mask(item) for item in find_cases(folder, spatial_dims=dimensions)]
    return [
        {**_with_mask(item), "case": f"{side.name}/{item['case']}", "group": f"{side.name}/{item['group']}",
         "side": side.name}
        for side in sides
        for item in find_cases(side, spatial_dims=dimensions)
    ]  # fmt: skip


def _listed(folder: Path, datalist: str) -> list[CaseItem]:
    content = read_datalist(folder / datalist)
    test = {item["case"] for item in content.test}
    has_split = bool(test) or any("fold" in item for item in content.training)
    items = load_cases(folder, "all", datalist=datalist, must_exist=())
    chosen: dict[str, CaseItem] = {}
    for item in items:
        # two labellings of one volume, or its parts, are read once
        key = item["image"] if not item["image"].lower().endswith(RASTER_SUFFIXES) else item["case"]
        chosen.setdefault(key, {**item, "side": _side(item, test) if has_split else ""})
    return list(chosen.values())


def _side(item: Mapping[str, Any], test: set[str]) -> str:
    if item["case"] in test:
        return "test"
    return f"fold {item['fold']}" if "fold" in item else "training"


def _with_mask(item: CaseItem) -> CaseItem:
    image = Path(item["image"])
    if image.is_dir() or image.suffix.lower() not in RASTER_SUFFIXES:
        return item
    places = [(image.parent, f"{image.stem}_mask")]
    for name in _MASK_FOLDERS:
        places += [(image.parent.parent / name, stem) for stem in (image.stem, f"{image.stem}_mask")]
    found = [
        path
        for folder, stem in places
        for suffix in _RASTERS_IN_ORDER
        if (path := folder / (stem + suffix)).is_file() and path != image
    ]
    return {**item, **_label_of(image, found)} if found else item


_RASTERS_IN_ORDER: Sequence[str] = tuple(sorted(RASTER_SUFFIXES))


def _label_of(image: Path, found: Sequence[Path]) -> CaseItem:
    if len(found) > 1:
        refuse(image, "one mask", " and ".join(map(str, found[:2])), "remove one, or write a datalist")
    is_lossy = found[0].suffix.lower() in _LOSSY
    return {"label": str(found[0]), "label_rule": "above:127" if is_lossy else "nonzero"}
