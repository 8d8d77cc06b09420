"""Losses on logits `(B, K*M, H, W)` and labels `(B, M, H, W)`, label 255 ignored; one loss per file."""

from __future__ import annotations

from volseg.losses.dice_focal import MaskedDiceFocalLoss
from volseg.losses.rows import IGNORE

__all__ = ["IGNORE", "MaskedDiceFocalLoss"]
