"""Several prepared data sets as one, so that a network can learn from all of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from volseg.checks import refuse
from volseg.data.datalist import DATALIST_NAME, PATH_KEYS, CaseItem, Datalist, read_datalist, write_datalist

__all__ = ["merge_datalists"]


def merge_datalists(
    folders: Sequence[str | Path], output_dir: str | Path, *, overwrite: bool = False
) -> Datalist:
    """Write one datalist of all cases of several prepared folders; folds and groups stay as they are.

    Cases and groups are named `<list>_<name>`, so that equal names in two lists stay two cases. No image is
    copied or moved.

    Args:
        folders: prepared folders, each with a `datalist.json` of a name of its own and the same classes.
        output_dir: folder for the merged `datalist.json`.
        overwrite: replace one that is there.

    Returns:
        What was written.

    Raises:
        InputError: when a list is missing or wrong, two have the same name, or the classes differ.
    """
    sources = [Path(os.path.abspath(folder)) / DATALIST_NAME for folder in folders]
    lists = [read_datalist(source) for source in sources]
    for index, (source, part) in enumerate(zip(sources, lists, strict=True)):
        if part.name in [other.name for other in lists[:index]]:
            refuse(source, "a name that no other list has", repr(part.name), "change its name")
        if dict(part.classes) != dict(lists[0].classes):
            got, expected = list(part.classes.values()), list(lists[0].classes.values())
            refuse(source, f"the classes {expected}", got, "prepare both lists with the same classes")
    roots = [
        Path(part.root) if part.root else source.parent for source, part in zip(sources, lists, strict=True)
    ]
    common = Path(os.path.commonpath(roots))
    merged = Datalist(
        name="+".join(part.name for part in lists),
        training=[
            _moved(item, p, r, common) for p, r in zip(lists, roots, strict=True) for item in p.training
        ],
        test=[_moved(item, p, r, common) for p, r in zip(lists, roots, strict=True) for item in p.test],
        description=" ".join(part.description for part in lists),
        root=str(common),
        classes=lists[0].classes,
    )
    write_datalist(Path(output_dir) / DATALIST_NAME, merged, overwrite)
    return merged


def _moved(item: CaseItem, part: Datalist, root: Path, common: Path) -> CaseItem:
    paths = {key: os.path.relpath(root / item[key], common) for key in PATH_KEYS if key in item}
    return {**item, **paths, "case": f"{part.name}_{item['case']}", "group": f"{part.name}_{item['group']}"}
