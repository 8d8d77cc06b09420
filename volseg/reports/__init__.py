"""Pictures and reports that a person opens."""

from volseg.reports.audit_page import audit_page, write_audit
from volseg.reports.colours import CLASS_COLOURS, class_colour, name_classes
from volseg.reports.contact_sheet import contact_sheet, write_contact_sheet
from volseg.reports.label_tables import itk_snap_labels, slicer_colours
from volseg.reports.overlays import (
    AGREEMENT_COLOURS,
    draw_agreement,
    plane_pictures,
    tile,
    write_gif,
    write_png,
)
from volseg.reports.panels import draw_panels
from volseg.reports.score_tables import score_csv, score_markdown, score_summary, write_scores
from volseg.reports.scores import ScoreReport, score_folders
from volseg.reports.volume_gif import volume_gif, write_volume_gif
from volseg.reports.volume_view import VolumeView

__all__ = [
    "AGREEMENT_COLOURS",
    "CLASS_COLOURS",
    "ScoreReport",
    "VolumeView",
    "audit_page",
    "class_colour",
    "contact_sheet",
    "draw_agreement",
    "draw_panels",
    "itk_snap_labels",
    "name_classes",
    "plane_pictures",
    "score_csv",
    "score_folders",
    "score_markdown",
    "score_summary",
    "slicer_colours",
    "tile",
    "volume_gif",
    "write_audit",
    "write_contact_sheet",
    "write_gif",
    "write_png",
    "write_scores",
    "write_volume_gif",
]
