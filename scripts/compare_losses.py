"""Train a tiny network on tiny vessel phantoms with each loss, and print the surface Dice of the result.

A smoke test of the losses, not a ranking: the phantoms are 48 voxels wide and the training takes seconds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from volseg.data.phantoms import grow_vessel_tree
from volseg.losses import (
    BoundaryDoULoss,
    ExpLogDiceLoss,
    FBetaLoss,
    MaskedDiceFocalLoss,
    SurfaceCubeLoss,
    WeightedSumLoss,
)
from volseg.metrics import compute_surface_dice
from volseg.networks import SliceStackUNet

SHAPE = (48, 40, 36)
SLICES = 3
THRESHOLDS = (0.2, 0.4, 0.6)


LOSSES = {
    "dice + bce": MaskedDiceFocalLoss(gamma=0.0, batch=True),
    "dice + focal": MaskedDiceFocalLoss(batch=True),
    "exp-log dice + ce": ExpLogDiceLoss(batch=True),
    "f2": FBetaLoss(2.0, batch=True),
    "boundary dou": BoundaryDoULoss(),
    "dice + bce + dou": WeightedSumLoss([MaskedDiceFocalLoss(gamma=0.0, batch=True), BoundaryDoULoss()]),
    "dice + bce + surface": WeightedSumLoss(
        [MaskedDiceFocalLoss(gamma=0.0, batch=True), SurfaceCubeLoss(batch=True)]
    ),
}


def phantom(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A noisy image and its mask, both (slices, H, W) as float32."""
    mask = grow_vessel_tree(SHAPE, seed=seed).transpose(2, 1, 0).astype(np.float32)
    noise = np.random.default_rng(seed).normal(size=mask.shape)
    image = ndimage.gaussian_filter(mask, 0.7) + 0.5 * ndimage.gaussian_filter(noise, 0.7)
    return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(mask)


def stacks(volume: torch.Tensor) -> torch.Tensor:
    """(slices, H, W) to (slices, S, H, W), the edge slice repeated."""
    centre = torch.arange(len(volume))[:, None] + torch.arange(SLICES) - SLICES // 2
    return volume[centre.clamp(0, len(volume) - 1)]


def train(loss: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int) -> SliceStackUNet:
    """Train the same network on the same batches."""
    network = SliceStackUNet(1, SLICES, 1, SLICES, features=(8, 16, 32), seed=0)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(0, len(images), (8,), generator=generator)
        optimiser.zero_grad()
        loss(network(images[chosen]), labels[chosen]).backward()
        optimiser.step()
    return network.eval()


def surface_dice(network: SliceStackUNet, seed: int) -> list[float]:
    """Surface Dice at tolerance 0 of an unseen phantom, one for each threshold."""
    image, mask = phantom(seed)
    with torch.no_grad():
        found = network(stacks(image))[:, SLICES // 2].sigmoid()
    return [
        compute_surface_dice(found.numpy() > threshold, mask.numpy() > 0, spacing_mm=(1, 1, 1))
        for threshold in THRESHOLDS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80, help="batches of eight stacks for each loss")
    steps = parser.parse_args().steps
    pairs = [phantom(seed) for seed in range(3)]
    images = torch.cat([stacks(image) for image, _ in pairs])
    labels = torch.cat([stacks(mask) for _, mask in pairs])
    print(f"{'loss':22}" + "".join(f"  SD at {threshold}" for threshold in THRESHOLDS) + "  seconds")
    for name, loss in LOSSES.items():
        start = time.perf_counter()
        network = train(loss, images, labels, steps)
        scores = np.mean([surface_dice(network, seed) for seed in (10, 11)], axis=0)
        seconds = time.perf_counter() - start
        print(f"{name:22}" + "".join(f"  {score:9.3f}" for score in scores) + f"  {seconds:7.1f}", flush=True)


if __name__ == "__main__":
    main()
