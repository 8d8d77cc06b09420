"""How much faster `find_close_pairs` is than comparing all pixels of all pairs, and that both find the same.

Generates ultrasound-like frames with planted near-duplicates in a memory-mapped file, then measures

- the whole search of `volseg audit` for exact pairs over all frames,
- the brute-force scan of the first `--equal` frames, whose pairs must be the same, distances included,
- the brute-force scan of blocks of frames drawn from all, from which the scan of all pairs is extrapolated;
  `--brute N` scans the first N frames whole instead.

    python scripts/benchmark_audit.py --write
    python scripts/benchmark_audit.py --frames 1000 --brute 1000
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmark_audit.md"
HEIGHT, WIDTH = 420, 580
BELOW = 1000
Pair = tuple[int, int, int]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--equal", type=int, default=600, help="frames scanned whole to compare the pairs")
    parser.add_argument("--brute", type=int, default=0, help="frames of the timed scan; 0 extrapolates")
    parser.add_argument("--blocks", type=int, default=3, help="blocks of 80 by 80 frames to extrapolate from")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npy"
        planted = generate(path, arguments.frames)
        page = as_page(measure(path, planted, arguments))
    print(page)
    if arguments.write:
        from volseg.files import write_text

        write_text(PAGE, page, overwrite=True)


def generate(path: Path, count: int) -> int:
    """Speckle that drifts slowly within a subject; one frame in 40 repeats an earlier one almost exactly."""
    frames = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, HEIGHT, WIDTH))
    generator = np.random.default_rng(0)
    fan = np.hypot(np.arange(HEIGHT)[:, None] + 60, np.arange(WIDTH) - WIDTH / 2) < 460
    planted = 0
    for index in range(count):
        if index % 40 == 39:
            copy = np.array(frames[generator.integers(index)])
            # differences around the threshold: half of the copies lie below it
            for place in generator.choice(copy.size, generator.integers(0, 500), replace=False):
                copy.flat[place] = min(255, int(copy.flat[place]) + 4)
            frames[index] = copy
            planted += 1
            continue
        if index % 120 == 0:
            tissue = np.kron(generator.normal(1, 0.4, (21, 29)), np.ones((20, 20)))
        tissue = np.roll(tissue, 1, axis=1)
        speckle = generator.rayleigh(45, (HEIGHT, WIDTH)).astype(np.float32)
        frames[index] = np.clip(speckle * tissue * fan, 0, 255).astype(np.uint8)
    frames.flush()
    return planted


def measure(path: Path, planted: int, arguments: argparse.Namespace) -> dict[str, Any]:
    from volseg.data.audit import find_close_pairs

    frames = np.load(path, mmap_mode="r")
    count = len(frames)
    find_close_pairs(frames[:3], below=BELOW)  # first calls are not timed
    for start in range(0, count, 100):
        frames[start : start + 100].max()  # both scans find the file in the page cache
    with peak_memory() as peak:
        pairs, seconds, processor = timed(lambda: found(frames))
    small = frames[: arguments.equal]
    expected, _, _ = timed(lambda: brute_force(small))
    if found(small) != expected:
        sys.exit("the pairs differ from those of the brute-force scan")
    total = count * (count - 1) // 2
    whole = min(arguments.brute, count)
    if whole:
        same, brute_seconds, brute_processor = timed(lambda: brute_force(frames[:whole]))
        if same != found(frames[:whole]):
            sys.exit("the pairs differ from those of the brute-force scan")
        measured = whole * (whole - 1) // 2
    else:
        measured, brute_seconds, brute_processor = sample_brute_force(frames, arguments.blocks)
    return {
        "frames": count, "pairs": total, "planted": planted, "found": len(pairs),
        "seconds": seconds, "processor": processor, "mebibytes": peak[0],
        "equal_frames": len(small), "equal_found": len(expected), "measured": measured,
        "brute_seconds": brute_seconds, "brute_processor": brute_processor,
    }  # fmt: skip


def found(frames: np.ndarray[Any, Any]) -> list[Pair]:
    from volseg.data.audit import find_close_pairs

    pairs = find_close_pairs(frames, below=BELOW)
    return list(zip(*(column.tolist() for column in pairs), strict=True))


def brute_force(frames: np.ndarray[Any, Any]) -> list[Pair]:
    """Every pixel of every pair, with the fastest way known to numpy to add differences of 8 bit."""
    from volseg.data.audit import measure_distance

    result = []
    for i in range(len(frames)):
        first = np.array(frames[i])
        for j in range(i + 1, len(frames)):
            distance = measure_distance(first, np.asarray(frames[j]))
            if distance < BELOW:
                result.append((i, j, distance))
    return result


def sample_brute_force(frames: np.ndarray[Any, Any], blocks: int) -> tuple[int, float, float]:
    """Scan all pairs between 80 frames and 80 others, several times: the pattern of a blocked full scan."""
    from volseg.data.audit import measure_distance

    generator = np.random.default_rng(1)
    measured, seconds, processor = 0, 0.0, 0.0
    for _ in range(blocks):
        chosen = generator.choice(len(frames), min(160, len(frames)), replace=False)
        half = len(chosen) // 2
        firsts, seconds_of = np.array(frames[chosen[:half]]), np.array(frames[chosen[half:]])

        def scan(these: np.ndarray[Any, Any] = firsts, those: np.ndarray[Any, Any] = seconds_of) -> int:
            return sum(measure_distance(first, second) < BELOW for first in these for second in those)

        _, wall, used = timed(scan)
        measured += len(firsts) * len(seconds_of)
        seconds, processor = seconds + wall, processor + used
    return measured, seconds, processor


def timed(run: Any) -> tuple[Any, float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    result = run()
    return result, time.perf_counter() - wall, time.process_time() - processor


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Watch by how many MiB the anonymous memory of this process rises."""
    peak, stop, before = [0.0], threading.Event(), anonymous_mebibytes()

    def watch() -> None:
        while not stop.wait(0.01):
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


def as_page(row: dict[str, Any]) -> str:
    share = row["pairs"] / row["measured"]
    is_whole = row["measured"] == row["pairs"]
    how = "measured whole" if is_whole else f"{row['measured']:,} pairs measured, times {share:.1f}"
    brute = row["brute_processor"] * share
    ratio = brute / row["processor"]
    own = f"{row['processor']:.1f} | {row['seconds']:.1f} | {row['mebibytes']:.0f}"
    return f"""# Benchmark of the audit

Written by `python scripts/benchmark_audit.py --write`, one thread. {row["frames"]} generated frames of
{WIDTH}x{HEIGHT}, 8 bit, in a memory-mapped file; {row["planted"]} of them repeat an earlier frame with
differences around the threshold. Both ways look for all pairs with a sum of absolute differences below
{BELOW} and use the same function to measure a pair. Memory is the rise of anonymous memory, sampled every
10 ms. Seconds are those of the processor: they do not count what other programs took.

Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}.

| way | pairs | processor seconds | wall seconds | MiB |
|---|---|---|---|---|
| `find_close_pairs` | {row["pairs"]:,} | {own} |
| brute force ({how}) | {row["pairs"]:,} | {brute:.0f} | {row["brute_seconds"] * share:.0f} | |

The search is {ratio:.0f} times faster. It found {row["found"]} pairs. On the first {row["equal_frames"]}
frames brute force compared every pixel of every pair and found the same {row["equal_found"]} pairs with the
same distances.
"""


if __name__ == "__main__":
    main()
