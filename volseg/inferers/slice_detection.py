"""Which slices of a volume hold which lesion, asked from the detection head of a 2.5D network."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from volseg.checks import check_choice, check_odd, check_positive
from volseg.inferers.accumulator import ArrayVolume, plan_batches
from volseg.inferers.flips import TTA, views_of
from volseg.inferers.precision import Amp, autocast_for, dtype_for
from volseg.inferers.slice_stack import SliceStacks
from volseg.inferers.tiles import plan_tiles
from volseg.inferers.weights import Network, in_channels_last, with_fast_weights

__all__ = ["SliceDetectionInferer"]


class SliceDetectionInferer(Inferer):
    """Run `network.detect` on the stack around every slice along one axis of a volume.

    MONAI's inferers call `network.forward` alone. `detect` computes no decoder, so this costs less than
    a segmentation. The head sees whole slices, as a lesion may be anywhere in them.

    Args:
        in_slices: S, an odd number of neighbouring slices that the network sees; the edge slice is repeated.
        axis: spatial axis across which slices are cut.
        batch_size: stacks per call of the network.
        tta: "none", "mirror" (the mean with left and right swapped), or another name of `views_of`.
        amp: as of `TriAxisInferer`.

    Raises:
        ValueError: when an argument has no meaning.

    Example:
        >>> from volseg.networks import UNetPlusPlus
        >>> network = UNetPlusPlus(out_channels=4, features=(4, 8), detection_classes=3, seed=0).eval()
        >>> SliceDetectionInferer(3)(torch.rand(1, 1, 7, 6, 5), network).shape
        torch.Size([1, 3, 5])
    """

    def __init__(
        self, in_slices: int, *, axis: int = 2, batch_size: int = 8, tta: TTA = "none", amp: Amp = "auto"
    ) -> None:
        self.in_slices = check_odd("in_slices", in_slices)
        if axis not in (0, 1, 2):
            raise ValueError(f"axis must be 0, 1 or 2, got {axis}")
        self.axis = axis
        check_positive("batch_size", batch_size)
        self.batch_size = batch_size
        self.views = views_of(tta, axis)
        check_choice("amp", amp, ("auto", "off", "bf16", "fp16"))
        self.amp: Amp = amp

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *_: Any, **__: Any) -> torch.Tensor:
        """(B, C, D0, D1, D2) in, (B, K, slices along the axis) float32 probabilities out.

        Args:
            inputs: volumes of any real dtype.
            network: has a method `detect`, (N, C*S, h, w) to (N, K) logits. It is called without gradients
                and as it is: put it in eval mode first.

        Raises:
            ValueError: when the input is no volume, or the network has no detection head.
        """
        if inputs.ndim != 5 or 0 in inputs.shape:
            raise ValueError(f"the input must be volumes (B, C, D0, D1, D2), got shape {tuple(inputs.shape)}")
        plain = inputs.as_subclass(torch.Tensor)
        with torch.no_grad(), autocast_for(self.amp, plain.device):
            dtype = dtype_for(self.amp, plain.device)
            detect = with_fast_weights(_Detector(network), dtype, channels_last=True)
            rows = torch.cat(self._rows(plain, detect))  # (B * slices, K)
        return rows.unflatten(0, (len(plain), -1)).transpose(1, 2).contiguous()

    def _rows(self, volumes: torch.Tensor, detect: Network) -> list[torch.Tensor]:
        source = ArrayVolume(volumes)
        stacks = SliceStacks(volumes.shape[self.axis + 2], self.in_slices)
        tiles = plan_tiles([size for axis, size in enumerate(volumes.shape[2:]) if axis != self.axis], None)
        rows = []
        for batch in plan_batches(len(volumes), tiles, len(stacks), self.batch_size):
            parts = torch.cat([source.read(self.axis, stacks, piece) for piece in batch])
            seen = [_probabilities(detect(in_channels_last(view.apply(parts))), parts) for view in self.views]
            rows.append(torch.stack(seen).mean(dim=0))
        return rows


class _Detector(nn.Module):
    """The detection of a network as a forward pass of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if isinstance(network, nn.parallel.DistributedDataParallel):
            network = network.module
        detect = getattr(network, "detect", None)
        if not callable(detect):
            raise ValueError(
                f"the network has no detection head, got {type(network).__name__} without a method `detect`; "
                "build one with detection_classes, or let the segmentation tell: "
                "--slice_detection::inferer '$None'"
            )
        self.network = network
        self.training = network.training
        self._detect: Network = detect

    def forward(self, stacks: torch.Tensor) -> torch.Tensor:
        """(N, C*S, h, w) in, (N, K) logits out."""
        return self._detect(stacks)


def _probabilities(logits: torch.Tensor, stacks: torch.Tensor) -> torch.Tensor:
    if logits.ndim != 2 or len(logits) != len(stacks) or logits.shape[1] == 0:
        raise ValueError(
            f"`detect` must return logits (N={len(stacks)}, K), got {tuple(logits.shape)} for a stack of "
            f"{tuple(stacks.shape)}"
        )
    return logits.float().sigmoid()
