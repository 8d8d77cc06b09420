"""Pictures and reports that a person opens."""

from volseg.reports.audit_page import audit_page, write_audit
from volseg.reports.overlays import (
    AGREEMENT_COLOURS,
    draw_agreement,
    plane_pictures,
    tile,
    write_gif,
    write_png,
)
from volseg.reports.panels import CLASS_COLOURS, draw_panels
from volseg.reports.score_tables import score_csv, score_markdown, score_summary, write_scores
from volseg.reports.scores import ScoreReport, score_folders

__all__ = [
    "AGREEMENT_COLOURS",
    "CLASS_COLOURS",
    "ScoreReport",
    "audit_page",
    "draw_agreement",
    "draw_panels",
    "plane_pictures",
    "score_csv",
    "score_folders",
    "score_markdown",
    "score_summary",
    "tile",
    "write_audit",
    "write_gif",
    "write_png",
    "write_scores",
]
