"""`volseg score`: metrics of saved predictions against the truth."""

from __future__ import annotations

import csv
import json as json_text
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from volseg.checks import nearest, refuse

if TYPE_CHECKING:
    from volseg.reports.score_files import Section

__all__ = ["score"]

_PRESETS = ("aic-edema", "drive", "nerve", "oct", "sennet", "shapes")
_FILES = ("summary.json", "scores.csv", "scores.md")
_SECTIONS = ("training", "validation", "test", "all")


_Sweep = Annotated[bool, typer.Option("--threshold-sweep", help="Also score _prob maps at 19 thresholds.")]
_Versus = Annotated[Path | None, typer.Option(help="Second folder of predictions to compare with.")]
_Spacing = Annotated[
    str | None, typer.Option(help="Edge length of a voxel in mm where no file states it: one, or x,y,z.")
]
_Groups = Annotated[
    str | None, typer.Option(help="JSON or CSV of case and group, or a pattern like '^([0-9]+)_' for names.")
]
_Above = Annotated[
    int | None,
    typer.Option(help="Grey values above it are foreground, in files not plainly 0/1 or 0/255.", min=0),
]
_View = Annotated[Path | None, typer.Option(help="Folder of field-of-view masks, for the preset drive.")]
_Output = Annotated[Path | None, typer.Option(help="Folder for summary.json, scores.csv and scores.md.")]


def score(
    pred: Annotated[
        Path, typer.Argument(help="Folder of predictions as inference writes it, datalist, or a file.")
    ],
    truth: Annotated[Path, typer.Argument(help="Folder of masks, prepared folder with datalist, or a file.")],
    preset: Annotated[str | None, typer.Option(help=f"Protocol: {', '.join(_PRESETS)}.")] = None,
    threshold_sweep: _Sweep = False,
    versus: _Versus = None,
    spacing_mm: _Spacing = None,
    tolerance_mm: Annotated[float, typer.Option(help="Of the surface Dice.", min=0)] = 0.0,
    groups: _Groups = None,
    classes: Annotated[str | None, typer.Option(help="Names: 1=artery,2=vein; others are refused.")] = None,
    mask_above: _Above = None,
    field_of_view: _View = None,
    section: Annotated[str | None, typer.Option(help=f"Of a datalist: {', '.join(_SECTIONS)}.")] = None,
    output_dir: _Output = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing scores.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out surface Dice and distances.")] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Score saved predictions per case, class and group, with bootstrap intervals.

    Cases are matched by name; one that is missing or too many, or on another voxel grid, ends the command
    with exit code 1.

    Example: volseg score predictions/ dataset/labels --preset sennet --output-dir scores
    """
    _check_choice("--preset", preset, _PRESETS)
    _check_choice("--section", section, _SECTIONS)
    edges, names = _edges(spacing_mm), _classes_of(classes)
    grouping = None if groups is None else _groups_of(groups)
    _check_output(output_dir, [pred, truth, versus], overwrite)
    from volseg.reports import score_folders, score_markdown, score_summary, write_scores

    with _case_lines():
        report = score_folders(
            pred,
            truth,
            preset=preset,
            classes=names,
            spacing_mm=edges,
            tolerance_mm=tolerance_mm,
            mask_above=mask_above,
            threshold_sweep=threshold_sweep,
            surfaces=not fast,
            other=versus,
            view=field_of_view,
            groups=grouping,
            section=cast("Section | None", section),
            seed=seed,
        )
    paths = [] if output_dir is None else write_scores(report, output_dir, overwrite=overwrite)
    print(json_text.dumps(score_summary(report), indent=2) if json else score_markdown(report))
    if paths and not json:
        print(f"wrote {', '.join(str(path) for path in paths)}")


def _check_choice(name: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        refuse(name, f"one of {', '.join(choices)}", repr(value), nearest(value, choices))


def _check_output(output_dir: Path | None, inputs: Sequence[Path | None], overwrite: bool) -> None:
    """Find out before the work that the scores could not be written."""
    if output_dir is None:
        return
    from volseg.files import check_writable

    places = [place.resolve() for place in inputs if place is not None]
    if output_dir.resolve() in places:
        remedy = "inference keeps its own summary.json there: choose another folder"
        refuse(output_dir, "an output folder apart from the masks", "one of the inputs", remedy)
    check_writable(output_dir)
    existing = next((path for path in sorted(output_dir.glob("s*")) if path.name in _FILES), None)
    if existing is not None and not overwrite:
        refuse(existing, "a new file", "one that exists", "use --overwrite or another --output-dir")


def _edges(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        edges = [float(word) for word in text.split(",")]
    except ValueError:
        edges = []
    if len(edges) not in (1, 3) or not all(0 < edge < float("inf") for edge in edges):
        refuse("--spacing-mm", "one positive number or three", repr(text), "write 0.05 or 0.05,0.05,0.1")
    return edges * 3 if len(edges) == 1 else edges


def _classes_of(text: str | None) -> dict[int, str] | None:
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if not all(index.strip().isdecimal() and name.strip() for index, _, name in parts):
        refuse("--classes", "index=name, separated by commas", repr(text), "write 1=artery,2=vein")
    return {int(index): name.strip() for index, _, name in parts}


def _groups_of(text: str) -> dict[str, str] | str:
    """Read case and group from a file; what is no file is a pattern."""
    path = Path(text)
    if path.suffix.lower() not in (".json", ".csv"):
        return text
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        refuse(path, "a readable list of cases and groups", error, "check the path")
    expected, remedy = '{"case": "group"} in JSON, or lines of case,group', "correct the file"
    if path.suffix.lower() == ".csv":
        rows = [row for row in csv.reader(content.splitlines()) if row]
        if any(len(row) != 2 for row in rows) or len({row[0] for row in rows}) < len(rows):
            refuse(path, expected, "other lines, or a case twice", remedy)
        return dict(rows)  # a line of titles names no case, so that it does no harm
    try:
        groups: Any = json_text.loads(content)
    except ValueError as error:
        refuse(path, expected, error, remedy)
    if not isinstance(groups, dict) or not all(isinstance(group, str | int) for group in groups.values()):
        refuse(path, expected, type(groups).__name__, remedy)
    return {case: str(group) for case, group in groups.items()}


@contextmanager
def _case_lines() -> Iterator[None]:
    """Tell each case on a line of stderr where no progress bar can be drawn."""
    # MONAI's distances call a function of MONAI that warns of a parameter to come
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    logger = logging.getLogger("volseg.reports.scores")
    if sys.stderr.isatty():
        yield
        return
    handler, level = logging.StreamHandler(sys.stderr), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
