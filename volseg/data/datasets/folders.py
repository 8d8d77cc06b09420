"""Where a raw data set lies, where its list goes, and the pictures of a folder by what their names say."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from volseg.checks import refuse
from volseg.data.datalist import DATALIST_NAME

__all__ = [
    "PICTURES",
    "index_pictures",
    "output_folder",
    "raw_folder",
    "relative_name",
    "unpaired_pictures",
]

PICTURES = (".tif", ".tiff", ".png", ".bmp", ".gif", ".jpg", ".jpeg")
"""Suffixes of pictures; every other file of a folder is none of the data."""


def raw_folder(raw: str | Path) -> Path:
    """Absolute folder of a raw data set.

    Raises:
        InputError: when it is an empty text, a file or not there.
    """
    if not str(raw).strip():
        refuse("RAW", "the folder of the data set", "an empty text", "give the unpacked download")
    folder = Path(os.path.abspath(raw))
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing there"
        refuse(folder, "the folder of the data set", got, "unpack the download and give its folder")
    return folder


def output_folder(output_dir: str | Path | None, folder: Path, overwrite: bool) -> Path:
    """Absolute folder for the datalist; `folder`, the raw one, by default.

    Raises:
        InputError: when a datalist is there and `overwrite` is False.
    """
    target = Path(os.path.abspath(output_dir)) if output_dir is not None else folder
    if (target / DATALIST_NAME).exists() and not overwrite:
        remedy = "use --overwrite or --output-dir"
        refuse(target / DATALIST_NAME, "no datalist yet", "one that exists", remedy)
    return target


def relative_name(path: Path, folder: Path) -> str:
    """Path below `folder` with `/`; the whole path of what lies elsewhere, as decoded labels may."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def index_pictures(
    folder: Path, pattern: re.Pattern[str], *, root: Path, example: str
) -> tuple[dict[str, Path], list[str]]:
    """Index the pictures of a folder by what the groups of a pattern find in their stems.

    Hidden files and files of other suffixes are left out. A folder that is not there has no pictures.

    Args:
        folder: the folder.
        pattern: must match the whole stem; its groups that took part, joined by `_`, are the key.
        root: what faults name files relative to.
        example: a name as it should be, for the faults.

    Returns:
        Key to file, sorted by file name, and the faults: a name that does not match, a key found twice.
    """
    found: dict[str, Path] = {}
    faults = []
    entries = sorted(folder.iterdir(), key=_natural) if folder.is_dir() else []
    for path in entries:
        if path.name.startswith(".") or path.suffix.lower() not in PICTURES:
            continue
        name = relative_name(path, root)
        match = pattern.fullmatch(path.stem)
        if match is None:
            faults.append(f"{name}: expected a name like {example}, got {path.name!r}; rename or remove it")
            continue
        key = "_".join(part for part in match.groups() if part)
        if key in found:
            faults.append(
                f"{name}: expected one picture called {key!r}, got {found[key].name} too; remove one"
            )
        found.setdefault(key, path)
    return found, faults


def unpaired_pictures(
    images: Mapping[str, Path], others: Collection[str], *, kind: str, place: Path, root: Path
) -> list[str]:
    """Faults of images without a partner, and of partners without an image.

    Args:
        images: key to image.
        others: keys of the masks, or of whatever belongs to the images.
        kind: what a partner is called, such as "mask".
        place: folder of the partners.
        root: what faults name files relative to.
    """
    folder = relative_name(place, root)
    missing = [relative_name(path, root) for key, path in images.items() if key not in others]
    extra = [key for key in others if key not in images]
    faults = [f"{name}: expected its {kind} in {folder}, got none; add it" for name in missing]
    return faults + [
        f"{folder}: expected an image for the {kind} {key!r}, got none; add it or remove the {kind}"
        for key in extra
    ]


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), part) if part.isascii() and part.isdigit() else (-1, part) for part in parts]
