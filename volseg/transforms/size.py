"""Pictures and volumes brought to one size in voxels, where their files know no physical spacing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from volseg.checks import check_choice, check_positive
from volseg.transforms.resize import RESIZERS
from volseg.transforms.spacing import resampled

__all__ = ["MatchSized"]

Mode = Literal["linear", "nearest", "classes"]


class MatchSized(MapTransform):
    """Resize so that the longest side has `longest` voxels, keeping the aspect; `RestoreShaped` undoes it.

    `monai.transforms.Resized` averages no labels into classes, and its inverse needs the trace of all that
    was applied since. Here the outer faces stay in place, in world coordinates too.

    Args:
        keys: MetaTensors (C, *spatial).
        longest: voxels of the longest side afterwards.
        mode: "linear" for images; "classes" or "nearest" for class indices; one for all keys or one for each.
        allow_missing_keys: skip a key that the item lacks.

    Raises:
        ValueError: when `longest` is not positive or a mode is unknown.

    Example:
        >>> resize = MatchSized("image", 8)
        >>> resize({"image": MetaTensor(torch.zeros(3, 16, 12))})["image"].shape
        torch.Size([3, 8, 6])
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        longest: int = 512,
        *,
        mode: Mode | Sequence[Mode] = "linear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_positive("longest", longest)
        self.longest = int(longest)
        self.modes = [check_choice("mode", name, RESIZERS) for name in ensure_tuple_rep(mode, len(self.keys))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with volumes whose longest side is as asked; those that have it pass unchanged."""
        item = dict(data)
        for key, mode in self.key_iterator(item, self.modes):
            volume = item[key]
            shape = _matched(volume.shape[1:], self.longest)
            if shape != tuple(volume.shape[1:]):
                is_placed = isinstance(volume, MetaTensor)
                item[key] = resampled(
                    volume if is_placed else MetaTensor(torch.as_tensor(volume)), shape, mode
                )
        return item


def _matched(shape: Sequence[int], longest: int) -> tuple[int, ...]:
    return tuple(max(1, round(size * longest / max(shape))) for size in shape)
