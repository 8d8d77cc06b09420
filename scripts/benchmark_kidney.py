"""Compare single-axis, tri-axis and 3D inference on kidney vessels that training never saw.

Trains the bundle's 2.5D network and a 3D U-Net of about as many weights for the same number of minutes on the
same data, chooses each threshold on the validation fold, and scores vessel trees that are grown and rendered
from other seeds, by surface Dice at tolerance 0. The shipped weights are scored beside them.

Example:
    python scripts/benchmark_kidney.py --dataset_dir rendered --minutes 6 --write docs/benchmark_kidney.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import nn

from volseg.data import load_cases, read_volume
from volseg.data.phantoms import grow_vessel_tree, render_hipct
from volseg.handlers import load_threshold
from volseg.inferers import AutocastInferer, TriAxisInferer
from volseg.metrics import compute_surface_dice, compute_surface_dice_sweep
from volseg.networks import load_weights
from volseg.transforms import IntensityStatisticsd, NormalizeByStatisticsd

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "kidney_vessels"
SLICES_3D = 31
NETWORK_3D = {
    "_target_": "volseg.networks.StackUNet3D",
    "in_slices": SLICES_3D,
    "out_slices": SLICES_3D,
    "features": [32, 64, 96, 192],
    "seed": 0,
}
THRESHOLDS = np.arange(1, 100) / 100
SPACING_MM = (1.0, 1.0, 1.0)


def main() -> None:
    arguments = _parse()
    torch.manual_seed(0)
    flat = _config(arguments, {})
    deep = _config(
        arguments,
        {
            "network_def": NETWORK_3D,
            "in_slices": SLICES_3D,
            "out_slices": SLICES_3D,
            "batch_size": 2,
            "train::roi_size": [96, 96],
        },
    )
    volumes = [_unseen(seed, arguments.size) for seed in range(101, 101 + arguments.volumes)]
    validation = [
        _case(item) for item in load_cases(arguments.dataset_dir, "validation", fold=arguments.fold)[:2]
    ]
    rows: list[tuple[str, str, str, float, float]] = []
    shipped = flat.get_parsed_content("network_def")
    weights = BUNDLE / "models" / "model.pt"
    if weights.is_file():
        load_weights(shipped, weights)
        for name, inferer in _inferers(3).items():
            rows.append(
                _score("2.5D U-Net, shipped", shipped, name, inferer, volumes, load_threshold(weights))
            )
    for title, config, inferers in (
        ("2.5D U-Net", flat, _inferers(3)),
        ("3D U-Net", deep, _inferers_3d()),
    ):
        network, steps = _train(config, 60 * arguments.minutes)
        title = f"{title}, {arguments.minutes:g} min ({steps} steps)"
        for name, inferer in inferers.items():
            threshold = _threshold(network, inferer, validation)
            rows.append(_score(title, network, name, inferer, volumes, threshold))
    table = _table(rows, arguments)
    print(table)
    if arguments.write:
        arguments.write.write_text(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset_dir", type=Path, required=True, help="prepared training set")
    parser.add_argument("--fold", type=int, default=0, help="its validation fold")
    parser.add_argument("--minutes", type=float, default=6, help="training time of each network")
    parser.add_argument("--volumes", type=int, default=3, help="unseen vessel trees")
    parser.add_argument("--size", type=int, default=128, help="edge of an unseen volume in voxels")
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    return parser.parse_args()


def _config(arguments: argparse.Namespace, overrides: dict[str, Any]) -> ConfigParser:
    config = ConfigParser(ConfigParser.load_config_file(str(BUNDLE / "configs" / "train.json")))
    values = {"dataset_dir": str(arguments.dataset_dir), "fold": arguments.fold, "bundle_root": str(BUNDLE)}
    config.update({**values, **overrides})
    config.parse()
    return config


def _train(config: ConfigParser, seconds: float) -> tuple[nn.Module, int]:
    network: nn.Module = config.get_parsed_content("network_def")
    loss, loader = config.get_parsed_content("loss"), config.get_parsed_content("train::dataloader")
    sampler = config.get_parsed_content("train::sampler")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    forward, steps, epoch = AutocastInferer(), 0, 0
    network.train()
    started = time.monotonic()
    while True:
        epoch += 1
        sampler.set_epoch(epoch)
        for batch in loader:
            share = (time.monotonic() - started) / seconds
            if share >= 1:
                return network.eval(), steps
            optimizer.param_groups[0]["lr"] = (
                1e-3 * min(1.0, 20 * share + 0.05) * 0.5 * (1 + np.cos(np.pi * share))
            )
            optimizer.zero_grad(set_to_none=True)
            loss(forward(batch["image"], network), batch["label"]).backward()
            optimizer.step()
            steps += 1


def _inferers(slices: int) -> dict[str, TriAxisInferer]:
    shared: dict[str, Any] = {"in_slices": slices, "out_slices": slices}
    return {
        "one axis": TriAxisInferer(axes=(2,), **shared),
        "one axis, 8 views": TriAxisInferer(axes=(2,), tta="d4", **shared),
        "three axes": TriAxisInferer(**shared),
        "three axes, 8 views": TriAxisInferer(tta="d4", **shared),
    }


def _inferers_3d() -> dict[str, TriAxisInferer]:
    shared: dict[str, Any] = {"in_slices": SLICES_3D, "out_slices": SLICES_3D, "slice_step": 15, "axes": (2,)}
    return {
        "whole slices": TriAxisInferer(**shared),
        "whole slices, 8 views": TriAxisInferer(tta="d4", **shared),
    }


def _unseen(seed: int, size: int) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    mask = grow_vessel_tree((size, size - 8, size - 16), seed=seed, voxels_per_tip=15000.0)
    return _normal(render_hipct(mask, seed=seed)), mask > 0


def _case(item: dict[str, Any]) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    return _normal(read_volume(item["image"])[0]), read_volume(item["label"])[0] > 0


def _normal(volume: np.ndarray[Any, Any]) -> torch.Tensor:
    item = {"image": torch.from_numpy(np.ascontiguousarray(volume[None]).astype(np.float32))}
    image: torch.Tensor = NormalizeByStatisticsd("image")(IntensityStatisticsd("image")(item))["image"]
    return image[None]


def _probability(network: nn.Module, inferer: TriAxisInferer, image: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(inferer(image, network)[0, 0].numpy())


def _threshold(network: nn.Module, inferer: TriAxisInferer, cases: list[Any]) -> float:
    sweep: Callable[..., Any] = compute_surface_dice_sweep
    curves = [
        sweep(_probability(network, inferer, image), truth, spacing_mm=SPACING_MM, thresholds=THRESHOLDS)
        for image, truth in cases
    ]
    return float(THRESHOLDS[int(np.mean(curves, axis=0).argmax())])


def _score(
    title: str, network: nn.Module, name: str, inferer: TriAxisInferer, volumes: list[Any], threshold: float
) -> tuple[str, str, str, float, float]:
    network.eval()
    started = time.monotonic()
    scores = [
        compute_surface_dice(_probability(network, inferer, image) >= threshold, truth, spacing_mm=SPACING_MM)
        for image, truth in volumes
    ]
    seconds = (time.monotonic() - started) / len(volumes)
    count = f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M"
    print(f"{title} | {name} | {np.mean(scores):.3f} | {seconds:.1f} s", flush=True)
    return title, count, f"{name} (threshold {threshold:.2f})", float(np.mean(scores)), seconds


def _table(rows: list[tuple[str, str, str, float, float]], arguments: argparse.Namespace) -> str:
    command = f"--minutes {arguments.minutes:g} --volumes {arguments.volumes} --size {arguments.size}"
    head = f"""# Kidney vessels: one axis, three axes, 3D

Written by `scripts/benchmark_kidney.py {command}`.
Mean surface Dice at tolerance 0 of {arguments.volumes} generated vessel trees, rendered from seeds that
training never saw. The data is synthetic: it shows what the fusion gains, not how good the network is on real
scans. Networks trained here for equal minutes choose their threshold on one validation volume; the
shipped weights use the threshold stored with them.

| network | weights | inference | surface Dice | seconds a volume |
|---|---|---|---|---|
"""
    return head + "".join(f"| {t} | {c} | {n} | {s:.3f} | {sec:.1f} |\n" for t, c, n, s, sec in rows)


if __name__ == "__main__":
    main()
