"""Pictures and slices as frames to compare, held on disk so that memory stays small."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from volseg.checks import InputError, refuse
from volseg.data.audit.masks import classes_of
from volseg.data.audit.similarity import Descriptor, describe_picture
from volseg.data.datalist import CaseItem
from volseg.data.numbered_slices import has_gaps, labelled_numbers
from volseg.data.picture_reader import read_picture
from volseg.data.raster import RASTER_SUFFIXES
from volseg.data.volume_reader import VolumeReader

__all__ = ["Frame", "FrameStore", "brightness", "is_measurable", "read_grey"]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_Pixels = npt.NDArray[Any]
_Key = tuple[tuple[int, ...], str]
_Numbers = tuple[list[int] | None, list[int] | None]


@dataclass(frozen=True)
class Frame:
    """One picture, or one slice across z of a volume.

    Attributes:
        name: unique: the case, for a slice `case[k]`.
        case: the case it belongs to.
        group: declared group of the case.
        side: of the split: "training", "fold 2", "test", or "" where there is no split.
        is_slice: whether it comes from a volume.
        is_blank: whether all its pixels are equal; such frames are counted, and not compared.
        has_mask: whether somebody labelled it.
        is_empty: whether its mask is background everywhere.
    """

    name: str
    case: str
    group: str
    side: str
    is_slice: bool
    is_blank: bool
    has_mask: bool
    is_empty: bool


def read_grey(path: str | Path) -> _Pixels:
    """Read a picture as (H, W): its only channel in the file's type, or the brightness of its colours.

    Raises:
        InputError: naming the picture that cannot be read.
    """
    return brightness(read_picture(path, "any"))


def brightness(pixels: _Pixels) -> _Pixels:
    """Reduce (H, W, 3) to (H, W); a picture without colours keeps its type.

    Example:
        >>> brightness(np.array([[[7, 7, 7]]], dtype=np.uint8))
        array([[7]], dtype=uint8)
    """
    pixels = _without_equal_channels(pixels)
    return pixels if pixels.ndim == 2 else pixels.astype(np.float32) @ _LUMA


def is_measurable(dtype: np.dtype[Any]) -> bool:
    """Tell whether pictures of a type have an exact sum of absolute differences: 8 or 16 bit.

    Example:
        >>> is_measurable(np.dtype("uint16")), is_measurable(np.dtype("float32"))
        (True, False)
    """
    return dtype.kind in "bui" and dtype.itemsize <= 2


@dataclass
class FrameStore:
    """The frames of a data set, read once: pixels in temporary files, masks compressed in memory.

    Use it in a `with` statement, which removes the temporary files. They lie in the system's temporary
    folder, and are as large as the decoded pictures.

    Args:
        items: case items, see `volseg.data.audit.find_audit_cases`.
        max_bytes: largest accepted size of one image.

    Attributes:
        frames: what was read, in order.
        faults: a message for each case that could not be read; the others are there.
    """

    items: Sequence[CaseItem]
    max_bytes: int | None = None
    frames: list[Frame] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _masks: list[tuple[tuple[int, ...], bytes] | None] = field(default_factory=list)
    _places: list[tuple[_Key, int]] = field(default_factory=list)
    _members: dict[_Key, list[int]] = field(default_factory=dict)
    _stacks: dict[_Key, _Pixels] = field(default_factory=dict)
    _resources: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> FrameStore:
        """Read every case.

        Raises:
            InputError: when none could be read.
        """
        try:
            self._read_all()
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the temporary files."""
        self._stacks.clear()
        self._resources.close()

    @cached_property
    def descriptors(self) -> list[Descriptor]:
        """Texture of each frame, all zero for blank ones; made when first asked for."""
        indices = tqdm(range(len(self.frames)), desc="textures", unit="frame", disable=None)
        return [describe_picture(brightness(self.pixels(index))) for index in indices]

    def pixels(self, index: int) -> _Pixels:
        """Return the (H, W) or (H, W, 3) pixels of a frame."""
        key, row = self._places[index]
        return np.asarray(self._stacks[key][row])

    def mask(self, index: int) -> npt.NDArray[np.uint8] | None:
        """Return the (H, W) class indices of a frame; None where nobody labelled it."""
        packed = self._masks[index]
        if packed is None:
            return None
        return np.frombuffer(zlib.decompress(packed[1]), dtype=np.uint8).reshape(packed[0])

    def measurable_stacks(self) -> Iterator[tuple[npt.NDArray[np.int64], _Pixels]]:
        """Give the frames of each size and type: their indices and an (N, H, W[, 3]) array.

        The array is memory-mapped unless blank frames are taken out. Types without an exact distance are
        left out.
        """
        for key, members in self._members.items():
            stack = self._stacks[key]
            if is_measurable(stack.dtype):
                kept = np.array([not self.frames[index].is_blank for index in members])
                yield np.array(members, dtype=np.int64)[kept], stack if kept.all() else stack[kept]

    def _read_all(self) -> None:
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="volseg-audit-")))
        files: dict[_Key, BinaryIO] = {}
        with ExitStack() as open_files:
            for item in tqdm(self.items, desc="reading", unit="case", disable=None):
                try:
                    frames = list(_frames_of(item, self.max_bytes))
                except InputError as error:
                    self.faults.append(str(error))
                    continue
                for number, pixels, mask in frames:
                    key = (pixels.shape, pixels.dtype.str)
                    if key not in files:
                        files[key] = open_files.enter_context(open(folder / f"{len(files)}.raw", "wb"))
                    files[key].write(np.ascontiguousarray(pixels).data)
                    self._add(item, key, (number, pixels, mask))
        if not self.frames:
            refuse("audit", "a picture that can be read", f"{len(self.faults)} refused", self.faults[0])
        for (shape, kind), members in self._members.items():
            path = files[shape, kind].name
            self._stacks[shape, kind] = np.memmap(path, dtype=kind, mode="r", shape=(len(members), *shape))

    def _add(
        self, item: CaseItem, key: _Key, content: tuple[int | None, _Pixels, npt.NDArray[np.uint8] | None]
    ) -> None:
        number, pixels, mask = content
        is_blank = bool((pixels == pixels.flat[0]).all())
        frame = Frame(
            name=item["case"] if number is None else f"{item['case']}[{number}]",
            case=item["case"],
            group=item["group"],
            side=item.get("side", ""),
            is_slice=number is not None,
            is_blank=is_blank,
            has_mask=mask is not None,
            is_empty=mask is not None and not mask.any(),
        )
        members = self._members.setdefault(key, [])
        self._places.append((key, len(members)))
        members.append(len(self.frames))
        self.frames.append(frame)
        self._masks.append(None if mask is None else (mask.shape, zlib.compress(mask.tobytes(), 1)))


def _frames_of(
    item: CaseItem, max_bytes: int | None
) -> Iterator[tuple[int | None, _Pixels, npt.NDArray[np.uint8] | None]]:
    rule = item.get("label_rule", "nonzero")
    if not _is_volume(item["image"]):
        pixels = _without_equal_channels(read_picture(item["image"], "any", max_bytes=max_bytes))
        mask = None
        if "label" in item:
            label = read_picture(item["label"], "any", max_bytes=max_bytes)
            mask = classes_of(label, rule, item["label"], has_colours=label.ndim == 3)
            _check_size(item["label"], mask.shape, pixels.shape[:2])
        yield None, pixels, mask
        return
    voxels, numbers = _read_slices(item["image"], max_bytes)
    labels, places = None, {}
    if "label" in item:
        stored, label_numbers = _read_slices(item["label"], max_bytes)
        labels = classes_of(stored, rule, item["label"])
        places = _label_places(item, labels.shape, voxels.shape, (numbers, label_numbers))
    for k in range(voxels.shape[2]):
        # as a viewer shows it: rows down, columns to the right
        yield k, voxels[:, :, k].T, labels[:, :, places[k]].T if labels is not None and k in places else None


def _read_slices(path: str, max_bytes: int | None) -> tuple[_Pixels, list[int] | None]:
    """Read the slices that are there, and their numbers where they have some."""
    reader = VolumeReader(max_bytes=max_bytes, gaps="keep")
    voxels, meta = reader.get_data(reader.read(path))
    return voxels, meta.get("slice_numbers")


def _label_places(
    item: CaseItem, got: tuple[int, ...], shape: tuple[int, ...], numbers: _Numbers
) -> dict[int, int]:
    """Place in the label for each slice of the image that has one, by number where slices are missing."""
    of_image, of_label = numbers
    first, end = item.get("labelled_range", (0, shape[2]))
    if of_image is None or of_label is None or (got[2] == end - first and not has_gaps(of_image)):
        _check_size(item["label"], got, (*shape[:2], end - first))
        return {place: place - first for place in range(first, end)}
    _check_size(item["label"], got, (*shape[:2], got[2]))
    found = labelled_numbers(
        of_label,
        offset=item.get("label_offset", 0),
        labelled_range=item.get("labelled_range"),
        first_number=of_image[0],
    )
    stranger = next((number for number in found if number not in of_image), None)
    if stranger is not None:
        refuse(item["label"], f"an image slice {stranger}", "none", "add the image or remove the label")
    return {of_image.index(number): place for number, place in found.items()}


def _is_volume(path: str) -> bool:
    return os.path.isdir(path) or not path.lower().endswith(RASTER_SUFFIXES)


def _check_size(path: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if got != expected:
        texts = ["x".join(map(str, size)) for size in (expected, got)]
        refuse(path, f"the size of its image, {texts[0]}", texts[1], "pair each image with its own mask")


def _without_equal_channels(pixels: _Pixels) -> _Pixels:
    """Drop two of three equal channels: a grey JPEG stored as colours counts each pixel once."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    return pixels
