"""Where the foreground of a label lies, and where it is known, so that samples can be centred there."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from volseg.checks import check_flag
from volseg.transforms.labels import IGNORE
from volseg.transforms.volume import Array, bare_array, slabs

__all__ = ["ForegroundIndicesd", "foreground_indices", "known_rows"]


class ForegroundIndicesd(MapTransform):
    """Store where a label's foreground lies, and in which slices the label is known, once per volume.

    Unlike `monai.transforms.FgBgToIndicesd` it keeps at most `max_indices` positions and none of the
    background, and works slab by slab: 2 MB a case instead of 8 bytes a voxel.

    Args:
        keys: label keys; (C, D0, D1, D2) or (C, H, W), only channel 0 is looked at.
        max_indices: how many positions to keep, drawn uniformly without replacement.
        seed: of that draw; the same label gives the same positions.
        balance: keep as many positions of each class that is there, those of rare classes several times, so
            that a sample centred on one of them meets all classes alike.
        allow_missing_keys: do nothing for a key that the item lacks.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        max_indices: int = 200_000,
        seed: int = 0,
        *,
        balance: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.max_indices = max_indices
        self.seed = seed
        self.balance = check_flag("balance", balance)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with two more int64 entries per key.

        `<key>_foreground`: flat positions in C order of the spatial grid, sorted unless balanced.
        `<key>_rows`: for each axis, the indices of the slices that are not wholly `IGNORE`.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            label = bare_array(item[key])
            positions = foreground_indices(label, self.max_indices, self.seed)
            if self.balance:
                positions = _balanced(label, self.max_indices, self.seed)
            item[f"{key}_foreground"] = torch.from_numpy(positions)
            item[f"{key}_rows"] = [torch.from_numpy(rows) for rows in known_rows(label)]
        return item


def foreground_indices(label: Array, max_indices: int = 200_000, seed: int = 0) -> npt.NDArray[np.int64]:
    """Flat positions where channel 0 of a label is neither background nor `IGNORE`.

    Example:
        >>> foreground_indices(np.array([[[0, 1, 255], [2, 0, 0]]], dtype=np.uint8)).tolist()
        [1, 3]
    """
    counts = [int(np.count_nonzero(_is_foreground(part[0]))) for _, part in slabs(label)]
    total = sum(counts)
    chosen = np.arange(total)
    if total > max_indices:
        generator = np.random.default_rng(seed)
        chosen = np.sort(generator.choice(total, max_indices, replace=False, shuffle=False))
    found, before = [], 0
    for count, (rows, part) in zip(counts, slabs(label), strict=True):
        mine = chosen[np.searchsorted(chosen, before) : np.searchsorted(chosen, before + count)] - before
        if mine.size:
            per_row = part[0].size // part.shape[1]
            found.append(np.flatnonzero(_is_foreground(part[0]))[mine] + rows.start * per_row)
        before += count
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


def known_rows(label: Array) -> list[npt.NDArray[np.int64]]:
    """For each axis the indices of slices that are not wholly `IGNORE`; all of them where nothing is known.

    Example:
        >>> label = np.array([[[255, 255, 255], [0, 255, 1]]], dtype=np.uint8)
        >>> [rows.tolist() for rows in known_rows(label)]
        [[1], [0, 2]]
    """
    shape = label.shape[1:]
    is_seen = [np.zeros(size, bool) for size in shape]
    for rows, part in slabs(label):
        known = (part != IGNORE).any(axis=0)
        for axis, seen in enumerate(is_seen):
            profile = known.any(axis=tuple(other for other in range(known.ndim) if other != axis))
            where = rows if axis == 0 else slice(None)
            seen[where] |= profile
    if not is_seen[0].any():
        return [np.arange(size) for size in shape]
    return [np.flatnonzero(seen) for seen in is_seen]


def _balanced(label: Array, max_indices: int, seed: int) -> npt.NDArray[np.int64]:
    """Equally many positions of each class but 0, one class after the other."""
    classes = [int(value) for value in np.unique(label[0]) if value not in (0, IGNORE)]
    share = max_indices // max(len(classes), 1)
    positions = [foreground_indices(label == value, share, seed) for value in classes]
    most = max(map(len, positions), default=0)
    # repeated in turn, not at random: every voxel of a rare class is met equally often
    return np.concatenate([np.resize(each, most) for each in positions] or [np.zeros(0, np.int64)])


def _is_foreground(part: Array) -> npt.NDArray[np.bool_]:
    return (part > 0) & (part != IGNORE)
