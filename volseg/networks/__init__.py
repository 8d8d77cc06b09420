"""Networks over slice stacks: `(B, C*S, H, W)` in, `(B, K*M, H, W)` logits out; one architecture per file."""

from __future__ import annotations

from volseg.networks.attention_unet import AttentionUNet
from volseg.networks.efficientnet_lite_unet import EfficientNetLiteUNet
from volseg.networks.ensemble import Ensemble
from volseg.networks.pretrained_encoder import FlexibleUNetStack, SmpStack, load_encoder_weights
from volseg.networks.slice_stack_unet import SliceStackUNet
from volseg.networks.stack_unet_3d import StackUNet3D
from volseg.networks.unet_plus_plus import UNetPlusPlus
from volseg.networks.vgg16_fcn import Vgg16Fcn
from volseg.networks.vgg16_weights import load_vgg16_weights
from volseg.networks.weights import load_weights

__all__ = [
    "AttentionUNet",
    "EfficientNetLiteUNet",
    "Ensemble",
    "FlexibleUNetStack",
    "SliceStackUNet",
    "SmpStack",
    "StackUNet3D",
    "UNetPlusPlus",
    "Vgg16Fcn",
    "load_encoder_weights",
    "load_vgg16_weights",
    "load_weights",
]
