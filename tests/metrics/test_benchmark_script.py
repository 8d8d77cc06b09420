"""The benchmark of the metrics measures what it says."""

import runpy
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / "benchmark_metrics.py"))


@pytest.mark.parametrize("limit", [None, 150], ids=["free", "limited"])
def test_memory_is_the_rise_above_what_was_there(limit):
    before = np.ones(20 << 20, np.uint8)
    with SCRIPT["peak_memory"](limit) as peak:
        largest = np.ones(60 << 20, np.uint8)
        time.sleep(0.2)  # the watcher samples
        del largest
        np.ones(30 << 20, np.uint8)
    assert before.all()
    assert peak[0] == pytest.approx(60, abs=5)


def test_beyond_the_limit_there_is_no_memory():
    with SCRIPT["peak_memory"](limit=100), pytest.raises(MemoryError):
        np.ones(300 << 20, np.uint8)
    assert np.ones(300 << 20, np.uint8).all()


def test_all_methods_score_alike_and_a_failed_one_leaves_its_reason():
    rows = [SCRIPT["measure"](method, 40) for method in ("volseg", "sweep", "reference")]
    assert {f"{row['score']:.9f}" for row in rows} == {f"{rows[0]['score']:.9f}"}
    rows.append({"method": "monai", "size": 40, "failed": "exit code -9"})
    page = SCRIPT["as_page"](rows)
    assert "| 40³ | MONAI, sub-voxels | exit code -9 |" in page
    assert f"| 40³ | {100 * rows[1]['reached']:.1f} % | {rows[1]['ratio']:.2f} |" in page
