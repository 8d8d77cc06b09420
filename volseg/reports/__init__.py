"""Pictures and reports that a person opens."""

from volseg.reports.overlays import (
    AGREEMENT_COLOURS,
    draw_agreement,
    plane_pictures,
    tile,
    write_gif,
    write_png,
)

__all__ = ["AGREEMENT_COLOURS", "draw_agreement", "plane_pictures", "tile", "write_gif", "write_png"]
