"""Time and memory of the surface Dice against MONAI and the reference package, each run in its own process.

python scripts/benchmark_metrics.py --sizes 256 448 --kidney --write
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import textwrap
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
KIDNEY_LIMIT = 190  # MiB of anonymous memory: 199 MB
TREE = 192
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
    jobs += [("sweep_of_tree", size) for size in [TREE] if "sweep" in arguments.methods]
    jobs += [("kidney", 0)] * arguments.kidney
    rows = []
    for method, size in jobs:
        print(f"{method} {size or ''}", file=sys.stderr, flush=True)
        rows.append(in_own_process(method, size))
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
    probability, truth = tree(size) if method == "sweep_of_tree" else vessels(size)
    pred = probability >= 0.5
    run = METHODS[method]
    run(probability[:9, :9, :9], pred[:9, :9, :9], truth[:9, :9, :9])  # imports and first calls are not timed
    with peak_memory() as peak:
        score, seconds = timed(lambda: run(probability, pred, truth))
    row = {"method": method, "size": size, "score": score, "mebibytes": peak[0]}
    if seconds < 2.0:  # a short run is at the mercy of its neighbours
        seconds = min(seconds, *(timed(lambda: run(probability, pred, truth))[1] for _ in range(4)))
    if run is run_sweep:
        row |= ratio_to_one_threshold(probability, truth)
    return row | {"seconds": seconds}


def ratio_to_one_threshold(probability: Volume, truth: Volume) -> dict[str, float]:
    """The fastest of five runs each of the sweep and of one evaluation, thresholding included, in turns."""
    times = [
        [timed(lambda run=run: run(probability, probability, truth))[1] for run in (run_sweep, run_one)]
        for _ in range(5)
    ]
    sweep, one = np.min(times, axis=0)
    return {"ratio": float(sweep / one), "reached": float((probability >= THRESHOLDS[0]).mean())}


def timed(run: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def run_volseg(_: Volume, pred: Volume, truth: Volume) -> float:
    from volseg.metrics import compute_surface_dice

    return compute_surface_dice(pred, truth, spacing_mm=(1, 1, 1))


def run_one(probability: Volume, _: Volume, truth: Volume) -> float:
    return run_volseg(probability, probability >= np.float32(0.5), truth)


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
    "sweep_of_tree": run_sweep,
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


def tree(size: int) -> tuple[Volume, Volume]:
    """Branching vessels of an organ, blurred as a network blurs them: more surface than tubes have."""
    from scipy import ndimage

    from volseg.data.phantoms import grow_vessel_tree

    truth = grow_vessel_tree((size, size - 8, size - 16), seed=0, voxels_per_tip=15000.0)
    return ndimage.gaussian_filter(truth.astype(np.float32), 0.8), truth > 0


def measure_kidney() -> dict[str, Any]:
    """Two sparse files on disk, a vessel in every slice; the operating system enforces the limit."""
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
            del volume
            volumes.append(np.load(Path(folder) / f"{name}.npy", mmap_mode="r"))
        with peak_memory(limit=KIDNEY_LIMIT) as peak:
            score, seconds = timed(lambda: compute_surface_dice(*volumes, spacing_mm=(0.05, 0.05, 0.05)))
    return {
        "method": f"volseg, memory-mapped kidney, limit of {KIDNEY_LIMIT} MiB",
        "size": "x".join(map(str, KIDNEY)),
        "score": score,
        "seconds": seconds,
        "mebibytes": peak[0],
    }


@contextmanager
def peak_memory(limit: int | None = None) -> Iterator[list[float]]:
    """Watch by how many MiB the anonymous memory of this process rises; beyond a limit it gets none.

    A thread samples the anonymous memory every 2 ms. Where no file is mapped, the kernel's own peak of the
    resident memory, reset at the start, is exact and counts instead.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would take up new arrays unseen
    before, resident = status_mebibytes("RssAnon"), status_mebibytes("VmRSS")
    if limit is not None:
        most = int((status_mebibytes("VmData") + limit) * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
    else:
        Path("/proc/self/clear_refs").write_text("5")
    peak, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], status_mebibytes("RssAnon") - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
        if limit is None:
            peak[0] = max(peak[0], status_mebibytes("VmHWM") - resident)
        else:
            resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def status_mebibytes(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def as_page(rows: list[dict[str, Any]]) -> str:
    about = (
        "Written by `python scripts/benchmark_metrics.py --write`. Surface Dice at tolerance 0 of winding "
        "vessels, each run in its own process. Memory is the rise above the masks given: the kernel's peak "
        "of the resident memory; of the memory-mapped kidney the anonymous memory, sampled every 2 ms, and "
        f"the run may not have more than {KIDNEY_LIMIT} MiB of it. Runs below two seconds are the fastest "
        "of five."
    )
    system = f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}"
    lines = [
        "# Benchmark of the metrics",
        "",
        textwrap.fill(about, 100),
        "",
        f"{system}, {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}.",
        "",
        "| volume | method | score | seconds | MiB | seconds, volseg = 1 | MiB, volseg = 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = next(
            (each for each in rows if each["method"] == "volseg" and each["size"] == row["size"]), None
        )
        lines.append(as_line(row, own))
    return "\n".join(lines) + "\n" + as_ratios([row for row in rows if "ratio" in row])


def as_ratios(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    about = (
        "99 thresholds from one pass against one evaluation of `probability >= 0.5`, the thresholding "
        "included, in one process and in turns, the fastest of five each. The time of a sweep "
        "grows with the share of the voxels that reach the lowest threshold, 0.01."
    )
    lines = [
        "",
        textwrap.fill(about, 100),
        "",
        "| volume | voxels from 0.01 up | sweep, one evaluation = 1 |",
    ]
    lines += ["|---|---|---|"]
    lines += [f"| {volume_of(row)} | {100 * row['reached']:.1f} % | {row['ratio']:.2f} |" for row in rows]
    return "\n".join(lines) + "\n"


def volume_of(row: dict[str, Any]) -> str:
    if not isinstance(row["size"], int):
        return row["size"]
    return f"{row['size']}³" + (" tree" if row["method"] == "sweep_of_tree" else "")


def as_line(row: dict[str, Any], own: dict[str, Any] | None) -> str:
    sweep = f"volseg, {len(THRESHOLDS)} thresholds"
    names = {"sweep": sweep, "sweep_of_tree": sweep, "monai": "MONAI, sub-voxels"}
    size, method = volume_of(row), names.get(row["method"], row["method"])
    if "failed" in row:
        return f"| {size} | {method} | {row['failed']} | | | | |"
    cells = [f"{row['score']:.9f}", f"{row['seconds']:.3f}", f"{row['mebibytes']:.1f}", "", ""]
    if own is not None and "failed" not in own:
        cells[3] = f"{row['seconds'] / own['seconds']:.1f}"
        cells[4] = f"{row['mebibytes'] / max(own['mebibytes'], 1e-9):.0f}" if own["mebibytes"] else ""
    return f"| {size} | {method} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
