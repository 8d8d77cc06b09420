"""Where an inferer reads stacks from and adds predictions to; both ends may later live on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

from volseg.inferers.slice_stack import SliceStacks
from volseg.inferers.tiles import Tile

__all__ = ["ArrayAccumulator", "ArrayVolume", "Piece", "StackSink", "StackSource", "plan_batches"]


@dataclass(frozen=True)
class Piece:
    """Consecutive stacks of one case under one window; a batch is made of few of them."""

    case: int
    tile: Tile
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


def plan_batches(cases: int, tiles: Sequence[Tile], stacks: int, batch_size: int) -> Iterator[list[Piece]]:
    """Fill batches with stacks in order of case, window and stack; only the last batch may be short.

    Example:
        >>> from volseg.inferers.tiles import plan_tiles
        >>> (tile,) = plan_tiles((4, 4), None)
        >>> [[(piece.first, piece.stop) for piece in batch] for batch in plan_batches(2, [tile], 3, 4)]
        [[(0, 3), (0, 1)], [(1, 3)]]
    """
    batch: list[Piece] = []
    room = batch_size
    for case in range(cases):
        for tile in tiles:
            first = 0
            while first < stacks:
                piece = Piece(case, tile, first, min(stacks, first + room))
                batch.append(piece)
                first, room = piece.stop, room - len(piece)
                if room == 0:
                    yield batch
                    batch, room = [], batch_size
    if batch:
        yield batch


class StackSource(Protocol):
    """Anything that slice stacks can be read from."""

    def read(self, axis: int, stacks: SliceStacks, piece: Piece) -> torch.Tensor:
        """Read the stacks of a piece across `axis`: (N, C*S, h, w) in float32, edges repeated."""


class StackSink(Protocol):
    """Anything that predictions of slice stacks can be added to."""

    def add(self, axis: int, stacks: SliceStacks, piece: Piece, values: torch.Tensor) -> None:
        """Add (N, K, M, h, w), the predictions of a piece across `axis`, blended and averaged over stacks."""


class ArrayVolume:
    """A source in memory.

    Args:
        values: (B, C, D0, D1, D2) of any real dtype; converted to float32 one piece at a time.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def read(self, axis: int, stacks: SliceStacks, piece: Piece) -> torch.Tensor:
        """Read the stacks of a piece across `axis`: (N, C*S, h, w) in float32, edges repeated."""
        slices = stacks.sources(piece.first, piece.stop)
        low, high = int(slices.min()), int(slices.max()) + 1
        rows, columns = piece.tile.rows, piece.tile.columns
        across = self.values[piece.case].movedim(axis + 1, 1)
        slab = across[:, low:high, rows.inside, columns.inside].to(torch.float32)
        if piece.tile.is_padded:
            slab = F.pad(slab, (*columns.padding, *rows.padding), mode="replicate")
        gathered = slab[:, (slices - low).to(slab.device)]  # (C, N, S, h, w)
        return gathered.transpose(0, 1).flatten(1, 2)


class ArrayAccumulator:
    """A sum of predictions in memory, allocated when the first one tells the number of classes.

    Args:
        cases: B of the volume.
        shape: (D0, D1, D2) of the volume.
    """

    def __init__(self, cases: int, shape: Sequence[int]) -> None:
        self.cases = cases
        self.shape = tuple(shape)
        self._values: torch.Tensor | None = None

    @property
    def values(self) -> torch.Tensor:
        """(B, K, D0, D1, D2) float32.

        Raises:
            RuntimeError: before anything was added.
        """
        if self._values is None:
            raise RuntimeError("the accumulator has no values before the first prediction was added")
        return self._values

    def clear(self) -> None:
        """Start a new sum in the same memory."""
        if self._values is not None:
            self._values.zero_()

    def add(self, axis: int, stacks: SliceStacks, piece: Piece, values: torch.Tensor) -> None:
        """Add (N, K, M, h, w), the predictions of a piece across `axis`, blended and averaged over stacks."""
        if self._values is None:
            self._values = values.new_zeros((self.cases, values.shape[1], *self.shape), dtype=torch.float32)
        rows, columns = piece.tile.rows, piece.tile.columns
        targets = stacks.targets(piece.first, piece.stop).flatten()
        is_inside = (targets >= 0) & (targets < stacks.depth)
        targets = targets[is_inside]
        shares = stacks.shares[targets].to(values.device)
        # (K, slices, h, w), without the padding of the window and of the stack
        planes = values[..., rows.unpadded, columns.unpadded].transpose(0, 1).flatten(1, 2)
        if len(targets) < planes.shape[1]:
            planes = planes[:, is_inside.to(values.device)]
        weights = piece.tile.weights(values.device) * shares[:, None, None]
        across = self._values[piece.case].movedim(axis + 1, 1)
        across[:, :, rows.inside, columns.inside].index_add_(1, targets.to(values.device), planes * weights)
