"""The list of a data set's cases, `datalist.json`: paths, groups, folds, what is labelled.

It is read with the json module alone. A file name that starts with `$`, `@` or `%` is only a name here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from volseg.checks import InputError, check_choice, nearest, refuse
from volseg.data.splits import check_groups_do_not_cross

__all__ = ["DATALIST_NAME", "CaseItem", "Datalist", "load_cases", "read_datalist", "write_datalist"]

DATALIST_NAME = "datalist.json"
"""Name of the list inside a prepared folder."""

CaseItem = dict[str, Any]
"""One case: `image`, `case`, `group`, and optionally what `read_datalist` names."""

_FORMAT = "volseg-datalist-1"
_Section = Literal["training", "validation", "test", "all"]
PATH_KEYS = ("image", "label", "field_of_view")
"""Keys of a case item that hold a path."""


@dataclass(frozen=True)
class Datalist:
    """What a `datalist.json` holds, as written: paths stay relative to the root.

    Attributes:
        name: of the data set.
        training: case items with labels; the folds divide them into training and validation.
        test: case items that are never trained on; labels are optional.
        description: one sentence for the reader.
        root: absolute folder of the files; None is the folder of the datalist itself.
        classes: class index to name; 0 is the background.
    """

    name: str
    training: Sequence[CaseItem] = ()
    test: Sequence[CaseItem] = ()
    description: str = ""
    root: str | None = None
    classes: Mapping[int, str] = field(default_factory=lambda: {0: "background", 1: "foreground"})


def write_datalist(path: str | Path, datalist: Datalist, overwrite: bool = False) -> None:
    """Check a datalist as `read_datalist` does and write it atomically.

    Raises:
        InputError: when the datalist is not valid, or `path` exists and `overwrite` is False.
    """
    from volseg import files

    document: dict[str, Any] = {"format": _FORMAT, "name": datalist.name, "description": datalist.description}
    if datalist.root is not None:
        document["root"] = datalist.root
    document["classes"] = {str(index): name for index, name in datalist.classes.items()}
    document["training"] = [dict(item) for item in datalist.training]
    document["test"] = [dict(item) for item in datalist.test]
    _parse(Path(path), document)
    files.write_json(path, document, overwrite=overwrite)


def read_datalist(path: str | Path) -> Datalist:
    """Read and check a `datalist.json`.

    A case item has `image` (path), `case` (unique name) and `group` (what must stay in one fold). It may have
    `label` (path), `spacing_mm` (one edge length per axis), `label_coverage` (labelled share of what is
    there, above 0 to 1), `labelled_range` (first and end slice of the image stack that are labelled), `fold`
    (int), `same_volume` (true where training and validation come from one volume), `field_of_view` (path of
    the mask of what counts in a picture) and `label_rule` (how a mask becomes classes, see
    `volseg.transforms.MapLabelsd`). `label_offset` (int) is what a label slice's number is above that of its
    image slice, see `volseg.transforms.MatchSlicesd`. `image_sha256`, `label_sha256` and
    `field_of_view_sha256` state what the files hold, see `volseg.data.check_hashes`. Paths are relative to
    the root, and may leave neither the root nor the folder of the datalist.

    Raises:
        InputError: for a file that is no such list: unknown key, wrong type, repeated case, path that leads
            outside, training case without label, group in two folds or in training and labelled test cases.
    """
    source = Path(path)
    try:
        document = json.loads(source.read_bytes().decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{source}: expected a datalist in JSON, got {error}; run `volseg prepare`"
        ) from error
    return _parse(source, document)


def load_cases(
    dataset_dir: str | Path,
    section: _Section,
    *,
    fold: int = 0,
    datalist: str = DATALIST_NAME,
    must_exist: Sequence[str] = PATH_KEYS,
    requires: Sequence[str] = (),
) -> list[CaseItem]:
    """Case items of one section of a prepared folder, with absolute paths.

    Args:
        dataset_dir: the folder that holds the datalist.
        section: "training" is every training item outside `fold`, "validation" those in it, "test" the test
            items, "all" the training items of all folds and then the test items.
        fold: the fold held out for validation.
        datalist: file name of the list inside `dataset_dir`.
        must_exist: the keys whose files are looked for now; inference leaves it to the reader, so that a
            missing file costs one case.
        requires: further keys that every case must have: scoring needs a "label".

    Raises:
        InputError: when the folder, the list, the section or one of its files is missing, or the list is
            wrong.
        ValueError: when `section` is unknown.
    """
    check_choice("section", section, get_args(_Section))
    source = _find_datalist(dataset_dir, datalist)
    content = read_datalist(source)
    folds = sorted({item["fold"] for item in content.training if "fold" in item})
    if section in ("training", "validation") and folds and fold not in folds:
        known = ", ".join(map(str, folds))
        refuse(source, f"a fold of the list ({known})", f"fold {fold}", "choose one, or run `volseg prepare`")
    chosen = {
        "training": [item for item in content.training if item.get("fold") != fold],
        "validation": [item for item in content.training if item.get("fold") == fold],
        "test": list(content.test),
        "all": [*content.training, *content.test],
    }[section]
    if not chosen:
        has = f"{len(content.training)} training and {len(content.test)} test cases"
        refuse(source, f"cases for {section}", f"a list of {has}", "choose another section or fold")
    for key in requires:
        without = [item["case"] for item in chosen if key not in item]
        if without:
            remedy = "choose a section whose cases have one"
            refuse(source, f"a {key} for every case", f"none for {without[0]}", remedy)
    root = Path(content.root) if content.root is not None else source.parent
    cases = [_absolute(item, root) for item in chosen]
    _check_files_exist(cases, source, must_exist)
    return cases


def _find_datalist(dataset_dir: str | Path, datalist: str) -> Path:
    if not str(dataset_dir).strip():
        refuse("dataset_dir", "a folder", "an empty text", "give the folder made by `volseg prepare`")
    folder = Path(os.path.abspath(dataset_dir))
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing there"
        refuse(folder, "the folder of a prepared data set", got, "check dataset_dir")
    source = folder / datalist
    if source.is_file():
        return source
    command = f"volseg prepare {_adapter_for(folder)} {shlex.quote(str(folder))}"
    refuse(folder, f"a {datalist}", "none", f"make one with `{command}`")


def _adapter_for(folder: Path) -> str:
    """Name of the adapter whose layout a raw folder has by its looks, else NAME."""
    for name, patterns in _LAYOUTS.items():
        if any(any(folder.glob(pattern)) for pattern in patterns):
            return name
    places = [*folder.glob("*/images"), *folder.glob("*/*/images")]
    are_subjects = any(any((place.parent / "labels").glob("*.png")) for place in places)
    return "duke-dme" if are_subjects or _is_subject(folder) else "NAME"


def _is_subject(folder: Path) -> bool:
    # pictures of the cases of a 2D set lie in images/ and labels/ too: only the name tells
    return folder.name.lower().startswith("subject") and any(folder.glob("labels/*.png"))


def _absolute(item: CaseItem, root: Path) -> CaseItem:
    paths = {key: os.path.normpath(root / item[key]) for key in PATH_KEYS if key in item}
    return {**item, **paths}


def _check_files_exist(cases: Sequence[CaseItem], source: Path, keys: Sequence[str]) -> None:
    paths = [item[key] for item in cases for key in keys if key in item]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        count = "1 file" if len(missing) == 1 else f"{len(missing)} files"
        remedy = f"{count} of {source} missing in all; restore them or run `volseg prepare` again"
        refuse(missing[0], "a file or folder", "nothing there", remedy)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        repeated = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {repeated!r} twice in one object")
    return result


def _parse(source: Path, document: object) -> Datalist:
    """Check a whole document; `source` names it and anchors its relative paths."""
    if not isinstance(document, dict):
        refuse(source, "a JSON object", type(document).__name__, "run `volseg prepare`")
    if document.get("format") != _FORMAT:
        refuse(source, f'"format": "{_FORMAT}"', repr(document.get("format")), "run `volseg prepare`")
    _check_keys(source, document, _LIST_KEYS)
    for key in ("name", "training", "test"):
        if key not in document:
            refuse(source, f"the key {key!r}", "none", "run `volseg prepare`")
    root = Path(document.get("root") or source.parent)
    if not root.is_absolute() and document.get("root") is not None:
        refuse(source, "an absolute folder as root", repr(str(root)), "leave root out: it is this folder")
    for section in ("training", "test"):
        for item in document[section]:
            _check_item(source, item, root, section)
    _check_names(source, [item["case"] for item in [*document["training"], *document["test"]]])
    check_groups_do_not_cross(document["training"], test=document["test"], source=source)
    return Datalist(
        name=document["name"],
        training=document["training"],
        test=document["test"],
        description=document.get("description", ""),
        root=document.get("root"),
        classes={int(index): name for index, name in document.get("classes", {}).items()},
    )


def _check_item(source: Path, item: object, root: Path, section: str) -> None:
    if not isinstance(item, dict):
        refuse(source, "a JSON object for each case", repr(item)[:80], "run `volseg prepare`")
    where = f"{source}, case {item.get('case', '?')!r}"
    _check_keys(where, item, _ITEM_KEYS)
    required = ["image", "case", "group", *(["label"] if section == "training" else [])]
    for key in required:
        if key not in item:
            refuse(
                where, f"the key {key!r} in the {section} section", "none", "add it or run `volseg prepare`"
            )
    for key in PATH_KEYS:
        if key in item and not _is_inside(root / item[key], (root, source.parent)):
            refuse(where, f"{key} inside {root}", repr(item[key]), "move the data there or change root")


def _is_inside(path: Path, folders: Sequence[Path]) -> bool:
    # by name, not by resolved link: a data folder may be linked to another disk
    place = os.path.abspath(path)
    return any(
        os.path.commonpath([place, os.path.abspath(folder)]) == os.path.abspath(folder) for folder in folders
    )


def _check_names(source: Path, names: Sequence[str]) -> None:
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        refuse(source, "a different name for each case", f"{repeated!r} twice", "rename one")


def _check_keys(where: str | Path, value: Mapping[str, Any], known: Mapping[str, _Rule]) -> None:
    for key, entry in value.items():
        if key not in known:
            refuse(where, "known keys", repr(key), nearest(key, known))
        expected, is_right = known[key]
        if not is_right(entry):
            refuse(where, f"{key} to be {expected}", repr(entry)[:80], "correct it or run `volseg prepare`")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_spacing(value: object) -> bool:
    return isinstance(value, list) and len(value) in (2, 3) and all(_is_number(v) and v > 0 for v in value)


def _is_range(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_index, value)) and value[0] < value[1]


def _is_classes(value: object) -> bool:
    return isinstance(value, dict) and all(key.isdecimal() and _is_text(name) for key, name in value.items())


def _is_label_rule(value: object) -> bool:
    if isinstance(value, dict):
        # values or colours to class indices; never both
        has_known_keys = any(_all_match(pattern, value) for pattern in (r"[0-9]+", r"#[0-9a-fA-F]{6}"))
        return bool(value) and has_known_keys and all(_is_index(c) and c < 256 for c in value.values())
    return isinstance(value, str) and re.fullmatch(r"binary|nonzero|above:[0-9]+", value) is not None


def _all_match(pattern: str, texts: Iterable[str]) -> bool:
    return all(re.fullmatch(pattern, text) for text in texts)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


_LAYOUTS = {
    "oct-edema": ("original_images", "*/original_images"),
    "sennet": ("kidney_*", "*/kidney_*", "labels/*.tif*", "*/labels/*.tif*"),
}
_Rule = tuple[str, Callable[[Any], bool]]
_LIST_KEYS: dict[str, _Rule] = {
    "format": ("text", _is_text),
    "name": ("text", _is_text),
    "description": ("text", lambda value: isinstance(value, str)),
    "root": ("an absolute folder", _is_text),
    "classes": ("an object of class index to name", _is_classes),
    "training": ("a list", lambda value: isinstance(value, list)),
    "test": ("a list", lambda value: isinstance(value, list)),
}
_ITEM_KEYS: dict[str, _Rule] = {
    "image": ("a path", _is_text),
    "label": ("a path", _is_text),
    "case": ("text", _is_text),
    "group": ("text", _is_text),
    "spacing_mm": ("two or three positive numbers", _is_spacing),
    "label_coverage": ("a number above 0 and up to 1", lambda value: _is_number(value) and 0 < value <= 1),
    "labelled_range": ("[first slice, end slice], first < end", _is_range),
    "fold": ("0, 1, 2, …", _is_index),
    "same_volume": ("true or false", lambda value: isinstance(value, bool)),
    "field_of_view": ("a path", _is_text),
    "label_offset": ("a whole number", _is_whole),
    "label_rule": ('"nonzero", "above:127" or {"#ff0000": 1}', _is_label_rule),
    **{f"{key}_sha256": ("64 hexadecimal digits", _is_sha256) for key in PATH_KEYS},
}
