"""Cases for inference, found in whatever folder a user points at."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

from volseg.checks import refuse
from volseg.data.datalist import DATALIST_NAME, CaseItem, load_cases, read_datalist

__all__ = ["find_cases"]

logger = logging.getLogger(__name__)

_VOLUMES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr")
_PICTURES = (".tiff", ".tif", ".png", ".jpeg", ".jpg", ".bmp", ".gif", ".pgm", ".ppm")
_DICOM = (".dicom", ".dcm", ".ima")
_STORES = (".ome.zarr", ".zarr")
_SUFFIXES = (*_VOLUMES, *_PICTURES, *_DICOM, *_STORES)
_IMAGE_FOLDERS = frozenset({"images", "image", "original_images", "imagestr", "imagests"})
_LABEL_FOLDERS = frozenset(
    {"labels", "label", "masks", "mask", "label_images", "labelstr", "labelsts", "1st_manual", "2nd_manual"}
)
_JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx", "dicomdir", "@eadir"})
_RUN_MARKS = (".volseg.lock", ".volseg_journal.jsonl")
_RUN_OUTPUTS = tuple(f"_{kind}{suffix}" for kind in ("seg", "prob", "disagreement") for suffix in _VOLUMES)
_RUN_OUTPUTS += ("_seg.png", "_prob.png", "_disagreement.png", "_preview.gif", "_sheet.png")
_LABEL_ENDINGS = ("_mask", "_masks", "_label", "_labels")
_SCAN_END = ".img"
_MAX_DEPTH = 4
_INFERENCE_KEYS = ("image", "case", "group", "spacing_mm", "field_of_view")


def find_cases(
    dataset_dir: str | Path, *, spatial_dims: int = 3, datalist: str = DATALIST_NAME
) -> list[CaseItem]:
    """Find what to predict, in natural order of the paths.

    Takes a prepared folder (its test section, or every case when it has none), a folder of volume files, a
    folder of slice folders, one slice folder, a case folder with `images`, the challenge's root, a DICOM
    series folder, or one file; down to four folders deep. Label folders, hidden files and what a former run
    of volseg wrote are left out.

    Args:
        dataset_dir: folder or file.
        spatial_dims: with 3, the pictures of a folder are the slices of one volume, unless they are
            multi-page TIFFs; with 2, each picture is a case.
        datalist: file name of the list of a prepared folder. A folder without the usual one is searched, one
            without another that is named here is refused.

    Returns:
        Case items with an absolute `image`, a unique `case` (the stem; with equal stems, the path), and the
        `group`, `spacing_mm` and `field_of_view` of a prepared folder.

    Raises:
        InputError: when nothing is there, a named list is missing, or a folder links to one of its parents.
        ValueError: when `spatial_dims` is neither 2 nor 3.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}; use 3 for a volume")
    if not str(dataset_dir).strip():
        refuse("dataset_dir", "a folder or a file", "an empty text", "give the folder of the images")
    place = Path(os.path.abspath(dataset_dir))
    if not place.is_dir():
        return [_single_file(place)]
    if datalist != DATALIST_NAME or (place / datalist).is_file():
        return _prepared(place, datalist)
    search = _Search(place, spatial_dims)
    search.run()
    if not search.found:
        search.refuse_nothing()
    names = _unique_names([_below(place, path) for path in search.found], _folder_name(place))
    return [
        {"image": str(path), "case": name, "group": name}
        for path, name in zip(search.found, names, strict=True)
    ]


def _single_file(path: Path) -> CaseItem:
    if not os.path.lexists(path):
        refuse(path, "a folder or an image file", "nothing there", "check the path")
    if not path.exists():
        refuse(path, "a folder or an image file", "a link that leads nowhere", "restore what it points to")
    if not path.is_file():
        refuse(path, "a folder or an image file", "a pipe or device", "save the image to a file first")
    if not _ends_in(path, _SUFFIXES) and not _is_dicom(path):
        refuse(path, f"one of {' '.join(_SUFFIXES)}", repr(path.suffix), "convert it, or give its folder")
    name = _stem(path)
    return {"image": str(path), "case": name, "group": name}


def _prepared(folder: Path, datalist: str) -> list[CaseItem]:
    """One item for each image: the parts of one volume, and two labellings of it, are one case here."""
    if not (folder / datalist).is_file():
        refuse(folder, f"a {datalist}", "none", "check the name of the list")
    section: Literal["test", "all"] = "test" if read_datalist(folder / datalist).test else "all"
    chosen: dict[str, CaseItem] = {}
    for item in load_cases(folder, section, datalist=datalist, must_exist=()):
        known = chosen.setdefault(item["image"], item)
        if "labelled_range" in known and "labelled_range" not in item:
            chosen[item["image"]] = item
    whole_volumes = Counter(item["group"] for item in chosen.values())
    cases: list[CaseItem] = []
    for item in chosen.values():
        is_part = item.get("same_volume", False) and whole_volumes[item["group"]] == 1
        case = {**item, "case": item["group"] if is_part else item["case"]}
        cases.append({key: value for key, value in case.items() if key in _INFERENCE_KEYS})
    return cases


@dataclass
class _Search:
    """One walk over a folder tree."""

    root: Path
    spatial_dims: int
    found: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Fill `found`."""
        start = self.root
        if (self.root / "test").is_dir() and self._has_training_beside():
            start = self.root / "test"
            self.left_out["training folders beside test"] += 1
        self._enter(start, frozenset())
        # an empty slice folder beside full ones is a lost case: the reader is to refuse it by name
        depths = {len(path.relative_to(self.root).parts) for path in self.found if path.is_dir()}
        self.found += [path for path in self.empty if len(path.relative_to(self.root).parts) in depths]
        self.found.sort(key=lambda path: _natural(str(path.relative_to(self.root))))
        for reason, count in self.left_out.items():
            logger.warning("%s: left out %d %s", self.root, count, reason)

    def refuse_nothing(self) -> None:
        """Say what was looked for."""
        reasons = [f"{count} {reason} left out" for reason, count in self.left_out.items()]
        reasons += [f"{len(self.empty)} empty folders"] if self.empty else []
        got = "none" + (f" ({', '.join(reasons)})" if reasons else "")
        expected = f"images ({' '.join(_SUFFIXES)}, DICOM series) down to {_MAX_DEPTH} folders deep"
        refuse(self.root, expected, got, "check dataset_dir")

    def _has_training_beside(self) -> bool:
        names = ("train", "training", "train_rles.csv")
        return any((self.root / name).exists() for name in names) or any(self.root.glob("kidney_*"))

    def _enter(self, folder: Path, parents: frozenset[str]) -> None:
        place = os.path.realpath(folder)
        if place in parents:
            refuse(folder, "folders that end", f"a link back to its parent {place}", "remove the link")
        if any((folder / mark).exists() for mark in _RUN_MARKS):
            self.left_out["folders written by a run of volseg"] += 1
            return
        files, folders = self._list(folder)
        if not files and not folders:
            self.empty.append(folder)
        self._take(folder, files)
        if folders and len(folder.relative_to(self.root).parts) >= _MAX_DEPTH:
            self.left_out[f"folders more than {_MAX_DEPTH} deep"] += len(folders)
            return
        for child in folders:
            self._enter(child, parents | {place})

    def _list(self, folder: Path) -> tuple[list[Path], list[Path]]:
        files, folders = [], []
        try:
            names = os.listdir(folder)
        except OSError as error:
            refuse(folder, "a readable folder", error.strerror, "check its permissions")
        for name in sorted(names, key=_natural):
            path = folder / name
            if name.startswith(".") or name.lower() in _JUNK:
                continue
            if path.is_dir() and not _ends_in(path, _STORES):
                if name.lower() not in _LABEL_FOLDERS:
                    folders.append(path)
            elif name.endswith(_RUN_OUTPUTS):
                self.left_out["predictions of a former run (*_seg, *_prob, *_disagreement)"] += 1
            else:
                files.append(path)
        return files, folders

    def _take(self, folder: Path, files: Sequence[Path]) -> None:
        volumes = [path for path in files if _is_volume(path) or _is_lost(path)]
        pictures = [path for path in files if _ends_in(path, _PICTURES)]
        dicoms = [path for path in files if _ends_in(path, _DICOM) or _is_dicom(path)]
        self.found += volumes
        if self.spatial_dims == 2:
            stems = Counter(_stem(path) for path in pictures)
            labels = [path for path in pictures if _is_label_of(path, stems)]
            self.left_out["masks beside their images"] += len(labels)
            self.left_out += Counter()  # drops the zero
            self.found += [path for path in [*pictures, *dicoms] if path not in set(labels)]
            return
        self.found += [folder] if dicoms else []
        single = pictures if not _are_multi_page(pictures) else []
        if single and (volumes or dicoms):
            self.left_out["pictures beside volumes"] += len(single)
        elif single:
            self.found.append(folder)
        else:
            self.found += pictures


def _below(place: Path, path: Path) -> Path:
    """The path relative to `place`; a slice folder called `case.img`, as OCT scans are, loses that end."""
    is_scan = path.suffix == _SCAN_END and path.is_dir() and not os.path.lexists(path.with_suffix(""))
    return (path.with_suffix("") if is_scan and path != place else path).relative_to(place)


def _folder_name(folder: Path) -> str:
    names = (folder.name.removesuffix(_SCAN_END), folder.parent.name, "case")
    return next(name for name in names if name and name.lower() not in _IMAGE_FOLDERS)


def _unique_names(paths: Sequence[Path], root_name: str) -> list[str]:
    """Name each case by the shortest of stem, path, path with suffix, path with hash that no other has."""
    levels: list[Callable[[Path], str]] = [
        lambda path: _stem(_without_image_folder(path, root_name)),
        lambda path: (
            "_".join([*_without_image_folder(path, root_name).parts[:-1], _stem(path)])
            if path.suffix
            else "_".join(_without_image_folder(path, root_name).parts)
        ),
        lambda path: "_".join(path.parts) or root_name,
        lambda path: f"{'_'.join(path.parts)}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}",
    ]
    level = [0] * len(paths)
    while True:
        names = [levels[step](path) for step, path in zip(level, paths, strict=True)]
        counts = Counter(names)
        repeated = [
            index for index, name in enumerate(names) if counts[name] > 1 and level[index] + 1 < len(levels)
        ]
        if not repeated:
            return names
        for index in repeated:
            level[index] += 1


def _without_image_folder(path: PurePath, root_name: str) -> PurePath:
    # kidney_5/images is the case kidney_5, and subject_1/images/001.png is 001 of subject_1
    parts = [part for part in path.parts if part.lower() not in _IMAGE_FOLDERS]
    return PurePath(*parts) if parts else PurePath(root_name)


def _stem(path: PurePath) -> str:
    ending = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(ending)] or path.name


def _ends_in(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)


def _is_volume(path: Path) -> bool:
    # an .img belongs to its .hdr; alone it is a case that the reader refuses
    is_lonely = _ends_in(path, (".img",)) and not path.with_suffix(".hdr").exists()
    return is_lonely or _ends_in(path, (*_VOLUMES, *_STORES))


def _is_label_of(path: Path, stems: Counter[str]) -> bool:
    stem = _stem(path)
    return any(stem.endswith(ending) and stems[stem[: -len(ending)]] > 0 for ending in _LABEL_ENDINGS)


def _is_lost(path: Path) -> bool:
    # a folder linked from a disk that is not there: one case that the reader refuses, not one that vanishes
    return not path.suffix and path.is_symlink() and not path.exists()


def _is_dicom(path: Path) -> bool:
    """Look for DICOM's mark in regular files whose name has no suffix, or ends like a UID."""
    if not re.fullmatch(r"\.\d+|", path.suffix) or not stat.S_ISREG(_mode_of(path)):
        return False
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _mode_of(path: Path) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def _are_multi_page(paths: Sequence[Path]) -> bool:
    """Whether all TIFFs have several pages; a mixture counts as slices, which the reader refuses."""
    states = _page_states(paths)
    first = next((state for state in states if state is not None), None)
    return first is True and all(state is not False for state in states)


def _page_states(paths: Sequence[Path]) -> Iterator[bool | None]:
    for path in paths:
        yield _has_pages(path) if _ends_in(path, (".tif", ".tiff")) else False


def _has_pages(path: Path) -> bool | None:
    """Whether a TIFF has a second page, by its first page's pointer to the next; None if it is no TIFF."""
    if not stat.S_ISREG(_mode_of(path)):
        return None
    try:
        with open(path, "rb") as stream:
            head = stream.read(16)
            order = {b"II": "<", b"MM": ">"}[head[:2]]
            is_big = struct.unpack(order + "H", head[2:4])[0] == 43
            pointer, count, entry = ("Q", "Q", 20) if is_big else ("I", "H", 12)
            at = struct.unpack_from(order + pointer, head, 8 if is_big else 4)[0]
            stream.seek(at)
            entries = struct.unpack(order + count, stream.read(struct.calcsize(order + count)))[0]
            stream.seek(entries * entry, os.SEEK_CUR)
            size = struct.calcsize(order + pointer)
            return bool(struct.unpack(order + pointer, stream.read(size))[0])
    except (OSError, KeyError, struct.error, OverflowError, ValueError):
        return None


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Order 2 before 10."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), part) if part.isascii() and part.isdigit() else (0, 0, part) for part in parts]
