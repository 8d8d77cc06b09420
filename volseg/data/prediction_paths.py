"""Where the files of a run lie: a folder for each case, apart from the inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from volseg.checks import refuse
from volseg.files import safe_name, sha256_of

__all__ = ["COMPANIONS", "SUMMARY", "PredictionPaths", "check_distinct", "shown_name"]

SUMMARY = "summary.json"
COMPANIONS: Mapping[str, str] = {
    "itk_snap": "_seg.label.txt",
    "slicer": "_seg.ctbl",
    "preview": "_preview.gif",
    "sheet": "_sheet.png",
}
"""Endings of the files beside a prediction that only help to look at it."""

_ENDINGS: Mapping[str, str] = {
    **{kind: f"_{kind}.nii.gz" for kind in ("seg", "prob", "disagreement")},
    "png": "_seg.png",
    "detection": "_detection.csv",
    **COMPANIONS,
}


class PredictionPaths:
    """Names of all files below one output folder.

    Args:
        output_dir: made absolute.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(os.path.abspath(output_dir))

    def folder(self, case: str) -> Path:
        """Folder of a case, whatever its name."""
        name = safe_name(case)
        return self.output_dir / (name if name != SUMMARY else safe_name(f"{name}/"))

    def path(self, case: str, kind: str) -> Path:
        """File of one kind of a case."""
        folder = self.folder(case)
        return folder / f"{folder.name}{_ENDINGS[kind]}"

    def others(self, case: str, kinds: Mapping[str, object]) -> list[Path]:
        """Files of all kinds but these."""
        return [self.path(case, kind) for kind in _ENDINGS.keys() - kinds.keys()]

    def relative(self, path: Path) -> str:
        """Name of a file below the output folder, as the journal has it."""
        return str(path.relative_to(self.output_dir))

    def existing(self, case: str) -> dict[str, str]:
        """Relative paths and checksums of the result files that a case has on the disk.

        Raises:
            InputError: when a link or a file stands where the folder should be.
        """
        folder = self.folder(case)
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            refuse(folder, "a folder for the results of this case", "a link or a file", "remove or rename it")
        paths = [self.path(case, kind) for kind in _ENDINGS]
        return {self.relative(path): sha256_of(path) for path in paths if os.path.lexists(path)}

    def check_apart(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Refuse outputs beside an input or inside one: the next run would take them for images or slices.

        Raises:
            InputError: naming the folder.
        """
        images = [os.path.abspath(item["image"]) for item in items]
        # realpath and not Path.resolve, which raises for a link that leads in a circle
        beside = {os.path.realpath(os.path.dirname(path)) for path in images}
        beside |= {os.path.dirname(os.path.realpath(path)) for path in images}
        inside = {os.path.realpath(path) for path in images if os.path.isdir(path)}
        for folder in [self.output_dir, *(self.folder(str(item["case"])) for item in items)]:
            output = os.path.realpath(folder)
            if output in beside or inside & {output, *map(str, Path(output).parents)}:
                remedy = "choose another one, or results become inputs of the next run"
                refuse(output, "an output folder apart from the inputs", "one that holds an image", remedy)


def check_distinct(items: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two cases that would share a folder.

    Raises:
        InputError: naming both images.
    """
    seen: dict[str, object] = {}
    for item in items:
        name = safe_name(str(item["case"]))
        if name in seen:
            both = f"{seen[name]} and {item['image']} both called {shown_name(str(item['case']))}"
            refuse("cases", "distinct names", both, "give one of them another name in the datalist")
        seen[name] = item["image"]


def shown_name(case: str) -> str:
    """Name of a case as one line of text can hold it."""
    return case if case.isprintable() else repr(case)
