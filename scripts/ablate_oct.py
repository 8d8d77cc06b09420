"""Train small networks on OCT phantoms, one part added after the other, and compare what each part gains.

All networks see the same phantoms, as many steps, and for a seed the same crops. With --planes one of them
is trained on single B-scans (2D), on stacks of three (2.5D) and on planes of all three axes instead, and run
along one axis and several. It shows that each part works and what it costs, not a ranking for real scans.

Example:
    python scripts/ablate_oct.py --write docs/ablation_oct.md
    python scripts/ablate_oct.py --planes "UNet++, CE + Dice" --write docs/ablation_oct_planes.md
"""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from choose_axis_weights import Weights, best_of, grid, mean_dice
from monai.transforms import Compose
from torch import nn
from torch.utils.data import DataLoader

from volseg.data import EpochSampler, SliceStackDataset
from volseg.data.phantoms import OctSettings, draw_oct_volume
from volseg.files import write_text
from volseg.inferers import AutocastInferer, EnsembleInferer, SliceDetectionInferer, TriAxisInferer
from volseg.losses import (
    DeepSupervisionLoss,
    ExpLogDiceLoss,
    MultiTaskLoss,
    WeightedCeDiceLoss,
    WeightedSumLoss,
)
from volseg.metrics import DetectionAUCMetric, ScoredCase, compute_confusion_matrix, score_preset
from volseg.networks import Ensemble, SliceStackUNet, UNetPlusPlus
from volseg.transforms import (
    ForegroundIndicesd,
    IntensityStatisticsd,
    NormalizeByStatisticsd,
    RandSliceStackd,
)

LESIONS = ("REA", "SRF", "PED")
CLASSES = 1 + len(LESIONS)
CLASS_WEIGHTS = (1, 5, 10, 20)
FEATURES = (8, 16, 32, 64, 128)
ROI = (64, 64)
BATCH = 8
# In training: cross B-scans look like B-scans, en-face planes do not.
AXIS_WEIGHTS = (3, 1, 4)
# One scanner, and lesions in most volumes: few steps are enough to learn, and few volumes to tell apart.
SCANNER = OctSettings(edema_probability=0.8, srf_probability=0.6, ped_probability=0.6)
FIRST_SEEDS = {"training": 0, "validation": 1000, "test": 2000}  # of the phantoms

ce_dice = partial(WeightedCeDiceLoss, CLASS_WEIGHTS, batch=True)
unet = partial(SliceStackUNet, upsample="transposed4")
multi_task_unet = partial(unet, detection_classes=len(LESIONS))
unet_plus_plus = partial(UNetPlusPlus, detection_classes=len(LESIONS))


def ce_exp_log_dice() -> nn.Module:
    exp_log = ExpLogDiceLoss(lambda_dice=1.0, lambda_ce=0.0, gamma=0.5, batch=True)
    return WeightedSumLoss([WeightedCeDiceLoss(CLASS_WEIGHTS, lambda_dice=0.0), exp_log])


MODELS: dict[str, tuple[Any, Any]] = {
    "U-Net, CE + Dice": (unet, ce_dice),
    "multi-task U-Net, CE + Dice": (multi_task_unet, ce_dice),
    "UNet++, CE + Dice": (unet_plus_plus, ce_dice),
    "UNet++, CE + exp-log Dice": (unet_plus_plus, ce_exp_log_dice),
    "dilated UNet++, CE + exp-log Dice": (partial(unet_plus_plus, dilated_centre=True), ce_exp_log_dice),
}
FUSION = "fusion of multi-task U-Net and dilated UNet++"
MEMBERS = {name: (name,) for name in MODELS}
MEMBERS[FUSION] = ("multi-task U-Net, CE + Dice", "dilated UNet++, CE + exp-log Dice")


@dataclass(frozen=True)
class Planes:
    """What a network is trained on, and the axes that its predictions are made along."""

    in_slices: int
    trained: tuple[int, ...] = (2,)
    axes: tuple[int, ...] = (2,)


STACKS = Planes(3)
PLANES = {
    "single B-scans (2D)": Planes(1),
    "2D, across x too": Planes(1, axes=(0, 2)),
    "stacks of three B-scans (2.5D)": STACKS,
    "2.5D, across x too": Planes(3, axes=(0, 2)),
    "2.5D, trained on three axes": Planes(3, trained=(0, 1, 2)),
    "2.5D, trained on three axes, across all": Planes(3, trained=(0, 1, 2), axes=(0, 1, 2)),
}


def main() -> None:
    study = Study(parse())
    name = study.options.planes
    if name is None:
        rows = {member: study.rows(member, STACKS) for member in MEMBERS}
    else:
        rows = {title: study.rows(name, planes) for title, planes in PLANES.items()}
    page = as_page(study.options, rows)
    print(page)
    if study.options.write is not None:
        write_text(study.options.write, page, overwrite=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300, help=f"batches of {BATCH} for each network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one network of each")
    parser.add_argument("--size", type=int, nargs=3, default=[64, 96, 32], help="of a phantom, in voxels")
    parser.add_argument("--training", type=int, default=16, help="phantoms to train on")
    parser.add_argument("--test", type=int, default=12, help="phantoms to score; half as many validate")
    parser.add_argument("--planes", choices=[*MODELS], metavar="NETWORK", help="compare planes for this one")
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    return parser.parse_args()


@dataclass
class Study:
    """The phantoms, the networks trained so far, and their scores."""

    options: argparse.Namespace
    networks: dict[Any, tuple[nn.Module, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"training": self.options.training, "test": self.options.test}
        counts["validation"] = (self.options.test + 1) // 2
        self.cases = {
            part: [phantom(FIRST_SEEDS[part] + number, tuple(self.options.size)) for number in range(count)]
            for part, count in counts.items()
        }
        zoom = self.options.size[0] / self.options.size[2]  # both edges of the field are 6 mm long
        self.zooms = {0: (1.0, zoom), 1: (1.0, zoom), 2: (1.0, 1.0)}

    def rows(self, name: str, planes: Planes) -> list[dict[str, float]]:
        """Scores of a network, or of the fusion, for each seed."""
        rows = []
        for seed in self.options.seeds:
            trained = [self.train(member, planes, seed) for member in MEMBERS[name]]
            networks = [network for network, _ in trained]
            weights = self.axis_weights(networks, planes)
            predictions = [self.predict(networks, planes, weights, case) for case in self.cases["test"]]
            row = score(self.cases["test"], predictions)
            rows.append({**row, "seconds": sum(seconds for _, seconds in trained)})
            print(f"{name}, {planes}, weights {weights}, seed {seed}: Dice {row['mean']:.3f}", flush=True)
        return rows

    def axis_weights(self, networks: Sequence[nn.Module], planes: Planes) -> Weights:
        """Weights of the axes with the best Dice on the validation phantoms."""
        if len(planes.axes) == 1:
            return (1.0,)
        matrices: dict[Weights, Any] = dict.fromkeys(grid(len(planes.axes)), 0)
        alone = [replace(planes, axes=(axis,)) for axis in planes.axes]
        for case in self.cases["validation"]:
            maps = torch.stack([self.predict(networks, each, (1.0,), case)[0][0] for each in alone])
            for weights in matrices:
                fused = torch.tensordot(torch.tensor(weights), maps, dims=1)
                found = fused.argmax(dim=0, keepdim=True)
                matrices[weights] += compute_confusion_matrix(found, case["label"].long(), classes=CLASSES)
        scores = {weights: mean_dice(matrix) for weights, matrix in matrices.items()}
        return best_of(scores, list(scores))

    def train(self, name: str, planes: Planes, seed: int) -> tuple[nn.Module, float]:
        """A network in eval mode, and the CPU seconds of its training; trained once."""
        key = (name, planes.in_slices, planes.trained, seed)
        if key not in self.networks:
            build, loss = MODELS[name]
            network = build(in_slices=planes.in_slices, out_channels=CLASSES, features=FEATURES, seed=seed)
            criterion = MultiTaskLoss(DeepSupervisionLoss(loss()))
            started = time.process_time()
            fit(network, criterion, self.batches(planes, seed), self.options.steps)
            self.networks[key] = network.eval(), time.process_time() - started
        return self.networks[key]

    def batches(self, planes: Planes, seed: int) -> DataLoader[dict[str, Any]]:
        """Crops that depend on the seed and the planes, not on the network."""
        cut = RandSliceStackd(
            in_slices=planes.in_slices,
            axes=planes.trained,
            axis_weights=[AXIS_WEIGHTS[axis] for axis in planes.trained],
            axis_zoom=[self.zooms[axis] for axis in planes.trained],
            upright=True,
            roi_size=ROI,
            scale_range=(0.8, 1.25),
        )
        dataset = SliceStackDataset(
            [case for pair in self.cases["training"] for case in (pair, mirrored(pair))],
            load=ForegroundIndicesd("label", balance=True),
            sample=Compose([cut, NormalizeByStatisticsd("image")]),
            length=BATCH * self.options.steps,
            seed=seed,
        )
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(dataset, batch_size=BATCH, sampler=EpochSampler(dataset), generator=generator)

    def predict(
        self, networks: Sequence[nn.Module], planes: Planes, weights: Weights, case: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Probabilities (1, K, x, y, z), and those of the heads (1, lesions, z) where all have one."""
        image = NormalizeByStatisticsd("image")(case)["image"][None]
        inferer = TriAxisInferer(
            in_slices=planes.in_slices,
            axes=planes.axes,
            axis_weights=weights,
            axis_zoom=[self.zooms[axis] for axis in planes.axes],
            upright=True,
            activation="softmax",
        )
        probability = EnsembleInferer(inferer)(image, Ensemble(networks).eval())
        if any(getattr(network, "detection", None) is None for network in networks):
            return probability, None
        detect = SliceDetectionInferer(planes.in_slices)
        return probability, torch.stack([detect(image, network) for network in networks]).mean(dim=0)


def phantom(seed: int, size: tuple[int, int, int]) -> dict[str, Any]:
    """Image and label (1, x, y, z), and the statistics of the image."""
    image, label = draw_oct_volume(size, seed=seed, settings=SCANNER)
    item = {"case": f"phantom_{seed}", "image": torch.from_numpy(image)[None]}
    item["label"] = torch.from_numpy(label)[None]
    return IntensityStatisticsd("image", without_extremes=True)(item)


def mirrored(case: dict[str, Any]) -> dict[str, Any]:
    """The other eye: left and right swapped."""
    return {**case, "image": case["image"].flip(1), "label": case["label"].flip(1)}


def fit(network: nn.Module, loss: nn.Module, batches: DataLoader[dict[str, Any]], steps: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, steps, power=0.9)
    forward = AutocastInferer()
    network.train()
    for batch in batches:
        optimiser.zero_grad()
        loss(forward(batch["image"], network), batch["label"]).backward()
        optimiser.step()
        schedule.step()


def score(cases: Sequence[dict[str, Any]], predictions: Sequence[Any]) -> dict[str, float]:
    """Pooled Dice of each lesion and their mean, both AUC, and the continuity, over all cases."""
    matrix = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    aucs = {"auc_masks": DetectionAUCMetric(), "auc_head": DetectionAUCMetric(first_class=1)}
    scored = []
    for case, (probability, detection) in zip(cases, predictions, strict=True):
        label = case["label"].long()
        found = probability[0].argmax(dim=0, keepdim=True)
        matrix += compute_confusion_matrix(found, label, classes=CLASSES)
        aucs["auc_masks"](probability, label[None])
        if detection is not None:
            aucs["auc_head"](detection, label[None])
        scored.append(ScoredCase(case["case"], found[0].numpy(), label[0].numpy()))
    beside = score_preset("aic-edema", scored).beside
    dice = (2 * matrix.diagonal() / (matrix.sum(dim=0) + matrix.sum(dim=1)))[1:]
    row = {name: float(value) for name, value in zip(LESIONS, dice, strict=True)}
    row["mean"] = float(dice.nanmean())
    has_head = predictions[0][1] is not None
    row["auc_head"] = float(aucs["auc_head"].aggregate()) if has_head else float("nan")
    row["auc_masks"] = float(aucs["auc_masks"].aggregate())
    return {**row, **{name: beside[name] for name in ("unbroken", "slice_consistency")}}


COLUMNS = {
    "mean": "Dice",
    **{name: name for name in LESIONS},
    "auc_head": "AUC, head",
    "auc_masks": "AUC, masks",
    "unbroken": "unbroken",
    "slice_consistency": "slice consistency",
}
Rows = list[dict[str, float]]


def as_page(options: argparse.Namespace, rows: dict[str, Rows]) -> str:
    size = "x".join(map(str, options.size))
    about = (
        f"Written by `scripts/ablate_oct.py {command(options)}`, which makes this table anew, phantoms "
        "included. Phantoms and small networks: it shows that each part works and what it costs, not a "
        f"ranking for real scans. {options.training} phantoms of {size} voxels, as if from one scanner, and "
        f"their mirror images to train on, {options.test} others to score; widths {FEATURES}, "
        f"{options.steps} batches of {BATCH} crops of {ROI[0]}x{ROI[1]} pixels, Adam, cross entropy weighted "
        f"{CLASS_WEIGHTS}. Mean ± standard deviation over {len(options.seeds)} seeds, of weights and crops; "
        "the phantoms stay."
    )
    columns = (
        "Dice is pooled over the voxels of all volumes, and its mean is over the lesions. Networks with a "
        "detection head have an AUC of the question whether a B-scan holds the lesion, asked from the head, "
        "and all have one asked from the largest probability of the mask. Unbroken and slice consistency are "
        "those of `volseg.metrics.compute_continuity`, of which 1 is as the truth. Seconds are CPU seconds "
        "of training; those of the fusion are of its members."
    )
    lines = ["# Ablation on OCT phantoms", "", wrapped(about), "", wrapped(columns), ""]
    if options.planes is None:
        lines += [header("network"), *(line(name, each) for name, each in rows.items())]
    else:
        lines += [wrapped(about_planes(options)), "", header("planes", "gain over 2D")]
        base, *_ = rows.values()
        lines += [line(name, each, gain(each, base)) for name, each in rows.items()]
    return "\n".join(lines) + "\n"


def about_planes(options: argparse.Namespace) -> str:
    zoom = options.size[0] / options.size[2]
    return (
        f"The network is {options.planes}. Planes across x, which show depth as B-scans do, are seen "
        f"upright and, like those across depth, zoomed by {zoom:g} across the B-scans. Where the network is "
        "run along several axes, these weigh what was best on the validation phantoms, for each seed. "
        f"Trained on three axes, which weigh {AXIS_WEIGHTS}, it saw half as many B-scans in as many steps. "
        "Gains in Dice are seed by seed, lowest and highest in brackets; one whose range holds 0 is none."
    )


def gain(rows: Rows, base: Rows) -> str:
    if rows is base:
        return ""
    gains = [row["mean"] - plain["mean"] for row, plain in zip(rows, base, strict=True)]
    return f"{np.mean(gains):+.3f} ({min(gains):+.3f} to {max(gains):+.3f})"


def command(options: argparse.Namespace) -> str:
    seeds, size = " ".join(map(str, options.seeds)), " ".join(map(str, options.size))
    planes = "" if options.planes is None else f' --planes "{options.planes}"'
    counts = f"--training {options.training} --test {options.test}"
    return f"--steps {options.steps} --seeds {seeds} --size {size} {counts}{planes}"


def wrapped(text: str) -> str:
    return textwrap.fill(text, 110, break_on_hyphens=False, break_long_words=False)


def header(*first: str) -> str:
    names = [*first, *COLUMNS.values(), "seconds"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(first)}{'---:|' * (len(names) - len(first))}"


def line(name: str, rows: Rows, *first: str) -> str:
    cells = [name, *first, *(cell([row[column] for row in rows]) for column in COLUMNS)]
    return f"| {' | '.join(cells)} | {np.mean([row['seconds'] for row in rows]):.0f} |"


def cell(values: list[float]) -> str:
    if np.isnan(values).any():
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
