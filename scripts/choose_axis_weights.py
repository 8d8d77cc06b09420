"""Choose how much each axis of a bundle's tri-axis inference weighs, on its validation cases.

The network runs once along each axis of a case; every set of weights in tenths is then scored on the same
probabilities. The score is Dice from the voxels of all cases together, the mean over the foreground classes;
a threshold is the one stored with the checkpoint.

Example:
    python scripts/choose_axis_weights.py bundles/oct_edema --dataset_dir prepared/oct \
        --checkpoint bundles/oct_edema/models/model.pt
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from volseg.checks import InputError, refuse
from volseg.inferers import EnsembleInferer, TriAxisInferer
from volseg.metrics import compute_confusion_matrix, compute_confusion_measure

Weights = tuple[float, ...]
TENTHS = 10


def main() -> None:
    options = parse()
    config = read_config(options)
    inferers = config.get_parsed_content("member_list").inferers
    axes = check_inferers(inferers)
    choices = grid(len(axes))
    named = named_weights(axes, inferers[0].weights)
    matrices = dict.fromkeys((*choices, *named.values()), 0)
    dataset, classes = config.get_parsed_content("dataset"), config.get_parsed_content("classes")
    decide = config.get_parsed_content("decide")
    for number, item in enumerate(dataset, start=1):
        print(f"case {number} of {len(dataset)}", file=sys.stderr, flush=True)
        maps, label = axis_maps(config, inferers, axes, item)
        for weights in matrices:
            matrices[weights] += count(maps, weights, label, decide=decide, classes=classes)
    scores = {weights: mean_dice(matrix) for weights, matrix in matrices.items()}
    print(as_text(scores, best_of(scores, choices), named, axes))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Behind -- come overrides of the evaluate config, such as --network_def::features '[8,16]'.",
    )
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="prepared folder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights of its network")
    parser.add_argument("--fold", type=int, default=0, help="its validation fold")
    own, overrides = sys.argv[1:], []
    if "--" in own:  # argparse gives nothing behind it to a second list of positional arguments
        place = own.index("--")
        own, overrides = own[:place], own[place + 1 :]
    options = parser.parse_args(own)
    if len(overrides) % 2 or not all(name.startswith("--") for name in overrides[::2]):
        parser.error("behind -- give each override as two words: --id value")
    options.overrides = dict(zip((name[2:] for name in overrides[::2]), overrides[1::2], strict=True))
    return options


def read_config(options: argparse.Namespace) -> ConfigParser:
    """The bundle's evaluate config with what the command line says."""
    file = options.bundle / "configs" / "evaluate.json"
    if not file.is_file():
        refuse(options.bundle, "a bundle with configs/evaluate.json", "no such file", "check the path")
    config = ConfigParser(ConfigParser.load_config_file(str(file)))
    values: dict[str, Any] = {"bundle_root": str(options.bundle), "dataset_dir": str(options.dataset_dir)}
    values |= {"checkpoint": str(options.checkpoint), "fold": options.fold, "section": "validation"}
    config.update({**values, **{name: value_of(text) for name, text in options.overrides.items()}})
    config.parse()
    return config


def value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def check_inferers(inferers: Sequence[Any]) -> tuple[int, ...]:
    """The axes that all members are run along, two or three, fused by the mean."""
    for inferer in inferers:
        if not isinstance(inferer, TriAxisInferer) or inferer.fusion != "mean" or len(inferer.axes) < 2:
            got = ", ".join(f"{name} {getattr(inferer, name, '-')}" for name in ("axes", "fusion"))
            expected = "a TriAxisInferer along two axes or three, fused by the mean"
            refuse("inferer", expected, f"{type(inferer).__name__}, {got}", "set axes and fusion behind --")
    if len({inferer.axes for inferer in inferers}) > 1:
        refuse("members", "inferers along the same axes", "different axes", "choose for one member at a time")
    return inferers[0].axes


def grid(axes: int) -> list[Weights]:
    """All positive weights in tenths that sum to one."""
    tenths = itertools.product(range(1, TENTHS), repeat=axes)
    return [tuple(part / TENTHS for part in parts) for parts in tenths if sum(parts) == TENTHS]


def named_weights(axes: Sequence[int], configured: Weights) -> dict[str, Weights]:
    """What the best weights are compared with."""
    named = {"as configured": tuple(configured), "equal": (1 / len(axes),) * len(axes)}
    for place, axis in enumerate(axes):
        named[f"axis {axis} alone"] = tuple(float(place == other) for other in range(len(axes)))
    return named


def axis_maps(
    config: ConfigParser, inferers: Sequence[TriAxisInferer], axes: Sequence[int], item: Mapping[str, Any]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Probabilities (K, x, y, z) of each axis alone, and the label, all on the grid of the source."""
    network, device = config.get_parsed_content("network"), config.get_parsed_content("device")
    restore = Compose(config.get_parsed_content("restore"))
    image, maps = item["image"], []
    for axis in axes:
        inferer = EnsembleInferer([along(each, axis) for each in inferers])
        pred = inferer(image[None].to(device), network)[0].cpu()
        restored = restore({**item, "pred": pred})
        maps.append(restored["pred"].as_subclass(torch.Tensor))
    return maps, restored["label"].as_subclass(torch.Tensor)


def along(inferer: TriAxisInferer, axis: int) -> TriAxisInferer:
    """The inferer with one of its axes."""
    single = copy.copy(inferer)
    single.axes, single.weights = (axis,), (1.0,)
    return single


def count(
    maps: Sequence[torch.Tensor],
    weights: Weights,
    label: torch.Tensor,
    *,
    decide: Callable[[dict[str, Any]], dict[str, Any]],
    classes: int,
) -> torch.Tensor:
    """Confusion matrix of one case for one set of weights."""
    fused = sum(weight * axis_map for weight, axis_map in zip(weights, maps, strict=True))
    return compute_confusion_matrix(decide({"pred": fused})["pred"], label, classes=max(classes, 2))


def mean_dice(matrix: torch.Tensor) -> float:
    return compute_confusion_measure(matrix, "mean_dice")


def best_of(scores: Mapping[Weights, float], choices: Sequence[Weights]) -> Weights:
    """The choice with the best score; of equal ones the most even."""
    known = [weights for weights in choices if scores[weights] == scores[weights]]
    if not known:
        refuse("labels", "a labelled voxel in a validation case", "none", "choose another --fold")
    return max(known, key=lambda weights: (scores[weights], -max(weights)))


def as_text(
    scores: Mapping[Weights, float], best: Weights, named: Mapping[str, Weights], axes: Sequence[int]
) -> str:
    lines = [f"| | weights of axes {', '.join(map(str, axes))} | mean Dice |", "|---|---|---:|"]
    for name, weights in {"best": best, **named}.items():
        told = ", ".join(f"{weight:.3g}" for weight in weights)
        lines.append(f"| {name} | {told} | {scores[weights]:.4f} |")
    return "\n".join([*lines, "", f'--axis_weights "{list(best)}"'])


if __name__ == "__main__":
    try:
        main()
    except (InputError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
