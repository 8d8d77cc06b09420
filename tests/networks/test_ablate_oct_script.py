"""The ablation writes a row for each network, and one for each way to cut the volumes."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "ablate_oct.py"
TINY = "--steps 2 --seeds 0 1 --size 16 32 6 --training 4 --test 2"


def table_of(arguments, page, monkeypatch):
    """Names in the module, and the rows below the table's head."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *TINY.split(), *arguments, "--write", str(page)])
    script = runpy.run_path(str(SCRIPT), run_name="__main__")
    text = page.read_text()
    assert f"scripts/ablate_oct.py {TINY}" in text.replace("\n", " ")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len({len(row) for row in rows}) == 1
    return script, rows[1:]


@pytest.mark.slow
def test_the_page_has_a_row_for_each_network(tmp_path, monkeypatch):
    script, rows = table_of([], tmp_path / "page.md", monkeypatch)
    assert [row[0] for row in rows] == list(script["MEMBERS"])


@pytest.mark.slow
def test_the_page_of_planes_has_a_row_for_each_way_to_cut(tmp_path, monkeypatch):
    name = "multi-task U-Net, CE + Dice"
    script, rows = table_of(["--planes", name], tmp_path / "page.md", monkeypatch)
    assert [row[0] for row in rows] == list(script["PLANES"])
    assert [row[1] == "" for row in rows] == [True] + [False] * 5
    assert f'--planes "{name}"' in (tmp_path / "page.md").read_text().replace("\n", " ")


@pytest.mark.parametrize(("values", "told"), [([0.5], "0.500"), ([0.4, 0.6], "0.500 ± 0.141")])
def test_a_spread_needs_two_seeds(monkeypatch, values, told):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    assert runpy.run_path(str(SCRIPT))["cell"](values) == told
