"""A small phantom in the layout of the SenNet + HOA challenge, the truth of its test cases kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from volseg.data.phantoms.hipct import render_hipct
from volseg.data.phantoms.hipct_settings import HipctSettings
from volseg.data.phantoms.vessel_tree import grow_vessel_tree
from volseg.data.slice_writer import write_slice_folder

__all__ = ["drop_branches", "write_sennet_phantom"]


def write_sennet_phantom(
    root: str | Path,
    *,
    shape: tuple[int, int, int] = (96, 96, 64),
    cases: Sequence[str] = ("kidney_1_dense", "kidney_2", "kidney_3_dense"),
    test_cases: Sequence[str] = ("kidney_5",),
    seed: int = 0,
    spacing_mm: Sequence[float] = (0.05, 0.05, 0.05),
    sparse: bool = False,
    settings: HipctSettings | None = None,
) -> Path:
    """Write kidneys of another tree and another look each, as `<root>/<kidney>/{images,labels}/0000.tif`.

    Images are uint16, labels 0 and 255. Test cases lie in `<root>/test/<kidney>/images`; their labels are
    kept outside the challenge's layout, in `<root>/truth/<kidney>/labels`.

    Args:
        root: created where missing.
        shape: (x, y, z) of every kidney, each size at least 16.
        cases: folders with labels.
        test_cases: folders below `test`.
        seed: same seed, same bytes.
        spacing_mm: written to `spacing.json` in every folder of slices.
        sparse: as in the challenge, label only 65 % of the vessels of `kidney_2`, and only the middle half of
            the slices of `kidney_3_dense`, whose images then lie in `kidney_3_sparse` beside labels of 85 %.
        settings: look of every kidney, as if from one scanner; drawn anew for each kidney if None.

    Returns:
        The root.

    Raises:
        InputError: when a slice is there already.
    """
    root = Path(root)
    for index, case in enumerate([*cases, *test_cases]):
        case_seed = 1000 * seed + index
        mask = grow_vessel_tree(shape, seed=case_seed)
        image = render_hipct(mask, seed=case_seed, settings=settings)
        if index >= len(cases):
            write_slice_folder(root / "test" / case / "images", image, spacing_mm=spacing_mm)
            write_slice_folder(root / "truth" / case / "labels", mask * np.uint8(255), spacing_mm=spacing_mm)
        elif sparse and case == "kidney_3_dense":
            whole = root / "kidney_3_sparse"
            write_slice_folder(whole / "images", image, spacing_mm=spacing_mm)
            _write_labels(whole, drop_branches(mask, coverage=0.85, seed=case_seed), spacing_mm)
            first = shape[2] // 4
            _write_labels(root / case, mask[:, :, first : first + shape[2] // 2], spacing_mm, first=first)
        else:
            write_slice_folder(root / case / "images", image, spacing_mm=spacing_mm)
            if sparse and case == "kidney_2":
                mask = drop_branches(mask, coverage=0.65, seed=case_seed)
            _write_labels(root / case, mask, spacing_mm)
    return root


def drop_branches(mask: npt.ArrayLike, *, coverage: float, seed: int) -> npt.NDArray[np.uint8]:
    """Leave whole twigs out of a label until about `coverage` of the voxels remain, as hasty annotators do.

    Args:
        mask: (x, y, z), nonzero inside a vessel.
        coverage: share of vessel voxels kept, in [0, 1]; trunks wider than four voxels always stay.
        seed: chooses the twigs that go.

    Returns:
        uint8 mask, a subset of the given one.
    """
    binary = np.asarray(mask) != 0
    trunk = ndimage.binary_dilation(ndimage.binary_opening(binary, iterations=2), iterations=1) & binary
    # Cutting the twigs at a coarse grid of planes gives pieces of a branch's length.
    cuts = np.zeros_like(binary)
    for axis in range(3):
        planes = [slice(None)] * 3
        planes[axis] = slice(8, None, 16)
        cuts[tuple(planes)] = True
    pieces, count = cc3d.connected_components(binary & ~trunk & ~cuts, connectivity=26, return_N=True)
    order = np.random.default_rng([seed, 3]).permutation(count) + 1
    # Twigs go in random order until the voxels left are few enough.
    gone = np.cumsum(np.bincount(pieces.ravel(), minlength=count + 1)[order]) * (binary & ~trunk).sum()
    gone = gone / max(1, np.count_nonzero(pieces))
    kept = np.zeros(count + 1, dtype=bool)
    kept[order[gone > (1.0 - coverage) * binary.sum()]] = True
    # Voxels on the cuts follow the nearest piece.
    nearest = ndimage.distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
    twigs = kept[pieces[tuple(nearest)]] if count else np.ones_like(binary)
    return (binary & (trunk | twigs)).astype(np.uint8)


def _write_labels(
    case: Path, mask: npt.NDArray[np.uint8], spacing_mm: Sequence[float], first: int = 0
) -> None:
    write_slice_folder(case / "labels", mask * np.uint8(255), spacing_mm=spacing_mm, first=first)
