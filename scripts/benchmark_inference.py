"""Time and memory of TriAxisInferer against the same job written with MONAI's SliceInferer.

Both sides run one network on one volume: three axes, eight views each, averaged. The stock recipe runs as
MONAI users write it, in float32. Every side has a process of its own, so that peaks of memory do not mix.

Example:
    python scripts/benchmark_inference.py --size 64 96 96 --threads 2
    python scripts/benchmark_inference.py --write docs/benchmark_inference.md
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

FEATURES = (32, 64, 128, 256)
THRESHOLD = 0.5
STOCK = "MONAI SliceInferer x 3, windows"
STOCK_WHOLE = "MONAI SliceInferer x 3, whole slices"
OURS_WINDOWS = "TriAxisInferer, same windows"
OURS = "TriAxisInferer, whole slices"
OURS_FLOAT32 = "TriAxisInferer, whole slices, float32"
SIDES = (STOCK, OURS, OURS_FLOAT32, OURS_WINDOWS, STOCK_WHOLE)
ALWAYS = SIDES[:3]


def main() -> None:
    options = parse()
    if options.side:
        print(json.dumps(measure(options.side, Path(options.folder), options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        run_child("prepare", folder)
        rows = []
        for side in SIDES if options.all_sides else ALWAYS:
            rows.append(run_child(side, folder))
            print(f"{side}: {rows[-1]['seconds']:.1f} s, {rows[-1]['extra_mib']:.0f} MiB", file=sys.stderr)
        for row in rows:
            row.update(compare(Path(folder), row["side"]))
    text = report(rows, options)
    print(text)
    if options.write:
        write(Path(options.write), text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=3, default=(192, 256, 256), help="voxels of the volume")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--roi", type=int, default=128, help="edge of the window that the stock recipe slides"
    )
    parser.add_argument(
        "--overlap", type=float, default=0.25, help="overlap of these windows, MONAI's default"
    )
    parser.add_argument("--stock-batch", type=int, default=4, help="windows per forward of the stock recipe")
    parser.add_argument(
        "--all-sides", action="store_true", help="each side with windows and with whole slices"
    )
    parser.add_argument("--write", help="Markdown file to write the table to")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_child(side: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measure(side: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(options.threads)
    if side == "prepare":
        return prepare(folder, options)
    network = make_network().to(options.device)
    network.load_state_dict(torch.load(folder / "network.pt", weights_only=True))
    network.requires_grad_(False)
    volume = torch.from_numpy(np.load(folder / "volume.npy")).to(options.device)
    job = make_job(side, options)
    # A small volume first: what libraries load and compile once belongs to neither side. Windows shrink with
    # it, so that the memory which a process keeps from them is not taken for its start.
    small = make_job(side, argparse.Namespace(**{**vars(options), "roi": 16}))
    with torch.inference_mode():
        small(volume[..., :16, :16, :16].contiguous(), network)
    before = memory_mib(options.device, peak=False)
    start = time.perf_counter()
    with torch.inference_mode():
        prediction = job(volume, network)
    if options.device != "cpu":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    extra = memory_mib(options.device, peak=True) - before
    np.save(folder / f"{SIDES.index(side)}.npy", prediction.cpu().numpy())
    return {"side": side, "seconds": seconds, "extra_mib": extra, "torch": torch.__version__}


def make_job(side: str, options: argparse.Namespace) -> Callable[[torch.Tensor, Any], torch.Tensor]:
    from volseg.inferers import TriAxisInferer

    if side in (STOCK, STOCK_WHOLE):
        window = None if side == STOCK_WHOLE else options.roi
        return lambda volume, network: stock(volume, network, window, options)
    return TriAxisInferer(
        in_slices=1,
        tta="d4",
        roi_size=options.roi if side == OURS_WINDOWS else None,
        overlap=options.overlap,
        amp="off" if side == OURS_FLOAT32 else "auto",
    )


def stock(
    volume: torch.Tensor, network: Any, window: int | None, options: argparse.Namespace
) -> torch.Tensor:
    """Average three SliceInferers, each over the eight flips and quarter turns of the volume."""
    import torch
    from monai.inferers import SliceInferer

    total = torch.zeros_like(volume)
    for axis in range(3):
        plane = [other + 2 for other in range(3) if other != axis]
        for turns in range(4):
            for is_flipped in (False, True):
                view = torch.rot90(volume, turns, plane)
                view = view.flip(plane[0]) if is_flipped else view
                inferer = SliceInferer(
                    spatial_dim=axis,
                    roi_size=[window or view.shape[dim] for dim in plane],
                    sw_batch_size=options.stock_batch,
                    overlap=options.overlap,
                )
                seen = inferer(view, network).sigmoid()
                seen = seen.flip(plane[0]) if is_flipped else seen
                total += torch.rot90(seen, -turns, plane)
    return total.div_(24)


def make_network() -> Any:
    from volseg.networks import SliceStackUNet

    return SliceStackUNet(in_slices=1, features=FEATURES, seed=0).eval()


def prepare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Draw a volume of bright tubes and train the network on its slices until its mask means something."""
    import torch

    image, tubes = draw_tubes(tuple(options.size))
    np.save(folder / "volume.npy", image[None, None])
    np.save(folder / "truth.npy", tubes)
    network = make_network().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for crops, truth in draw_crops(image, tubes):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(crops), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.save(network.state_dict(), folder / "network.pt")
    return {"loss": loss.item()}


def draw_tubes(size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Curved bright tubes in blurred noise; image float32 and mask bool of `size`."""
    from scipy import ndimage

    random = np.random.default_rng(0)
    seeds = np.ones(size, dtype=bool)
    steps = np.linspace(0, 1, 4 * max(size))
    for _ in range(24):
        start, stop, bend = random.uniform(-0.1, 1.1, (3, 3))
        curve = start + np.outer(steps, stop - start) + np.outer(np.sin(np.pi * steps), bend - 0.5) * 0.3
        voxels = np.round(curve * size).astype(int)
        voxels = voxels[((voxels >= 0) & (voxels < size)).all(axis=1)]
        seeds[tuple(voxels.T)] = False
    tubes = ndimage.distance_transform_edt(seeds) < 4
    noise = ndimage.gaussian_filter(random.standard_normal(size, dtype=np.float32), 1.0)
    image = ndimage.gaussian_filter(tubes.astype(np.float32), 0.8) + 0.25 * noise / noise.std()
    return image.astype(np.float32), tubes


def draw_crops(
    image: np.ndarray, tubes: np.ndarray, steps: int = 40
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    import torch

    random = np.random.default_rng(1)
    for step in range(steps):
        across = np.moveaxis(image, step % 3, 0), np.moveaxis(tubes, step % 3, 0)
        slices = random.integers(0, across[0].shape[0], 8)
        row, column = (random.integers(0, max(1, extent - 64)) for extent in across[0].shape[1:])
        window = (slices, slice(row, row + 64), slice(column, column + 64))
        crops, truth = (torch.from_numpy(np.ascontiguousarray(array[window]))[:, None] for array in across)
        yield crops, truth.float()


def memory_mib(device: str, *, peak: bool) -> float:
    """Memory of this process, or of the device, now or at its highest."""
    import psutil
    import torch

    if device != "cpu":
        if not peak:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated() / 2**20
        return torch.cuda.max_memory_allocated() / 2**20
    if not peak:
        return psutil.Process().memory_info().rss / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def compare(folder: Path, side: str) -> dict[str, float]:
    """Differing voxels between a side's mask and the stock recipe's, of all voxels and of its foreground."""
    stock_mask = np.load(folder / "0.npy", mmap_mode="r") >= THRESHOLD
    mask = np.load(folder / f"{SIDES.index(side)}.npy", mmap_mode="r") >= THRESHOLD
    truth = np.load(folder / "truth.npy", mmap_mode="r")
    different = int((mask != stock_mask).sum())
    return {
        "of_voxels": different / mask.size,
        "of_foreground": different / max(1, int(stock_mask.sum())),
        "dice": 2 * int((mask[0, 0] & truth).sum()) / max(1, int(mask.sum()) + int(truth.sum())),
    }


def report(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    first = rows[0]
    lines = [
        "# Inference: TriAxisInferer against MONAI's SliceInferer",
        "",
        f"Written by `python scripts/benchmark_inference.py {' '.join(arguments(options))}`.",
        "",
        f"One volume of {'x'.join(map(str, options.size))} voxels, three axes, eight views each, averaged.",
        f"The network is `SliceStackUNet(in_slices=1, features={FEATURES})`, trained for a moment on bright",
        f"tubes. Windows are {options.roi}x{options.roi} with overlap {options.overlap}, in the stock recipe",
        f"{options.stock_batch} windows per forward and float32. Extra memory is the peak above what the",
        f"process held with the volume and the network loaded. Masks at {THRESHOLD} are compared with those",
        "of the first row; Dice is against the tubes.",
        "",
        *machine_facts(options, first["torch"]),
        "",
        "| side | seconds | faster | extra MiB | of stock | mask differs, of voxels | of foreground | Dice |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['side']} | {row['seconds']:.1f} | {first['seconds'] / row['seconds']:.1f}x "
        f"| {row['extra_mib']:.0f} | {row['extra_mib'] / first['extra_mib']:.2f} "
        f"| {row['of_voxels']:.5%} | {row['of_foreground']:.3%} | {row['dice']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def arguments(options: argparse.Namespace) -> list[str]:
    values = {"--size": " ".join(map(str, options.size)), "--device": options.device}
    values |= {"--threads": options.threads, "--roi": options.roi, "--overlap": options.overlap}
    values |= {"--stock-batch": options.stock_batch}
    given = [f"{name} {value}" for name, value in values.items()]
    return given + (["--all-sides"] if options.all_sides else [])


def machine_facts(options: argparse.Namespace, torch_version: str) -> list[str]:
    facts = [f"- torch {torch_version}, Python {platform.python_version()}, {platform.machine()}"]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        entries = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        stripped = {key.strip(): value.strip() for key, value in entries.items()}
        flags = stripped.get("flags", stripped.get("Features", "")).split()
        units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16") if flag in flags]
        facts.append(
            f"- CPU: {stripped.get('model name', 'unknown')}, {' '.join(units) or 'no vector flags read'}"
        )
    facts.append(f"- device {options.device}, {options.threads} threads")
    return facts


def write(path: Path, text: str) -> None:
    from volseg.files import write_text

    write_text(path, text, overwrite=True)


if __name__ == "__main__":
    main()
