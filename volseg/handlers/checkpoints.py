"""The last and the best state of a training run, and the threshold that belongs to the best."""

from __future__ import annotations

import inspect
import io
import json
import logging
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import is_scalar
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from volseg.checks import check_flag, check_fraction, refuse
from volseg.files import check_writable, sha256_of, write_atomically, write_json

__all__ = ["CheckpointHandler", "load_threshold"]

logger = logging.getLogger(__name__)


class CheckpointHandler:
    """Write `last.pt` after every epoch and `model.pt` after the best; resume from `last.pt`.

    MONAI's `CheckpointSaver` writes in place, so that a full disk destroys the only best model, and does not
    restore a run. Here each file is complete or absent, a killed run started again continues with the epoch
    after its last, and the threshold chosen on validation is stored with the weights, bound by checksum.
    `last.pt` is written first and holds all that the others are made of: a run killed between them completes
    them when it is started again.

    `model.pt` is a plain state dict, as `monai.bundle ckpt_export` takes it. Under `torch.distributed` rank 0
    writes and all ranks load.

    Args:
        ckpt_dir: folder of the files.
        network: its weights are saved; a distributed wrapper is looked through.
        state: further objects with `state_dict()` that a resumed run needs: optimizer, scheduler.
        evaluator: the validation engine, whose `state.metrics` are read after it ran.
        key_metric: name of the metric that decides on the best, larger is better; NaN and infinity never win.
        sweep: object with `best_threshold` after validation. None, or a metric that has no threshold (the
            most probable of several classes wins), stores none.
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
        self.overwrite = check_flag("overwrite", overwrite)
        self.best: dict[str, Any] = {"metric": -math.inf, "epoch": 0, "threshold": None}

    @property
    def last_file(self) -> Path:
        """Where the state to resume from is kept."""
        return self.ckpt_dir / "last.pt"

    @property
    def best_file(self) -> Path:
        """Where the best weights are kept."""
        return self.ckpt_dir / "model.pt"

    @property
    def threshold_file(self) -> Path:
        """Where the threshold of the best weights is kept."""
        return _threshold_beside(self.best_file)

    def attach(self, engine: Engine) -> None:
        """Resume when the trainer starts; save at the end of each epoch, after every other handler."""
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def resume(self, engine: Engine) -> None:
        """Load `last.pt` if there is one; the settings of a scheduler stay those it was made with.

        Raises:
            InputError: when the run is complete already, belongs to another network, cannot be read, or
                weights without a run lie in the folder; when the folder cannot be written.
        """
        if _is_first_rank():
            check_writable(self.ckpt_dir)  # before the first epoch, not after it
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
        saved = self._load()
        self.best = saved["best"]
        self._complete(saved["epoch"], saved["network"])
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
        """Write `last.pt`, then `model.pt` and its threshold if the epoch scored best so far."""
        is_best = self._update_best(engine.state.epoch)
        if not _is_first_rank():
            return
        weights = {key: value.detach().cpu() for key, value in self._bare_network().state_dict().items()}
        _save(
            self.last_file,
            {
                "network": weights,
                "state": {name: item.state_dict() for name, item in self.restored.items()},
                "epoch": engine.state.epoch,
                "best": self.best,
            },
        )
        if is_best:
            self._write_best(weights)
        elif self.overwrite and not self.best["epoch"]:  # what lies here is the best of the run replaced
            self.best_file.unlink(missing_ok=True)
            self.threshold_file.unlink(missing_ok=True)

    def _load(self) -> dict[str, Any]:
        remedy = "pass another --output_dir, or --overwrite true"
        try:
            saved: dict[str, Any] = torch.load(self.last_file, map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            refuse(self.last_file, "the state of a training run", _first_line(error), remedy)
        try:
            self._bare_network().load_state_dict(saved["network"])
            for name, item in self.restored.items():
                item.load_state_dict(_with_own_settings(item, saved["state"][name]))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            expected = "the state of this network and optimiser"
            refuse(self.last_file, expected, "another run's", f"{remedy} ({_first_line(error)})")
        return saved

    def _complete(self, epoch: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Write what a run killed while it saved did not come to, on the first rank."""
        if not self.best["epoch"] or not _is_first_rank():
            return
        is_whole = self._has_threshold_of_best()
        if self.best["epoch"] == epoch:
            if not is_whole or not _holds(self.best_file, weights):
                self._write_best(weights)
        elif not is_whole:
            refuse(
                self.best_file,
                f"the best weights of this run, those of epoch {self.best['epoch']:.0f}, and their threshold",
                "none" if not self.best_file.is_file() else "others",
                "put model.pt and threshold.json back, or pass --overwrite true to start anew",
            )

    def _has_threshold_of_best(self) -> bool:
        try:
            record = json.loads(self.threshold_file.read_text(encoding="utf-8"))
            return bool(record == self._threshold_record())
        except (OSError, ValueError):
            return False

    def _threshold_record(self) -> dict[str, Any]:
        return {
            "threshold": self.best["threshold"],
            "weights_sha256": sha256_of(self.best_file),
            self.key_metric: self.best["metric"],
            "epoch": self.best["epoch"],
        }

    def _write_best(self, weights: Mapping[str, torch.Tensor]) -> None:
        _save(self.best_file, weights)
        write_json(self.threshold_file, self._threshold_record(), overwrite=True)

    def _update_best(self, epoch: int) -> bool:
        if self.evaluator.state.epoch != epoch or self.key_metric not in self.evaluator.state.metrics:
            return False
        value = self.evaluator.state.metrics[self.key_metric]
        value = float(value) if is_scalar(value) else math.nan
        if not math.isfinite(value) or value <= self.best["metric"]:
            return False
        threshold = getattr(self.sweep, "best_threshold", None)
        threshold = None if threshold is None else float(threshold)
        self.best = {"metric": value, "epoch": epoch, "threshold": threshold}
        return True

    def _bare_network(self) -> nn.Module:
        return getattr(self.network, "module", self.network)


def load_threshold(weights: str | Path, *, default: float = 0.5) -> float:
    """Probability threshold stored beside weights; `default` when none was stored or none was chosen.

    Args:
        weights: file of the weights; `threshold.json` is looked for in its folder.
        default: for weights without a stored threshold.

    Raises:
        InputError: when the stored threshold belongs to other weights or cannot be read.
    """
    weights = Path(weights)
    file = _threshold_beside(weights)
    if not file.is_file() or not weights.is_file():
        return default
    remedy = "pass --threshold VALUE"
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        owner, threshold = record["weights_sha256"], record["threshold"]
        threshold = default if threshold is None else check_fraction("threshold", threshold)
    except (ValueError, KeyError, TypeError) as error:
        refuse(file, "a threshold between 0 and 1 and the weights_sha256", _first_line(error), remedy)
    if owner != sha256_of(weights):
        got = "one of other weights"
        refuse(file, f"the threshold of {weights.name}", got, f"{remedy}, or start a killed training again")
    return threshold


def _threshold_beside(weights: Path) -> Path:
    return weights.with_name("threshold.json")


def _save(path: Path, content: Any) -> None:
    # In memory first: torch tells no full disk from a fault of its own, and names the archive after the file,
    # so that the same weights would have other bytes under each temporary name.
    buffer = io.BytesIO()
    torch.save(content, buffer)

    def write(temporary: Path) -> None:
        temporary.write_bytes(buffer.getbuffer())

    def read_back(temporary: Path) -> None:
        torch.load(temporary, map_location="cpu", weights_only=True)

    write_atomically(path, write, overwrite=True, verify=read_back)


def _holds(path: Path, weights: Mapping[str, torch.Tensor]) -> bool:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        return held.keys() == weights.keys() and all(torch.equal(held[key], weights[key]) for key in weights)
    except (OSError, RuntimeError, ValueError, EOFError, AttributeError, pickle.UnpicklingError):
        return False


def _with_own_settings(item: Any, saved: dict[str, Any]) -> dict[str, Any]:
    """Leave a scheduler the arguments it was made with, so that a raised --epochs reaches the schedule."""
    if not isinstance(item, LRScheduler):
        return saved
    arguments = set(inspect.signature(type(item)).parameters) - {
        "last_epoch"
    }  # where it stands is no setting
    arguments.add("_schedule_phases")  # of OneCycleLR, made from its arguments
    settings = {name: value for name, value in item.state_dict().items() if name in arguments}
    if not settings.keys() <= saved.keys():
        raise KeyError(f"no {type(item).__name__}")
    return {**saved, **settings}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80]


def _is_first_rank() -> bool:
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank())
