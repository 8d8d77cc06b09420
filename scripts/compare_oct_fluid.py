"""Whether neighbouring B-scans help: fluid in OCT volumes by the bundle oct_fluid, and without them.

Each fold is trained twice with the bundle's own configs, with the same sampling, crops, augmentation and
optimiser, for the same epochs: the bundle as it is, and a 2D U-Net of as many weights that sees one
B-scan. Scores are Dice of the fluid of a subject, over all its labelled B-scans together. Stopped and started
again, the command continues where it was.

An encoder trained on ImageNet is an advantage of the bundle's network, and only that network has one:
overrides of network_def behind -- reach it alone. With --same-network both are the bundle's network, with
these overrides and the encoder, and only the neighbours differ.

Example:
    python scripts/compare_oct_fluid.py --dataset_dir prepared/duke --output_dir fluid --same-network \
        --write docs/compare_oct_fluid.md -- --network_def::encoder_weights efficientnet-lite0.pth --epochs 24
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cross_validate import (
    BUNDLES,
    RESAMPLES,
    Overrides,
    as_arguments,
    common_to_both,
    named,
    split_overrides,
    train_and_evaluate,
)
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from volseg.checks import InputError
from volseg.data import read_datalist
from volseg.files import write_text
from volseg.networks import SliceStackUNet
from volseg.reports.bootstrap import percentile_interval, resample_counts, resampled_means

BUNDLE = "oct_fluid"
CONFIGS = BUNDLES / BUNDLE / "configs"
TOLERANCE = 0.05  # by how much the two may differ in size


@dataclass(frozen=True)
class Variant:
    """One of the two networks.

    Attributes:
        title: in the table.
        folder: of its runs.
        training: overrides of the train config.
        weights: number of its parameters.
    """

    title: str
    folder: str
    training: Overrides
    weights: int


def main() -> None:
    options = parse()
    try:
        text = compare(options)
    except (InputError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    print(text)
    if options.write:
        write_text(options.write, text, overwrite=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Behind -- come overrides of the train config.",
    )
    parser.add_argument("--dataset_dir", type=Path, required=True, help="prepared folder with grouped folds")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--folds", type=int, help="run only the first so many folds")
    parser.add_argument("--same-network", action="store_true", help="the bundle's network without neighbours")
    parser.add_argument(
        "--choose",
        action="store_true",
        help="choose epoch and threshold on the scored subjects, as the bundle's training does",
    )
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    own, overrides = split_overrides(sys.argv[1:])
    options = parser.parse_args(own)
    options.given = overrides
    options.overrides = named(overrides)
    return options


def compare(options: argparse.Namespace) -> str:
    dataset = options.dataset_dir.resolve()
    datalist = read_datalist(dataset / "datalist.json")
    folds = sorted({item["fold"] for item in datalist.training})
    variants = make_variants(options)
    for variant in variants:
        print(f"{variant.title}: {variant.weights} weights", file=sys.stderr, flush=True)
    runs = []
    for fold in folds[: options.folds] if options.folds else folds:
        for variant in variants:
            folder = options.output_dir.resolve() / variant.folder / f"fold_{fold}"
            seconds, scores = run(variant, dataset, fold, folder, is_choosing=options.choose)
            runs.append({"variant": variant.title, "fold": fold, "seconds": seconds, "scores": scores})
    return report(runs, variants, options)


def make_variants(options: argparse.Namespace) -> tuple[Variant, Variant]:
    """The bundle as it is, and the one without neighbours."""
    common: Overrides = options.overrides
    if not options.choose:
        # one validation, at the end: which epoch is kept is not decided by the subjects that are scored
        epochs = config_of(common).get_parsed_content("epochs")
        common = {"val_interval": str(epochs), **common}
    slices = config_of(common).get_parsed_content("in_slices")
    first = Variant(f"2.5D, {slices} B-scans", "neighbours", common, weights_of(common))
    alone = {**common, "in_slices": "1"}
    if options.same_network:
        return first, Variant("2D, same network", "same_network", alone, weights_of(alone))
    definition = unet_of(first.weights, config_of(alone))
    alone = {name: value for name, value in alone.items() if name.split("::")[0] != "network_def"}
    alone["network_def"] = repr(definition)
    title = f"2D U-Net, {'-'.join(map(str, definition['features']))}"
    return first, Variant(title, "single_slice", alone, weights_of(alone))


def unet_of(weights: int, config: ConfigParser) -> dict[str, Any]:
    """Definition of a 2D U-Net of so many weights, with the head and the dropout of the config's network.

    Raises:
        ValueError: when none is as large within the tolerance.
    """
    definition = {
        "_target_": "volseg.networks.SliceStackUNet",
        "in_slices": "@in_slices",
        "out_slices": "@out_slices",
        "out_channels": "@classes",
        "seed": "@seed",
    }
    for name in ("detection_classes", "dropout"):
        if name in config["network_def"]:
            definition[name] = config.get_parsed_content(f"network_def::{name}")
    tasks = {name: value for name, value in definition.items() if not str(value).startswith(("@", "volseg"))}

    def size(eighths: int) -> int:
        with torch.device("meta"):
            return count(SliceStackUNet(in_slices=1, features=widths_of(eighths), **tasks))

    first = bisect_left(range(8, 1024), weights, key=size) + 8  # in eighths of a channel at the full size
    nearest = min((max(first - 1, 8), first), key=lambda eighths: abs(size(eighths) - weights))
    if abs(size(nearest) - weights) > TOLERANCE * weights:
        raise ValueError(f"no U-Net is within {TOLERANCE:.0%} of {weights} weights; choose a larger network")
    return {**definition, "features": widths_of(nearest)}


def widths_of(eighths: int) -> list[int]:
    return [round(eighths / 8 * 2**level) for level in range(5)]


def config_of(overrides: Overrides) -> ConfigParser:
    """The train config with overrides, their values read as the command line reads them."""
    config = ConfigParser(ConfigParser.load_config_file(str(CONFIGS / "train.json")))
    config.update({name: DefaultParseValue(value) for name, value in overrides.items()})
    return config


def weights_of(overrides: Overrides) -> int:
    return count(config_of(overrides).get_parsed_content("network_def"))


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def run(
    variant: Variant, dataset: Path, fold: int, folder: Path, *, is_choosing: bool
) -> tuple[float | None, dict[str, float]]:
    """Train and score one fold; seconds of training and the Dice of each subject, nan where there is none."""
    evaluation = {**common_to_both(BUNDLE, variant.training), "previews": "false"}
    if not is_choosing:
        evaluation["threshold"] = "0.5"
    seconds = train_and_evaluate(
        BUNDLE,
        ["--dataset_dir", str(dataset), "--fold", str(fold)],
        folder,
        training=as_arguments(variant.training),
        evaluation=as_arguments(evaluation),
    )
    cases = json.loads((folder / "eval" / "scores.json").read_text())["cases"]
    return seconds, {
        case["case"]: math.nan if case["dice"] is None else float(case["dice"]) for case in cases
    }


def report(runs: list[dict[str, Any]], variants: tuple[Variant, Variant], options: argparse.Namespace) -> str:
    subjects = [(run["fold"], name) for run in runs[::2] for name in run["scores"]]
    scores = np.array(
        [[row["scores"][name] for row in runs if row["fold"] == fold] for fold, name in subjects], float
    )
    first, second = (variant.title for variant in variants)
    lines = [
        "# OCT fluid: neighbouring B-scans or one alone",
        "",
        *introduction(variants, options),
        "",
        f"| subject | fold | {first} | {second} | difference |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {fold} | {pair[0]:.4f} | {pair[1]:.4f} | {pair[0] - pair[1]:+.4f} |"
            for (fold, name), pair in zip(subjects, scores, strict=True)
        ),
        mean_row([name for _, name in subjects], scores),
        "",
        f"Mean over {len(subjects)} subjects; in brackets the 95 % bootstrap interval over subjects,",
        f"{RESAMPLES} draws.",
        "",
        "| network | weights | minutes of the train command, for each fold |",
        "|---|---|---|",
        *(training_row(variant, runs) for variant in variants),
    ]
    return "\n".join(lines) + "\n"


def introduction(variants: tuple[Variant, Variant], options: argparse.Namespace) -> list[str]:
    config = config_of(options.overrides)
    epochs, samples, batch = (
        config.get_parsed_content(name) for name in ("epochs", "samples_per_epoch", "batch_size")
    )
    flags = "".join(
        f" --{name}"
        for name, on in (("same-network", options.same_network), ("choose", options.choose))
        if on
    )
    chosen = (
        "The best epoch and the threshold were chosen on the scored subjects, for both alike."
        if options.choose
        else "Weights are those of the last validated epoch and the threshold is 0.5."
    )
    if not options.choose and int(variants[0].training["val_interval"]) != epochs:
        chosen = "The best of the validated epochs was chosen on the scored subjects; the threshold is 0.5."
    encoder = ""
    if "network_def::encoder_weights" in options.overrides:
        whose = "Both networks start" if options.same_network else "The 2.5D network alone starts"
        encoder = f" {whose} from an ImageNet encoder."
    return [
        f"Written by `scripts/compare_oct_fluid.py{flags}` with `{told(options.given) or 'no overrides'}`.",
        "Dice of the fluid of each subject, over all its labelled B-scans, by networks whose training never",
        f"saw the subject: {epochs} epochs of {samples} samples, batch {batch}, the same sampling, crops,",
        f"augmentation and optimiser.{encoder} {chosen}",
    ]


def told(arguments: list[str]) -> str:
    """The overrides without the folders of this machine."""
    return " ".join(
        argument if "/" not in argument else argument.rpartition("/")[2] for argument in arguments
    )


def mean_row(subjects: list[str], scores: np.ndarray) -> str:
    counts = resample_counts(subjects, RESAMPLES, seed=0)
    once = np.ones((1, len(subjects)), np.int64)
    cells = []
    for values, sign in ((scores[:, 0], ""), (scores[:, 1], ""), (scores[:, 0] - scores[:, 1], "+")):
        mean = float(resampled_means(values[:, None], once)[0])
        low, high = percentile_interval(resampled_means(values[:, None], counts))
        cells.append(f"**{mean:{sign}.4f}** [{low:{sign}.4f}, {high:{sign}.4f}]")
    return f"| **mean** | | {' | '.join(cells)} |"


def training_row(variant: Variant, runs: list[dict[str, Any]]) -> str:
    seconds = [run["seconds"] for run in runs if run["variant"] == variant.title]
    minutes = ", ".join("stopped and continued" if each is None else f"{each / 60:.1f}" for each in seconds)
    return f"| {variant.title} | {variant.weights} | {minutes} |"


if __name__ == "__main__":
    main()
