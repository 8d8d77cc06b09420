"""2.5D inference along the axes of a volume, with test-time augmentation, fused into one 3D prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, Literal

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type

from volseg.checks import check_choice, check_fraction, check_positive
from volseg.inferers.accumulator import ArrayAccumulator, ArrayVolume, Piece, StackSource, plan_batches
from volseg.inferers.flips import TTA, View, views_of
from volseg.inferers.fusion import Activation, AxisFusion, Fusion, activate, activate_, check_fusion
from volseg.inferers.precision import Amp, autocast_for, dtype_for
from volseg.inferers.slice_stack import SliceStacks, check_slices
from volseg.inferers.tiles import Blend, plan_tiles
from volseg.inferers.weights import Network, in_channels_last, with_fast_weights
from volseg.transforms.resize import resize_planes
from volseg.transforms.slice_stack import check_axis_zoom

__all__ = ["TriAxisInferer"]

Output = Literal["mean", "disagreement"]

# Enough to keep a CPU's caches and units busy; on accelerators launches are dear and memory is not.
_PIXELS_AT_ONCE = {"cpu": 2**16}
_PIXELS_AT_ONCE_ON_ACCELERATOR = 2**22


class TriAxisInferer(Inferer):
    """Runs a 2D network over slice stacks along up to three axes of a volume and fuses the predictions.

    MONAI's SliceInferer hands the network single slices along one axis, loops over them in Python, and knows
    neither slice stacks nor several axes nor test-time augmentation. Here slices, windows and cases share
    batches, and one accumulator serves all axes and views. An identity network returns the input.

    A picture (B, C, H, W) is a volume of one slice: it needs `axes=(2,)` and `in_slices=1`.

    Args:
        in_slices: S, an odd number of neighbouring slices that the network sees; the edge slice is repeated.
        out_slices: M, 1 (the middle slice) or S; overlapping predictions of neighbouring stacks are averaged.
        slice_step: slices from one stack to the next, at most `out_slices`.
        axes: spatial axes across which slices are cut. The plane keeps the order of the other two.
        roi_size: window in plane, None for whole slices. A smaller plane is padded by its edge.
        overlap: share of a window that its neighbour covers too, in [0, 1).
        blend: "constant" or "gaussian" weights of overlapping windows.
        tta: "none", "mirror" (2 views, see `views_of`), "flips" (4) or "d4" (8), averaged within an axis.
        tta_scales: sizes at which the network sees each view, as factors on `axis_zoom`, such as
            (0.875, 1, 1.125). A view is the mean of its sizes; its windows cover the same voxels at each.
        fusion: "mean", "logit_mean" (activation after the mean), "max" over axes, or of masks at `threshold`:
            "union" of all views and axes, "vote" for the majority over axes, each the union of its views.
        axis_weights: one positive weight per axis, for "mean", "logit_mean" and "vote".
        upright: hand the network planes across axis 0 as (z, y), so that down, axis 1 of a volume (x, y, z),
            runs along the same dimension as in planes (x, y). One network knows layers of tissue again in
            both.
        axis_zoom: for each of `axes`, pixels per voxel (h, w) of the planes that the network sees. Planes of
            anisotropic volumes come nearer to square pixels so; predictions are brought back to the voxels.
            `roi_size` and zooms are in the order of the volume's axes, `upright` or not.
        activation: "sigmoid", "softmax" over K, or None, applied to every prediction before it is fused.
        threshold: from which value on "union" and "vote" count a voxel.
        batch_size: stacks per call of the network; None picks one by the size of the plane.
        amp: "auto" is bfloat16 where the device has units for it, "off" float32, "bf16" and "fp16" as named.
        channels_last: hand the network its batches in this memory format, which is faster for convolutions.
        outputs: ("mean",), or ("mean", "disagreement") to append the standard deviation between what the axes
            say alone, or with one axis its views, as K more channels and without further calls of the
            network.

    Raises:
        ValueError: when an argument has no meaning; the message names the remedy.

    Example:
        >>> volume = torch.rand(1, 1, 5, 7, 6)
        >>> middle = lambda stacks: stacks[:, 1:2]
        >>> bool(TriAxisInferer(tta="d4", activation=None)(volume, middle).allclose(volume))
        True
    """

    def __init__(
        self,
        *,
        in_slices: int = 3,
        out_slices: int = 1,
        slice_step: int = 1,
        axes: Sequence[int] = (0, 1, 2),
        roi_size: int | Sequence[int] | None = None,
        overlap: float = 0.5,
        blend: Blend = "constant",
        tta: TTA = "none",
        tta_scales: Sequence[float] = (1.0,),
        fusion: Fusion = "mean",
        axis_weights: Sequence[float] | None = None,
        upright: bool = False,
        axis_zoom: Sequence[Sequence[float]] | None = None,
        activation: Activation = "sigmoid",
        threshold: float = 0.5,
        batch_size: int | None = None,
        amp: Amp = "auto",
        channels_last: bool = True,
        outputs: Sequence[Output] = ("mean",),
    ) -> None:
        check_slices(in_slices, out_slices, slice_step)
        self.in_slices, self.out_slices, self.slice_step = in_slices, out_slices, slice_step
        self.axes = _check_axes(axes)
        self.roi_size = _check_roi(roi_size)
        self.overlap = _check_overlap(overlap)
        check_choice("blend", blend, ("constant", "gaussian"))
        self.blend: Blend = blend
        self.views = {axis: views_of(tta, axis, upright=upright) for axis in self.axes}
        self.picture_views = views_of(tta)
        self.scales = _check_scales(tta_scales)
        self.weights = check_fusion(fusion, activation, axis_weights, len(self.axes))
        self.zooms = dict(zip(self.axes, check_axis_zoom(axis_zoom, len(self.axes)), strict=True))
        self.fusion, self.activation = fusion, activation
        self.threshold = check_fraction("threshold", threshold)
        if batch_size is not None:
            check_positive("batch_size", batch_size)
        self.batch_size = batch_size
        check_choice("amp", amp, ("auto", "off", "bf16", "fp16"))
        self.amp: Amp = amp
        self.channels_last = channels_last
        self.has_disagreement = check_outputs(outputs)

    def __call__(self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(B, C, D0, D1, D2) in, (B, K, D0, D1, D2) float32 out, or (B, 2K, …) with the disagreement.

        Pictures (B, C, H, W) give (B, K, H, W): each is a volume of one slice, cut across axis 2 alone.

        Args:
            inputs: volumes or pictures of any real dtype; a MetaTensor gives a MetaTensor with the same
                affine.
            network: (N, C*S, h, w) to (N, K*M, h, w) logits. It is called without gradients and as it is: put
                it in eval mode first.
            args: passed to the network.
            kwargs: passed to the network.

        Raises:
            ValueError: when the input is neither, pictures meet other axes than (2,) or several slices, or
                the network returns another shape.
            TypeError: when the network returns no tensor.
        """
        is_picture = inputs.ndim == 4
        if inputs.ndim not in (4, 5) or 0 in inputs.shape:
            raise ValueError(
                f"the input must be volumes (B, C, D0, D1, D2) or pictures (B, C, H, W), "
                f"got shape {tuple(inputs.shape)}"
            )
        if is_picture and (self.axes != (2,) or self.in_slices != 1):
            raise ValueError(
                f"axes must be (2,) for pictures (B, C, H, W) and in_slices 1, got {self.axes} and "
                f"{self.in_slices} for shape {tuple(inputs.shape)}; give a volume five axes"
            )
        plain = inputs.as_subclass(torch.Tensor)
        plain = plain.unsqueeze(-1) if is_picture else plain
        with torch.no_grad(), autocast_for(self.amp, plain.device):
            dtype = dtype_for(self.amp, plain.device)
            fast = with_fast_weights(network, dtype, channels_last=self.channels_last)
            run = _Run(self, plain, lambda stacks: fast(stacks, *args, **kwargs), is_picture=is_picture)
            fused = run.fuse()
        fused = fused.squeeze(-1) if is_picture else fused
        return convert_to_dst_type(fused, inputs, dtype=torch.float32)[0]


class _Run:
    """One call of an inferer: the volume, the network and the plan for them."""

    def __init__(
        self, inferer: TriAxisInferer, volume: torch.Tensor, network: Network, *, is_picture: bool
    ) -> None:
        self.inferer = inferer
        self.views = {2: inferer.picture_views} if is_picture else inferer.views
        self.network = network
        self.source: StackSource = ArrayVolume(volume)
        self.cases, self.shape = volume.shape[0], tuple(volume.shape[2:])
        self.device = volume.device

    def fuse(self) -> torch.Tensor:
        """Fused prediction of all axes."""
        inferer = self.inferer
        accumulator = ArrayAccumulator(self.cases, self.shape)
        if inferer.fusion in ("mean", "logit_mean") and not inferer.has_disagreement:
            # A weighted mean needs no map per axis: every prediction goes straight into the one sum.
            for axis, weight in zip(inferer.axes, inferer.weights, strict=True):
                self._add_views(axis, self.views[axis], weight, accumulator)
            if inferer.fusion == "logit_mean":
                activate_(accumulator.values, inferer.activation)
            return accumulator.values
        if inferer.has_disagreement and len(inferer.axes) == 1:
            return self._fuse_views(accumulator)
        fusion = AxisFusion(inferer.fusion, inferer.activation, has_disagreement=inferer.has_disagreement)
        for axis, weight in zip(inferer.axes, inferer.weights, strict=True):
            fusion.add(self._axis_map(axis, accumulator), weight)
        return fusion.result()

    def _fuse_views(self, accumulator: ArrayAccumulator) -> torch.Tensor:
        """Fused prediction of one axis, and the disagreement of its views, each kept apart."""
        inferer = self.inferer
        (axis,) = inferer.axes
        views = self.views[axis]
        is_of_masks = inferer.fusion in ("union", "vote")
        within: Fusion = "union" if is_of_masks else "mean"
        within = "logit_mean" if inferer.fusion == "logit_mean" else within
        fusion = AxisFusion(within, inferer.activation, has_disagreement=True)
        for view in views:
            accumulator.clear()
            self._add_views(axis, (view,), 1.0, accumulator)
            seen = accumulator.values
            if is_of_masks:
                seen.copy_(seen >= inferer.threshold)
            fusion.add(seen, 1.0 / len(views))
        return fusion.result()

    def _axis_map(self, axis: int, accumulator: ArrayAccumulator) -> torch.Tensor:
        """What one axis says alone: the mean of its views, or the union of their masks."""
        views = self.views[axis]
        if self.inferer.fusion not in ("union", "vote"):
            accumulator.clear()
            self._add_views(axis, views, 1.0, accumulator)
            return accumulator.values
        masks = (self._view_mask(axis, view, accumulator) for view in views)
        union = reduce(torch.Tensor.logical_or_, masks)
        return accumulator.values.copy_(union)

    def _view_mask(self, axis: int, view: View, accumulator: ArrayAccumulator) -> torch.Tensor:
        accumulator.clear()
        self._add_views(axis, (view,), 1.0, accumulator)
        return accumulator.values >= self.inferer.threshold

    def _add_views(
        self, axis: int, views: Sequence[View], weight: float, accumulator: ArrayAccumulator
    ) -> None:
        """Add the mean of some views of all stacks across an axis, times `weight`."""
        inferer = self.inferer
        plane = [size for other, size in enumerate(self.shape) if other != axis]
        tiles = plan_tiles(plane, inferer.roi_size, inferer.overlap, inferer.blend)
        stacks = SliceStacks(self.shape[axis], inferer.in_slices, inferer.out_slices, inferer.slice_step)
        pixels = round(tiles[0].pixels * math.prod(inferer.zooms[axis]) * max(inferer.scales) ** 2)
        for batch in plan_batches(self.cases, tiles, len(stacks), self._batch_size(pixels)):
            parts = [self.source.read(axis, stacks, piece) for piece in batch]
            whole = torch.cat(parts) if len(parts) > 1 else parts[0]
            total = self._sum_of_scales(whole, views, inferer.zooms[axis])
            total = total.mul_(weight / (len(views) * len(inferer.scales)))
            for piece, values in zip(batch, _split(total, batch), strict=True):
                accumulator.add(axis, stacks, piece, values)

    def _sum_of_scales(
        self, stacks: torch.Tensor, views: Sequence[View], zoom: tuple[float, float]
    ) -> torch.Tensor:
        zooms = [(zoom[0] * scale, zoom[1] * scale) for scale in self.inferer.scales]
        return reduce(torch.Tensor.add_, (self._zoomed_sum_of_views(stacks, views, each) for each in zooms))

    def _zoomed_sum_of_views(
        self, stacks: torch.Tensor, views: Sequence[View], zoom: tuple[float, float]
    ) -> torch.Tensor:
        """`_sum_of_views` of stacks whose voxels become `zoom` pixels, back on the voxels."""
        if zoom == (1.0, 1.0):
            return self._sum_of_views(stacks, views)
        plane = (stacks.shape[2], stacks.shape[3])
        size = [max(1, round(length * factor)) for length, factor in zip(plane, zoom, strict=True)]
        total = self._sum_of_views(resize_planes(stacks.to(torch.float32), size), views)
        return resize_planes(total.flatten(1, 2), plane).unflatten(1, total.shape[1:3])

    def _sum_of_views(self, stacks: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
        """(N, C*S, h, w) to (N, K, M, h, w): the activated predictions of all views, summed."""
        total: torch.Tensor | None = None
        for view in views:
            seen = view.undo(self._predict(view.apply(stacks)))
            total = seen.clone() if total is None else total.add_(seen)
        return total if total is not None else stacks.new_zeros(0)

    def _predict(self, stacks: torch.Tensor) -> torch.Tensor:
        stacks = in_channels_last(stacks) if self.inferer.channels_last else stacks.contiguous()
        logits = self.network(stacks)
        classes = _check_logits(logits, stacks, self.inferer.out_slices)
        logits = logits.as_subclass(torch.Tensor).to(torch.float32)
        logits = logits.reshape(len(stacks), classes, self.inferer.out_slices, *stacks.shape[2:])
        is_activated_later = self.inferer.fusion == "logit_mean"
        return logits if is_activated_later else activate(logits, self.inferer.activation)

    def _batch_size(self, pixels: int) -> int:
        if self.inferer.batch_size is not None:
            return int(self.inferer.batch_size)
        budget = _PIXELS_AT_ONCE.get(self.device.type, _PIXELS_AT_ONCE_ON_ACCELERATOR)
        return max(1, budget // pixels)


def _split(total: torch.Tensor, batch: Sequence[Piece]) -> Iterator[torch.Tensor]:
    yield from total.split([len(piece) for piece in batch])


def _check_logits(logits: object, stacks: torch.Tensor, out_slices: int) -> int:
    if not isinstance(logits, torch.Tensor):
        raise TypeError(
            f"the network must return a tensor of logits, got {type(logits).__name__}; put it in "
            f"eval mode, or pick the output in a function around it"
        )
    expected = f"(N={len(stacks)}, K*{out_slices}, {stacks.shape[2]}, {stacks.shape[3]})"
    fits = logits.ndim == 4 and logits.shape[0] == len(stacks) and logits.shape[2:] == stacks.shape[2:]
    if not fits or logits.shape[1] == 0 or logits.shape[1] % out_slices:
        raise ValueError(
            f"the network must return logits {expected}, got {tuple(logits.shape)} for a stack of "
            f"{tuple(stacks.shape)}; check in_slices, out_slices, and that the network keeps odd sizes"
        )
    return logits.shape[1] // out_slices


def _check_axes(axes: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(int(axis) for axis in axes)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= {0, 1, 2}:
        raise ValueError(f"axes must be distinct and out of 0, 1, 2, got {tuple(axes)}")
    return chosen


def _check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    check_positive("tta_scales", scales)
    return tuple(float(scale) for scale in scales)


def _check_roi(roi_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if roi_size is None:
        return None
    size = (roi_size, roi_size) if isinstance(roi_size, int) else tuple(roi_size)
    if len(size) != 2:
        raise ValueError(f"roi_size must be a number, (h, w) or None, got {roi_size}")
    check_positive("roi_size", size)
    return int(size[0]), int(size[1])


def _check_overlap(overlap: float) -> float:
    if check_fraction("overlap", overlap) == 1.0:
        raise ValueError("overlap must be below 1, got 1.0; windows would not advance")
    return float(overlap)


def check_outputs(outputs: Sequence[str]) -> bool:
    """Return whether the disagreement is among the outputs of an inferer.

    Raises:
        ValueError: for other outputs than the mean, or the mean and the disagreement.
    """
    if tuple(outputs) not in (("mean",), ("mean", "disagreement")):
        raise ValueError(f"outputs must be ('mean',) or ('mean', 'disagreement'), got {tuple(outputs)}")
    return len(outputs) == 2
