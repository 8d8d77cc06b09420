"""An image and its label at the same place in the world."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from monai.transforms import MapTransform

from volseg.checks import check_positive, refuse
from volseg.transforms.labels import refuse_shape
from volseg.transforms.volume import bare_array, name_of, replaced_array

__all__ = ["CheckPaird"]


class CheckPaird(MapTransform):
    """Refuse a label that does not lie on its image; turn one that is merely stored in another orientation.

    MONAI crops image and label by voxel index and never compares their places.

    Args:
        image_key: (C, D0, D1, D2), or (C, H, W) where only the size is compared.
        label_key: the label; where it or the image is no MetaTensor only the size is compared.
        tolerance_voxels: how far a corner of the label's grid may lie from the image's.
    """

    def __init__(
        self, image_key: str = "image", label_key: str = "label", *, tolerance_voxels: float = 0.1
    ) -> None:
        super().__init__((label_key,))
        check_positive("tolerance_voxels", tolerance_voxels)
        self.image_key = image_key
        self.label_key = label_key
        self.tolerance_voxels = tolerance_voxels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item, its label on exactly the image's grid.

        Raises:
            InputError: when the label has another size or lies elsewhere.
        """
        item = dict(data)
        image, label = item[self.image_key], item[self.label_key]
        if image.ndim == 4 and all(_place_is_known(volume) for volume in (image, label)):
            item[self.label_key] = self._turned(item)
        elif image.shape[1:] != label.shape[1:]:
            refuse_shape(item, self.label_key, tuple(label.shape[1:]), tuple(image.shape[1:]))
        return item

    def _turned(self, item: Mapping[Hashable, Any]) -> MetaTensor:
        image, label = item[self.image_key], item[self.label_key]
        to_label = np.linalg.inv(_affine(label)) @ _affine(image)  # image voxel -> label voxel
        permutation = [int(np.argmax(np.abs(column))) for column in to_label[:3, :3].T]
        if sorted(permutation) != [0, 1, 2]:
            self._refuse_place(item, to_label)
        array = bare_array(label).transpose(0, *[axis + 1 for axis in permutation])
        flips = [axis for axis, source in enumerate(permutation) if to_label[source, axis] < 0]
        array = np.flip(array, tuple(axis + 1 for axis in flips))
        if array.shape[1:] != tuple(image.shape[1:]):
            refuse_shape(item, self.label_key, tuple(label.shape[1:]), tuple(image.shape[1:]))
        turned = np.zeros((4, 4))
        turned[3, 3] = 1
        for axis, source in enumerate(permutation):
            turned[source, axis] = -1 if axis in flips else 1
            turned[source, 3] = label.shape[source + 1] - 1 if axis in flips else 0
        if self._distance(to_label, turned, image.shape[1:]) > self.tolerance_voxels:
            self._refuse_place(item, to_label, turned)
        same_order = permutation == [0, 1, 2] and not flips
        return label if same_order else replaced_array(label, array, affine=_affine(image))

    def _distance(
        self, found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], shape: tuple[int, ...]
    ) -> float:
        corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(shape)[:, None] - 1)
        offsets = (found - expected) @ np.vstack([corners, np.ones(8)])
        return float(np.linalg.norm(offsets[:3], axis=0).max())

    def _refuse_place(
        self,
        item: Mapping[Hashable, Any],
        to_label: npt.NDArray[np.float64],
        turned: npt.NDArray[np.float64] | None = None,
    ) -> None:
        image, label = item[self.image_key], item[self.label_key]
        expected = np.eye(4) if turned is None else turned
        corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(image.shape[1:])[:, None] - 1)
        voxels = (to_label - expected) @ np.vstack([corners, np.ones(8)])
        millimetres = np.linalg.norm((_affine(label) @ voxels)[:3], axis=0).max()
        remedy = "resample the label onto the image, or correct its header"
        refuse(name_of(item, self.label_key), "the place of its image", f"{millimetres:.3g} mm off", remedy)


def _place_is_known(volume: object) -> bool:
    return isinstance(volume, MetaTensor) and bool(volume.meta.get("spacing_is_known", True))


def _affine(volume: MetaTensor) -> npt.NDArray[np.float64]:
    return volume.affine.numpy().astype(np.float64)
