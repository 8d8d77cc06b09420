"""The page is whole, offline and harmless, whatever a case is called."""

import base64
import json
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from volseg.checks import InputError
from volseg.data.audit import FrameStore, audit_frames, read_resolutions
from volseg.reports.audit_page import AUDIT_FILES, audit_page, write_audit

EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Collects tags, picture sources and text, and checks that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for key, value in attributes if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def store(tmp_path):
    noise = np.random.default_rng(0).normal(size=(300, 280))
    smooth = sum(ndimage.gaussian_filter(noise, width) * width for width in (2, 5))
    picture = np.uint8(np.clip(128 + 45 * smooth / smooth.std(), 0, 255))
    mask = np.zeros_like(picture)
    mask[90:150, 60:160] = 255
    versions = {
        EVIL: (picture, mask, "fold 0"),
        "copy": (picture, np.roll(mask, 12, axis=0), "fold 1"),
        "turned": (np.rot90(picture), np.rot90(mask), "fold 0"),
        "other": (np.uint8(255) - picture[::-1].copy().T, None, ""),
    }
    items = []
    for number, (name, (pixels, label, side)) in enumerate(versions.items()):
        item = {"case": name, "group": name, "side": side, "image": str(tmp_path / f"{number}.png")}
        Image.fromarray(np.ascontiguousarray(pixels)).save(item["image"])
        if label is not None:
            item["label"] = str(tmp_path / f"{number}_mask.png")
            Image.fromarray(np.ascontiguousarray(label)).save(item["label"])
        items.append(item)
    (tmp_path / "bad.png").write_bytes(b"x")
    items.append({"case": "bad", "group": "bad", "image": str(tmp_path / "bad.png")})
    with FrameStore(items) as opened:
        yield opened


def test_the_page_needs_no_network_and_no_script(store):
    page = Page(audit_page(audit_frames(store), store))
    assert page.open == []
    assert "script" not in page.tags
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)


def test_a_name_cannot_become_markup(store):
    text = audit_page(audit_frames(store), store)
    assert "<script" not in text
    assert EVIL in Page(text).text


def test_every_picture_of_the_page_opens_and_is_small(store):
    page = Page(audit_page(audit_frames(store), store))
    for source in page.sources:
        picture = Image.open(BytesIO(base64.b64decode(source.split(",")[1])))
        picture.load()
        assert max(picture.size) == 200


def test_the_page_tells_contradictions_leaks_and_faults(store):
    text = Page(audit_page(audit_frames(store), store)).text
    assert "1 groups on both sides of the split; 2 unresolved pairs of contradicting masks; 1 cases" in text
    assert "Dice of the masks" in text
    assert "bad.png" in text
    assert "second turned by 90°" in text


def test_what_is_left_out_of_the_page_is_said(store):
    assert "1 more are in audit.json" in Page(audit_page(audit_frames(store), store, most_pairs=1)).text


def test_the_files_agree_with_each_other(store, tmp_path):
    findings = audit_frames(store)
    paths = write_audit(findings, store, tmp_path / "out")
    assert [path.name for path in paths] == list(AUDIT_FILES)
    document = json.loads((tmp_path / "out/audit.json").read_text())
    assert (document["contradictions"], document["leaks"], document["group_count"]) == (2, 1, 2)
    assert {name for pair in document["pairs"] for name in (pair["first"], pair["second"])} == {
        EVIL, "copy", "turned",
    }  # fmt: skip
    groups = json.loads((tmp_path / "out/groups.json").read_text())
    assert groups == {EVIL: EVIL, "copy": EVIL, "turned": EVIL, "other": "other"}
    assert read_resolutions(tmp_path / "out/contradictions.json") == {}


def test_a_former_report_is_not_overwritten_unasked(store, tmp_path):
    findings = audit_frames(store)
    write_audit(findings, store, tmp_path / "out")
    with pytest.raises(InputError, match=r"audit\.json"):
        write_audit(findings, store, tmp_path / "out")
    write_audit(findings, store, tmp_path / "out", overwrite=True)
