"""SHA-256 of the files of a datalist: what was prepared is what is trained on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from volseg import files
from volseg.checks import InputError
from volseg.data.datalist import PATH_KEYS

__all__ = ["add_hashes", "check_hashes"]

logger = logging.getLogger(__name__)

_THREADS = min(8, os.cpu_count() or 1)
_MOST_FAULTS = 5
_SHOWN_DIGITS = 12


def add_hashes(items: Sequence[Mapping[str, Any]], root: str | Path) -> list[dict[str, Any]]:
    """Case items with a SHA-256 for each of their files; folders of slices get none.

    Args:
        items: case items; paths may be relative to `root`.
        root: folder of relative paths.

    Returns:
        New items with `image_sha256`, `label_sha256` and `field_of_view_sha256`, where there is such a file.
    """
    paths = {
        (index, key): Path(root) / item[key]
        for index, item in enumerate(items)
        for key in PATH_KEYS
        if key in item
    }
    hashed = {place: path for place, path in paths.items() if path.is_file()}
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = dict(zip(hashed, pool.map(files.sha256_of, hashed.values()), strict=True))
    added = [dict(item) for item in items]
    for (index, key), digest in digests.items():
        added[index][f"{key}_sha256"] = digest
    return added


def check_hashes(cases: Sequence[Mapping[str, Any]], *, max_bytes: int = 1 << 30) -> int:
    """Compare files with the hashes that their case items state; items without hashes pass.

    Args:
        cases: case items with absolute paths.
        max_bytes: with more to read than this, nothing is compared and a log line says so.

    Returns:
        Number of files that were compared.

    Raises:
        InputError: one for all files that changed or cannot be read, with the first five.
    """
    stated = {
        case[key]: case[f"{key}_sha256"] for case in cases for key in PATH_KEYS if f"{key}_sha256" in case
    }
    size = sum(os.path.getsize(path) for path in stated if os.path.isfile(path))
    if size > max_bytes:
        logger.info(
            "hashes of %d files not compared: %.1f GiB are too many to read", len(stated), size / (1 << 30)
        )
        return 0
    with ThreadPoolExecutor(_THREADS) as pool:
        told = pool.map(_fault_of, stated.items())
    faults = [fault for fault in told if fault]
    if faults:
        more = f"; the first {_MOST_FAULTS}:" if len(faults) > _MOST_FAULTS else ":"
        head = f"{len(faults)} of {len(stated)} files are not those that the datalist was made from{more}"
        remedy = "restore them, or run `volseg prepare` again"
        raise InputError("\n".join([head, *faults[:_MOST_FAULTS], remedy]))
    return len(stated)


def _fault_of(entry: tuple[str, str]) -> str:
    path, expected = entry
    try:
        got = files.sha256_of(path)
    except OSError as error:
        return f"  {path}: {error.strerror}"
    if got == expected.lower():
        return ""
    return f"  {path}: expected SHA-256 {expected[:_SHOWN_DIGITS]}…, got {got[:_SHOWN_DIGITS]}…"
