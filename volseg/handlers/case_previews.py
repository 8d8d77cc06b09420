"""What a person opens first: animations, contact sheets and label colours of the cases of a run."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events
from PIL import Image

from volseg.checks import check_flag
from volseg.data import root_cause
from volseg.files import check_writable, safe_name, write_bytes
from volseg.geometry import spacing_of
from volseg.reports import (
    VolumeView,
    contact_sheet,
    draw_panels,
    itk_snap_labels,
    name_classes,
    slicer_colours,
    volume_gif,
)

__all__ = ["CaseCompanions", "CasePreviews"]

logger = logging.getLogger(__name__)

ClassNames = Sequence[str] | Mapping[int | str, str]


class CaseCompanions:
    """Contents of the files that lie beside the predicted volume of one case.

    Label colours for ITK-SNAP and 3D Slicer always, an animation and a contact sheet when asked.

    Args:
        classes: channels of the network.
        class_names: see `volseg.reports.name_classes`.
        previews: whether to draw animation and contact sheet.
    """

    def __init__(
        self, *, classes: int = 1, class_names: ClassNames | None = None, previews: bool = False
    ) -> None:
        self.names = name_classes(classes, class_names)
        self.previews = check_flag("previews", previews)

    def __call__(
        self, image: torch.Tensor | None, pred: torch.Tensor, spacing_mm: Sequence[float]
    ) -> tuple[dict[str, bytes], list[str]]:
        """Make the contents.

        Args:
            image: (C, x, y, z), of any grid over the same place.
            pred: (1, x, y, z) class indices, or (K, x, y, z) masks, of which the last is drawn on top.
            spacing_mm: of `pred`.

        Returns:
            Contents by the kinds that `PredictionFolder.save` takes, and warnings: a picture that cannot be
            drawn costs no prediction.
        """
        contents = {
            "itk_snap": itk_snap_labels(self.names).encode(),
            "slicer": slicer_colours(self.names).encode(),
        }
        if not self.previews or image is None:
            return contents, []
        try:
            view = VolumeView(
                _array(image)[0], _as_indices(pred), spacing_mm=spacing_mm, class_names=self.names
            )
            return {**contents, "preview": volume_gif(view), "sheet": _png(contact_sheet(view))}, []
        except Exception as error:  # whatever is wrong with a picture, the prediction is to be delivered
            return contents, [f"no preview was drawn: {root_cause(error)}"]


class CasePreviews:
    """Show every evaluated case beside its truth: `<case>.gif` and `<case>_sheet.png`, of a picture one PNG.

    Attach before any handler that drops `engine.state.output`. A case whose picture cannot be drawn or
    written is logged, and its scores are kept.

    Args:
        output_dir: folder of the files.
        previews: whether to write anything.
        classes: channels of the network.
        class_names: see `volseg.reports.name_classes`.
        overwrite: replace the files of an earlier evaluation.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        previews: bool = True,
        classes: int = 1,
        class_names: ClassNames | None = None,
        overwrite: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.previews = check_flag("previews", previews)
        self.names = name_classes(classes, class_names)
        self.overwrite = check_flag("overwrite", overwrite)
        self._written: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        if self.previews:
            engine.add_event_handler(Events.STARTED, self.start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Find out before the evaluation whether the pictures can be written.

        Raises:
            InputError: when the folder takes no files.
        """
        check_writable(self.output_dir)
        self._written = set()

    def __call__(self, engine: Engine) -> None:
        """Write the files of the iteration's cases."""
        batch, output = _items(engine.state.batch), _items(engine.state.output)
        for source, item in zip(batch, output, strict=True):
            name = source["case"]
            case = safe_name(name if isinstance(name, str) else name[0])
            if case not in self._written:  # with fewer cases than ranks a case comes twice
                self._written.add(case)
                self._show(case, item)

    def _show(self, case: str, item: Mapping[str, Any]) -> None:
        try:
            for ending, content in self._draw(item).items():
                write_bytes(self.output_dir / f"{case}{ending}", content, overwrite=self.overwrite)
        except Exception as error:  # whatever is wrong with a picture, the scores are to be delivered
            logger.warning("%s: no preview: %s", case, root_cause(error))

    def _draw(self, item: Mapping[str, Any]) -> dict[str, bytes]:
        image, pred = _array(item["image"]), _as_indices(item["pred"])
        truth = None if item.get("label") is None else _as_indices(item["label"])
        if pred.ndim == 2:
            return {".png": _png(draw_panels(image, pred, truth))}
        view = VolumeView(image[0], pred, truth, spacing_mm=_spacing(item), class_names=self.names)
        return {".gif": volume_gif(view), "_sheet.png": _png(contact_sheet(view))}


def _spacing(item: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Edge lengths of the grid of the truth, or of the prediction, where their affine tells them."""
    affine = getattr(item.get("label"), "affine", None)
    affine = getattr(item["pred"], "affine", None) if affine is None else affine
    return None if affine is None else spacing_of(np.asarray(affine))


def _as_indices(labels: torch.Tensor) -> npt.NDArray[Any]:
    maps = _array(labels)
    if len(maps) == 1:
        return maps[0]
    indices = np.zeros(maps.shape[1:], np.uint8)
    for label, mask in enumerate(maps, start=1):
        indices[mask > 0] = label
    return indices


def _array(value: torch.Tensor) -> npt.NDArray[Any]:
    tensor = torch.as_tensor(value).detach().as_subclass(torch.Tensor).cpu()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
