"""`volseg audit`: near-duplicates, contradicting masks, leaks between splits."""

from __future__ import annotations

import json as json_text
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.checks import refuse

if TYPE_CHECKING:
    from collections.abc import Collection

    from volseg.data.audit import Findings
    from volseg.data.audit.resolutions import Resolutions

__all__ = ["audit"]

FOUND_SOMETHING = 3
"""Exit code for a leak, an unresolved contradiction or an unreadable case; 1 is a failure of the command."""

_Threshold = Annotated[
    int, typer.Option(help="Frames whose sum of absolute differences is less are the same picture.", min=1)
]
_Similarity = Annotated[
    float, typer.Option(help="Least correlation of textures, over flips and turns.", min=0, max=1)
]
_Output = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for audit.html, audit.json, groups.json, contradictions.json."),
]
_Resolve = Annotated[
    Path | None,
    typer.Option(help="Edited contradictions.json: is recorded in resolutions.json beside the datalist."),
]
_Write = Annotated[
    str | None,
    typer.Option(help="File name of a new datalist in PATH with joined groups and without rejected masks."),
]


def audit(
    path: Annotated[Path, typer.Argument(help="Prepared folder, folder of pictures, or volumes.")],
    threshold: _Threshold = 1000,
    similarity: _Similarity = 0.65,
    out: _Output = None,
    resolve: _Resolve = None,
    write_datalist: _Write = None,
    datalist: Annotated[str, typer.Option(help="File name of the list in PATH.")] = "datalist.json",
    volumes: Annotated[bool, typer.Option("--volumes", help="A folder of pictures is one volume.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former report.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
) -> None:
    """Find pictures that a data set holds more than once, masks that contradict, and leaks between splits.

    Ends with exit code 0 when all is well, 3 when something leaks, contradicts or cannot be read.

    Example: volseg audit dataset/ --out audit
    """
    _check_output(out, overwrite)
    if write_datalist is not None:
        _check_new_list(path / datalist, path / write_datalist, overwrite)
    from volseg.data.audit import FrameStore, audit_frames, find_audit_cases

    place = (path if path.is_dir() else path.parent) / "resolutions.json"
    with _unsaid(logging.getLogger("volseg.data.cases")):  # the masks it leaves out are read here
        cases = find_audit_cases(path, volumes=volumes, datalist=datalist)
    with FrameStore(cases) as store:
        decisions = _decisions(place, resolve, {frame.name for frame in store.frames})
        findings = audit_frames(store, threshold=threshold, similarity=similarity, resolutions=decisions)
        paths = []
        if out is not None:
            from volseg.reports.audit_page import write_audit

            paths = write_audit(findings, store, out, overwrite=overwrite)
    if write_datalist is not None:
        paths.append(_write_list(path / datalist, path / write_datalist, findings, decisions, overwrite))
    print(json_text.dumps(findings.as_document(), indent=2) if json else _summary(findings))
    if paths and not json:
        print(f"wrote {', '.join(map(str, paths))}")
    if not findings.is_clean:
        raise typer.Exit(FOUND_SOMETHING)


@contextmanager
def _unsaid(logger: logging.Logger) -> Iterator[None]:
    """Keep what is no error from being said."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_output(out: Path | None, overwrite: bool) -> None:
    """Find out before the work that the report could not be written."""
    if out is None:
        return
    from volseg.files import check_writable
    from volseg.reports.audit_page import AUDIT_FILES

    check_writable(out)
    existing = next((name for name in AUDIT_FILES if (out / name).exists()), None)
    if existing is not None and not overwrite:
        refuse(out / existing, "a new file", "one that exists", "use --overwrite or another --out")


def _check_new_list(source: Path, target: Path, overwrite: bool) -> None:
    if not source.is_file():
        remedy = "make one with `volseg prepare`; --out writes the groups of any folder"
        refuse(source, "a datalist to regroup", "none", remedy)
    if target.parent != source.parent or target.name == source.name:
        refuse(
            "--write-datalist", "another file name in the same folder", repr(str(target)), "use audited.json"
        )
    if target.exists() and not overwrite:
        refuse(target, "a new file", "one that exists", "use --overwrite or another name")


def _decisions(place: Path, resolve: Path | None, known: Collection[str]) -> Resolutions:
    """Read what was decided before, and record what `--resolve` brings."""
    from volseg.data.audit import read_resolutions, record_resolutions

    if resolve is not None:
        return record_resolutions(place, read_resolutions(resolve), known=known)
    return read_resolutions(place) if place.exists() else {}


def _write_list(
    source: Path, target: Path, findings: Findings, decisions: Resolutions, overwrite: bool
) -> Path:
    from volseg.data import read_datalist
    from volseg.data import write_datalist as write
    from volseg.data.audit import regroup

    write(target, regroup(read_datalist(source), findings.groups, resolutions=decisions), overwrite=overwrite)
    return target


def _summary(findings: Findings) -> str:
    document = findings.as_document()
    resolved = document["contradictions"] - document["unresolved_contradictions"]
    lines = [
        f"{findings.cases} cases, {findings.frames} frames, {len(findings.blank)} of them blank",
        f"{findings.labelled} masks, {findings.empty_masks} of them empty",
        f"{document['same_pairs']} pairs of the same picture, {document['similar_pairs']} of similar texture",
        f"{document['contradictions']} pairs with contradicting masks, {resolved} of them resolved",
        f"{len(findings.duplicates)} groups of more than one case; {document['group_count']} groups in all",
        f"{document['leaks']} groups leak between sides of the split",
    ]
    lines += [
        f"leak: {', '.join(group.cases[:4])} on {', '.join(group.sides)}" for group in findings.leaks[:10]
    ]
    return "\n".join([*lines, *(f"not read: {fault}" for fault in findings.faults)])
