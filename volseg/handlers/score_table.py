"""Scores of every evaluated case in files that a person and a program can read."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import string_list_all_gather

from volseg.checks import check_flag, refuse
from volseg.files import check_writable, write_json, write_text

__all__ = ["ScoreTable"]

logger = logging.getLogger(__name__)


class ScoreTable:
    """Write `scores.json` and `scores.csv` with a row per case, and log the table, when an evaluation ends.

    A metric of several classes has a column of its mean and one for each class, `<name>_class_1` and so on.
    Where the engine has a metric of that name too (a score that pools the cases), it stands in the last row.
    MONAI's `MetricsSaver` drops a metric whose name it does not find, and writes in place.

    Args:
        output_dir: folder of the files.
        metrics: names of the engine's metrics to show; their handlers need `save_details=True`.
        settings: what else to record: threshold, views.
        overwrite: replace the files of an earlier evaluation.
    """

    def __init__(
        self,
        output_dir: str | Path,
        metrics: list[str],
        *,
        settings: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.metrics = metrics
        self.settings = settings or {}
        self.overwrite = check_flag("overwrite", overwrite)
        self._cases: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note_cases)
        engine.add_event_handler(Events.COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Find out before the hours of evaluation whether the table can be written.

        Raises:
            InputError: when scores of an earlier evaluation lie there, or the folder takes no files.
        """
        self._cases = []
        check_writable(self.output_dir)
        for file in (self.output_dir / "scores.csv", self.output_dir / "scores.json"):
            if not self.overwrite and file.exists():
                remedy = "pass --overwrite true or another --output_dir"
                refuse(file, "no scores of an earlier evaluation", "such a file", remedy)

    def _note_cases(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        items = batch if isinstance(batch, list) else [batch]
        for item in items:
            names = item["case"]
            self._cases += [names] if isinstance(names, str) else list(names)

    def __call__(self, engine: Engine) -> None:
        """Write the table.

        Raises:
            KeyError: when a metric of that name was not computed.
        """
        cases = string_list_all_gather(self._cases)
        missing = [name for name in self.metrics if name not in engine.state.metric_details]
        if missing:
            raise KeyError(f"no details of metric {missing[0]!r}; its handler needs save_details=True")
        columns: dict[str, torch.Tensor] = {}
        for name in self.metrics:
            details = torch.as_tensor(engine.state.metric_details[name]).reshape(len(cases), -1).double()
            columns[name] = details.nanmean(dim=1)
            if details.shape[1] > 1:
                columns |= {f"{name}_class_{k + 1}": score for k, score in enumerate(details.T)}
        rows = [
            {"case": case, **{name: float(scores[row]) for name, scores in columns.items()}}
            for row, case in enumerate(cases)
            if case not in cases[:row]  # with fewer cases than ranks every rank scores all
        ]
        means = {name: float(scores.nanmean()) for name, scores in columns.items()}
        pooled = [name for name in columns if name in self.metrics or name in engine.state.metrics]
        means |= {name: float(engine.state.metrics[name]) for name in pooled}
        if not (
            torch.distributed.is_available()
            and torch.distributed.is_initialized()
            and torch.distributed.get_rank()
        ):
            self._write(rows, means)

    def _write(self, rows: list[dict[str, Any]], means: dict[str, float]) -> None:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        table = io.StringIO()
        writer = csv.DictWriter(table, ["case", *means], lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, {"case": "mean", **means}])
        write_text(self.output_dir / "scores.csv", table.getvalue(), overwrite=self.overwrite)
        content = {"mean": means, "cases": rows, "settings": self.settings}
        write_json(self.output_dir / "scores.json", content, overwrite=self.overwrite)
        for row in [*rows, {"case": "mean", **means}]:
            numbers = "  ".join(f"{name} {row[name]:.4f}" for name in means)
            logger.info("%-28s %s", row["case"], numbers)
