"""The last and the best state of a training run, and the threshold that belongs to the best."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import is_scalar
from torch import nn

from volseg.checks import refuse
from volseg.files import sha256_of, write_atomically, write_json

__all__ = ["CheckpointHandler", "load_threshold"]

logger = logging.getLogger(__name__)


class CheckpointHandler:
    """Write `last.pt` after every epoch and `model.pt` after the best; resume from `last.pt`.

    MONAI's `CheckpointSaver` writes in place, so that a full disk destroys the only best model, and does not
    restore a run. Here each file is complete or absent, a killed run started again continues with the epoch
    after its last, and the threshold chosen on validation is stored with the weights, bound by their checksum.

    `model.pt` is a plain state dict, as `monai.bundle ckpt_export` takes it. Under `torch.distributed` rank 0
    writes and all ranks load.

    Args:
        ckpt_dir: folder of the files.
        network: its weights are saved; a distributed wrapper is looked through.
        state: further objects with `state_dict()` that a resumed run needs: optimizer, scheduler.
        evaluator: the validation engine, whose `state.metrics` are read after it ran.
        key_metric: name of the metric that decides on the best, larger is better; NaN never wins.
        sweep: object with `best_threshold` after validation, or None.
        overwrite: start anew over an earlier run in the same folder.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        network: nn.Module,
        state: Mapping[str, Any],
        *,
        evaluator: Engine,
        key_metric: str,
        sweep: Any = None,
        overwrite: bool = False,
    ) -> None:
        self.ckpt_dir = Path(ckpt_dir)
        self.network = network
        self.restored = dict(state)
        self.evaluator = evaluator
        self.key_metric = key_metric
        self.sweep = sweep
        self.overwrite = overwrite
        self.best: dict[str, float] = {"metric": -math.inf, "epoch": 0, "threshold": 0.5}

    @property
    def last_file(self) -> Path:
        """Where the state to resume from is kept."""
        return self.ckpt_dir / "last.pt"

    @property
    def best_file(self) -> Path:
        """Where the best weights are kept."""
        return self.ckpt_dir / "model.pt"

    def attach(self, engine: Engine) -> None:
        """Resume when the trainer starts; save at the end of each epoch, after every other handler."""
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def resume(self, engine: Engine) -> None:
        """Load `last.pt` if there is one.

        Raises:
            InputError: when the run is complete already, belongs to another network, or weights without a
                run lie in the folder.
        """
        if self.overwrite:
            return
        if not self.last_file.is_file():
            if self.best_file.is_file():
                refuse(
                    self.best_file,
                    "no weights before the first epoch",
                    "weights of another run",
                    "pass another --ckpt_dir, or --overwrite true to replace them",
                )
            return
        saved = torch.load(self.last_file, map_location="cpu", weights_only=True)
        try:
            self._bare_network().load_state_dict(saved["network"])
            for name, item in self.restored.items():
                item.load_state_dict(saved["state"][name])
        except (RuntimeError, KeyError, ValueError) as error:
            refuse(
                self.last_file,
                "the state of this network and optimiser",
                "another run's",
                f"pass another --output_dir, or --overwrite true ({str(error).splitlines()[0][:80]})",
            )
        self.best = saved["best"]
        if saved["epoch"] >= engine.state.max_epochs:
            refuse(
                self.last_file,
                f"fewer than {engine.state.max_epochs} finished epochs",
                saved["epoch"],
                "raise --epochs to train on, or pass --overwrite true to start anew",
            )
        engine.state.epoch = saved["epoch"]
        engine.state.iteration = saved["epoch"] * (engine.state.epoch_length or 0)
        logger.info("resumed after epoch %d from %s", saved["epoch"], self.last_file)

    def save(self, engine: Engine) -> None:
        """Write `model.pt` if this epoch was validated and is the best so far, then `last.pt`."""
        is_best = self._update_best(engine.state.epoch)
        if (
            torch.distributed.is_available()
            and torch.distributed.is_initialized()
            and torch.distributed.get_rank()
        ):
            return
        self.ckpt_dir.mkdir(parents=True, exist_ok=True)
        weights = {key: value.detach().cpu() for key, value in self._bare_network().state_dict().items()}
        if is_best:
            self._write(self.best_file, weights)
            _write_threshold(self.best_file, self.best, self.key_metric)
        self._write(
            self.last_file,
            {
                "network": weights,
                "state": {name: item.state_dict() for name, item in self.restored.items()},
                "epoch": engine.state.epoch,
                "best": self.best,
            },
        )

    def _update_best(self, epoch: int) -> bool:
        if self.evaluator.state.epoch != epoch or self.key_metric not in self.evaluator.state.metrics:
            return False
        value = self.evaluator.state.metrics[self.key_metric]
        value = float(value) if is_scalar(value) else math.nan
        if math.isnan(value) or value <= self.best["metric"]:
            return False
        threshold = 0.5 if self.sweep is None else float(self.sweep.best_threshold)
        self.best = {"metric": value, "epoch": epoch, "threshold": threshold}
        return True

    def _bare_network(self) -> nn.Module:
        return getattr(self.network, "module", self.network)

    @staticmethod
    def _write(path: Path, content: Any) -> None:
        write_atomically(
            path,
            lambda temporary: torch.save(content, temporary),
            overwrite=True,
            verify=lambda temporary: torch.load(temporary, map_location="cpu", weights_only=True) and None,
        )


def _write_threshold(weights: Path, best: Mapping[str, float], metric: str) -> None:
    record = {
        "threshold": best["threshold"],
        "weights_sha256": sha256_of(weights),
        metric: best["metric"],
        "epoch": best["epoch"],
    }
    write_json(weights.with_name("threshold.json"), record, overwrite=True)


def load_threshold(weights: str | Path, *, default: float = 0.5) -> float:
    """Probability threshold stored beside weights; `default` when none was stored.

    Args:
        weights: file of the weights; `threshold.json` is looked for in its folder.
        default: for weights without a stored threshold.

    Raises:
        InputError: when the stored threshold belongs to other weights.
    """
    weights = Path(weights)
    file = weights.with_name("threshold.json")
    if not file.is_file() or not weights.is_file():
        return default
    record: dict[str, Any] = json.loads(file.read_text())
    if record.get("weights_sha256") != sha256_of(weights):
        refuse(file, f"the threshold of {weights.name}", "one of other weights", "pass --threshold VALUE")
    return float(record["threshold"])
