"""A score report as files: JSON with nnU-Net's fields and more, CSV with every number, Markdown to read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from volseg.files import write_json, write_text
from volseg.reports.case_scores import MEASURES
from volseg.reports.scores import ScoreReport

__all__ = ["SCORE_FILES", "score_csv", "score_markdown", "score_summary", "write_scores"]

SCORE_FILES = ("summary.json", "scores.csv", "scores.md")
"""Names of the files that `write_scores` writes."""

_NNUNET = {"Dice": "dice", "IoU": "iou", "TP": "tp", "FP": "fp", "FN": "fn", "TN": "tn"}
_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "surface_dice": "surface Dice",
    "hd95_mm": "HD95 mm",
    "assd_mm": "ASSD mm",
}
_WORST = 10


def write_scores(report: ScoreReport, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write `summary.json`, `scores.csv` and `scores.md` into a folder; return their paths.

    Raises:
        InputError: when one exists and `overwrite` is False.
    """
    paths = [Path(folder) / name for name in SCORE_FILES]
    write_json(paths[0], score_summary(report), overwrite=overwrite)
    write_text(paths[1], score_csv(report), overwrite=overwrite)
    write_text(paths[2], score_markdown(report, most_cases=None), overwrite=overwrite)
    return paths


def score_summary(report: ScoreReport) -> dict[str, Any]:
    """Everything in one object that JSON can hold; undefined numbers are None.

    `foreground_mean`, `mean` and `metric_per_case` are those of nnU-Net's `summary.json`, with more keys
    beside; where a class is undefined in every case, its mean is left out of `foreground_mean`.
    """
    per_class = {str(index): _with_nnunet(row) for index, row in report.per_class.items()}
    overall = {
        name: mean_of_defined([row[name] for row in report.per_class.values()])
        for name in report.per_class[next(iter(report.per_class))]
        if name not in ("cases", "undefined", "missed", "spurious")
    }
    counts = {name: _total(report, name) for name in ("undefined", "missed", "spurious")}
    summary = {
        "foreground_mean": _with_nnunet(overall) | counts,
        "mean": per_class,
        "metric_per_case": [
            {**case, "metrics": {str(index): _with_nnunet(row) for index, row in rows.items()}}
            for case, rows in zip(report.cases, report.rows, strict=True)
        ],
        "classes": {str(index): name for index, name in report.classes.items()},
        "interval_95": _intervals(report),
        "groups": report.groups,
        "preset": None if report.preset is None else asdict(report.preset),
        "threshold_sweep": report.sweep,
        "versus": report.versus,
        "prediction_place": str(report.pred),
        "reference_place": str(report.truth),
        "settings": asdict(report.options),
    }
    return _finite(summary)


def score_csv(report: ScoreReport) -> str:
    """One line per case and class with every number; an undefined one is an empty cell."""
    text = io.StringIO()
    names = ["case", "group", "class", "class_name", *next(iter(report.rows[0].values())), "note"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for case, rows in zip(report.cases, report.rows, strict=True):
        for index, row in rows.items():
            who = {"case": case["case"], "group": case["group"], "note": case["note"]}
            cells = {name: _cell(value) for name, value in row.items()}
            writer.writerow({**who, "class": index, "class_name": report.classes[index], **cells})
    return text.getvalue()


def score_markdown(report: ScoreReport, *, most_cases: int | None = _WORST) -> str:
    """Tables for a reader: means with intervals, classes, groups, preset, comparison, cases.

    Args:
        report: what was found.
        most_cases: the number of worst cases by Dice to list; None lists all cases in order.
    """
    used = [name for name in MEASURES if not math.isnan(report.mean[name])]
    parts = [_head(report), _overall(report, used), _classes(report, used)]
    if report.groups:
        parts.append(_groups(report, used))
    if report.preset is not None:
        parts.append(_preset(report))
    if report.sweep is not None:
        parts.append(_sweep(report.sweep))
    if report.versus is not None:
        parts.append(_versus(report.versus, used))
    parts.append(_cases(report, used, most_cases))
    return "\n\n".join(parts) + "\n"


def mean_of_defined(values: Sequence[float]) -> float:
    """Mean of the defined ones of some numbers.

    Example:
        >>> mean_of_defined([1.0, float("nan"), 0.0])
        0.5
    """
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _with_nnunet(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: row[own] for name, own in _NNUNET.items()}, **row}


def _intervals(report: ScoreReport) -> dict[str, Any]:
    return {name: [report.mean[name], *interval] for name, interval in report.intervals.items()}


def _total(report: ScoreReport, name: str) -> int:
    return int(sum(row[name] for row in report.per_class.values()))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def _head(report: ScoreReport) -> str:
    count = len(report.cases)
    lines = [
        f"# {count} case{'s' * (count != 1)}, {len(report.classes)} class{'es' * (len(report.classes) != 1)}",
        "",
        f"Missed structures: {_total(report, 'missed')}, spurious: {_total(report, 'spurious')}, "
        f"undefined (empty in both): {_total(report, 'undefined')}.",
    ]
    turned = sum(bool(case["note"]) for case in report.cases)
    if turned:
        lines.append(f"Predictions stored along other axes and turned to those of the truth: {turned}.")
    unknown = sum(not case["spacing_is_known"] and case["shape"][2] > 1 for case in report.cases)
    if unknown:
        lines.append(f"Volumes of unknown spacing, measured with 1 mm: {unknown}; pass --spacing-mm.")
    return "\n".join(lines)


def _overall(report: ScoreReport, used: Sequence[str]) -> str:
    rows = []
    for name in used:
        low, high = report.intervals[name]
        interval = "" if math.isnan(low) else f"{_number(low)} to {_number(high)}"
        rows.append([_TITLES.get(name, name), _number(report.mean[name]), interval])
    unit = "groups" if report.groups else "cases"
    return _table(["measure", "mean", f"95 % interval over {unit}"], rows)


def _classes(report: ScoreReport, used: Sequence[str]) -> str:
    kinds = ("missed", "spurious", "undefined")
    rows = [
        [report.classes[index], *(_number(row[name]) for name in used), *(str(row[kind]) for kind in kinds)]
        for index, row in report.per_class.items()
    ]
    return _table(["class", *(_TITLES.get(name, name) for name in used), *kinds], rows)


def _groups(report: ScoreReport, used: Sequence[str]) -> str:
    rows = [
        [group, str(row["cases"]), *(_number(row[name]) for name in used)]
        for group, row in report.groups.items()
    ]
    return _table(["group", "cases", *(_TITLES.get(name, name) for name in used)], rows)


def _preset(report: ScoreReport) -> str:
    if report.preset is None:
        return ""
    rows = [["**score**", _number(report.preset.score)]]
    rows += [[name, _number(value)] for name, value in report.preset.beside.items()]
    return _table([f"preset {report.preset.preset}", "value"], rows)


def _sweep(sweep: Mapping[str, Any]) -> str:
    rows = [
        [name, f"{curve['best_threshold']:g}", _number(curve["best"])]
        for name, curve in sweep.items()
        if name != "thresholds"
    ]
    note = "A threshold chosen on these cases flatters them: choose it on others."
    return _table(["sweep of", "best threshold", "mean there"], rows) + "\n\n" + note


def _versus(versus: Mapping[str, Any], used: Sequence[str]) -> str:
    rows = []
    for name in used:
        row = versus[name]
        low, high = row["interval"]
        interval = "" if math.isnan(low) else f"{_number(low)} to {_number(high)}"
        numbers = [_number(row["other"]), _number(row["difference"]), interval, _number(row["p_value"])]
        rows.append([_TITLES.get(name, name), *numbers, str(row["pairs"])])
    titles = ["measure", "other mean", "difference", "95 % interval", "Wilcoxon p", "pairs"]
    return _table(titles, rows)


def _cases(report: ScoreReport, used: Sequence[str], most: int | None) -> str:
    rows = []
    for case, by_class in zip(report.cases, report.rows, strict=True):
        means = [mean_of_defined([row[name] for row in by_class.values()]) for name in used]
        faults = ", ".join(
            f"{report.classes[index]} {kind}"
            for index, row in by_class.items()
            for kind in ("missed", "spurious")
            if row[kind]
        )
        rows.append((means, [case["case"], *map(_number, means), faults]))
    if most is not None:
        # undefined ones last: they say nothing about the prediction
        rows = sorted(rows, key=lambda row: row[0][0] if row[0] and not math.isnan(row[0][0]) else math.inf)
    title = "case" if most is None or len(rows) <= most else f"worst {most} cases"
    return _table([title, *(_TITLES.get(name, name) for name in used), ""], [row[1] for row in rows[:most]])


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(titles), ["---"] + ["---:"] * (len(titles) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
