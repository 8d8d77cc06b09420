"""Networks over slice stacks: `(B, C*S, H, W)` in, `(B, K*M, H, W)` logits out; one architecture per file."""

from __future__ import annotations

from volseg.networks.slice_stack_unet import SliceStackUNet

__all__ = ["SliceStackUNet"]
