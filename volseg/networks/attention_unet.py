"""U-Net whose skips pass attention gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from volseg.networks.blocks import (
    ConvBlock,
    NormName,
    Upsample,
    UpsampleName,
    make_norm,
    pad_to_multiple,
    seeded,
    unpad,
)
from volseg.networks.stack_channels import check_features, check_stack

__all__ = ["AttentionUNet"]


class AttentionUNet(nn.Module):
    """U-Net over a stack of slices with additive attention gates on its skips.

    MONAI's AttentionUnet fails on odd sizes, computes its gates at full size and keeps its maps to itself.

    Args:
        in_channels: C, channels of one slice.
        in_slices: S, an odd number of slices in the stack.
        out_channels: K, classes of one slice.
        out_slices: M, 1 (the middle slice) or S.
        features: width of each level, from the full size down.
        norm: "batch", "instance" or "group".
        residual: residual blocks.
        scse: spatial and channel excitation after each block.
        upsample: "transposed" (2x2), "transposed4" (4x4) or "bilinear".
        dropout: share of whole channels dropped inside each block in training.
        seed: of the initial weights; None draws from the global generator.

    Raises:
        ValueError: when a number of slices, channels or features is not possible.

    Source: Oktay et al., Attention U-Net, MIDL 2018, eq. 1-3.

    Example:
        >>> network = AttentionUNet(features=(4, 8, 8), seed=0).eval()
        >>> logits, attention = network.forward_with_attention(torch.rand(1, 3, 17, 12))
        >>> logits.shape, [tuple(each.shape) for each in attention]
        (torch.Size([1, 1, 17, 12]), [(1, 1, 17, 12), (1, 1, 17, 12)])
    """

    def __init__(
        self,
        in_channels: int = 1,
        in_slices: int = 3,
        out_channels: int = 1,
        out_slices: int = 1,
        *,
        features: Sequence[int] = (32, 64, 128, 256),
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
            self.gates = nn.ModuleList(AttentionGate(shallow, deep, norm) for deep, shallow in upward)
            self.up = nn.ModuleList(Upsample(deep, shallow, upsample) for deep, shallow in upward)
            self.merge = nn.ModuleList(block(2 * shallow, shallow) for _, shallow in upward)
            self.head = nn.Conv2d(widths[0], out_channels * out_slices, 1)

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, (B, K*M, H, W) logits out; any H and W."""
        return self._run(stack)[0]

    @torch.jit.export
    def forward_with_attention(self, stack: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(B, C*S, H, W) in; (B, K*M, H, W) logits and one (B, 1, H, W) map in (0, 1) per gate out.

        The maps run from the deepest gate to the shallowest, enlarged to the size of the input.
        """
        logits, maps = self._run(stack)
        shape = pad_to_multiple(stack, self.multiple).shape[-2:]
        height, width = stack.shape[-2], stack.shape[-1]
        return logits, [unpad(_enlarge(each, shape[0], shape[1]), height, width) for each in maps]

    def _run(self, stack: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        height, width = stack.shape[-2], stack.shape[-1]
        features = pad_to_multiple(stack, self.multiple)
        skips: list[torch.Tensor] = []
        maps: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if level > 0 else features)
            skips.append(features)
        stages = zip(self.gates, self.up, self.merge)  # noqa: B905 - TorchScript has no strict
        for level, (gate, up, merge) in enumerate(stages):
            skip = skips[-2 - level]
            attention = gate(skip, features)
            maps.append(attention)
            features = merge(torch.cat([skip * attention, up(features)], dim=1))
        return unpad(self.head(features), height, width), maps


class AttentionGate(nn.Module):
    """Where a skip matters, judged by the features one level deeper."""

    def __init__(self, skip_channels: int, deep_channels: int, norm: NormName) -> None:
        super().__init__()
        inner = max(skip_channels // 2, 1)
        self.skip = nn.Conv2d(skip_channels, inner, 2, stride=2, bias=False)
        self.deep = nn.Conv2d(deep_channels, inner, 1, bias=False)
        self.norm = make_norm(norm, inner)
        self.score = nn.Conv2d(inner, 1, 1)

    def forward(self, skip: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
        """(B, F, H, W) and (B, F', H/2, W/2) in, (B, 1, H, W) in (0, 1) out."""
        joined = F.relu(self.norm(self.skip(skip) + self.deep(deep)))
        return _enlarge(self.score(joined).sigmoid(), skip.shape[-2], skip.shape[-1])


def _enlarge(features: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.interpolate(features, [height, width], mode="bilinear", align_corners=False)
