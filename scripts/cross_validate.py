"""Cross-validate a bundle by its own train and evaluate configs, and show what a leaking split would claim.

Every fold is trained with the datalist's grouped folds. With --leaking the same number of folds is drawn at
random over single cases, as if the versions of a photograph or the frames of a subject were strangers: its
score is what a careless split reports. Stopped and started again, the command continues where it was.

Example:
    python scripts/cross_validate.py fundus_vessels --dataset_dir prepared/fundus --output_dir cv --leaking \
        --write docs/cross_validation_fundus.md -- --epochs 10 --val_interval 5
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser

from volseg.checks import refuse
from volseg.data import Datalist, read_datalist, write_datalist
from volseg.files import write_json, write_text

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
Overrides = dict[str, str]


def main() -> None:
    options = parse()
    source = options.dataset_dir.resolve() / "datalist.json"
    datalist = read_datalist(source)
    folds = sorted({item["fold"] for item in datalist.training})
    chosen = folds[: options.folds] if options.folds else folds
    splits = {"grouped": options.dataset_dir.resolve()}
    if options.leaking:
        splits["random, leaking"] = write_leaking(datalist, source.parent, len(folds), options.output_dir)
    rows = [
        (
            name,
            fold,
            *run_fold(options, folder, fold, options.output_dir / name.split(",")[0] / f"fold_{fold}"),
        )
        for name, folder in splits.items()
        for fold in chosen
    ]
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
    parser.add_argument("--leaking", action="store_true", help="train on folds drawn over single cases too")
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


def run_fold(options: argparse.Namespace, dataset: Path, fold: int, output: Path) -> tuple[str, float, int]:
    """Train and evaluate one fold; name of the score, its value on the held-out cases, their number."""
    shared = ["--dataset_dir", str(dataset), "--fold", str(fold)]
    train_and_evaluate(
        options.bundle,
        shared,
        output,
        training=as_arguments(options.overrides),
        evaluation=as_arguments(common_to_both(options.bundle, options.overrides)),
    )
    content = json.loads((output / "eval" / "scores.json").read_text())
    with open(output / "eval" / "scores.csv", newline="") as file:
        name = next(csv.reader(file))[1]
    return name, float(content["mean"][name]), len(content["cases"])


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


def report(rows: list[tuple[str, int, str, float, int]], options: argparse.Namespace, cases: int) -> str:
    score = rows[0][2]
    overrides = " ".join(as_arguments(options.overrides)) or "no overrides"
    lines = [
        f"# Cross-validation of {options.bundle}",
        "",
        f"Written by `scripts/cross_validate.py {options.bundle}` with `{overrides}` on {cases} cases.",
        "Each line is a network trained anew without the cases that it is scored on.",
        "",
        f"| split | fold | held-out cases | {score} |",
        "|---|---|---|---|",
        *(f"| {name} | {fold} | {count} | {value:.4f} |" for name, fold, _, value, count in rows),
    ]
    for split in dict.fromkeys(row[0] for row in rows):
        values = [row[3] for row in rows if row[0] == split]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        lines.append(f"| **{split}** | mean of {len(values)} | | **{statistics.mean(values):.4f}**{spread} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
