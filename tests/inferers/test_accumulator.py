from __future__ import annotations

import pytest
import torch

from volseg.inferers.accumulator import ArrayAccumulator, ArrayVolume, plan_batches
from volseg.inferers.slice_stack import SliceStacks
from volseg.inferers.tiles import plan_tiles

SHAPE = (2, 3, 7, 5, 9)
VOLUME = torch.arange(2 * 3 * 7 * 5 * 9, dtype=torch.float32).reshape(SHAPE)
LAYOUTS = [(None, 1), ((4, 4), 1), ((16, 6), 1), (None, 3), ((3, 4), 3)]


def pieces(axis: int, roi_size: tuple[int, int] | None, stacks: SliceStacks, batch_size: int = 4):
    plane = [size for other, size in enumerate(SHAPE[2:]) if other != axis]
    for batch in plan_batches(SHAPE[0], plan_tiles(plane, roi_size), len(stacks), batch_size):
        yield from batch


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("roi_size", "out_slices"), LAYOUTS, ids=str)
def test_adding_what_was_read_gives_the_volume_back(axis, roi_size, out_slices):
    stacks = SliceStacks(SHAPE[2 + axis], 3, out_slices)
    source, sink = ArrayVolume(VOLUME), ArrayAccumulator(SHAPE[0], SHAPE[2:])
    middle = slice(0, 3) if out_slices == 3 else slice(1, 2)
    for piece in pieces(axis, roi_size, stacks):
        sink.add(axis, stacks, piece, source.read(axis, stacks, piece).unflatten(1, (3, 3))[:, :, middle])
    torch.testing.assert_close(sink.values, VOLUME)


def test_the_channels_of_a_stack_are_the_slices_of_each_channel_in_turn():
    stacks = SliceStacks(SHAPE[4], 3)
    first = next(pieces(2, None, stacks))
    read = ArrayVolume(VOLUME).read(2, stacks, first)
    assert torch.equal(read[0, :3], VOLUME[0, 0, :, :, [0, 0, 1]].movedim(2, 0))
    assert torch.equal(read[3, 3:6], VOLUME[0, 1, :, :, [2, 3, 4]].movedim(2, 0))


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.int16, torch.float16, torch.float64], ids=str
)
def test_any_real_dtype_is_read_as_float32(dtype):
    volume = (VOLUME % 200).to(dtype)
    stacks = SliceStacks(SHAPE[2], 1)
    read = ArrayVolume(volume).read(0, stacks, next(pieces(0, None, stacks)))
    assert read.dtype == torch.float32
    assert torch.equal(read, (VOLUME % 200)[0, :, :4].transpose(0, 1))


def test_a_window_larger_than_the_plane_repeats_its_edge():
    stacks = SliceStacks(SHAPE[2], 1)
    read = ArrayVolume(VOLUME).read(0, stacks, next(pieces(0, (9, 9), stacks)))
    assert torch.equal(read[0, 0, :3], VOLUME[0, 0, 0, :1].expand(3, 9))
    assert torch.equal(read[0, 0, 2:7], VOLUME[0, 0, 0])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_all_batches_but_the_last_are_full_and_hold_every_stack_once(batch_size):
    tiles = plan_tiles((6, 7), (4, 4))
    batches = list(plan_batches(2, tiles, 3, batch_size))
    sizes = [sum(len(piece) for piece in batch) for batch in batches]
    assert set(sizes[:-1]) <= {batch_size}
    seen = [
        (piece.case, tiles.index(piece.tile), stack)
        for batch in batches
        for piece in batch
        for stack in range(piece.first, piece.stop)
    ]
    assert seen == [
        (case, tile, stack) for case in range(2) for tile in range(len(tiles)) for stack in range(3)
    ]


def test_a_cleared_accumulator_starts_again_in_the_same_memory():
    sink = ArrayAccumulator(SHAPE[0], SHAPE[2:])
    sink.clear()
    stacks = SliceStacks(SHAPE[2], 1)
    piece = next(pieces(0, None, stacks))
    sink.add(0, stacks, piece, torch.ones(4, 2, 1, 5, 9))
    memory = sink.values.data_ptr()
    sink.clear()
    assert sink.values.data_ptr() == memory
    assert not sink.values.any()


def test_an_accumulator_without_predictions_has_no_values():
    with pytest.raises(RuntimeError, match="no values before the first prediction"):
        _ = ArrayAccumulator(1, (2, 2, 2)).values
