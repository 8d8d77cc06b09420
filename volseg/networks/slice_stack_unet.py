"""The default 2.5D network: a plain U-Net whose channels are neighbouring slices."""

# TorchScript reads comments that begin with "type:", so what mypy cannot know is said here.
# mypy: disable-error-code="attr-defined"
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from volseg.networks.blocks import (
    ConvBlock,
    DetectingNetwork,
    DetectionHead,
    NormName,
    Upsample,
    UpsampleName,
    pad_to_multiple,
    seeded,
    unpad,
)
from volseg.networks.stack_channels import check_features, check_stack

__all__ = ["SliceStackUNet"]


class SliceStackUNet(DetectingNetwork):
    """U-Net over a stack of slices; middle slice or whole stack out.

    MONAI's UNet and BasicUNet know no slice stack; UNet fails on odd sizes, and BasicUNet pads inside the
    decoder. This one pads once, and runs in channels_last and bfloat16 with few passes over memory.

    Args:
        in_channels: C, channels of one slice.
        in_slices: S, an odd number of slices in the stack.
        out_channels: K, classes of one slice.
        out_slices: M, 1 (the middle slice) or S.
        features: width of each level, from the full size down; one level fewer than widths are halvings.
        detection_classes: classes of the detection head on the deepest features; 0 is no such head.
        norm: "batch", "instance" or "group".
        residual: residual blocks.
        scse: spatial and channel excitation after each block.
        upsample: "transposed" (2x2, fast), "transposed4" (4x4) or "bilinear".
        dropout: share of whole channels dropped inside each block in training, and of features before the
            detection head.
        seed: of the initial weights; None draws from the global generator.

    Raises:
        ValueError: when a number of slices, channels or features is not possible.

    Source: Ronneberger et al., U-Net, MICCAI 2015.

    Example:
        >>> network = SliceStackUNet(in_slices=3, out_slices=3, features=(4, 8), seed=0).eval()
        >>> network(torch.zeros(2, 3, 17, 12)).shape
        torch.Size([2, 3, 17, 12])
    """

    def __init__(
        self,
        in_channels: int = 1,
        in_slices: int = 3,
        out_channels: int = 1,
        out_slices: int = 1,
        *,
        features: Sequence[int] = (32, 64, 128, 256),
        detection_classes: int = 0,
        norm: NormName = "batch",
        residual: bool = False,
        scse: bool = False,
        upsample: UpsampleName = "transposed",
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_stack(in_channels, in_slices, out_channels, out_slices)
        widths = check_features(features)
        self.multiple = 2 ** (len(widths) - 1)

        def block(inputs: int, outputs: int) -> ConvBlock:
            return ConvBlock(inputs, outputs, norm=norm, residual=residual, scse=scse, dropout=dropout)

        with seeded(seed):
            inputs = (in_channels * in_slices, *widths[:-1])
            self.down = nn.ModuleList(block(a, b) for a, b in zip(inputs, widths, strict=True))
            upward = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
            self.up = nn.ModuleList(Upsample(deep, shallow, upsample) for deep, shallow in upward)
            self.merge = nn.ModuleList(block(2 * shallow, shallow) for _, shallow in upward)
            self.head = nn.Conv2d(widths[0], out_channels * out_slices, 1)
            self.detection = (
                DetectionHead(widths[-1], detection_classes, dropout) if detection_classes else None
            )

    def forward(self, stack: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """(B, C*S, H, W) in, (B, K*M, H, W) logits out in eval mode and when scripted; any H and W.

        In training with a detection head a mapping: "logits", and "detection" (B, classes) logits.
        """
        height, width = stack.shape[-2], stack.shape[-1]
        skips = self._encode(stack)
        deepest = skips.pop()
        features = deepest
        for up, merge in zip(self.up, self.merge):  # noqa: B905 - TorchScript has no strict
            features = up(features)
            features = torch.cat([skips.pop(), features], dim=1)  # popped: a used skip is freed at once
            features = merge(features)
        logits = unpad(self.head(features), height, width)
        # TorchScript leaves a branch out only for this condition alone.
        if not torch.jit.is_scripting():  # noqa: SIM102
            if self.training and self.detection is not None:
                return {"logits": logits, "detection": self.detection(deepest)}
        return logits

    def deepest(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, the features that the detection head looks at out."""
        return self._encode(stack)[-1]

    def _encode(self, stack: torch.Tensor) -> list[torch.Tensor]:
        """Features of each level, the deepest last."""
        features = pad_to_multiple(stack, self.multiple)
        levels: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if level > 0 else features)
            levels.append(features)
        return levels
