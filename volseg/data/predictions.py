"""The output folder of one inference run: what is still to do, what was delivered, what failed and why."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

import volseg
from volseg.checks import InputError, check_choice, check_flag, check_positive, refuse
from volseg.data.case_dataset import root_cause
from volseg.data.nifti_writer import as_labels, as_volumes, picture_as_volumes, runs_rows_first, write_nifti
from volseg.data.prediction_facts import count_labels, warnings_about
from volseg.data.prediction_paths import COMPANIONS, SUMMARY, PredictionPaths, check_distinct, shown_name
from volseg.data.slice_writer import write_label_picture
from volseg.files import (
    Journal,
    OutputLock,
    check_writable,
    fingerprint,
    sha256_of,
    sweep_temporaries,
    write_atomically,
    write_json,
)
from volseg.geometry import Geometry

__all__ = ["PredictionFolder"]

logger = logging.getLogger(__name__)

_JOURNAL = ".volseg_journal.jsonl"
_STAGES = ("read", "predict", "write")
_MOST_LINES = 6
_REMEDY = "pass --overwrite true or choose another output folder"


class PredictionFolder:
    """Results of one run, written once each; the same command continues a killed run.

    A case counts as done when the journal says so, for the same input and settings, and its files still have
    the journalled checksums; that a file exists proves nothing. Files that volseg did not write here, or that
    were changed since, are never replaced unless asked.

    Args:
        output_dir: created when missing; locked from `open` to `finish`.
        overwrite: compute all cases anew and replace what is there.
        settings: what the result depends on (weights, inferer, threshold ...), JSON values; results of other
            settings are not taken for done.
        classes: of the network; up to two, the PNG of a 2D case shows 0 and 255, else class indices.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        overwrite: bool = False,
        settings: Mapping[str, object] | None = None,
        classes: int = 1,
    ) -> None:
        check_positive("classes", classes)
        self._paths = PredictionPaths(output_dir)
        self.output_dir = self._paths.output_dir
        self.overwrite = check_flag("overwrite", overwrite)
        self.settings = dict(settings or {})
        self.classes = classes
        stated = json.dumps([volseg.__version__, self.settings], sort_keys=True, default=str)
        self._settings_key = hashlib.sha256(stated.encode()).hexdigest()[:16]
        self._lock = OutputLock(self.output_dir)
        self._journal = Journal(self.output_dir / _JOURNAL)
        self._is_open = False
        self._items: dict[str, dict[str, Any]] = {}
        self._inputs: dict[str, str] = {}  # case: fingerprint of its image
        self._records: dict[str, dict[str, Any]] = {}  # case: its line in the summary
        self._done: dict[str, dict[str, Any]] = {}  # case: last journalled success, of any run
        # (relative path, sha256) of all that this folder's runs wrote
        self._own: set[tuple[str, str]] = set()
        self._since = time.monotonic()

    def open(self) -> None:
        """Take the folder: writable, locked, swept of what killed runs left; `pending` and `save` call this.

        Raises:
            InputError: when the folder cannot be written, is held by another run, or holds a foreign summary.
        """
        if self._is_open:
            return
        check_writable(self.output_dir)
        self._lock.acquire()
        summary = self.output_dir / SUMMARY
        if summary.exists() and not self._journal.path.exists() and not self.overwrite:
            self._lock.release()
            refuse(summary, "no summary, or one of volseg", "a file without a journal beside it", _REMEDY)
        sweep_temporaries(self.output_dir)
        for record in self._journal.records():
            self._own.update((str(path), str(digest)) for path, digest in record.get("outputs", {}).items())
            if record.get("status") == "done":
                self._done[str(record.get("case"))] = record
        self._is_open = True
        self._since = time.monotonic()

    def pending(self, cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Choose the cases that are still to be computed; the others are recorded as skipped or failed.

        Args:
            cases: case items with distinct names.

        Raises:
            InputError: when there is no case, two would share an output, or outputs would lie among inputs.
        """
        items = [dict(case) for case in cases]
        if not items:
            refuse(self.output_dir, "at least one case", "none", "check dataset_dir")
        check_distinct(items)
        self._paths.check_apart(items)
        self.open()
        self._items.update({str(item["case"]): item for item in items})
        return [item for item in items if self._is_pending(item)]

    def item(self, case: str) -> dict[str, Any]:
        """Return the case item of a name that `pending` has seen.

        Raises:
            ValueError: for another name.
        """
        if case not in self._items:
            raise ValueError(f"case must be one that pending has seen, got {case!r}; call pending first")
        return self._items[case]

    def save(
        self,
        case: str,
        pred: torch.Tensor | npt.NDArray[Any],
        geometry: Geometry,
        *,
        probability: torch.Tensor | npt.NDArray[Any] | None = None,
        disagreement: torch.Tensor | npt.NDArray[Any] | None = None,
        non_finite_voxels: int = 0,
        rows_first: bool = False,
        detection: bytes | None = None,
        companions: Mapping[str, bytes] | None = None,
        warnings: Sequence[str] = (),
    ) -> dict[str, Path]:
        """Write the files of one case and journal them.

        Args:
            case: name.
            pred: (x, y, z), (1, x, y, z) label map or (K, x, y, z) masks; whole numbers of any type. Of a
                picture (H, W), (1, H, W) or (K, H, W).
            geometry: of the source image, see `read_header` and `picture_geometry`.
            probability: (x, y, z) or (K, x, y, z); of a picture (H, W) or (K, H, W).
            disagreement: likewise.
            non_finite_voxels: how many of the image were NaN or infinite; told in the summary.
            rows_first: the maps are a picture's; a MetaTensor `pred` with the affine of one says so itself.
            detection: contents of the table of slices, see `volseg.data.detection_table`; a result as `pred`
                is, so that a disk that refuses it costs the case.
            companions: contents of files to look at, by the kinds of `COMPANIONS`; one that the disk refuses
                is left out with a warning.
            warnings: told in the summary.

        Returns:
            Paths under "seg", where they apply "png" (pictures), "prob", "disagreement" and "detection",
            and the companions.

        Raises:
            ValueError: when an array does not have the image's size, `pred` is no label map, or there are
                more labels than `classes`, or a companion is of an unknown kind.
            InputError: when the image changed meanwhile, or a file exists that volseg did not write here.
            OSError: when the disk refuses.
        """
        for kind in companions or {}:
            check_choice("kind of companion", kind, COMPANIONS)
        self.open()
        if case in self._inputs and fingerprint(self._items[case]["image"]) != self._inputs[case]:
            refuse(self._items[case]["image"], "the image that was predicted", "a changed one", "start again")
        rows_first = rows_first or (_is_picture(geometry) and runs_rows_first(pred))
        stored = picture_as_volumes if rows_first else as_volumes
        maps: dict[str, npt.NDArray[Any]] = {"seg": (labels := as_labels(stored(pred, geometry.shape)))}
        for kind, values in (("prob", probability), ("disagreement", disagreement)):
            if values is not None:
                maps[kind] = stored(values, geometry.shape)
        white = 255 if rows_first and self.classes <= 2 else 1
        if white > 1 and labels.max() > 1:
            got = f"label {labels.max()} where classes is {self.classes}"
            raise ValueError(f"pred must hold 0 and 1, got {got}; tell PredictionFolder the classes")
        contents = {**({} if detection is None else {"detection": detection}), **(companions or {})}
        paths, lost = self._write_files(case, maps, geometry, white, contents)
        told = [*warnings_about(labels, geometry, non_finite_voxels), *warnings, *lost]
        self._settle(case, paths, {"voxels": count_labels(labels), "warnings": told})
        return paths

    def fail(self, case: str, stage: str, error: BaseException | str) -> None:
        """Record that a case was lost, and go on.

        Args:
            case: name.
            stage: "read", "predict" or "write".
            error: the reason.

        Raises:
            ValueError: for another stage.
        """
        check_choice("stage", stage, _STAGES)
        reason = " ".join(error.split()) if isinstance(error, str) else root_cause(error)
        logger.error("%s: failed to %s: %s", shown_name(case), stage, reason)
        record = {"case": case, "status": "failed", "stage": stage, "reason": reason}
        self._records[case] = {**record, "seconds": self._lap(), "input": self._inputs.get(case)}
        try:
            self.open()
            self._journal.append(self._records[case])
        except OSError as full:  # the record is in the summary as well
            logger.error("%s: cannot be journalled: %s", shown_name(case), root_cause(full))

    def finish(self) -> None:
        """Write `summary.json`, release the folder, and end the program when a case was lost.

        Raises:
            SystemExit: 1 when no case was delivered, 2 when some were not; the reasons go to stderr.
        """
        for case in self._items.keys() - self._records.keys():
            self.fail(case, "predict", "the run ended before this case")
        ordered = [self._records[case] for case in [*self._items, *self._records.keys() - self._items.keys()]]
        failed = [record for record in ordered if record["status"] == "failed"]
        try:
            self.open()
            self._write_summary(ordered, len(failed))
        except OSError as error:
            print(f"{self.output_dir / SUMMARY}: {root_cause(error)}", file=sys.stderr)
            raise SystemExit(1 if len(failed) == len(ordered) else 2) from None
        finally:
            self._lock.release()
            self._is_open = False
        if failed or not ordered:
            print("\n".join(self._lines(failed, len(ordered))), file=sys.stderr)
            raise SystemExit(1 if len(failed) == len(ordered) else 2)
        skipped = sum(record["status"] == "skipped" for record in ordered)
        logger.info("%d cases delivered, %d of them before this run", len(ordered), skipped)

    def _is_pending(self, item: Mapping[str, Any]) -> bool:
        case = str(item["case"])
        try:
            self._inputs[case] = fingerprint(item["image"])
        except InputError as error:
            self.fail(case, "read", error)
            return False
        if self.overwrite:
            return True
        try:
            found = self._paths.existing(case)
            if self._is_done(case, found):
                record = self._done[case]
                kept = {key: record.get(key) for key in ("outputs", "seconds", "input", "voxels", "warnings")}
                self._records[case] = {"case": case, "status": "skipped", **kept}
                return False
            self._refuse_existing(case, found)
        except (InputError, OSError) as error:
            self.fail(case, "write", error)
            return False
        return True

    def _is_done(self, case: str, found: Mapping[str, str]) -> bool:
        record = self._done.get(case)
        return record is not None and self._is_same_work(record) and record.get("outputs") == dict(found)

    def _is_same_work(self, record: Mapping[str, Any]) -> bool:
        same_input = record.get("input") == self._inputs.get(str(record.get("case")))
        return same_input and record.get("settings") == self._settings_key

    def _refuse_existing(self, case: str, found: Mapping[str, str]) -> None:
        for name, digest in found.items():
            if (name, digest) not in self._own:
                got = "one that was changed or made otherwise"
                refuse(self.output_dir / name, "no file, or one that volseg wrote", got, _REMEDY)
        record = self._done.get(case)
        if found and record is not None and not self._is_same_work(record):
            got = "one of another input or other settings"
            refuse(self._paths.folder(case), "no result, or one of this run", got, _REMEDY)

    def _write_files(
        self,
        case: str,
        maps: Mapping[str, npt.NDArray[Any]],
        geometry: Geometry,
        white: int,
        contents: Mapping[str, bytes],
    ) -> tuple[dict[str, Path], list[str]]:
        found = self._paths.existing(case)  # again: since `pending`, a result may have been corrected by hand
        if not self.overwrite:
            self._refuse_existing(case, found)
        paths, lost = {}, []
        for kind, values in maps.items():
            paths[kind] = self._paths.path(case, kind)
            inspect, replaces = self._announce(case, paths[kind]), self._paths.relative(paths[kind]) in found
            write_nifti(paths[kind], values, geometry, overwrite=replaces, inspect=inspect)
        if _is_picture(geometry) and maps["seg"].shape[0] == 1:
            paths["png"] = self._paths.path(case, "png")
            grey = maps["seg"][0, :, :, 0] * maps["seg"].dtype.type(white)
            write_label_picture(paths["png"], grey, self._announce(case, paths["png"]))
        for kind, content in contents.items():
            path = self._paths.path(case, kind)
            try:
                self._write_content(case, path, content, replaces=self._paths.relative(path) in found)
                paths[kind] = path
            except OSError as error:
                if kind not in COMPANIONS:
                    raise
                lost.append(f"{path.name} was not written: {root_cause(error)}")
        for path in self._paths.others(case, paths):
            path.unlink(missing_ok=True)  # of the run that is being replaced
        return paths, lost

    def _write_content(self, case: str, path: Path, content: bytes, *, replaces: bool) -> None:
        def write(temporary: Path) -> None:
            temporary.write_bytes(content)

        write_atomically(path, write, overwrite=replaces, verify=self._announce(case, path))

    def _announce(self, case: str, path: Path) -> Callable[[Path], None]:
        """Journal a file before it gets its name, so that a run killed in between knows its own."""

        def announce(temporary: Path) -> None:
            outputs = {self._paths.relative(path): sha256_of(temporary)}
            self._journal.append({"case": case, "status": "writing", "outputs": outputs})
            self._own.update(outputs.items())

        return announce

    def _settle(self, case: str, paths: Mapping[str, Path], facts: Mapping[str, object]) -> None:
        outputs = {self._paths.relative(path): sha256_of(path) for path in paths.values()}
        record = {"case": case, "status": "done", "outputs": outputs, "seconds": self._lap(), **facts}
        self._records[case] = {**record, "input": self._inputs.get(case)}
        self._journal.append({**self._records[case], "settings": self._settings_key})

    def _write_summary(self, ordered: Sequence[Mapping[str, Any]], failed_count: int) -> None:
        packages = ("monai", "torch", "numpy", "nibabel")
        summary = {
            "delivered": len(ordered) - failed_count,
            "failed": failed_count,
            "cases": ordered,
            "settings": json.loads(json.dumps(self.settings, default=str)),
            "versions": {"volseg": volseg.__version__, **{name: version(name) for name in packages}},
        }
        write_json(self.output_dir / SUMMARY, summary, overwrite=True)

    def _lines(self, failed: Sequence[Mapping[str, Any]], count: int) -> list[str]:
        head = f"{len(failed)} of {count} cases failed; see {self.output_dir / SUMMARY}"
        room = _MOST_LINES - 1 if len(failed) < _MOST_LINES else _MOST_LINES - 2
        shown = [f"  {shown_name(record['case'])}: {record['reason']}" for record in failed[:room]]
        more = [f"  and {len(failed) - room} more"] if len(failed) > room else []
        return [head, *shown, *more]

    def _lap(self) -> float:
        before, self._since = self._since, time.monotonic()
        return round(self._since - before, 3)


def _is_picture(geometry: Geometry) -> bool:
    return geometry.nifti_header is None and len(geometry.shape) == 3 and geometry.shape[2] == 1
