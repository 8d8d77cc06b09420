from __future__ import annotations

import numpy as np
import torch

from volseg.transforms.foreground import ForegroundIndicesd, foreground_indices, known_rows


def label(shape: tuple[int, ...] = (1, 17, 9, 13)) -> np.ndarray:
    return np.random.default_rng(0).choice(np.array([0, 0, 0, 1, 2, 255], np.uint8), shape)


def test_positions_are_those_of_the_labelled_voxels() -> None:
    values = label()
    expected = np.flatnonzero((values[0] > 0) & (values[0] != 255))
    assert np.array_equal(foreground_indices(values), expected)


def test_slabs_and_strides_do_not_change_the_positions(monkeypatch) -> None:
    values = label()
    whole = foreground_indices(values, max_indices=50, seed=3)
    monkeypatch.setattr("volseg.transforms.volume.SLAB_VOXELS", 200)
    assert np.array_equal(foreground_indices(np.asfortranarray(values), max_indices=50, seed=3), whole)


def test_a_draw_is_without_repetition_and_by_its_seed() -> None:
    values = label()
    everything = set(foreground_indices(values).tolist())
    first = foreground_indices(values, max_indices=40, seed=1)
    assert len(set(first.tolist())) == 40
    assert set(first.tolist()) <= everything
    assert np.array_equal(first, foreground_indices(values, max_indices=40, seed=1))
    assert not np.array_equal(first, foreground_indices(values, max_indices=40, seed=2))


def test_every_voxel_is_equally_likely() -> None:
    values = np.ones((1, 20, 3, 5), np.uint8)
    drawn = np.concatenate([foreground_indices(values, max_indices=60, seed=seed) for seed in range(200)])
    counts = np.bincount(drawn, minlength=300)
    assert counts.mean() == 40
    assert counts.std() < 2 * np.sqrt(200 * 0.2 * 0.8)


def test_an_empty_label_has_no_positions() -> None:
    item = ForegroundIndicesd()({"label": torch.zeros(1, 3, 4, 5, dtype=torch.uint8)})
    assert item["label_foreground"].shape == (0,)
    assert item["label_foreground"].dtype == torch.int64


def test_the_rows_are_the_slices_in_which_something_is_known(monkeypatch) -> None:
    values = np.full((1, 17, 9, 13), 255, np.uint8)
    values[0, 3:11, 2, 5:13:3] = 0
    for slab_voxels in (1 << 22, 100):
        monkeypatch.setattr("volseg.transforms.volume.SLAB_VOXELS", slab_voxels)
        assert [rows.tolist() for rows in known_rows(values)] == [[*range(3, 11)], [2], [5, 8, 11]]


def test_all_rows_of_a_label_that_knows_nothing_are_kept() -> None:
    assert list(map(len, known_rows(np.full((1, 4, 5, 6), 255, np.uint8)))) == [4, 5, 6]


def test_balanced_positions_meet_every_class_alike() -> None:
    values = label()
    values[values == 1] = 2
    values[0].flat[foreground_indices(values)[:3]] = 1
    positions = ForegroundIndicesd(balance=True)({"label": torch.from_numpy(values)})["label_foreground"]
    counts = np.bincount(values[0].flat[positions.numpy()])
    assert counts[1] == counts[2] == (values == 2).sum()
    assert counts.sum() == 2 * counts[1]


def test_balanced_positions_stay_within_their_number() -> None:
    values = np.full((1, 4, 5, 6), 3, np.uint8)
    values[0, 0] = 1
    item = ForegroundIndicesd(max_indices=20, balance=True)({"label": torch.from_numpy(values)})
    assert np.bincount(values[0].flat[item["label_foreground"].numpy()]).tolist() == [0, 10, 0, 10]


def test_a_balanced_empty_label_has_no_positions() -> None:
    item = ForegroundIndicesd(balance=True)({"label": torch.zeros(1, 3, 4, 5, dtype=torch.uint8)})
    assert item["label_foreground"].shape == (0,)
