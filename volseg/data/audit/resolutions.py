"""What a person decided about contradicting masks; the files of the data set stay as they are."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from volseg import files
from volseg.checks import InputError, nearest, refuse
from volseg.data.audit.findings import FoundPair

__all__ = [
    "RESOLUTIONS_NAME",
    "Resolutions",
    "read_resolutions",
    "record_resolutions",
    "resolution_document",
]

RESOLUTIONS_NAME = "resolutions.json"
"""Name of the file beside the datalist."""

Resolutions = Mapping[frozenset[str], str]
"""Of two cases with contradicting masks, the one whose mask is kept."""

_FORMAT = "volseg-resolutions-1"
_REMEDY = "start from the contradictions.json that `volseg audit --out` writes"


def read_resolutions(path: str | Path) -> dict[frozenset[str], str]:
    """Read decisions; a pair whose `keep` is null is not decided yet.

    Raises:
        InputError: when the file is missing or no such list, `keep` is neither of the pair, or a pair is
            decided twice in different ways.
    """
    try:
        document = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected resolutions in JSON, got {error}; {_REMEDY}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        refuse(path, f'an object with "format": "{_FORMAT}"', "something else", _REMEDY)
    decided: dict[frozenset[str], str] = {}
    entries = document.get("resolutions")
    for entry in entries if isinstance(entries, list) else [None]:
        pair, keep = _checked(path, entry)
        if keep is not None and decided.setdefault(pair, keep) != keep:
            refuse(path, "one decision for each pair", f"two for {sorted(pair)}", "remove one")
    return decided


def record_resolutions(
    path: str | Path, decisions: Resolutions, *, known: Collection[str] | None = None
) -> dict[frozenset[str], str]:
    """Add decisions to a file of resolutions, which is created if need be; a new one replaces an old one.

    Args:
        path: the file, in general `resolutions.json` beside the datalist.
        decisions: of two cases the one to keep.
        known: names of all cases; others are refused.

    Returns:
        all decisions of the file.

    Raises:
        InputError: when the file there is no list of resolutions, or a name is not known.
    """
    for name in sorted({name for pair in decisions for name in pair}):
        if known is not None and name not in known:
            hint = nearest(name, known)
            refuse(path, "names of cases", repr(name), hint if "did" in hint else "run the audit again")
    merged = {**(read_resolutions(path) if Path(path).exists() else {}), **decisions}
    files.write_json(path, _document(merged.items()), overwrite=True)
    return merged


def resolution_document(pairs: Sequence[FoundPair]) -> dict[str, Any]:
    """Make the list that a person edits: each pair of contradicting masks and what is kept, null at first.

    Args:
        pairs: contradictions of `Findings`.
    """
    return _document([(frozenset((pair.first, pair.second)), pair.keep) for pair in pairs])


def _document(items: Any) -> dict[str, Any]:
    entries = sorted(({"pair": sorted(pair), "keep": keep} for pair, keep in items), key=lambda e: e["pair"])
    return {"format": _FORMAT, "resolutions": entries}


def _checked(path: str | Path, entry: object) -> tuple[frozenset[str], str | None]:
    expected = '{"pair": [one case, another], "keep": one of them or null}'
    if isinstance(entry, dict) and set(entry) == {"pair", "keep"} and isinstance(entry["pair"], list):
        pair, keep = entry["pair"], entry["keep"]
        names = {name for name in pair if isinstance(name, str)}
        if len(pair) == len(names) == 2 and (keep is None or keep in pair):
            return frozenset(names), keep
    refuse(path, f"entries like {expected}", repr(entry)[:120], _REMEDY)
