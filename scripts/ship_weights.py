"""Make the weights that a bundle ships: the mean of one or more runs, stored with 16-bit kernels.

Runs that began from the same weights and saw other samples can be averaged weight by weight into one network
(Wortsman et al., Model soups, ICML 2022); batch norms are averaged with the rest. The threshold is bound to
the file by its checksum.

Example:
    python scripts/ship_weights.py run_1/models/model.pt run_2/models/model.pt --threshold 0.45 \
        --write bundles/ultrasound_nerve/models
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import torch

from volseg.checks import check_fraction, refuse
from volseg.files import sha256_of, write_bytes, write_json
from volseg.networks.weights import read_state

State = dict[str, torch.Tensor]


def main() -> None:
    options = parse()
    threshold = check_fraction("threshold", options.threshold)
    state = with_small_kernels(mean_of([read_state(path) for path in options.weights], options.weights))
    target = options.write / "model.pt"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(target, buffer.getvalue(), overwrite=True)
    record = {"threshold": threshold, "weights_sha256": sha256_of(target)}
    write_json(options.write / "threshold.json", record, overwrite=True)
    print(f"wrote {target}: {target.stat().st_size / 1e6:.1f} MB, mean of {len(options.weights)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, nargs="+", help="model.pt of each run, all of one network")
    parser.add_argument("--threshold", type=float, required=True, help="probability threshold of the mean")
    parser.add_argument("--write", type=Path, required=True, help="folder for model.pt and threshold.json")
    return parser.parse_args()


def mean_of(states: Sequence[State], paths: Sequence[Path]) -> State:
    """Mean of each floating tensor; of counters those of the first run."""
    first = states[0]
    for state, path in zip(states[1:], paths[1:], strict=True):
        shapes = [{name: tuple(value.shape) for name, value in each.items()} for each in (first, state)]
        if shapes[0] != shapes[1]:
            refuse(
                path,
                f"weights of the same names and shapes as {paths[0]}",
                "others",
                "average runs of one network",
            )
    return {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


def with_small_kernels(state: State) -> State:
    """Kernels of convolutions in 16 bits; biases and norms, a small part of the file, stay as they are."""
    return {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for name, value in state.items()
    }


if __name__ == "__main__":
    main()
