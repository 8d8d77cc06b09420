"""The benchmark of OCT volumes says what it measured, and on which B-scans."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("benchmark_oct")


def a_row(name, *, segmentation, detection, gb, slices):
    phases = {"segmentation": segmentation, "detection": detection}
    own = {"row": name, "device": "cpu", "phases": phases, "seconds": segmentation + detection}
    return {**own, "gb": gb, "slices": slices, "weights": 1}


def page_of(script, rows, slices):
    options = argparse.Namespace(
        size=(32, 64, 24), slices=slices, rows=["unetpp", "stock"], batch=8, repeat=1, threads=1, device=None
    )
    return script.report(rows, options, {"gpu": "no GPU", "torch": "2"})


def test_the_stock_recipe_is_compared_by_the_segmentation_alone(script):
    ours = a_row("unetpp", segmentation=2.0, detection=7.0, gb=0.5, slices=24)
    stock = a_row("stock", segmentation=5.0, detection=0.0, gb=2.0, slices=24)
    page = page_of(script, [ours, stock], 24)
    assert "the stock recipe takes 2.50 times the seconds" in page
    assert "and 4.00 times its memory" in page
    assert "nothing is extrapolated" not in page


def test_what_ran_on_some_b_scans_says_so(script):
    page = page_of(script, [a_row("unetpp", segmentation=2.0, detection=0.0, gb=1.0, slices=6)], 6)
    assert "ran on these alone, 25% of" in page
    assert "| 6 of 24 | 2.00 |" in page


def test_the_network_is_as_large_as_the_published_one(script):
    assert script.count(script.make_network("unetpp")) == pytest.approx(5.32e6, rel=0.01)
    assert script.count(script.make_network("unet")) == pytest.approx(2.47e6, rel=0.01)


@pytest.mark.slow
def test_the_page_has_a_row_for_each_way_beside_the_published_one(script, tmp_path, monkeypatch):
    page, rows = tmp_path / "page.md", ["unetpp", "stock", "shipped"]
    own = ["--size", "32", "64", "16", "--slices", "4", "--threads", "1", "--device", "cpu", "--rows", *rows]
    monkeypatch.setattr(sys, "argv", ["benchmark_oct.py", *own, "--write", str(page)])
    script.main()
    table = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in table] == ["device", "TITAN Xp", "cpu", "cpu", "cpu"]
    assert [line.split("|")[4].strip() for line in table[2:]] == ["4 of 16", "4 of 16", "16 of 16"]
