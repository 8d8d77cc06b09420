"""Render a kidney training set from real vessel trees: HiP-CT-like cases in the challenge's folder layout.

Example:
    python scripts/render_kidney_training_set.py --trees tree_1.nii.gz tree_3.nii.gz --output_dir rendered \
        --volumes 24 --size 160 --seed 0

Writes `<output_dir>/<case>/{images,labels}/0000.tif`, `groups.json` (case to part, read by
`volseg prepare sennet`, whose `--folds 2` then gives one fold to each part)
and `renderings.json` (for every case its part, its place in the tree and its settings). Validation regions
never touch training regions: along a tree's longest axis the first 70 % train and the last 25 % validate.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from volseg.data.phantoms import HipctSettings, render_hipct, rescale_mask
from volseg.data.slice_writer import write_slice_folder
from volseg.files import write_json

TRAIN_SHARE, GAP_SHARE = 0.70, 0.05
SCALES = (0.35, 1.4)  # the trees' voxels are 22.6 um, the challenge's 50 um
NEARLY_EMPTY_SHARE = 0.12
MOST_ATTEMPTS = 8
Mask = npt.NDArray[np.uint8]


def main() -> None:
    arguments = _parse()
    trees = {_stem(path): _load_mask(path) for path in arguments.trees}
    renderings: dict[str, dict[str, object]] = {}
    for part, count in (("train", arguments.volumes), ("validate", arguments.validation_volumes)):
        names = [name for name in trees if _is_source(name, part, arguments.holdout)]
        for index in range(count):
            case = f"{'rendered' if part == 'train' else 'rendered_val'}_{index:03d}"
            seed = arguments.seed * 100_003 + (0 if part == "train" else 50_000) + index
            rng = np.random.default_rng([seed, 4])
            name = names[index % len(names)]
            region = _region(trees[name], part, name in arguments.holdout)
            mask, corner, edge, scale = _cut(rng, trees[name], region, arguments.size)
            image, settings, contrast = _render(mask, seed, arguments.min_contrast)
            _write_case(arguments.output_dir / case, image, mask)
            renderings[case] = {
                "part": part,
                "tree": name,
                "corner": corner,
                "edge": edge,
                "scale": round(scale, 3),
                "contrast": round(contrast, 3),
                "vessel_share": round(float(mask.mean()), 5),
                "settings": asdict(settings),
            }
            print(f"{case}: {name} at {corner}, scale {scale:.2f}, {mask.mean():.2%} vessel", flush=True)
    if arguments.lightsheet:
        renderings["lightsheet"] = {"part": "train"}
        _copy_lightsheet(arguments.lightsheet, arguments.output_dir / "lightsheet")
    write_json(
        arguments.output_dir / "groups.json", {case: told["part"] for case, told in renderings.items()}
    )
    write_json(arguments.output_dir / "renderings.json", renderings)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--trees", type=Path, nargs="+", required=True, help="binary NIfTI masks of vessel trees"
    )
    parser.add_argument(
        "--lightsheet", type=Path, help="a real case folder {images,labels} to add for training"
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--volumes", type=int, default=24, help="number of training cases")
    parser.add_argument("--validation_volumes", type=int, default=6)
    parser.add_argument("--size", type=int, default=160, help="edge of a case in voxels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--min_contrast",
        type=float,
        default=0.0,
        help="draw a rendering again while lumen and surroundings differ by fewer standard deviations",
    )
    parser.add_argument("--holdout", nargs="*", default=[], help="trees (file stems) that only validate")
    arguments = parser.parse_args()
    if set(map(_stem, arguments.trees)) <= set(arguments.holdout) and arguments.volumes:
        parser.error("--holdout names every tree; leave one to train on, or give --volumes 0")
    return arguments


def _render(
    mask: Mask, seed: int, min_contrast: float
) -> tuple[npt.NDArray[np.uint16], HipctSettings, float]:
    for attempt in range(MOST_ATTEMPTS):
        settings = HipctSettings.draw(seed + attempt * 1_000_003)
        image = render_hipct(mask, seed=seed, settings=settings)
        contrast = _local_contrast(image, mask)
        if abs(contrast) >= min_contrast or not mask.any():
            break
    return image, settings, contrast


def _local_contrast(image: npt.NDArray[np.uint16], mask: Mask) -> float:
    """Mean of the lumen less that of the tissue around it, in standard deviations of that tissue."""
    lumen, grey = mask > 0, image.astype(np.float32)
    near = ndimage.binary_dilation(lumen, iterations=2)
    ring = ndimage.binary_dilation(near, iterations=3) & ~near
    share = ndimage.uniform_filter(ring.astype(np.float32), 15)
    known = share > 1e-3
    if not (lumen & known).any() or not (ring & known).any():
        return 0.0
    rest = grey - ndimage.uniform_filter(np.where(ring, grey, 0), 15) / np.maximum(share, 1e-3)
    return float(rest[lumen & known].mean() / max(float(rest[ring & known].std()), 1e-6))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _load_mask(path: Path) -> Mask:
    return (np.asarray(nib.load(path).dataobj) != 0).astype(np.uint8)  # type: ignore[attr-defined]


def _is_source(name: str, part: str, holdout: list[str]) -> bool:
    return (name in holdout) == (part == "validate") if holdout else True


def _region(tree: Mask, part: str, whole: bool) -> tuple[slice, ...]:
    region = [slice(0, n) for n in tree.shape]
    if not whole:
        axis = int(np.argmax(tree.shape))
        length = tree.shape[axis]
        first = 0 if part == "train" else math.ceil((TRAIN_SHARE + GAP_SHARE) * length)
        region[axis] = slice(first, math.floor(TRAIN_SHARE * length) if part == "train" else length)
    return tuple(region)


def _cut(
    rng: np.random.Generator, tree: Mask, region: tuple[slice, ...], size: int
) -> tuple[Mask, list[int], int, float]:
    """A cube of the tree, turned at random and rescaled to `size` voxels; its corner, edge and scale."""
    room = min(part.stop - part.start for part in region)
    if room < size / 2:
        raise SystemExit(f"a tree's region is only {room} voxels wide; give --size {room} or less")
    # A cube that does not fit into its region is taken at a larger scale instead.
    lowest = max(SCALES[0], (size + 1) / room)
    scale = float(np.exp(rng.uniform(np.log(lowest), np.log(max(lowest, SCALES[1])))))
    edge = min(room, math.ceil(size / scale))
    wanted = 0.0 if rng.random() < NEARLY_EMPTY_SHARE else 0.008
    for _ in range(60):
        corner = [int(rng.integers(part.start, part.stop - edge + 1)) for part in region]
        view = tree[tuple(slice(c, c + edge) for c in corner)]
        if view[::3, ::3, ::3].mean() > wanted:
            break
    turned = view.transpose(rng.permutation(3))
    turned = turned[tuple(slice(None, None, int(step)) for step in rng.choice([-1, 1], size=3))]
    if rng.random() < 0.5:
        turned = _rotate(rng, turned)
    mask = rescale_mask(turned, max(scale, size / edge))[:size, :size, :size]
    return mask, corner, edge, scale


def _rotate(rng: np.random.Generator, mask: Mask) -> Mask:
    """Turn about z by up to 45 degrees; what turns in from outside is a mirror image of the tree."""
    angle = float(rng.uniform(-45, 45))
    turned = ndimage.rotate(
        mask.astype(np.float32), angle, axes=(0, 1), reshape=False, order=1, mode="mirror"
    )
    return (turned >= 0.5).astype(np.uint8)


def _write_case(case: Path, image: npt.NDArray[np.uint16], mask: Mask) -> None:
    spacing_mm = (0.05, 0.05, 0.05)
    write_slice_folder(case / "images", image, spacing_mm=spacing_mm)
    write_slice_folder(case / "labels", mask * np.uint8(255), spacing_mm=spacing_mm)


def _copy_lightsheet(source: Path, case: Path) -> None:
    import tifffile

    for name in ("images", "labels"):
        stack = np.stack([tifffile.imread(path) for path in sorted((source / name).glob("*.tif"))], axis=-1)
        volume = np.swapaxes(stack, 0, 1)
        if name == "labels":
            volume = (volume != 0).astype(np.uint8) * np.uint8(255)
        write_slice_folder(case / name, volume)


if __name__ == "__main__":
    main()
