"""The comparison of losses writes a row for each."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "compare_losses.py"


@pytest.mark.slow
def test_the_page_has_a_row_for_each_loss(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--steps", "2", "--networks", "1", "--write", str(page)])
    losses = runpy.run_path(str(SCRIPT), run_name="__main__")["LOSSES"]
    rows = [line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| ")]
    assert rows[0] == "loss"
    assert set(rows[1:]) == set(losses)
