"""One evaluator iteration per case, in which a lost case costs one case."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents

from volseg.checks import refuse
from volseg.data.detection_table import detection_csv
from volseg.data.predictions import PredictionFolder
from volseg.handlers.case_previews import CaseCompanions

__all__ = ["CaseIteration"]


class CaseIteration:
    """Predict and deliver one case, as `iteration_update` of MONAI's SupervisedEvaluator.

    The evaluator's own iteration is run, with its inferer and postprocessing, and the result is saved. In
    MONAI, an exception in any of this ends the run and loses the cases behind it; here it is recorded for its
    case, out of memory included. So is a network output that is not finite, whose argmax is background.

    Needs batches of one case from `collate_cases`, and postprocessing that leaves the label map on the
    image's own grid under "pred", (K, x, y, z) of a volume or (K, H, W) of a picture; "probability" and
    "disagreement" are saved where they are present, and so is "detection" of `SliceDetection`, as a table.

    Args:
        predictions: takes the results and the failures.
        companions: makes what lies beside the prediction of a volume; None is nothing.
    """

    def __init__(self, predictions: PredictionFolder, companions: CaseCompanions | None = None) -> None:
        self.predictions = predictions
        self.companions = companions
        self._watched: Engine | None = None

    def __call__(self, engine: SupervisedEvaluator, batchdata: Mapping[str, Any]) -> Any:
        """Run one iteration; return the evaluator's output, or an empty list for a lost case."""
        case = _only(batchdata["case"])
        if "failure" in batchdata:
            return self._lose(engine, case, _only(batchdata["failure_stage"]), _only(batchdata["failure"]))
        if self._watched is not engine:
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, _check_finite)
            self._watched = engine
        stage = "predict"
        try:
            engine._iteration(engine, batchdata)
            output = engine.state.output  # decollated and post-processed, where the evaluator does that
            result = output[0] if isinstance(output, list) else output
            pred = result["pred"]
            stage = "write"
            self._save(case, pred, result)
        except Exception as error:  # whatever is wrong with one case, the others are still to be delivered
            return self._lose(engine, case, stage, error)
        return output

    def _save(self, case: str, pred: torch.Tensor, result: Mapping[str, Any]) -> None:
        from volseg.data import picture_geometry, read_header

        item = self.predictions.item(case)
        is_picture = pred.ndim == 3
        # the reader accepted the image: slices that it left out by its rule are no fault any more
        geometry_of = picture_geometry if is_picture else partial(read_header, gaps="keep")
        geometry = geometry_of(item["image"], spacing_mm=item.get("spacing_mm"))
        extras = {key: result[key] for key in ("probability", "disagreement") if result.get(key) is not None}
        meta = getattr(result.get("image"), "meta", None) or {}
        bad = int(meta.get("non_finite_voxels", 0))
        files: dict[str, bytes] = {}
        warnings: list[str] = []
        if self.companions is not None and not is_picture:
            files, warnings = self.companions(result.get("image"), pred, geometry.spacing_mm)
        table = None
        if result.get("detection") is not None:
            names = None if self.companions is None else list(self.companions.names.values())
            table = detection_csv(result["detection"], names)
        self.predictions.save(
            case,
            pred,
            geometry,
            non_finite_voxels=bad,
            rows_first=is_picture,
            detection=table,
            companions=files,
            warnings=warnings,
            **extras,
        )

    def _lose(self, engine: Engine, case: str, stage: str, error: Exception | str) -> list[Any]:
        self.predictions.fail(case, stage, error)
        engine.state.batch, engine.state.output = [], []  # the next case may need their memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return []


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) else value


def _check_finite(engine: Engine) -> None:
    pred = engine.state.output["pred"]
    if not isinstance(pred, torch.Tensor) or not pred.is_floating_point():
        return
    for plane in pred.flatten(0, min(2, pred.ndim - 1)):  # by parts, because isfinite copies what it looks at
        if not torch.isfinite(plane).all():
            refuse("network", "finite output", "NaN or infinity", "check the image's values and the weights")
