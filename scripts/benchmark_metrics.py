"""Time and memory of the surface Dice against MONAI and the reference package, each run in its own process.

python scripts/benchmark_metrics.py --sizes 256 448 --kidney --write
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmark_metrics.md"
KIDNEY = (2279, 1303, 912)
THRESHOLDS = [percent / 100 for percent in range(1, 100)]
Volume = np.ndarray[Any, np.dtype[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[128], help="edges of cubic test volumes")
    parser.add_argument("--methods", nargs="+", default=["volseg", "monai", "reference", "sweep"])
    parser.add_argument(
        "--kidney", action="store_true", help="memory-mapped 2279x1303x912, needs 6 GB of disk"
    )
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]))))
        return
    jobs = [(method, size) for size in arguments.sizes for method in arguments.methods]
    rows = [in_own_process(*job) for job in jobs + [("kidney", 0)] * arguments.kidney]
    page = as_page(rows)
    print(page)
    if arguments.write:
        from volseg.files import write_text

        PAGE.parent.mkdir(exist_ok=True)
        write_text(PAGE, page, overwrite=True)


def in_own_process(method: str, size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", method, str(size)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        return {"method": method, "size": size, "failed": f"exit code {finished.returncode}"}
    return json.loads(finished.stdout.splitlines()[-1])


def measure(method: str, size: int) -> dict[str, Any]:
    if method == "kidney":
        return measure_kidney()
    probability, truth = vessels(size)
    pred = probability >= 0.5
    run = METHODS[method]
    run(probability[:9, :9, :9], pred[:9, :9, :9], truth[:9, :9, :9])  # imports and first calls are not timed
    with peak_memory() as peak:
        score, seconds = timed(lambda: run(probability, pred, truth))
    if seconds < 2.0:  # a short run is at the mercy of its neighbours
        seconds = min(seconds, *(timed(lambda: run(probability, pred, truth))[1] for _ in range(4)))
    return {"method": method, "size": size, "score": score, "seconds": seconds, "mebibytes": peak[0]}


def timed(run: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def run_volseg(_: Volume, pred: Volume, truth: Volume) -> float:
    from volseg.metrics import compute_surface_dice

    return compute_surface_dice(pred, truth, spacing_mm=(1, 1, 1))


def run_sweep(probability: Volume, _: Volume, truth: Volume) -> float:
    from volseg.metrics import compute_surface_dice_sweep

    scores = compute_surface_dice_sweep(probability, truth, spacing_mm=(1, 1, 1), thresholds=THRESHOLDS)
    return float(scores[THRESHOLDS.index(0.5)])


def run_monai(_: Volume, pred: Volume, truth: Volume) -> float:
    import torch
    from monai.metrics import compute_surface_dice

    one_hot = [torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in (pred, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the nine-voxel warm-up, which may be empty
        return compute_surface_dice(
            *one_hot, [0.0], include_background=True, spacing=(1.0, 1.0, 1.0), use_subvoxels=True
        ).item()


def run_reference(_: Volume, pred: Volume, truth: Volume) -> float:
    import surface_distance

    if not (pred.any() and truth.any()):
        return float("nan")  # the package fails on empty masks with numpy 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distances = surface_distance.compute_surface_distances(truth, pred, (1.0, 1.0, 1.0))
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, 0.0))


METHODS: dict[str, Callable[[Volume, Volume, Volume], float]] = {
    "volseg": run_volseg,
    "sweep": run_sweep,
    "monai": run_monai,
    "reference": run_reference,
}


def vessels(size: int) -> tuple[Volume, Volume]:
    """Sixteen winding tubes per 256 voxels: probabilities with soft edges, and a truth a little thicker."""
    nearest = np.full((size, size, size), 99.0, dtype=np.float32)
    first, second = np.ogrid[:size, :size]
    for k in range(size):
        for phase in 2.4 * np.arange(16 * size // 256 or 1):
            x = size * (0.5 + 0.4 * np.sin(phase + 5 * k / size))
            y = size * (0.5 + 0.4 * np.cos(1.7 * phase + 4 * k / size))
            low = [max(0, int(c) - 12) for c in (x, y)]
            part = (slice(low[0], low[0] + 25), slice(low[1], low[1] + 25))
            distance = np.hypot(first[part[0]] - x, second[:, part[1]] - y).astype(np.float32)
            np.minimum(nearest[(*part, k)], distance, out=nearest[(*part, k)])
    return np.clip(0.5 + (4.0 - nearest) / 3.0, 0, 1, out=nearest.copy()), nearest < 4.5


def measure_kidney() -> dict[str, Any]:
    """Two sparse files on disk; what counts is anonymous memory, not the page cache."""
    from volseg.metrics import compute_surface_dice

    with tempfile.TemporaryDirectory() as folder:
        volumes = []
        for name, shift in (("pred", 0), ("truth", 1)):
            volume = np.lib.format.open_memmap(
                Path(folder) / f"{name}.npy", mode="w+", dtype=np.uint8, shape=KIDNEY, fortran_order=True
            )
            for k in range(KIDNEY[2]):
                x, y = 1100 + int(800 * np.sin(k / 150)) + shift, 650 + int(500 * np.cos(k / 90))
                volume[x - 9 : x + 9, y - 9 : y + 9, k] = 1
            volume.flush()
            volumes.append(np.load(Path(folder) / f"{name}.npy", mmap_mode="r"))
        with peak_memory() as peak:
            score, seconds = timed(lambda: compute_surface_dice(*volumes, spacing_mm=(0.05, 0.05, 0.05)))
    return {
        "method": "volseg, memory-mapped kidney",
        "size": "2279x1303x912",
        "score": score,
        "seconds": seconds,
        "mebibytes": peak[0],
    }


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Watch by how many MiB the anonymous memory of this process rises."""
    peak, stop, before = [0.0], threading.Event(), anonymous_mebibytes()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], anonymous_mebibytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def anonymous_mebibytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def as_page(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Benchmark of the metrics",
        "",
        "Written by `python scripts/benchmark_metrics.py --write`. Surface Dice at tolerance 0 of winding",
        "vessels, each run in its own process. Memory is the rise of anonymous memory above the masks given,",
        "sampled every 2 ms; what fits into memory that the process has freed before does not show.",
        "Runs below two seconds are the fastest of five.",
        "",
        f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}.",
        "",
        "| volume | method | score | seconds | MiB | seconds, volseg = 1 | MiB, volseg = 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = next(
            (each for each in rows if each["method"] == "volseg" and each["size"] == row["size"]), None
        )
        lines.append(as_line(row, own))
    return "\n".join(lines) + "\n"


def as_line(row: dict[str, Any], own: dict[str, Any] | None) -> str:
    size = f"{row['size']}³" if isinstance(row["size"], int) else row["size"]
    method = {"sweep": "volseg, 99 thresholds", "monai": "MONAI, sub-voxels"}.get(
        row["method"], row["method"]
    )
    if "failed" in row:
        return f"| {size} | {method} | {row['failed']} | | | | |"
    cells = [f"{row['score']:.9f}", f"{row['seconds']:.3f}", f"{row['mebibytes']:.1f}", "", ""]
    if own is not None and "failed" not in own:
        cells[3] = f"{row['seconds'] / own['seconds']:.1f}"
        cells[4] = f"{row['mebibytes'] / max(own['mebibytes'], 1e-9):.0f}" if own["mebibytes"] else ""
    return f"| {size} | {method} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
