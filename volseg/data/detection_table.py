"""The table beside a prediction that says which slices hold which lesion."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from volseg.checks import refuse

__all__ = ["detection_csv", "read_detection"]


def detection_csv(scores: torch.Tensor | npt.NDArray[Any], class_names: Sequence[str] | None = None) -> bytes:
    """Write a line for each slice: its index from 0, and the probability of each class.

    Args:
        scores: (K, S) of K classes and S slices.
        class_names: K of them; None is "class 1" and so on.

    Returns:
        UTF-8 text with the columns "slice" and one for each class; nine digits, so that float32 comes back.

    Raises:
        ValueError: when there is not one name for each class, or two names are the same.

    Example:
        >>> print(detection_csv(torch.tensor([[0.25, 1.0]]), ["fluid"]).decode(), end="")
        slice,fluid
        0,0.25
        1,1
    """
    table = torch.as_tensor(scores).detach().cpu().double()
    if table.ndim != 2:
        raise ValueError(f"scores must be (K, S) of classes and slices, got shape {tuple(table.shape)}")
    names = [f"class {k}" for k in range(1, len(table) + 1)] if class_names is None else list(class_names)
    if len({"slice", *names}) != 1 + len(table):
        raise ValueError(f"class_names must be {len(table)} different names, got {names}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["slice", *names])
    for index, row in enumerate(table.T.tolist()):
        writer.writerow([index, *(f"{value:.9g}" for value in row)])
    return text.getvalue().encode()


def read_detection(path: str | Path) -> npt.NDArray[np.float64]:
    """Read such a table back.

    Args:
        path: of the file.

    Returns:
        (S, K) probabilities in the order of the slices.

    Raises:
        InputError: when the file is no such table.
    """
    source = Path(path)
    try:
        lines = list(csv.reader(source.read_text(encoding="utf-8").splitlines()))
        titles, rows = lines[0], np.array([[float(cell) for cell in line] for line in lines[1:]])
        is_table = titles[0] == "slice" and rows.shape[1:] == (len(titles),) and len(titles) > 1
    except (OSError, ValueError, IndexError) as error:
        refuse(source, "a table of slices and their probabilities", error, "write it by inference again")
    if not is_table or not np.array_equal(rows[:, 0], np.arange(len(rows))):
        got = f"{len(lines) - 1} lines below {titles[:1]}"
        refuse(source, "a line for each slice, numbered from 0", got, "write it by inference again")
    return np.asarray(rows[:, 1:], np.float64)
