"""The ablation writes a row for each network, and one for each way to cut the volumes."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "ablate_oct.py"
TINY = "--steps 2 --seeds 0 1 --size 16 32 6 --training 4 --test 2"


@pytest.mark.slow
def test_the_page_has_a_row_for_each_network_and_each_way_to_cut(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *TINY.split(), "--write", str(page)])
    script = runpy.run_path(str(SCRIPT), run_name="__main__")
    assert f"scripts/ablate_oct.py {TINY}`" in page.read_text().replace("\n", " ")
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    parts, along = rows[1 : 1 + len(script["MEMBERS"])], rows[2 + len(script["MEMBERS"]) :]
    assert [row[0] for row in parts] == list(script["MEMBERS"])
    assert [row[0] for row in along] == list(script["PLANES"].values())
    assert [row[1:3] for row in along] == [["2", "16"], ["2", "16"], ["4", "32"], ["4", "16"], ["4", "16"]]
    assert [row[3] == "" for row in along] == [True, False, True, False, False]
    assert len({len(row) for row in parts}) == 1 == len({len(row) for row in along})


@pytest.mark.parametrize(("values", "told"), [([0.5], "0.500"), ([0.4, 0.6], "0.500 ± 0.141")])
def test_a_spread_needs_two_seeds(monkeypatch, values, told):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    assert runpy.run_path(str(SCRIPT))["cell"](values) == told
