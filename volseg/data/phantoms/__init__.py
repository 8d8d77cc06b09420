"""Phantoms: vessel trees as HiP-CT, diseased maculae as OCT, challenge layouts of both, and shapes in 2D."""

from volseg.data.phantoms.hipct import render_hipct, render_hipct_signal
from volseg.data.phantoms.hipct_settings import HipctSettings
from volseg.data.phantoms.oct import draw_oct_volume
from volseg.data.phantoms.oct_edema_phantom import write_oct_edema
from volseg.data.phantoms.oct_settings import OctSettings
from volseg.data.phantoms.sennet_phantom import drop_branches, write_sennet_phantom
from volseg.data.phantoms.shapes import draw_shapes, write_shapes
from volseg.data.phantoms.vessel_tree import grow_vessel_tree, rescale_mask

__all__ = [
    "HipctSettings",
    "OctSettings",
    "draw_oct_volume",
    "draw_shapes",
    "drop_branches",
    "grow_vessel_tree",
    "render_hipct",
    "render_hipct_signal",
    "rescale_mask",
    "write_oct_edema",
    "write_sennet_phantom",
    "write_shapes",
]
