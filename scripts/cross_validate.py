"""Cross-validate a bundle by its own train and evaluate configs, and show what a leaking split would claim.

Every fold is trained with the datalist's grouped folds. With --leaking the same number of folds is drawn at
random over single cases, as if the versions of a photograph or the frames of a subject were strangers: its
score is what a careless split reports. Probabilities are cut at 0.5: a threshold chosen on the cases that are
scored would flatter. Stopped and started again, the command continues where it was.

Example:
    python scripts/cross_validate.py fundus_vessels --dataset_dir prepared/fundus --output_dir cv --leaking \
        --write docs/cross_validation_fundus.md -- --epochs 10 --val_interval 5
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser

from volseg.checks import refuse
from volseg.data import Datalist, read_datalist, write_datalist
from volseg.files import write_json, write_text
from volseg.reports.bootstrap import mean_of_scores, percentile_interval, resample_counts, resampled_means

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
Overrides = dict[str, str]
RESAMPLES = 2000


def main() -> None:
    options = parse()
    source = options.dataset_dir.resolve() / "datalist.json"
    datalist = read_datalist(source)
    folds = sorted({item["fold"] for item in datalist.training})
    chosen = folds[: options.folds] if options.folds else folds
    splits = [Split("grouped", options.dataset_dir.resolve(), fold) for fold in chosen]
    if options.leaking:
        folder = write_leaking(datalist, source.parent, len(folds), options.output_dir)
        splits += [Split("random, leaking", folder, fold) for fold in chosen[: options.leaking]]
    rows = [run_fold(options, split) for split in splits]
    text = report(rows, options, len(datalist.training))
    print(text)
    if options.write:
        write_text(options.write, text, overwrite=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Behind -- come overrides of the train config; those of values that the evaluate config "
        "has alike, as the network and its input, reach it too.",
    )
    parser.add_argument("bundle", choices=sorted(path.parent.name for path in BUNDLES.glob("*/src")))
    parser.add_argument("--dataset_dir", type=Path, required=True, help="prepared folder with grouped folds")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--folds", type=int, help="run only the first so many folds")
    parser.add_argument(
        "--leaking",
        type=int,
        nargs="?",
        const=sys.maxsize,
        default=0,
        metavar="N",
        help="train on folds drawn over single cases too, on the first N or as many as are grouped",
    )
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    own, overrides = split_overrides(sys.argv[1:])
    options = parser.parse_args(own)
    options.overrides = named(overrides)
    return options


def split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Own arguments, and those behind `--`: argparse gives none of them to a second positional list."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def named(arguments: list[str]) -> Overrides:
    """Overrides `--id value` or `--id=value` by id; the last of the same id counts.

    Example:
        >>> named(["--epochs", "2", "--amp=off"])
        {'epochs': '2', 'amp': 'off'}
    """
    found: Overrides = {}
    rest = list(arguments)
    while rest:
        name, has_value, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise SystemExit(f"error: expected --id value behind --, got {name!r}")
        if not has_value:
            value = "True" if not rest or rest[0].startswith("--") else rest.pop(0)
        found[name[2:].replace("#", "::")] = value
    return found


def common_to_both(bundle: str, overrides: Overrides) -> Overrides:
    """Those of values that training and evaluation share: the network and its input, not the views."""
    train, evaluate = (
        ConfigParser.load_config_file(str(BUNDLES / bundle / "configs" / f"{name}.json"))
        for name in ("train", "evaluate")
    )
    shared = {name for name, value in train.items() if name in evaluate and evaluate[name] == value}
    return {name: value for name, value in overrides.items() if name.split("::")[0] in shared}


def as_arguments(overrides: Overrides) -> list[str]:
    return [f"--{name}={value}" for name, value in overrides.items()]


def write_leaking(datalist: Datalist, root: Path, folds: int, output_dir: Path) -> Path:
    """Write the list with folds drawn over its cases; each case becomes a group of its own."""
    folder = output_dir.resolve() / "leaking"
    order = np.random.default_rng(0).permutation(len(datalist.training))
    training = [
        {**item, "group": item["case"], "fold": int(place) % folds}
        for item, place in zip(datalist.training, order, strict=True)
    ]
    leaking = Datalist(
        name=datalist.name,
        training=training,
        description="Folds drawn over single cases: groups cross them.",
        root=datalist.root or str(root),
        classes=datalist.classes,
    )
    write_datalist(folder / "datalist.json", leaking, overwrite=True)
    return folder


@dataclass(frozen=True)
class Split:
    """One fold of one way to split.

    Attributes:
        name: of the way.
        folder: with its datalist.
        fold: that is held out.
    """

    name: str
    folder: Path
    fold: int


@dataclass(frozen=True)
class Row:
    """Scores of one fold.

    Attributes:
        split: the fold.
        metric: name of the score.
        scores: of each held-out case; nan where it is undefined.
        groups: of the same cases.
    """

    split: Split
    metric: str
    scores: list[float]
    groups: list[str]


def run_fold(options: argparse.Namespace, split: Split) -> Row:
    """Train and evaluate one fold."""
    output = options.output_dir / split.name.split(",")[0] / f"fold_{split.fold}"
    train_and_evaluate(
        options.bundle,
        ["--dataset_dir", str(split.folder), "--fold", str(split.fold)],
        output,
        training=as_arguments(options.overrides),
        evaluation=as_arguments({**common_to_both(options.bundle, options.overrides), "threshold": "0.5"}),
    )
    cases = json.loads((output / "eval" / "scores.json").read_text())["cases"]
    with open(output / "eval" / "scores.csv", newline="") as file:
        metric = next(csv.reader(file))[1]
    groups = {item["case"]: item["group"] for item in read_datalist(split.folder / "datalist.json").training}
    scores = [math.nan if case[metric] is None else float(case[metric]) for case in cases]
    return Row(split, metric, scores, [groups[case["case"]] for case in cases])


def train_and_evaluate(
    name: str, shared: Sequence[str], output: Path, *, training: Sequence[str], evaluation: Sequence[str] = ()
) -> float | None:
    """Write models and `eval/scores.json`, from where an earlier call stopped.

    Args:
        name: of the bundle.
        shared: overrides of both configs.
        output: folder of the run.
        training: overrides of the train config.
        evaluation: overrides of the evaluate config.

    Returns:
        Seconds of training; None where it was stopped in between.

    Raises:
        InputError: when the folder has a run with other overrides.
    """
    record, scores = output / "run.json", output / "eval" / "scores.json"
    if scores.is_file() and not record.is_file():  # of a time before the record
        return None
    settings = {"train": [*shared, *training], "evaluate": [*shared, *evaluation]}
    told = json.loads(record.read_text()) if record.is_file() else None
    if told is not None and told["settings"] != settings:
        refuse(record, "a run with the same overrides", "others", "pass another --output_dir")
    if told is None or not told["is_trained"]:
        run = {"settings": settings, "is_trained": False, "seconds": None}
        write_json(record, run, overwrite=True)
        started = time.monotonic()
        bundle(name, "train", [*shared, "--output_dir", str(output), *training])
        seconds = time.monotonic() - started if told is None else None
        told = {**run, "is_trained": True, "seconds": seconds}
        write_json(record, told, overwrite=True)
    if not scores.is_file():
        models = ["--ckpt_dir", str(output / "models"), "--output_dir", str(output / "eval")]
        bundle(name, "evaluate", [*shared, *models, *evaluation])
    return None if told["seconds"] is None else float(told["seconds"])


def bundle(name: str, workflow: str, overrides: list[str]) -> None:
    config = BUNDLES / name / "configs" / f"{workflow}.json"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config), *overrides]
    subprocess.run(command, check=True)


def report(rows: list[Row], options: argparse.Namespace, cases: int) -> str:
    overrides = " ".join(as_arguments(options.overrides)) or "no overrides"
    lines = [
        f"# Cross-validation of {options.bundle}",
        "",
        f"Written by `scripts/cross_validate.py {options.bundle}` with `{overrides}` on {cases} cases.",
        "Each line is a network trained anew without the cases that it is scored on, cut at 0.5. In brackets",
        "is the 95 % interval of the mean over held-out cases, by a bootstrap over groups: subjects or",
        "photographs. A careless split takes each case for a group of its own.",
        "",
        f"| split | fold | held-out cases | {rows[0].metric} |",
        "|---|---|---|---|",
        *(
            f"| {row.split.name} | {row.split.fold} | {len(row.scores)} | {np.nanmean(row.scores):.4f} |"
            for row in rows
        ),
    ]
    for name in dict.fromkeys(row.split.name for row in rows):
        own = [row for row in rows if row.split.name == name]
        scores = np.array([score for row in own for score in row.scores])[:, None]
        groups = [group for row in own for group in row.groups]
        counts = resample_counts(groups, RESAMPLES, seed=0)
        low, high = percentile_interval(resampled_means(scores, counts))
        mean = f"**{mean_of_scores(scores):.4f}** ({low:.3f} to {high:.3f} over {len(set(groups))} groups)"
        folds = "1 fold" if len(own) == 1 else f"{len(own)} folds"
        lines.append(f"| **{name}** | {folds} | {len(scores)} | {mean} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
