"""UNet++ with deep supervision, a dilated centre and a detection head, as published for retinal edema."""

# TorchScript reads comments that begin with "type:", so what mypy cannot know is said here: torch.jit does
# not list is_scripting as exported, and a ModuleList of ModuleLists is one of Modules to mypy.
# mypy: disable-error-code="attr-defined, var-annotated, arg-type"
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from volseg.networks.blocks import (
    ConvBlock,
    DetectingNetwork,
    DetectionHead,
    DilatedCentre,
    NormName,
    Upsample,
    UpsampleName,
    pad_to_multiple,
    seeded,
    unpad,
)
from volseg.networks.stack_channels import check_features, check_stack

__all__ = ["UNetPlusPlus"]


class UNetPlusPlus(DetectingNetwork):
    """Nested U-Net over a stack of slices whose columns can be pruned at inference.

    MONAI's BasicUNetPlusPlus returns a list also in eval mode, has no detection head and fails on odd sizes.
    This one returns the mean of its heads in eval mode.

    Args:
        in_channels: C, channels of one slice.
        in_slices: S, an odd number of slices in the stack.
        out_channels: K, classes of one slice.
        out_slices: M, 1 (the middle slice) or S.
        features: width of each level, from the full size down.
        deep_supervision: one head per column and their mean in eval mode; otherwise the last column's only.
        dilated_centre: widen the view of the deepest features (see `DilatedCentre`).
        detection_classes: classes of the detection head on the deepest features; 0 is no such head.
        inference_depth: columns computed in eval mode, 1 to the number of halvings; None is all of them.
        norm: "batch", "instance" or "group".
        scse: spatial and channel excitation after each block.
        upsample: "transposed4" as published, "transposed" (2x2) or "bilinear".
        dropout: share of channels dropped before the detection head, and whole channels in each block.
        seed: of the initial weights; None draws from the global generator.

    Raises:
        ValueError: when a number of slices, channels, features or columns is not possible.

    Source: Zhou et al., UNet++, DLMIA 2018, eq. 1; centre: Zhou et al., D-LinkNet, CVPR Workshops 2018.

    Example:
        >>> network = UNetPlusPlus(out_channels=4, features=(4, 8, 8), detection_classes=3, seed=0)
        >>> {name: tuple(output.shape) for name, output in network(torch.rand(2, 3, 17, 12)).items()}
        {'logits': (2, 4, 17, 12), 'deep': (2, 2, 4, 17, 12), 'detection': (2, 3)}
        >>> network.eval()(torch.rand(2, 3, 17, 12)).shape
        torch.Size([2, 4, 17, 12])
    """

    def __init__(
        self,
        in_channels: int = 1,
        in_slices: int = 3,
        out_channels: int = 1,
        out_slices: int = 1,
        *,
        features: Sequence[int] = (16, 32, 64, 128, 256),
        deep_supervision: bool = True,
        dilated_centre: bool = False,
        detection_classes: int = 0,
        inference_depth: int | None = None,
        norm: NormName = "batch",
        scse: bool = False,
        upsample: UpsampleName = "transposed4",
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_stack(in_channels, in_slices, out_channels, out_slices)
        widths = check_features(features)
        self.depth = len(widths) - 1
        self.multiple = 2**self.depth
        self.inference_depth = _check_depth(inference_depth, self.depth, deep_supervision)
        self.deep_supervision = deep_supervision

        def block(inputs: int, outputs: int) -> ConvBlock:
            return ConvBlock(inputs, outputs, norm=norm, scse=scse, dropout=dropout)

        def node(level: int, column: int) -> NestedNode:
            width = widths[level]
            up = Upsample(widths[level + 1], width, upsample)
            return NestedNode(up, block((column + 1) * width, width))

        with seeded(seed):
            inputs = (in_channels * in_slices, *widths[:-1])
            self.down = nn.ModuleList(block(a, b) for a, b in zip(inputs, widths, strict=True))
            self.centre = DilatedCentre(widths[-1]) if dilated_centre else nn.Identity()
            self.columns = nn.ModuleList(
                nn.ModuleList(node(level, column) for level in range(self.depth + 1 - column))
                for column in range(1, self.depth + 1)
            )
            heads = self.depth if deep_supervision else 1
            self.heads = nn.ModuleList(
                nn.Conv2d(widths[0], out_channels * out_slices, 1) for _ in range(heads)
            )
            self.detection = (
                DetectionHead(widths[-1], detection_classes, dropout) if detection_classes else None
            )

    def forward(self, stack: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """(B, C*S, H, W) in, (B, K*M, H, W) logits out in eval mode and when scripted.

        In training, when there is more than one output, a mapping: "logits" (B, K*M, H, W); with deep
        supervision "deep" (B, columns, K*M, H, W); with a detection head "detection" (B, classes) logits.
        """
        full = self.training and not torch.jit.is_scripting()
        depth = self.depth if full else self.inference_depth
        encoded = self._encode(stack, depth)
        logits = self._decode(encoded, depth)
        deep = torch.stack([unpad(each, stack.shape[-2], stack.shape[-1]) for each in logits], dim=1)
        mean = deep.mean(dim=1)
        # TorchScript leaves a branch out only for this condition alone.
        if not torch.jit.is_scripting():  # noqa: SIM102
            if self.training and (self.deep_supervision or self.detection is not None):
                outputs = {"logits": mean}
                if self.deep_supervision:
                    outputs["deep"] = deep
                if self.detection is not None:
                    outputs["detection"] = self.detection(encoded[-1])
                return outputs
        return mean

    def deepest(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, the features that the detection head looks at out."""
        return self._encode(stack, self.depth)[-1]

    def _encode(self, stack: torch.Tensor, depth: int) -> list[torch.Tensor]:
        features = pad_to_multiple(stack, self.multiple)
        levels: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            if level <= depth:
                features = block(F.max_pool2d(features, 2) if level > 0 else features)
                levels.append(features)
        if depth == self.depth:
            levels[-1] = self.centre(levels[-1])
        return levels

    def _decode(self, encoded: list[torch.Tensor], depth: int) -> list[torch.Tensor]:
        #  level 0   x00 -> x01 -> x02      a node joins all nodes left of it
        #  level 1   x10 -> x11             and the upsampled one below left
        #  level 2   x20
        nodes: list[list[torch.Tensor]] = [[each] for each in encoded]
        for column, blocks in enumerate(self.columns):
            # A ModuleList of ModuleLists: TorchScript unrolls both loops, mypy sees a Module.
            for level, block in enumerate(blocks):
                if column + level < depth:
                    nodes[level].append(block(nodes[level], nodes[level + 1][column]))
        top = nodes[0]
        logits: list[torch.Tensor] = []
        for index, head in enumerate(self.heads):
            if not self.deep_supervision:
                logits.append(head(top[-1]))
            elif index < depth:
                logits.append(head(top[index + 1]))
        return logits


class NestedNode(nn.Module):
    """Join the nodes of one level with the upsampled node below."""

    def __init__(self, up: Upsample, block: ConvBlock) -> None:
        super().__init__()
        self.up = up
        self.block = block

    def forward(self, level: list[torch.Tensor], below: torch.Tensor) -> torch.Tensor:
        """Several (B, F, H, W) and one (B, F', H/2, W/2) in, (B, F, H, W) out."""
        joined = level + [self.up(below)]  # noqa: RUF005 - TorchScript cannot unpack a list
        return self.block(torch.cat(joined, dim=1))


def _check_depth(inference_depth: int | None, depth: int, deep_supervision: bool) -> int:
    if inference_depth is None:
        return depth
    if not 1 <= inference_depth <= depth:
        raise ValueError(f"inference_depth must be 1 to {depth} (the halvings), got {inference_depth}")
    if inference_depth < depth and not deep_supervision:
        raise ValueError(
            f"inference_depth {inference_depth} of {depth} needs a head on that column; "
            "use deep_supervision=True"
        )
    return inference_depth
