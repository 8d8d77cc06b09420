"""Fully convolutional network on VGG16 with two skips, as published for the ultrasound nerve task."""

# TorchScript reads comments that begin with "type:", so what mypy cannot know is said here: torch.jit does
# not list is_scripting as exported.
# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from volseg.checks import check_choice, check_positive
from volseg.networks.blocks import DetectionHead, make_norm, pad_to_multiple, seeded, unpad
from volseg.networks.stack_channels import check_stack
from volseg.networks.vgg16_weights import load_vgg16_weights

__all__ = ["Vgg16Fcn"]

_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Vgg16Fcn(nn.Module):
    """VGG16 encoder, three upsampling steps, skips from the fourth and third pooling.

    MONAI has no VGG. The encoder has torchvision's layer numbers, so that its `vgg16` and `vgg16_bn` weights
    load from a local file; nothing is downloaded. With a presence head the network also learns whether the
    structure is in the picture at all, which decides the score where many pictures are empty: in training the
    output is then {"logits", "detection"} for `MultiTaskLoss`, in eval mode the logits alone. `detect` gives
    the logits of the presence, their sigmoid is its probability.

    Args:
        in_channels: C, channels of one slice.
        in_slices: S, an odd number of slices in the stack.
        out_channels: K, classes of one slice, background first where there is more than one.
        out_slices: M, 1 (the middle slice) or S.
        encoder_weights: file of torchvision's weights (see `load_vgg16_weights`); None starts from random.
        frozen_blocks: 0 to 5 blocks of the encoder, from the input on, that do not learn; their batch
            statistics stay as loaded. The published network freezes 3.
        norm: "none" as `vgg16`, "batch" as `vgg16_bn`, or "instance".
        width: factor on the encoder's 64, 128, 256, 512, 512 channels; weights from files fit 1.0 only.
        decoder_features: None upsamples class scores, as published; three widths make richer steps that end
            in two 3x3 convolutions each, for example (256, 128, 32).
        upsample: "transposed" convolutions that start as bilinear interpolation and learn, or "bilinear".
        presence_head: learn whether each class (without background) is in the picture.
        gate_by_presence: in eval mode no pixel is more probable than the presence: the logit of a class over
            the background is at most logit(presence) - logit(`presence_threshold`), so that at a threshold of
            0.5 a picture is empty where the presence lies below `presence_threshold`. Needs the head.
        presence_threshold: probability in (0, 1), for the gate.
        dropout: share of channels dropped before the scores of the deepest features and the presence head.
        seed: of the initial weights (He et al.); None draws from the global generator.

    Raises:
        ValueError: when a count, width, name or threshold is not possible.
        InputError: when `encoder_weights` does not fit.

    Source: Simonyan & Zisserman, ICLR 2015, configuration D; Long et al., Fully convolutional networks, CVPR
    2015, FCN-8s.

    Example:
        >>> network = Vgg16Fcn(width=0.125, presence_head=True, seed=0)
        >>> {name: tuple(output.shape) for name, output in network(torch.rand(2, 3, 17, 12)).items()}
        {'logits': (2, 1, 17, 12), 'detection': (2, 1)}
        >>> network.eval()(torch.rand(2, 3, 17, 12)).shape
        torch.Size([2, 1, 17, 12])
    """

    def __init__(
        self,
        in_channels: int = 3,
        in_slices: int = 1,
        out_channels: int = 1,
        out_slices: int = 1,
        *,
        encoder_weights: str | Path | None = None,
        frozen_blocks: int = 0,
        norm: Literal["none", "batch", "instance"] = "none",
        width: float = 1.0,
        decoder_features: Sequence[int] | None = None,
        upsample: Literal["transposed", "bilinear"] = "transposed",
        presence_head: bool = False,
        gate_by_presence: bool = False,
        presence_threshold: float = 0.5,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_stack(in_channels, in_slices, out_channels, out_slices)
        check_choice("norm", norm, ("none", "batch", "instance"))
        check_choice("upsample", upsample, ("transposed", "bilinear"))
        check_positive("width", width)
        _check_frozen(frozen_blocks)
        self.classes = out_channels
        self.gate = _check_gate(gate_by_presence, presence_head)
        self.gate_shift = -_logit(presence_threshold)
        outputs = out_channels * out_slices
        steps = _check_decoder(decoder_features, outputs)
        widths = [max(1, round(block[-1] * width)) for block in _BLOCKS]
        with seeded(seed):
            layers, self.taps = _make_encoder(in_channels * in_slices, widths, norm)
            self.features = nn.Sequential(*layers)
            for layer in self.features:
                _initialise(layer)
            self.dropout = nn.Dropout2d(dropout) if dropout > 0 else nn.Identity()
            refine = None if decoder_features is None else norm
            bottom = (widths[4], steps[0])
            self.from_pool5 = _Step(bottom, 2, upsample, skip_channels=widths[3], refine=refine)
            self.from_pool4 = _Step((steps[0], steps[1]), 2, upsample, skip_channels=widths[2], refine=refine)
            self.from_pool3 = _Step((steps[1], steps[2]), 8, upsample, refine=refine)
            self.head = nn.Identity() if refine is None else nn.Conv2d(steps[2], outputs, 1)
            detection = DetectionHead(widths[4], max(1, out_channels - 1), dropout) if presence_head else None
            self.detection = detection
        if encoder_weights is not None:
            load_vgg16_weights(self, encoder_weights, in_channels=in_channels)
        self.frozen_layers = self.taps[frozen_blocks - 1] + 1 if frozen_blocks else 0
        self.features[: self.frozen_layers].requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Vgg16Fcn:
        """Set training or eval mode; the normalisation of frozen blocks stays in eval mode."""
        super().train(mode)
        self.features[: self.frozen_layers].eval()
        return self

    def forward(self, stack: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """(B, C*S, H, W) in, (B, K*M, H, W) logits out in eval mode and when scripted.

        In training with a presence head a mapping: "logits" (B, K*M, H, W), "detection" (B, classes) logits.
        """
        pools = self._encode(stack)
        pool5 = self.dropout(pools[4])
        scores = self.from_pool3(self.from_pool4(self.from_pool5(pool5, pools[3]), pools[2]), None)
        logits = unpad(self.head(scores), stack.shape[-2], stack.shape[-1])
        if self.gate and not self.training and self.detection is not None:
            logits = self._gated(logits, self.detection(pools[4]))
        # TorchScript leaves a branch out only for this condition alone.
        if not torch.jit.is_scripting():  # noqa: SIM102
            if self.training and self.detection is not None:
                return {"logits": logits, "detection": self.detection(pools[4])}
        return logits

    @torch.jit.export
    def detect(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, (B, classes without background) presence logits out; the encoder alone runs.

        Raises:
            ValueError: when the network has no presence head.
        """
        if self.detection is None:
            raise ValueError("the network has no presence head; build it with presence_head=True")
        else:  # TorchScript narrows the type only in a branch of its own
            return self.detection(self._encode(stack)[4])

    def _encode(self, stack: torch.Tensor) -> list[torch.Tensor]:
        features = pad_to_multiple(stack, 32)
        pools: list[torch.Tensor] = []
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in self.taps:
                pools.append(features)
        return pools

    def _gated(self, logits: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = logits.shape
        maps = logits.reshape(batch, self.classes, -1, height, width)
        highest = (presence + self.gate_shift).reshape(batch, -1, 1, 1, 1)
        if self.classes == 1:
            return torch.minimum(maps, highest).reshape(logits.shape)
        background = maps[:, :1]
        capped = torch.minimum(maps[:, 1:], background + highest)
        return torch.cat([background, capped], dim=1).reshape(logits.shape)


class _Step(nn.Module):
    """Mix channels, enlarge, add the scores of a skip; with `refine` (a norm) two 3x3 convolutions after."""

    def __init__(
        self,
        channels: tuple[int, int],
        factor: int,
        upsample: str,
        *,
        skip_channels: int = 0,
        refine: str | None = None,
    ) -> None:
        super().__init__()
        inputs, outputs = channels
        self.project = nn.Conv2d(inputs, outputs, 1)
        self.enlarge = (
            nn.Upsample(scale_factor=float(factor), mode="bilinear", align_corners=False)
            if upsample == "bilinear"
            else _bilinear_transposed(outputs, factor)
        )
        self.skip = nn.Conv2d(skip_channels, outputs, 1) if skip_channels else None
        blocks = [] if refine is None else [_convolution(outputs, outputs, refine) for _ in range(2)]
        self.refine = nn.Sequential(*(layer for block in blocks for layer in block))
        for layer in (self.project, self.skip, *self.refine):
            _initialise(layer)
            if isinstance(layer, nn.Conv2d) and refine is None:
                # Pretrained features are large; FCN starts its class scores at zero, this one near it.
                nn.init.normal_(layer.weight, std=0.01)

    def forward(self, features: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """(B, F, H, W) and the skip at the enlarged size in, (B, F', factor*H, factor*W) out."""
        scores = self.enlarge(self.project(features))
        if self.skip is not None and skip is not None:
            scores = scores + self.skip(skip)
        return self.refine(scores)


def _make_encoder(inputs: int, widths: Sequence[int], norm: str) -> tuple[list[nn.Module], list[int]]:
    """Layers in torchvision's order, and the indices of the five poolings."""
    layers: list[nn.Module] = []
    pools: list[int] = []
    for block, width in zip(_BLOCKS, widths, strict=True):
        for _ in block:
            layers += _convolution(inputs, width, norm)
            inputs = width
        layers.append(nn.MaxPool2d(2))
        pools.append(len(layers) - 1)
    return layers, pools


def _convolution(inputs: int, outputs: int, norm: str) -> list[nn.Module]:
    middle = [] if norm == "none" else [make_norm("batch" if norm == "batch" else "instance", outputs)]
    return [nn.Conv2d(inputs, outputs, 3, padding=1), *middle, nn.ReLU(inplace=True)]


def _initialise(layer: nn.Module | None) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _bilinear_transposed(channels: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution that starts as bilinear interpolation of each channel."""
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    ramp = 1.0 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = ramp[:, None] * ramp[None]
    return layer


def _check_decoder(features: Sequence[int] | None, outputs: int) -> tuple[int, ...]:
    if features is None:
        return (outputs,) * 3
    widths = tuple(int(width) for width in features)
    if len(widths) != 3 or min(widths) < 1:
        raise ValueError(
            f"decoder_features must be None or three positive widths, got {widths}; use (256, 128, 32)"
        )
    return widths


def _check_frozen(blocks: int) -> None:
    if blocks not in range(len(_BLOCKS) + 1):
        raise ValueError(f"frozen_blocks must be 0 to {len(_BLOCKS)}, got {blocks}")


def _check_gate(gate: bool, has_head: bool) -> bool:
    if gate and not has_head:
        raise ValueError("gate_by_presence needs a presence head; use presence_head=True")
    return gate


def _logit(threshold: float) -> float:
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"presence_threshold must lie between 0 and 1, both excluded, got {threshold}")
    return math.log(threshold / (1.0 - threshold))
