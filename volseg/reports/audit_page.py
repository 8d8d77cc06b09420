"""Findings of an audit as one HTML page that needs no network, and as JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from volseg import files
from volseg.data.audit import Findings, FoundPair, FrameStore, Histogram, resolution_document, turn_picture
from volseg.reports.overlays import AGREEMENT_COLOURS

__all__ = ["AUDIT_FILES", "audit_page", "write_audit"]

AUDIT_FILES = ("audit.html", "audit.json", "groups.json", "contradictions.json")
"""What `write_audit` writes."""

_EDGE = 200  # of a shown picture, in pixels
_MOST_GROUPS = 40
_MOST_IN_GROUP = 6
_OUTLINE = np.array((255, 215, 0), dtype=np.uint8)
_Picture = npt.NDArray[np.uint8]

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1a1a1a;background:#fff}
body{max-width:72em;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin-bottom:.2em} h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ccc}
table{border-collapse:collapse} td,th{padding:.2em .9em .2em 0;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.bad{color:#a40000;font-weight:600} .good{color:#1b6e20}
figure{margin:1em 0;padding:.8em;border:1px solid #ddd;border-radius:6px} figcaption{margin-bottom:.5em}
.row{display:flex;flex-wrap:wrap;gap:8px} .row div{width:200px;font-size:.8em;overflow-wrap:anywhere}
img{display:block;max-width:200px;background:#000} code{overflow-wrap:anywhere} .quiet{color:#666}
"""


def write_audit(
    findings: Findings,
    store: FrameStore,
    folder: str | Path,
    *,
    most_pairs: int = 40,
    overwrite: bool = False,
) -> list[Path]:
    """Write `audit.html`, `audit.json`, `groups.json` and `contradictions.json`.

    `groups.json` maps each case to its group, as `volseg score --groups` reads it. `contradictions.json` is
    the list in which a person enters what to keep.

    Args:
        findings: of the store's frames.
        store: still open: the page shows its pictures.
        folder: is created if need be.
        most_pairs: pairs with pictures on the page, in each of its two lists; the JSON has all of them.
        overwrite: replace a former report.

    Returns:
        the paths written.

    Raises:
        InputError: when one of the files is there and `overwrite` is False.
    """
    page, document, groups, contradictions = (Path(folder) / name for name in AUDIT_FILES)
    files.write_json(document, findings.as_document(), overwrite=overwrite)
    files.write_json(groups, dict(findings.groups), overwrite=overwrite)
    files.write_json(contradictions, resolution_document(findings.contradictions), overwrite=overwrite)
    files.write_text(page, audit_page(findings, store, most_pairs=most_pairs), overwrite=overwrite)
    return [page, document, groups, contradictions]


def audit_page(findings: Findings, store: FrameStore, *, most_pairs: int = 40) -> str:
    """Word the findings as one HTML page: no script, no file beside it, every name escaped.

    Args:
        findings: of the store's frames.
        store: still open.
        most_pairs: pairs shown in each list; what is left out is said.
    """
    index_of = {frame.case: index for index, frame in reversed(list(enumerate(store.frames)))}
    contradictions = findings.contradictions
    others = [pair for pair in findings.pairs if not pair.is_contradiction]
    body = [
        "<h1>Audit</h1>",
        _verdict(findings),
        _counts(findings),
        _faults(findings.faults),
        "<h2>Leaks between the sides of the split</h2>",
        _leaks(findings),
        "<h2>One picture, contradicting masks</h2>",
        _pair_list(contradictions, store, most_pairs, "Every picture found twice has one mask."),
        "<h2>Groups</h2>",
        _groups(findings, store, index_of),
        "<h2>Histogram of differences</h2>",
        *(_histogram(histogram, findings.threshold) for histogram in findings.histograms),
        "<h2>Other pairs</h2>",
        _pair_list(others, store, most_pairs, "There is no other pair."),
    ]
    head = f'<meta charset="utf-8"><title>Audit</title><style>{_STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _verdict(findings: Findings) -> str:
    if findings.is_clean:
        return '<p class="good">No leak, and no contradiction that is not resolved.</p>'
    unresolved = sum(pair.keep is None for pair in findings.contradictions)
    parts = [
        (len(findings.leaks), "groups on both sides of the split"),
        (unresolved, "unresolved pairs of contradicting masks"),
        (len(findings.faults), "cases that could not be read"),
    ]
    return f'<p class="bad">{"; ".join(f"{count} {text}" for count, text in parts if count)}.</p>'


def _counts(findings: Findings) -> str:
    same = sum(pair.is_same for pair in findings.pairs)
    rows: list[tuple[str, object]] = [
        ("cases", findings.cases),
        ("frames compared with each other", findings.frames - len(findings.blank)),
        ("blank frames (all pixels equal), not compared", len(findings.blank)),
        ("frames with a mask", findings.labelled),
        ("of these, masks that are empty", findings.empty_masks),
        (f"pairs of the same picture (difference below {findings.threshold})", same),
        (
            f"further pairs of similar texture (correlation from {findings.similarity:g})",
            len(findings.pairs) - same,
        ),
        ("pairs of the same picture with different masks", len(findings.contradictions)),
        ("groups of more than one case", len(findings.duplicates)),
        ("groups that a split must keep together", len(set(findings.groups.values()))),
        ("groups on several sides of the split", len(findings.leaks)),
    ]
    if findings.not_measured:
        rows.append(("frames compared by texture only (not 8 or 16 bit)", findings.not_measured))
    cells = "".join(f'<tr><td>{text}</td><td class="n">{value}</td></tr>' for text, value in rows)
    return f"<table>{cells}</table>"


def _faults(faults: Sequence[str]) -> str:
    if not faults:
        return ""
    return f"<h2>Not read</h2><ul>{''.join(f'<li>{escape(fault)}</li>' for fault in faults)}</ul>"


def _leaks(findings: Findings) -> str:
    if not findings.leaks:
        return "<p>None.</p>"
    rows = [
        f"<tr><td>{escape(', '.join(group.sides))}</td><td>{_names(group.cases)}</td></tr>"
        for group in findings.leaks
    ]
    return f"<table><tr><th>sides</th><th>cases</th></tr>{''.join(rows)}</table>"


def _names(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"<code>{escape(name)}</code>" for name in names[:most]) + more


def _pair_list(pairs: Sequence[FoundPair], store: FrameStore, most: int, nothing: str) -> str:
    if not pairs:
        return f"<p>{nothing}</p>"
    left = len(pairs) - most
    note = f'<p class="quiet">{left} more are in audit.json.</p>' if left > 0 else ""
    return "\n".join(_pair(pair, store) for pair in pairs[:most]) + note


def _pair(pair: FoundPair, store: FrameStore) -> str:
    facts = [] if pair.distance is None else [f"difference {pair.distance}"]
    facts += [] if pair.correlation is None else [f"correlation {pair.correlation:.3f}"]
    if pair.mirrored or pair.angle_degrees:
        facts.append(f"second {'mirrored, ' * pair.mirrored}turned by {pair.angle_degrees:g}°")
    facts += [] if pair.mask_dice is None else [f"Dice of the masks {pair.mask_dice:.3f}"]
    facts += ['<span class="bad">different sides of the split</span>'] if pair.is_leak else []
    facts += [f'<span class="good">resolved: keeps {escape(pair.keep)}</span>'] if pair.keep else []
    first, second = (_shown(store.pixels(index)) for index in pair.indices)
    second = turn_picture(second, angle_degrees=pair.angle_degrees, mirrored=pair.mirrored)
    masks = [store.mask(index) for index in pair.indices]
    if masks[1] is not None:
        masks[1] = turn_picture(masks[1], angle_degrees=pair.angle_degrees, mirrored=pair.mirrored)
    pictures = [(first, pair.first), (second, pair.second)]
    pictures += [
        (_outlined(picture, mask), f"mask of {name}")
        for (picture, name), mask in zip(tuple(pictures), masks, strict=True)
        if mask is not None
    ]
    if masks[0] is not None and masks[1] is not None and masks[0].shape == masks[1].shape:
        legend = "purple in both, yellow only in the first, green only in the second"
        pictures.append((_agreement(first, masks[0], masks[1]), legend))
    return f"<figure><figcaption>{', '.join(facts)}</figcaption>{_row(pictures)}</figure>"


def _groups(findings: Findings, store: FrameStore, index_of: dict[str, int]) -> str:
    if not findings.duplicates:
        return "<p>No case shows what another one shows.</p>"
    # groups that join what the data set declares apart come first, then the largest
    ordered = sorted(findings.duplicates, key=lambda group: (-len(group.sides), -len(group.cases)))
    figures = []
    for group in ordered[:_MOST_GROUPS]:
        declared = (
            f", declared as groups {_names(group.declared_groups)}" if len(group.declared_groups) > 1 else ""
        )
        caption = (
            f"{len(group.cases)} cases{declared if set(group.declared_groups) != set(group.cases) else ''}"
        )
        if len(group.cases) > _MOST_IN_GROUP:
            caption += f": {_names(group.cases, 200)}"
        shown = [(_shown(store.pixels(index_of[case])), case) for case in group.cases[:_MOST_IN_GROUP]]
        figures.append(f"<figure><figcaption>{caption}</figcaption>{_row(shown)}</figure>")
    left = len(ordered) - _MOST_GROUPS
    note = f'<p class="quiet">{left} more groups are in audit.json.</p>' if left > 0 else ""
    return "\n".join(figures) + note


def _histogram(histogram: Histogram, threshold: int) -> str:
    last = max(k for k in range(len(histogram.edges)) if k == 0 or histogram.found[k] or histogram.sampled[k])
    drawn = max(1, sum(histogram.sampled))
    rows = []
    for k in range(last + 1):
        low = histogram.edges[k]
        span = "0" if k == 0 else f"{low} to {10 * low - 1}"
        found = str(histogram.found[k]) if low < threshold else "not counted"
        share = histogram.sampled[k] / drawn
        bar = (
            f'<svg width="240" height="12"><rect width="{240 * share:.1f}" height="12" fill="#7a5ea8"/></svg>'
        )
        rows.append(
            f'<tr><td class="n">{span}</td><td class="n">{found}</td>'
            f'<td class="n">{histogram.sampled[k]}</td><td>{bar}</td></tr>'
        )
    return (
        f"<p>{escape(histogram.size)}: {histogram.frames} frames, {histogram.pairs} pairs. Exact sums of "
        f"absolute differences as the frames lie: all pairs below {threshold} are counted, and "
        f"{sum(histogram.sampled)} pairs drawn at random show where the others lie.</p>"
        "<table><tr><th>difference</th><th>pairs below the threshold</th><th>of those drawn</th><th></th>"
        "</tr>"
        f"{''.join(rows)}</table>"
    )


def _row(pictures: Iterable[tuple[_Picture, str]]) -> str:
    cells = [
        f'<div><img alt="{escape(text, quote=True)}" src="{_data_uri(picture)}">{escape(text)}</div>'
        for picture, text in pictures
    ]
    return f'<div class="row">{"".join(cells)}</div>'


def _data_uri(picture: _Picture) -> str:
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((_EDGE, _EDGE), Image.Resampling.LANCZOS)
    stream = BytesIO()
    image.save(stream, format="JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _shown(pixels: npt.NDArray[Any]) -> _Picture:
    """Colours of 8 bit as they are; everything else between its 0.5th and 99.5th percentile."""
    if pixels.dtype == np.uint8:
        shown = pixels
    else:
        values = np.nan_to_num(pixels.astype(np.float32), posinf=0, neginf=0)
        low, high = np.percentile(values, (0.5, 99.5))
        shown = (np.clip((values - low) / (high - low if high > low else 1), 0, 1) * 255).astype(np.uint8)
    return np.repeat(shown[..., None], 3, axis=-1) if shown.ndim == 2 else shown


def _outlined(picture: _Picture, mask: npt.NDArray[np.uint8]) -> _Picture:
    region = mask > 0
    width = max(1, round(max(mask.shape) / _EDGE))  # still a pixel wide once it is shown small
    edge = region & ~ndimage.binary_erosion(region, iterations=width)
    return np.where(edge[..., None], _OUTLINE, picture).astype(np.uint8)


def _agreement(picture: _Picture, first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> _Picture:
    drawn = picture.astype(np.float32)
    regions = {
        "true positive": (first > 0) & (first == second),
        "false negative": (first > 0) & (first != second),
        "false positive": (first == 0) & (second > 0),
    }
    for name, region in regions.items():
        drawn[region] = 0.4 * drawn[region] + 0.6 * np.array(AGREEMENT_COLOURS[name])
    return drawn.astype(np.uint8)
