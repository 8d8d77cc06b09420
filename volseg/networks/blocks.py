"""Building blocks of the 2D networks over slice stacks; every one is scriptable and keeps channels_last."""

# A detection head is a module or None, which mypy cannot know and TorchScript must not be told.
# mypy: disable-error-code="operator"
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from volseg.checks import check_choice

__all__ = [
    "ConvBlock",
    "DetectingNetwork",
    "DetectionHead",
    "DilatedCentre",
    "InstanceNorm",
    "NormName",
    "SpatialChannelExcitation",
    "Upsample",
    "UpsampleName",
    "make_norm",
    "pad_to_multiple",
    "padded_length",
    "seeded",
    "unpad",
]

NormName = Literal["batch", "instance", "group"]
UpsampleName = Literal["transposed", "transposed4", "bilinear"]


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw the initial weights made inside this block from `seed`, and leave the global generator as found.

    Args:
        seed: any integer, or None to draw from the global generator.

    Example:
        >>> with seeded(3): a = nn.Linear(2, 2)
        >>> with seeded(3): b = nn.Linear(2, 2)
        >>> bool((a.weight == b.weight).all())
        True
    """
    # Only the CPU generator: torch.manual_seed would also reseed every accelerator.
    with nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield


def make_norm(name: NormName, channels: int) -> nn.Module:
    """Build the normalisation of a block: "batch", "instance" or "group" (at most eight groups).

    Raises:
        ValueError: when `name` is no choice.

    Example:
        >>> make_norm("group", 12).num_groups
        6
    """
    check_choice("norm", name, ("batch", "instance", "group"))
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "instance":
        return InstanceNorm(channels)
    return nn.GroupNorm(max(groups for groups in range(1, 9) if channels % groups == 0), channels)


class InstanceNorm(nn.Module):
    """Instance normalisation with weight and bias that stays in channels_last.

    The numbers are those of torch's InstanceNorm2d, which leaves channels_last; the other way to write it, a
    group normalisation with one channel a group, has a backward pass on CPU that takes ten times as long.

    Args:
        channels: of the maps.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in, the same out."""
        if self.training and features.device.type == "cpu":
            # A batch of one item makes batch normalisation an instance normalisation.
            items = [
                F.batch_norm(item, None, None, self.weight, self.bias, True, 0.0, self.eps)
                for item in features.split(1)
            ]
            return torch.cat(items)
        return F.group_norm(features, self.channels, self.weight, self.bias, self.eps)


def pad_to_multiple(stack: torch.Tensor, multiple: int) -> torch.Tensor:
    """Repeat the right and lower edge until height and width are multiples of `multiple`.

    Both become at least twice `multiple`, so that the deepest map of a network has four values: a
    normalisation over a single value has no variance, and torch refuses it in training.

    Args:
        stack: (B, C, H, W), H and W at least 1.
        multiple: the product of all strides.

    Returns:
        (B, C, H', W'); the input itself when nothing is missing.

    Example:
        >>> pad_to_multiple(torch.zeros(1, 1, 5, 16), 4).shape
        torch.Size([1, 1, 8, 16])
    """
    height, width = stack.shape[-2], stack.shape[-1]
    lower = padded_length(height, multiple) - height
    right = padded_length(width, multiple) - width
    if lower == 0 and right == 0:
        return stack
    return F.pad(stack, [0, right, 0, lower], mode="replicate")


def padded_length(length: int, multiple: int) -> int:
    """Next multiple of `multiple`, at least the second.

    Only with positive numbers: ONNX rounds the quotient of negative ones towards zero, Python down.

    Example:
        >>> [padded_length(length, 8) for length in (1, 16, 17)]
        [16, 16, 24]
    """
    return max((length + multiple - 1) // multiple, 2) * multiple


def unpad(stack: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undo `pad_to_multiple`: (..., H', W') to (..., height, width).

    Example:
        >>> unpad(torch.zeros(1, 1, 8, 16), 5, 16).shape
        torch.Size([1, 1, 5, 16])
    """
    return stack[..., :height, :width]


class SpatialChannelExcitation(nn.Module):
    """Weigh a map by what its channels and what its pixels tell: scSE.

    MONAI has the channel half (ChannelSELayer) only. Both weights are added first, so that the map is
    multiplied once.

    Args:
        channels: of the map.
        reduction: channels are squeezed by this factor.

    Source: Roy et al., Concurrent Spatial and Channel Squeeze & Excitation in FCNs, MICCAI 2018, eq. 2-5.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        squeezed = max(channels // reduction, 1)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.LeakyReLU(0.01),  # a dead ReLU would cut the gradient of a narrow squeeze for good
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in, the same out."""
        return features * (self.channel(features) + self.spatial(features))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with normalisation and ReLU, optionally residual, with scSE and dropout.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        norm: "batch", "instance" or "group".
        residual: add the input (through a 1x1 convolution where the widths differ) before the last ReLU.
        scse: weigh the output by scSE.
        dropout: share of whole channels dropped between the two convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: NormName = "batch",
        residual: bool = False,
        scse: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            make_norm(norm, out_channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout) if dropout > 0 else nn.Identity(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            make_norm(norm, out_channels),
        )
        self.residual = residual
        same = in_channels == out_channels
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1, bias=False) if residual and not same else nn.Identity()
        )
        self.excitation = SpatialChannelExcitation(out_channels) if scse else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) in, (B, out_channels, H, W) out."""
        out = self.body(features)
        if self.residual:
            out = out + self.shortcut(features)
        return self.excitation(F.relu(out, inplace=True))


class Upsample(nn.Module):
    """Double height and width, and change the number of channels.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        mode: "transposed" is a 2x2 transposed convolution; "transposed4" a 4x4 one, whose windows overlap by
            two; "bilinear" mixes channels by a 1x1 convolution before it interpolates, which is four times
            cheaper than after.

    Raises:
        ValueError: when `mode` is no choice.
    """

    def __init__(self, in_channels: int, out_channels: int, mode: UpsampleName = "transposed") -> None:
        super().__init__()
        check_choice("upsample", mode, ("transposed", "transposed4", "bilinear"))
        self.body: nn.Module
        if mode == "bilinear":
            self.body = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            )
        else:
            kernel = 4 if mode == "transposed4" else 2
            padding = kernel // 2 - 1
            self.body = nn.ConvTranspose2d(in_channels, out_channels, kernel, stride=2, padding=padding)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) in, (B, out_channels, 2H, 2W) out."""
        return self.body(features)


class DilatedCentre(nn.Module):
    """Widen the view of the deepest features: a chain of dilated convolutions whose outputs are summed.

    Args:
        channels: of the features.
        dilations: one 3x3 convolution each, applied in this order.

    Source: Zhou et al., D-LinkNet, CVPR Workshops 2018, section 2.1.
    """

    def __init__(self, channels: int, dilations: tuple[int, ...] = (1, 2, 4, 8)) -> None:
        super().__init__()
        self.chain = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in dilations)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in, the same out."""
        total = features
        step = features
        for convolution in self.chain:
            step = F.relu(convolution(step))
            total = total + step
        return total


class DetectionHead(nn.Module):
    """Tell for each class whether it is anywhere in the picture.

    Args:
        channels: of the features.
        classes: how many.
        dropout: share of features dropped in training.
    """

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Conv2d(channels, classes, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F, H, W) in, (B, classes) logits out: the highest score of the map."""
        return self.score(self.dropout(features)).amax(dim=(2, 3))


class DetectingNetwork(nn.Module):
    """A network that can tell what is in a picture from its deepest features, without decoding them.

    A subclass has a `DetectionHead` or None as `detection`, and `deepest`.
    """

    def deepest(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, the features that the detection head looks at out."""
        raise NotImplementedError("a network with a detection head needs a method `deepest`")

    @torch.jit.export
    def detect(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, (B, detection_classes) logits out; only the encoder is computed.

        Raises:
            ValueError: when the network has no detection head.
        """
        if self.detection is None:
            raise ValueError(
                "the network has no detection head; build it with detection_classes of at least 1"
            )
        else:  # TorchScript narrows the type only in a branch of its own
            return self.detection(self.deepest(stack))
