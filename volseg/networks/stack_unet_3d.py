"""A 3D network behind the contract of the slice-stack networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from monai.networks.nets import DynUNet, UNet
from torch import nn
from torch.nn import functional as F

from volseg.checks import check_choice
from volseg.networks.blocks import padded_length, seeded
from volseg.networks.stack_channels import check_features, check_stack

__all__ = ["StackUNet3D"]


class StackUNet3D(nn.Module):
    """MONAI's 3D U-Net over the slices of a stack, a drop-in for the 2D networks.

    The stack is a thin volume: all kernels are 3x3x3 and all halvings affect the slices too. Slices are
    padded to the divisor inside, so 31 slices run as 32.

    Args:
        in_channels: C, channels of one slice.
        in_slices: S, an odd number of slices in the stack.
        out_channels: K, classes of one slice.
        out_slices: M, 1 (the middle slice) or S.
        architecture: "unet" is MONAI's residual UNet, "dynunet" its DynUNet (the nnU-Net topology).
        features: width of each level, from the full size down.
        dropout: share dropped inside each block in training.
        seed: of the initial weights; None draws from the global generator.

    Raises:
        ValueError: when a number of slices, channels or features is not possible.

    Source: Cicek et al., 3D U-Net, MICCAI 2016; Isensee et al., nnU-Net, Nature Methods 2021.

    Example:
        >>> network = StackUNet3D(in_slices=5, out_slices=5, features=(4, 8), seed=0).eval()
        >>> network(torch.rand(1, 5, 17, 12)).shape
        torch.Size([1, 5, 17, 12])
    """

    def __init__(
        self,
        in_channels: int = 1,
        in_slices: int = 31,
        out_channels: int = 1,
        out_slices: int = 31,
        *,
        architecture: Literal["unet", "dynunet"] = "unet",
        features: Sequence[int] = (16, 32, 64, 128),
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_stack(in_channels, in_slices, out_channels, out_slices)
        check_choice("architecture", architecture, ("unet", "dynunet"))
        widths = check_features(features)
        if architecture == "dynunet" and len(widths) < 3:
            raise ValueError(
                f"a dynunet needs at least three features, got {widths}; use for example (16, 32, 64)"
            )
        self.in_slices = in_slices
        self.out_slices = out_slices
        self.multiple = 2 ** (len(widths) - 1)
        build = _unet if architecture == "unet" else _dynunet
        with seeded(seed):
            self.body = build(in_channels, out_channels, widths, dropout)

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, (B, K*M, H, W) logits out; any H and W."""
        items, channels, height, width = stack.shape
        volume = stack.reshape(items, channels // self.in_slices, self.in_slices, height, width)
        logits = self.body(self._pad(volume))[..., : self.in_slices, :height, :width]
        if self.out_slices == 1:
            return logits[:, :, self.in_slices // 2]
        return logits.flatten(1, 2)

    def _pad(self, volume: torch.Tensor) -> torch.Tensor:
        # Height and width as in blocks.pad_to_multiple: never a single value at the bottom.
        slices, height, width = volume.shape[-3], volume.shape[-2], volume.shape[-1]
        behind = (slices + self.multiple - 1) // self.multiple * self.multiple - slices
        lower = padded_length(height, self.multiple) - height
        right = padded_length(width, self.multiple) - width
        if behind == 0 and lower == 0 and right == 0:
            return volume
        return F.pad(volume, [0, right, 0, lower, 0, behind], mode="replicate")


def _unet(in_channels: int, out_channels: int, widths: tuple[int, ...], dropout: float) -> nn.Module:
    return UNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=widths,
        strides=[2] * (len(widths) - 1),
        num_res_units=2,
        norm=("instance", {"affine": True}),
        dropout=dropout,
    )


def _dynunet(in_channels: int, out_channels: int, widths: tuple[int, ...], dropout: float) -> nn.Module:
    strides = [1, *[2] * (len(widths) - 1)]
    return DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=[3] * len(widths),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=widths,
        dropout=dropout or None,
    )
