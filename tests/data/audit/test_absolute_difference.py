"""Pruned pairs against a comparison of all pixels of all pairs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.data.audit import find_close_pairs, measure_distance, sample_distances


def brute_force(frames, below):
    wide = frames.astype(np.int64)
    pairs = itertools.combinations(range(len(frames)), 2)
    distances = [(i, j, int(np.abs(wide[i] - wide[j]).sum())) for i, j in pairs]
    return [pair for pair in distances if pair[2] < below]


def found(frames, below):
    return [
        tuple(int(value) for value in pair)
        for pair in zip(*find_close_pairs(frames, below=below), strict=True)
    ]


def near_frames(seed, shape, dtype, below):
    """Frames made from each other by changes that end at the threshold, one below and one above it."""
    generator = np.random.default_rng(seed)
    information = np.iinfo(dtype)
    base = generator.integers(information.min, int(information.max) + 1, shape, dtype=dtype)
    frames = [base]
    for change in (below - 1, below, below + 1, 1, 0):
        frame = frames[generator.integers(len(frames))].astype(np.int64)
        left = change
        for place in generator.permutation(frame.size):
            value = frame.flat[place]
            room = max(information.max - value, value - information.min)
            step = min(left, int(generator.integers(0, room + 1)) if left > 3 else left, room)
            up = information.max - value >= step and (
                generator.random() < 0.5 or value - step < information.min
            )
            frame.flat[place] += step if up else -step
            left -= step
            if not left:
                break
        frames.append(frame.astype(dtype))
    # the same pixels in another order: block sums of the whole frame are equal, and the distance is not 0
    frames.append(generator.permutation(base.ravel()).reshape(shape))
    frames.append(generator.integers(information.min, int(information.max) + 1, shape, dtype=dtype))
    return np.stack(frames)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1), (1, 9), (5, 3), (17, 70), (66, 13), (3, 5, 3)]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int8, np.int16]),
    below=st.sampled_from([1, 2, 40, 1000, 50000]),
)
def test_it_finds_precisely_what_a_comparison_of_all_pixels_finds(seed, shape, dtype, below):
    frames = near_frames(seed, shape, dtype, below)
    assert found(frames, below) == brute_force(frames, below)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_it_is_exact_for_any_small_frames(data):
    count = data.draw(st.integers(0, 6))
    values = st.lists(st.integers(0, 255), min_size=6, max_size=6)
    rows = data.draw(st.lists(values, min_size=count, max_size=count))
    frames = np.array(rows, dtype=np.uint8).reshape(count, 2, 3)
    below = data.draw(st.integers(1, 1600))
    assert found(frames, below) == brute_force(frames, below)


def test_a_distance_equal_to_the_threshold_is_not_below_it():
    frames = np.zeros((2, 9, 7), dtype=np.uint8)
    frames[1, 4, 4] = 10
    assert found(frames, 10) == []
    assert found(frames, 11) == [(0, 1, 10)]


def test_the_widest_sums_do_not_overflow():
    frames = np.zeros((3, 200, 300), dtype=np.uint16)
    frames[1] = 65535
    frames[2] = 65535
    frames[2, 0, 0] = 65534
    largest = 200 * 300 * 65535
    assert found(frames, 2) == [(1, 2, 1)]
    assert found(frames, largest + 1) == [(0, 1, largest), (0, 2, largest - 1), (1, 2, 1)]


def test_signed_frames_of_both_extremes_are_measured():
    frames = np.array([[[-32768, 0]], [[32767, 0]]], dtype=np.int16)
    assert found(frames, 70000) == [(0, 1, 65535)]


def test_masks_are_frames_too():
    frames = np.zeros((2, 4, 4), dtype=bool)
    frames[0, 1, 1] = True
    assert found(frames, 5) == [(0, 1, 1)]


def test_many_equal_frames_give_every_pair_once():
    frames = np.full((60, 5, 6), 7, dtype=np.uint8)
    pairs = find_close_pairs(frames, below=1)
    assert len(set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))) == 60 * 59 // 2
    assert (pairs.first < pairs.second).all()
    assert not pairs.distance.any()


def test_parts_of_bounded_size_lose_no_pair(monkeypatch):
    frames = near_frames(3, (9, 11), np.uint8, 300)
    expected = found(frames, 300)
    monkeypatch.setattr("volseg.data.audit.absolute_difference._PAIRS_AT_ONCE", 2)
    monkeypatch.setattr("volseg.data.audit.absolute_difference._NUMBERS_AT_ONCE", 3)
    monkeypatch.setattr("volseg.data.audit.absolute_difference._FRAME_BYTES_AT_ONCE", 1)
    assert found(frames, 300) == expected == brute_force(frames, 300)


def test_memory_mapped_frames_are_not_copied_into_memory(tmp_path):
    stack = np.lib.format.open_memmap(tmp_path / "frames.npy", mode="w+", dtype=np.uint8, shape=(4, 30, 20))
    stack[2] = 9
    assert found(stack, 1) == [(0, 1, 0), (0, 3, 0), (1, 3, 0)]


def test_the_distance_is_symmetric_and_zero_for_equal_arrays():
    first, second = np.random.default_rng(0).integers(0, 256, (2, 13, 9), dtype=np.uint8)
    assert measure_distance(first, second) == measure_distance(second, first) > 0
    assert measure_distance(first, first) == 0


def test_a_small_set_is_sampled_whole_and_a_large_one_by_seed():
    frames = np.random.default_rng(1).integers(0, 256, (9, 5, 5), dtype=np.uint8)
    everything = [distance for _, _, distance in brute_force(frames, 10**9)]
    assert sample_distances(frames, 36).tolist() == everything
    drawn = sample_distances(frames, 20, seed=4)
    assert drawn.tolist() == sample_distances(frames, 20, seed=4).tolist()
    assert set(drawn.tolist()) <= set(everything)


@pytest.mark.parametrize("below", [0, -3, 1.5, True])
def test_a_threshold_below_one_is_refused(below):
    with pytest.raises(ValueError, match="below must be a whole number from 1"):
        find_close_pairs(np.zeros((2, 3, 3), np.uint8), below=below)


def test_floating_point_frames_are_refused():
    with pytest.raises(TypeError, match="integers of 8 or 16 bit, got float32"):
        find_close_pairs(np.zeros((2, 3, 3), np.float32), below=1)


@pytest.mark.parametrize("shape", [(4, 4), (2, 0, 4), (2, 2, 2, 2, 2)])
def test_frames_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="must have the shape"):
        find_close_pairs(np.zeros(shape, np.uint8), below=1)
