"""Phantoms: vessel trees, HiP-CT-like renderings, a challenge layout made of them, and shapes in 2D."""

from volseg.data.phantoms.hipct import render_hipct, render_hipct_signal
from volseg.data.phantoms.hipct_settings import HipctSettings
from volseg.data.phantoms.sennet_phantom import drop_branches, write_sennet_phantom
from volseg.data.phantoms.shapes import draw_shapes, write_shapes
from volseg.data.phantoms.vessel_tree import grow_vessel_tree, rescale_mask

__all__ = [
    "HipctSettings",
    "draw_shapes",
    "drop_branches",
    "grow_vessel_tree",
    "render_hipct",
    "render_hipct_signal",
    "rescale_mask",
    "write_sennet_phantom",
    "write_shapes",
]
