"""U-Nets on encoders from the shelf, whose first convolution takes a stack of slices."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import FlexibleUNet
from torch import nn

from volseg.networks.blocks import pad_to_multiple, seeded, unpad
from volseg.networks.stack_channels import check_stack
from volseg.networks.weights import apply_state, read_state

__all__ = ["FlexibleUNetStack", "SmpStack", "load_encoder_weights"]

_CLASSIFIERS = ("fc.", "_fc.", "classifier.", "last_linear.", "head.")


class FlexibleUNetStack(nn.Module):
    """MONAI's FlexibleUNet (EfficientNet or ResNet encoder) over a stack of slices.

    FlexibleUNet alone returns a smaller picture for odd sizes. Its ResNet-18 and -34 cut the gradient of
    their shortcuts, cannot be scripted and have no place for ImageNet weights; here they get convolutions.

    Args:
        in_channels: C, channels of one slice.
        in_slices: S, an odd number of slices in the stack.
        out_channels: K, classes of one slice.
        out_slices: M, 1 (the middle slice) or S.
        encoder_name: a FlexibleUNet backbone, such as "efficientnet-b0" or "resnet50".
        weights_file: encoder weights to start from (see `load_encoder_weights`); nothing is downloaded.
        dropout: share dropped in the decoder.
        seed: of the initial weights; None draws from the global generator.

    Raises:
        ValueError: when a number of slices or channels, or the encoder is not possible.
        InputError: when `weights_file` does not fit.

    Example:
        >>> network = FlexibleUNetStack(in_slices=5, encoder_name="resnet10", seed=0).eval()
        >>> network(torch.rand(1, 5, 33, 20)).shape
        torch.Size([1, 1, 33, 20])
    """

    def __init__(
        self,
        in_channels: int = 1,
        in_slices: int = 3,
        out_channels: int = 1,
        out_slices: int = 1,
        *,
        encoder_name: str = "efficientnet-b0",
        weights_file: str | Path | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_stack(in_channels, in_slices, out_channels, out_slices)
        with seeded(seed):
            self.body = FlexibleUNet(
                in_channels=in_channels * in_slices,
                out_channels=out_channels * out_slices,
                backbone=encoder_name,
                pretrained=False,
                dropout=dropout,
            )
            _project_shortcuts(self.body.encoder)
        if weights_file is not None:
            load_encoder_weights(self, weights_file)

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, (B, K*M, H, W) logits out; any H and W."""
        return unpad(self.body(pad_to_multiple(stack, 32)), stack.shape[-2], stack.shape[-1])


class SmpStack(nn.Module):
    """A U-Net of segmentation_models_pytorch over a stack of slices; needs `pip install volseg[encoders]`.

    Args:
        in_channels: C, channels of one slice.
        in_slices: S, an odd number of slices in the stack.
        out_channels: K, classes of one slice.
        out_slices: M, 1 (the middle slice) or S.
        encoder_name: such as "resnext50_32x4d", "mit_b2" or "tu-convnext_tiny".
        weights_file: encoder weights to start from (see `load_encoder_weights`); nothing is downloaded.
        seed: of the initial weights; None draws from the global generator.

    Raises:
        ImportError: when segmentation_models_pytorch is not installed.
        ValueError: when a number of slices or channels is not possible.
        InputError: when `weights_file` does not fit.
    """

    def __init__(
        self,
        in_channels: int = 1,
        in_slices: int = 3,
        out_channels: int = 1,
        out_slices: int = 1,
        *,
        encoder_name: str = "resnext50_32x4d",
        weights_file: str | Path | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_stack(in_channels, in_slices, out_channels, out_slices)
        try:
            from segmentation_models_pytorch import Unet
        except ImportError as error:
            raise ImportError(
                "SmpStack needs segmentation_models_pytorch; install it with pip install 'volseg[encoders]'"
            ) from error
        # mit encoders of smp take three channels only; a 1x1 convolution brings any stack to three.
        narrow = encoder_name.startswith("mit_") and in_channels * in_slices != 3
        with seeded(seed):
            self.entry = nn.Conv2d(in_channels * in_slices, 3, 1) if narrow else nn.Identity()
            self.body = Unet(
                encoder_name=encoder_name,
                encoder_weights=None,
                in_channels=3 if narrow else in_channels * in_slices,
                classes=out_channels * out_slices,
            )
        if weights_file is not None:
            load_encoder_weights(self, weights_file)

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """(B, C*S, H, W) in, (B, K*M, H, W) logits out; any H and W."""
        padded = pad_to_multiple(stack, 32)
        return unpad(self.body(self.entry(padded)), stack.shape[-2], stack.shape[-1])


def load_encoder_weights(network: FlexibleUNetStack | SmpStack, path: str | Path) -> None:
    """Start the encoder from a file of pretrained weights, its first convolution fitted to the stack.

    The filters of a first convolution trained on other channels are repeated along the stack and scaled, so
    that a picture repeated in all slices gives what it gave before.

    Args:
        network: whose encoder is filled, in place.
        path: state dict of the encoder in the encoder's own names, optionally with prefix "encoder.". A
            classifier ("fc.", "_fc.", "classifier.", "last_linear.", "head.") is left out.

    Raises:
        InputError: when the file cannot be read safely or does not fit; the network is then unchanged.
    """
    encoder: nn.Module = network.body.encoder
    own = encoder.state_dict()
    state = read_state(path)
    if any(name.startswith("encoder.") for name in state):
        state = {name[8:]: value for name, value in state.items() if name.startswith("encoder.")}
    state = {name: value for name, value in state.items() if not name.startswith(_CLASSIFIERS)}
    # A classifier that the encoder keeps but does not use stays as it is.
    state.update({name: value for name, value in own.items() if name.startswith(_CLASSIFIERS)})
    first = next((name for name, value in own.items() if value.ndim == 4), "")
    if first in state and state[first].ndim == 4:
        state[first] = _repeat_channels(state[first], own[first].shape[1])
    apply_state(encoder, state, source=path)


def _repeat_channels(filters: torch.Tensor, channels: int) -> torch.Tensor:
    given = filters.shape[1]
    if given == channels:
        return filters
    order = [channel % given for channel in range(channels)]
    return filters[:, order] * (given / channels)


def _project_shortcuts(encoder: nn.Module) -> None:
    block: Any
    for block in list(encoder.modules()):
        if isinstance(getattr(block, "downsample", None), partial):
            planes, inputs = block.conv1.weight.shape[:2]
            block.downsample = nn.Sequential(
                nn.Conv2d(inputs, planes, 1, stride=block.stride, bias=False), nn.BatchNorm2d(planes)
            )
