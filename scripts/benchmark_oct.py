"""Seconds and memory of one OCT volume of the retinal edema challenge, beside the published ones.

The published network (UNet++, features 16 to 256, dilated centre, detection head) sees every B-scan at full
resolution; MONAI's stock recipe does the same with its own UNet++ in float32; the bundle oct_edema runs as it
is delivered, from the volume in memory to class indices on its grid. Every row has a process of its own, so
that peaks of memory do not mix. A GPU is measured too where there is one.

Example:
    python scripts/benchmark_oct.py --size 32 128 64 --rows unetpp stock shipped
    python scripts/benchmark_oct.py --slices 16 --write docs/benchmark_oct.md
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from benchmark_inference import machine_facts, memory_mib, write

if TYPE_CHECKING:
    import torch

FEATURES = (16, 32, 64, 128, 256)
CLASSES = 4
SIZE = (512, 1024, 128)
FIELD_MM = (6.0, 2.0, 6.0)  # the nominal field of the challenge's macular cubes
WARM_UP = (32, 64, 16)
CONFIG = Path(__file__).resolve().parent.parent / "bundles" / "oct_edema" / "configs" / "inference.json"
TITLES = {
    "unetpp": "UNet++, TriAxisInferer, B-scans only",
    "stock": "MONAI BasicUNetPlusPlus, SliceInferer, float32",
    "unet": "U-Net, TriAxisInferer, B-scans only",
    "shipped": "bundle oct_edema as delivered",
    "float32": "UNet++, TriAxisInferer, B-scans only, float32",
}
USUAL = ("unetpp", "stock", "unet", "shipped")
PUBLISHED = "| TITAN Xp | UNet++ as published | 5.32 M | 128 of 128 | 9.5 | a patient | 7.3 |"
Phases = dict[str, float]
Job = Callable[["torch.Tensor"], Phases]
Result = TypeVar("Result")


def main() -> None:
    options = parse()
    if options.row:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        facts = run_child("prepare", "cpu", folder)
        devices = [options.device] if options.device else ["cpu", *["cuda"] * facts["has_gpu"]]
        rows = []
        for device in devices:
            for row in options.rows:
                print(f"{device}, {TITLES[row]} ...", file=sys.stderr, flush=True)
                rows.append(run_child(row, device, folder))
                print(f"  {rows[-1]['seconds']:.1f} s, {rows[-1]['gb']:.2f} GB", file=sys.stderr, flush=True)
    text = report(rows, options, facts)
    print(text)
    if options.write:
        write(options.write, text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, nargs=3, default=SIZE, help="x, y and number of B-scans (multiples of 16)"
    )
    parser.add_argument("--slices", type=int, help="B-scans that the rows at full resolution run on")
    parser.add_argument("--rows", nargs="+", choices=TITLES, default=USUAL)
    parser.add_argument("--batch", type=int, default=8, help="B-scans per call of the network")
    parser.add_argument("--repeat", type=int, default=1, help="runs of a row; the median is reported")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", help="cpu or cuda; both by default, where there is a GPU")
    parser.add_argument("--write", type=Path, help="Markdown file to write the table to")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--on", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.slices = options.slices or options.size[2]
    if not 1 <= options.slices <= options.size[2]:
        parser.error(f"--slices must be 1 to {options.size[2]}, got {options.slices}")
    if min(options.batch, options.repeat, options.threads) < 1:
        parser.error("--batch, --repeat and --threads must be at least 1")
    return options


def run_child(row: str, device: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--row", row, "--on", device, "--folder", folder]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(options.threads)
    if options.row == "prepare":
        return prepare(options)
    job, weights = shipped_job(options) if options.row == "shipped" else plain_job(options)
    grey = np.load(options.folder / "volume.npy", mmap_mode="r")
    first = (grey.shape[2] - options.slices) // 2
    seen = slice(None) if options.row == "shipped" else slice(first, first + options.slices)
    with torch.inference_mode():
        # A small volume first: what libraries load and compile once belongs to no row.
        job(torch.from_numpy(grey[tuple(slice(0, edge) for edge in WARM_UP)].copy()))
        before = memory_mib(options.on, peak=False) if options.on == "cpu" else 0.0
        if options.on != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        volume = torch.from_numpy(grey[..., seen].copy())
        runs = [job(volume) for _ in range(options.repeat)]
    extra = memory_mib(options.on, peak=True) - before
    run = sorted(runs, key=lambda phases: sum(phases.values()))[(len(runs) - 1) // 2]
    return {
        "row": options.row,
        "device": options.on,
        "seconds": statistics.median(sum(phases.values()) for phases in runs),
        "phases": run,
        "gb": extra * 2**20 / 1e9,
        "weights": weights,
        "slices": volume.shape[2],
    }


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Draw the volume, and tell what the machine has."""
    import torch

    from volseg.data.phantoms import draw_oct_volume

    image, _ = draw_oct_volume(tuple(options.size), seed=0)
    np.save(options.folder / "volume.npy", image)
    has_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if has_gpu else "no GPU"
    return {"has_gpu": has_gpu, "gpu": name, "torch": torch.__version__}


def plain_job(options: argparse.Namespace) -> tuple[Job, int]:
    """Segment every B-scan at full resolution; from grey values to probabilities."""
    from volseg.inferers import SliceDetectionInferer, TriAxisInferer

    network = make_network(options.row).eval().requires_grad_(False).to(options.on)
    amp = "off" if options.row == "float32" else "auto"
    ours = TriAxisInferer(
        in_slices=3, axes=(2,), tta="none", activation="softmax", batch_size=options.batch, amp=amp
    )
    detector = SliceDetectionInferer(3, batch_size=options.batch, tta="none", amp=amp)

    def job(grey: torch.Tensor) -> Phases:
        volume, loading = timed(options.on, lambda: normalised(grey).to(options.on))
        infer = stock(volume, options.batch) if options.row == "stock" else ours
        _, seconds = timed(options.on, lambda: infer(volume, network))
        phases = {"normalisation": loading, "segmentation": seconds}
        if getattr(network, "detection", None) is not None:
            _, phases["detection"] = timed(options.on, lambda: detector(volume, network))
        return phases

    return job, count(network)


def make_network(row: str) -> Any:
    import torch
    from monai.networks.nets import BasicUNetPlusPlus

    from volseg.networks import SliceStackUNet, UNetPlusPlus

    if row == "stock":
        torch.manual_seed(0)
        return BasicUNetPlusPlus(2, in_channels=1, out_channels=CLASSES, features=(*FEATURES, FEATURES[0]))
    if row == "unet":
        return SliceStackUNet(out_channels=CLASSES, features=FEATURES, upsample="transposed4", seed=0)
    detection = {"detection_classes": CLASSES - 1, "dilated_centre": True}
    return UNetPlusPlus(out_channels=CLASSES, features=FEATURES, **detection, seed=0)


def stock(volume: torch.Tensor, batch: int) -> Callable[[torch.Tensor, Any], Any]:
    """Single slices along the axis, as MONAI users write it; softmax batch by batch, the cheapest place."""
    from monai.inferers import SliceInferer

    inferer = SliceInferer(spatial_dim=2, roi_size=tuple(volume.shape[2:4]), sw_batch_size=batch, overlap=0.0)
    return lambda inputs, network: inferer(inputs, lambda slices: network(slices)[0].softmax(dim=1))


def normalised(grey: torch.Tensor) -> torch.Tensor:
    """(x, y, z) grey values to a float32 volume (1, 1, x, y, z) of mean 0 and deviation 1."""
    volume = grey[None, None].float()
    return volume.sub_(volume.mean()).div_(volume.std())


def shipped_job(options: argparse.Namespace) -> tuple[Job, int]:
    """The bundle's own preprocessing, inferers and postprocessing, without reading and writing files."""
    import torch
    from monai.bundle import ConfigParser
    from monai.data import MetaTensor
    from monai.transforms import Compose

    from volseg.networks import load_weights

    config = ConfigParser(ConfigParser.load_config_file(str(CONFIG)))
    config.update({"bundle_root": str(CONFIG.parent.parent), "device": torch.device(options.on)})
    config.parse()
    network = config.get_parsed_content("network_def")
    weights = Path(config.get_parsed_content("checkpoint"))
    if weights.is_file():  # untrained ones take as long
        load_weights(network, weights)
    network = network.eval().requires_grad_(False).to(options.on)
    prepare_image = Compose(config.get_parsed_content("prepare_image"))
    inferer = config.get_parsed_content("inferer")
    detector = config.get_parsed_content("slice_detection").inferer
    postprocessing = config.get_parsed_content("postprocessing")
    # a smaller volume has the same voxels, so that its working grid is smaller too
    affine = torch.diag(torch.tensor([*np.divide(FIELD_MM, SIZE), 1.0], dtype=torch.float64))

    def job(grey: torch.Tensor) -> Phases:
        item = {"image": MetaTensor(grey[None], affine=affine, meta={"spacing_is_known": True})}
        phases: Phases = {}
        item, phases["preprocessing"] = timed(options.on, lambda: prepare_image(item))
        image = item["image"].to(options.on)
        pred, phases["segmentation"] = timed(options.on, lambda: inferer(image[None], network))
        _, phases["detection"] = timed(options.on, lambda: detector(image[None], network))
        output = {"image": image, "pred": pred[0]}
        output, phases["postprocessing"] = timed(options.on, lambda: postprocessing(output))
        if output["pred"].shape[1:] != grey.shape:
            raise ValueError(f"expected {tuple(grey.shape)}, got {tuple(output['pred'].shape)}")
        return phases

    return job, count(network)


def timed(device: str, function: Callable[[], Result]) -> tuple[Result, float]:
    import torch

    start = time.perf_counter()
    result = function()
    if device != "cpu":
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def count(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def report(rows: list[dict[str, Any]], options: argparse.Namespace, facts: dict[str, Any]) -> str:
    machine = argparse.Namespace(device=f"cpu, {facts['gpu']}", threads=options.threads)
    repeats = f" Seconds are the median of {options.repeat} runs." if options.repeat > 1 else ""
    lines = [
        "# Retinal edema: one OCT volume",
        "",
        f"Written by `python scripts/benchmark_oct.py {' '.join(arguments(options))}`.",
        "",
        f"One generated volume of {options.size[2]} B-scans of {options.size[0]}x{options.size[1]}, from",
        "grey values in memory. Rows at full resolution end with the probabilities of four classes,",
        f"{options.batch} B-scans per call of the network; TriAxisInferer shows it each B-scan with its two",
        "neighbours, the stock recipe shows one alone. The bundle resamples to its working grid, looks",
        "along three axes in two views each, asks the detection head, and ends with class indices on the",
        f"grid of the volume; it chooses its own batches.{repeats} Memory (1 GB is 10⁹ bytes) is the peak",
        "with the volume: on a GPU all that was allocated, on a CPU what the process held above its",
        "libraries and weights. The published numbers are of another implementation, other hardware and real",
        "volumes.",
        "",
        *partial_note(options),
        *machine_facts(machine, facts["torch"]),
        "",
        "| device | what | weights | B-scans | seconds | of these | GB |",
        "|---|---|---|---|---|---|---|",
        PUBLISHED,
        *(as_row(row, options) for row in rows),
        "",
        *ratios(rows),
    ]
    return "\n".join(lines).rstrip() + "\n"


def arguments(options: argparse.Namespace) -> list[str]:
    given = [f"--size {' '.join(map(str, options.size))}", f"--rows {' '.join(options.rows)}"]
    given += [f"--slices {options.slices}"] if options.slices < options.size[2] else []
    given += [f"--batch {options.batch}", f"--repeat {options.repeat}", f"--threads {options.threads}"]
    return given + ([f"--device {options.device}"] if options.device else [])


def partial_note(options: argparse.Namespace) -> list[str]:
    if options.slices == options.size[2]:
        return []
    share = options.slices / options.size[2]
    return [
        f"Rows that name {options.slices} of {options.size[2]} B-scans ran on these alone, {share:.0%} of",
        "the volume: their seconds and memory are of these B-scans, and nothing is extrapolated.",
        "",
    ]


def as_row(row: dict[str, Any], options: argparse.Namespace) -> str:
    phases = ", ".join(
        f"{name} {seconds:.2f} ({seconds / row['seconds']:.0%})" for name, seconds in row["phases"].items()
    )
    return (
        f"| {row['device']} | {TITLES[row['row']]} | {row['weights'] / 1e6:.2f} M "
        f"| {row['slices']} of {options.size[2]} | {row['seconds']:.2f} | {phases} | {row['gb']:.2f} |"
    )


def ratios(rows: list[dict[str, Any]]) -> list[str]:
    """What the stock recipe takes of the time and memory of ours, on the same B-scans, for each device."""
    found = {(row["device"], row["row"]): row for row in rows}
    lines = []
    for (device, name), row in found.items():
        base = found.get((device, "stock"))
        if base is None or name not in ("unetpp", "float32"):
            continue
        faster = base["phases"]["segmentation"] / row["phases"]["segmentation"]
        larger = base["gb"] / max(row["gb"], 1e-9)
        lines.append(
            f"- {device}: the stock recipe takes {faster:.2f} times the seconds of `{TITLES[name]}` for the"
            f" segmentation, and {larger:.2f} times its memory."
        )
    return lines


if __name__ == "__main__":
    main()
