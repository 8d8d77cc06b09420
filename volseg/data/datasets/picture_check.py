"""Check pictures against their masks, one case at a time, and collect every fault."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volseg.checks import InputError
from volseg.data.datasets.folders import relative_name
from volseg.data.rle import decode_rle

__all__ = ["LabelRule", "PictureCase", "check_pictures"]

LabelRule = str | Mapping[str, int]
"""How a mask becomes classes: "nonzero", "above:127", or colours to classes."""

_Mask = npt.NDArray[Any]
_THREADS = min(8, os.cpu_count() or 1)
_LOSSY = (".jpg", ".jpeg")
_HALFWAY = (32, 224)  # a mask of two values, stored as JPEG, has few pixels between
_MOST_HALFWAY = 0.05
_SHOWN_VALUES = 6


@dataclass
class PictureCase:
    """One picture with what belongs to it, and what the check found.

    Attributes:
        name: unique name of the case.
        group: what must stay in one fold.
        image: the picture.
        label: its mask; None without one.
        label_rule: how the mask becomes classes.
        run_lengths: column-major run lengths, used where there is no mask file.
        field_of_view: mask of the part that counts.
        is_test: whether it belongs to the test section.
        size: (rows, columns), once checked.
        dtype: of the picture.
        foreground: share of pixels that are not background; None without a mask.
        faults: one sentence each.
    """

    name: str
    group: str
    image: Path
    label: Path | None = None
    label_rule: LabelRule = "nonzero"
    run_lengths: str | None = None
    field_of_view: Path | None = None
    is_test: bool = False
    size: tuple[int, int] | None = None
    dtype: str = ""
    foreground: float | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def is_labelled(self) -> bool:
        """Whether there is a mask in either form."""
        return self.label is not None or self.run_lengths is not None


def check_pictures(
    cases: Sequence[PictureCase],
    *,
    root: Path,
    channels: Literal["rgb", "grey"],
    has_grey_edges: bool = False,
) -> None:
    """Read every file of every case and fill in size, type, foreground and faults.

    Args:
        cases: what to check.
        root: what faults name files relative to.
        channels: what the pictures must be readable as.
        has_grey_edges: whether masks of the rule "nonzero" may hold more than two values.
    """
    from tqdm import tqdm

    def run(case: PictureCase) -> None:
        _Check(case, root, channels, has_grey_edges).run()

    with ThreadPoolExecutor(_THREADS) as pool:
        # disable=None: no bar where stderr is no terminal
        bar = tqdm(pool.map(run, cases), desc="pictures", total=len(cases), leave=False, disable=None)
        for _ in bar:
            pass


@dataclass
class _Check:
    """Check of one case."""

    case: PictureCase
    root: Path
    channels: Literal["rgb", "grey"]
    has_grey_edges: bool

    def run(self) -> None:
        """Fill in the case."""
        image = self._read(self.case.image, self.channels)
        if image is None:
            return
        self.case.size, self.case.dtype = _size(image), str(image.dtype)
        if self.case.field_of_view is not None:
            self._check_field_of_view(self.case.field_of_view)
        if self.case.label is not None:
            self._check_label(self.case.label)
        elif self.case.run_lengths is not None:
            self._check_run_lengths(self.case.run_lengths)

    def _read(self, path: Path, channels: Literal["rgb", "grey"]) -> _Mask | None:
        from volseg.data.picture_reader import read_picture

        try:
            return read_picture(path, channels=channels)
        except (InputError, OSError) as error:
            self.case.faults.append(str(error).replace(str(path), relative_name(path, self.root)))
            return None

    def _tell(self, path: Path, expected: str, got: str, remedy: str) -> None:
        self.case.faults.append(f"{relative_name(path, self.root)}: expected {expected}, got {got}; {remedy}")

    def _has_size_of_image(self, path: Path, mask: _Mask) -> bool:
        if self.case.size == _size(mask):
            return True
        image = relative_name(self.case.image, self.root)
        is_turned = self.case.size is not None and self.case.size[::-1] == _size(mask)
        remedy = "masks must not be transposed" if is_turned else "a mask needs the size of its image"
        self._tell(path, f"{_rows(self.case.size)} as {image} has", _rows(_size(mask)), remedy)
        return False

    def _check_label(self, path: Path) -> None:
        rule = self.case.label_rule
        mask = self._read(path, "rgb" if isinstance(rule, Mapping) else "grey")
        if mask is None or not self._has_size_of_image(path, mask):
            return
        if path.suffix.lower() in _LOSSY and rule != "above:127":
            remedy = "use the original file: the noise of a JPEG would become foreground"
            self._tell(path, "a lossless mask", "a JPEG", remedy)
        elif isinstance(rule, Mapping):
            self._check_colours(path, mask, rule)
        elif rule == "nonzero":
            self._check_values(path, mask)
        else:
            self._check_two_levels(path, mask, int(rule.partition(":")[2]))

    def _check_values(self, path: Path, mask: _Mask) -> None:
        values = np.unique(mask)
        if values.size and values[0] != 0:
            remedy = "check that it is the mask, and not inverted"
            self._tell(path, "background of 0", f"no pixel below {values[0]}", remedy)
        elif values.size > 2 and not self.has_grey_edges:
            shown = ", ".join(map(str, values[:_SHOWN_VALUES].tolist()))
            self._tell(
                path, "0 and one other value", f"{values.size} values ({shown} …)", "threshold it first"
            )
        self.case.foreground = float(np.mean(mask != 0))

    def _check_two_levels(self, path: Path, mask: _Mask, threshold: int) -> None:
        share = float(np.mean((mask > _HALFWAY[0]) & (mask < _HALFWAY[1])))
        if share > _MOST_HALFWAY:
            got = f"{100 * share:.0f} % of its pixels halfway between"
            self._tell(path, "black and white", got, "check that it is the mask")
        self.case.foreground = float(np.mean(mask > threshold))

    def _check_colours(self, path: Path, mask: _Mask, rule: Mapping[str, int]) -> None:
        codes = (mask.astype(np.uint32) * np.array([1 << 16, 1 << 8, 1], np.uint32)).sum(axis=-1)
        known = [0, *(int(colour[1:], 16) for colour in rule)]
        others = np.setdiff1d(codes, known)
        if others.size:
            shown = ", ".join(f"#{code:06x}" for code in others[:_SHOWN_VALUES].tolist())
            expected = f"the colours #000000, {', '.join(rule)}"
            self._tell(path, expected, shown, "recolour it; masks must not be smoothed")
        self.case.foreground = float(np.mean(codes != 0))

    def _check_run_lengths(self, text: str) -> None:
        if self.case.size is None:
            return
        try:
            self.case.foreground = float(np.mean(decode_rle(text, self.case.size, order="F")))
        except InputError as error:
            self.case.faults.append(f"{self.case.name}: {error}")

    def _check_field_of_view(self, path: Path) -> None:
        mask = self._read(path, "grey")
        if mask is None or not self._has_size_of_image(path, mask):
            return
        values = np.unique(mask)
        if values.size > 2 or values[-1] == 0:
            got = "black alone" if values[-1] == 0 else f"{values.size} values"
            self._tell(
                path, "a field of view of 0 and one other value", got, "check that it is the right file"
            )


def _size(array: _Mask) -> tuple[int, int]:
    return array.shape[0], array.shape[1]


def _rows(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]}" if size is not None else "?"  # rows x columns
