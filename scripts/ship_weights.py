"""Make the weights that a bundle ships from those of a run: 16-bit kernels, the threshold bound to the file.

Example:
    python scripts/ship_weights.py run/models/model.pt --threshold 0.45 \
        --write bundles/ultrasound_nerve/models
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch

from volseg.checks import check_fraction
from volseg.files import sha256_of, write_bytes, write_json
from volseg.networks.weights import read_state


def main() -> None:
    options = parse()
    threshold = check_fraction("threshold", options.threshold)
    target = options.write / "model.pt"
    buffer = io.BytesIO()
    torch.save(with_small_kernels(read_state(options.weights)), buffer)
    write_bytes(target, buffer.getvalue(), overwrite=True)
    record = {"threshold": threshold, "weights_sha256": sha256_of(target)}
    write_json(options.write / "threshold.json", record, overwrite=True)
    print(f"wrote {target}: {target.stat().st_size / 1e6:.1f} MB")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, help="model.pt of the run")
    parser.add_argument("--threshold", type=float, required=True, help="probability threshold")
    parser.add_argument("--write", type=Path, required=True, help="folder for model.pt and threshold.json")
    return parser.parse_args()


def with_small_kernels(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Kernels of convolutions in 16 bits; biases and norms, a small part of the file, stay as they are."""
    return {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for name, value in state.items()
    }


if __name__ == "__main__":
    main()
