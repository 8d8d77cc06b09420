"""Random 2.5D samples from volumes held in memory once, the same for any number of workers and ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from monai.data import MetaTensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from volseg.checks import check_positive, refuse

__all__ = ["EpochSampler", "SliceStackDataset"]

logger = logging.getLogger(__name__)

Item = dict[str, Any]


class SliceStackDataset(Dataset[Item]):
    """Draw `length` random samples an epoch from a few large volumes.

    `monai.data.PatchDataset` and `CacheDataset` seed each worker, so that the samples depend on the number of
    workers and ranks, and a resumed run repeats the first epochs. Here a sample depends on (seed, epoch,
    number) alone: index `epoch * length + number`, from `EpochSampler`, says it all. Worker processes that
    are forked share the volumes.

    Args:
        cases: case items; each is loaded once, when the data set is made.
        load: deterministic transforms of a case item, up to whole volumes (C, D0, D1, D2).
        sample: random transforms of a loaded case, for instance `Compose([RandSliceStackd(...), ...])`;
            anything with `set_random_state` is seeded anew for each sample.
        length: samples an epoch.
        seed: of all draws.
        case_weights: relative probability of each case; all equal if None.
        keys: entries of a sample that are returned, as plain tensors where they are MetaTensors.

    Raises:
        InputError: when `load` finds the foreground of the labels (`ForegroundIndicesd`) and no case has any.
        ValueError: when there is no case, `length` is not positive, or the weights do not fit the cases.
    """

    def __init__(
        self,
        cases: Sequence[Mapping[str, Any]],
        *,
        load: Callable[[Item], Item],
        sample: Callable[[Item], Item],
        length: int,
        seed: int,
        case_weights: Sequence[float] | None = None,
        keys: Sequence[str] = ("image", "label"),
    ) -> None:
        if not cases:
            raise ValueError("cases must not be empty; check the datalist and its split")
        check_positive("length", length)
        self.probabilities = _probabilities(case_weights, len(cases))
        self.length = int(length)
        self.seed = int(seed)
        self.sample = sample
        self.keys = tuple(keys)
        self.cases = [
            _loaded(case, load, f"{number} of {len(cases)}") for number, case in enumerate(cases, start=1)
        ]
        _check_foreground(self.cases)

    def __len__(self) -> int:
        """Samples an epoch."""
        return self.length

    def __getitem__(self, index: int) -> Item:
        """Draw sample `index % length` of epoch `index // length`.

        Raises:
            IndexError: for a negative index.
        """
        if index < 0:
            raise IndexError(
                f"a sample's index must be at least 0, got {index}; it counts epochs * length + number"
            )
        epoch, number = divmod(int(index), self.length)
        seeds = np.random.SeedSequence((self.seed, epoch, number)).generate_state(2)
        generator = np.random.Generator(np.random.PCG64(int(seeds[0])))
        case = self.cases[int(generator.choice(len(self.cases), p=self.probabilities))]
        if hasattr(self.sample, "set_random_state"):
            self.sample.set_random_state(seed=int(seeds[1]))
        drawn = self.sample(dict(case))
        return {key: _plain(drawn[key]) for key in self.keys}


class EpochSampler(DistributedSampler[int]):
    """Number the samples of an epoch for `SliceStackDataset`; N ranks take every N-th of them.

    MONAI's engines call `set_epoch` on it because it is a `DistributedSampler`; unlike that class it needs no
    process group, shuffles nothing (the samples are random already) and repeats no sample to fill up a rank.
    N ranks together draw exactly what one rank draws, and in every step the same batch, N times as large.

    Args:
        dataset: what is sampled; only its length is used.
        num_replicas: ranks; those of the running process group, else 1, if None.
        rank: own number; likewise.

    Raises:
        ValueError: when the ranks cannot share the epoch evenly, which would leave one of them waiting for
            ever.
    """

    def __init__(
        self, dataset: SliceStackDataset, *, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if num_replicas is None:
            num_replicas = torch.distributed.get_world_size() if is_distributed else 1
        if rank is None:
            rank = torch.distributed.get_rank() if is_distributed else 0
        length = len(dataset)
        if length % num_replicas:
            lower = length - length % num_replicas
            near = f"{lower} or {lower + num_replicas}" if lower else str(num_replicas)
            raise ValueError(
                f"length must be a multiple of the number of ranks ({num_replicas}), got {length}; use {near}"
            )
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank in the current epoch."""
        length = self.num_samples * self.num_replicas
        start = self.epoch * length
        return iter(range(start + self.rank, start + length, self.num_replicas))


def _loaded(case: Mapping[str, Any], load: Callable[[Item], Item], progress: str) -> Item:
    item = {key: _held(value) for key, value in load(dict(case)).items()}
    volumes = [value for value in item.values() if isinstance(value, torch.Tensor)]
    size = sum(value.numel() * value.element_size() for value in volumes)
    logger.info("loaded case %s (%s), %.3f GB", case.get("case", "without a name"), progress, size / 1e9)
    return item


def _check_foreground(cases: Sequence[Item]) -> None:
    """Refuse labels that are all empty: the loss falls, and the network learns to find nothing."""
    if all(len(case.get("label_foreground", "unknown")) == 0 for case in cases):
        expected = "a labelled voxel in at least one training case"
        refuse("labels", expected, f"none in {len(cases)} cases", "check the label folders and their values")


def _held(value: Any) -> Any:
    # MONAI turns uint16 into int32; the smallest type that holds the values exactly halves the memory again
    plain = _plain(value)
    if not isinstance(plain, torch.Tensor) or plain.dtype not in (torch.int32, torch.int64) or plain.ndim < 3:
        return plain
    low, high = (int(limit) for limit in torch.aminmax(plain)) if plain.numel() else (0, 0)
    for dtype in (torch.uint8, torch.uint16, torch.int16):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return plain.to(dtype)
    return plain


def _plain(value: Any) -> Any:
    return value.as_tensor() if isinstance(value, MetaTensor) else value


def _probabilities(weights: Sequence[float] | None, count: int) -> npt.NDArray[np.float64] | None:
    if weights is None:
        return None
    values = np.asarray(weights, np.float64)
    if values.shape != (count,) or not np.isfinite(values).all() or (values < 0).any() or not values.sum():
        raise ValueError(
            f"case_weights must be {count} numbers >= 0 with a positive sum, got {list(weights)}"
        )
    return values / values.sum()
