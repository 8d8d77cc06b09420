"""Measures of one confusion matrix, pooled over all voxels of all cases."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from monai.metrics import CumulativeIterationMetric

from volseg.checks import check_choice, check_positive
from volseg.metrics.neighbour_codes import IGNORE

__all__ = ["ConfusionMeasure", "ConfusionMetric", "compute_confusion_matrix", "compute_confusion_measure"]

ConfusionMeasure = Literal[
    "accuracy", "mean_iou", "mean_dice", "precision", "recall", "specificity", "f_beta"
]


class ConfusionMetric(CumulativeIterationMetric):
    """A measure of the confusion matrix that sums up the voxels of all cases.

    MONAI's `ConfusionMatrixMetric` is one-against-rest per case; pooling weighs a case by its voxels, so
    that a missed small case hardly shows: read it beside `DiceMetric`, which counts missed structures.

    `y_pred` is (B, K, ...), of which the largest channel decides (probabilities, logits or one-hot), or (B,
    1, ...) class indices; `y` is (B, 1, ...) class indices, of which 255 is left out. There is no threshold,
    so that weights chosen by this metric are stored without one. Under `torch.distributed` the voxels of
    all ranks are pooled.

    Args:
        measure: see `compute_confusion_measure`.
        classes: number of classes with the background, 2 for a mask.
        beta: weight of the recall in "f_beta".

    Attributes:
        per_class: after `aggregate`, (K,) IoU of each class in the pooled matrix, background first.

    Example:
        >>> metric = ConfusionMetric("mean_iou", classes=3)
        >>> softmax = torch.tensor([[[[0.7, 0.1]], [[0.2, 0.3]], [[0.1, 0.6]]]])
        >>> _ = metric(softmax, torch.tensor([[[[0, 2]]]]))
        >>> metric.aggregate().item()
        1.0
    """

    def __init__(
        self, measure: ConfusionMeasure = "mean_iou", classes: int = 2, *, beta: float = 1.0
    ) -> None:
        super().__init__()
        self.measure: ConfusionMeasure = measure
        self.classes = classes
        self.beta = beta
        compute_confusion_measure(torch.eye(classes), measure, beta=beta)  # refuses what is unknown
        self.reset()

    def reset(self) -> None:
        """Forget all cases and the results of the last `aggregate`."""
        super().reset()
        self.per_class: torch.Tensor | None = None

    def get_buffer(self) -> torch.Tensor | None:
        """The measure (N, 1) of each case alone, from all ranks; None before the first."""
        matrices = super().get_buffer()
        if matrices is None:
            return None
        return torch.tensor([[self._measure_of(matrix)] for matrix in matrices], device=matrices.device)

    def aggregate(self) -> torch.Tensor:
        """The measure of the pooled matrix as a scalar tensor, nan where undefined; also sets the attributes.

        Raises:
            ValueError: before any case was scored.
        """
        matrices = super().get_buffer()
        if matrices is None:
            raise ValueError("ConfusionMetric has scored no case yet; call it with y_pred and y first")
        pooled = matrices.sum(dim=0)
        right = pooled.diagonal()
        self.per_class = right.double() / (pooled.sum(dim=0) + pooled.sum(dim=1) - right)
        return torch.tensor(self._measure_of(pooled), device=matrices.device)

    def _measure_of(self, matrix: torch.Tensor) -> float:
        return compute_confusion_measure(matrix, self.measure, beta=self.beta)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **_: Any) -> torch.Tensor:
        if y_pred.shape[1] not in (1, self.classes):
            raise ValueError(
                f"y_pred must have {self.classes} channels, or 1 of class indices, got {y_pred.shape[1]}; "
                "check `classes`"
            )
        if y_pred.is_floating_point() and bool(y_pred.isnan().any()):
            raise ValueError("y_pred holds NaN, of which no class is the largest; look for NaN in the images")
        indices = y_pred if y_pred.shape[1] == 1 else y_pred.argmax(dim=1, keepdim=True)
        pairs = zip(indices, y, strict=True)
        return torch.stack([compute_confusion_matrix(*pair, classes=self.classes) for pair in pairs])


def compute_confusion_matrix(pred: Any, truth: Any, *, classes: int) -> torch.Tensor:
    """Count voxels by the class they have and the class they are given.

    Args:
        pred: class indices of any shape.
        truth: class indices of the same shape; 255 is left out.
        classes: number of classes, K.

    Returns:
        (K, K) int64, row = truth, column = prediction.

    Raises:
        ValueError: when the shapes differ or a value is no class index.

    Example:
        >>> compute_confusion_matrix([0, 1, 1, 1], [0, 0, 1, 255], classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    given, real = torch.as_tensor(pred), torch.as_tensor(truth)
    if given.shape != real.shape:
        shapes = f"{tuple(given.shape)} and {tuple(real.shape)}"
        raise ValueError(f"pred and truth must have one shape, got {shapes}; bring them onto one grid")
    labelled = real != IGNORE
    given, real = given[labelled], real[labelled]
    for name, values in (("pred", given), ("truth", real)):
        if not bool(((values >= 0) & (values < classes) & (values == values.long())).all()):
            raise ValueError(
                f"{name} must hold class indices below {classes}, got others; map the labels first"
            )
    cells = real.long() * classes + given.long()
    return torch.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def compute_confusion_measure(matrix: Any, measure: ConfusionMeasure, *, beta: float = 1.0) -> float:
    """One number of a confusion matrix.

    Args:
        matrix: (K, K) counts, row = truth, column = prediction, class 0 the background.
        measure: "accuracy", the share of right voxels; "mean_iou", the mean over all classes, background
            included, that occur in truth or prediction; "mean_dice", the mean over the foreground classes
            that occur in either; "precision", "recall", "specificity" or "f_beta" of
            the foreground classes against the background, where a voxel of another foreground class is both
            wrong and missed.
        beta: weight of the recall in "f_beta".

    Returns:
        A number in [0, 1]; nan where nothing can be said: no voxel at all, precision without truth and
        prediction, recall without truth, specificity without background. A missed class has precision, recall
        and F 0; so has a spurious one precision and F.

    Raises:
        ValueError: for an unknown measure or a beta that is not positive.

    Example:
        >>> compute_confusion_measure([[5, 1], [2, 2]], "mean_iou")
        0.5125
    """
    check_choice("measure", measure, get_args(ConfusionMeasure))
    check_positive("beta", beta)
    counts = torch.as_tensor(matrix).double()
    right, real, given = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    if measure == "accuracy":
        return float(right.sum() / counts.sum())
    if measure == "mean_iou":
        return float((right / (real + given - right)).nanmean())
    if measure == "mean_dice":
        return float((2 * right / (real + given))[1:].nanmean())
    if measure == "specificity":
        return float(right[0] / real[0])
    found, of_truth, of_pred = right[1:].sum(), real[1:].sum(), given[1:].sum()
    if measure == "recall":
        return float(found / of_truth)
    if measure == "precision":
        return float(found / of_pred) if of_pred > 0 else float(0.0 * of_truth / of_truth)
    return float((1 + beta**2) * found / (beta**2 * of_truth + of_pred))
