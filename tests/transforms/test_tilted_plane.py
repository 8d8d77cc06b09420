from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from volseg.transforms.tilted_plane import plane_positions, sample_linear, sample_nearest, tilted_frame

SHAPE = (2, 19, 17, 23)


def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60000, SHAPE, dtype=np.uint16)


def positions() -> np.ndarray:
    frame = tilted_frame(1, 0.4, 2.0)
    return plane_positions(np.array([9.0, 8.5, 11.25]), frame, 3, (27, 31), 0.9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_tilted_frame_is_orthonormal_and_leans_by_its_angle(axis: int) -> None:
    frame = tilted_frame(axis, 0.3, 1.2)
    assert np.allclose(frame @ frame.T, np.eye(3))
    assert frame[0, axis] == pytest.approx(np.cos(0.3))
    assert np.linalg.det(frame) == pytest.approx(np.linalg.det(tilted_frame(axis, 0.0, 0.0)))


def test_linear_sampling_agrees_with_scipy() -> None:
    expected = [
        map_coordinates(one.astype(np.float64), positions(), order=1, mode="nearest") for one in volume()
    ]
    assert np.allclose(
        sample_linear(volume(), positions()), expected, atol=0.2
    )  # float32 of 60000 at 1e-6 voxels


def test_nearest_sampling_agrees_with_scipy_and_marks_the_outside() -> None:
    label = (volume() % 4).astype(np.uint8)
    expected = [map_coordinates(one, positions(), order=0, mode="nearest") for one in label]
    inside = np.all(
        [
            (np.floor(p + 0.5) >= 0) & (np.floor(p + 0.5) < n)
            for p, n in zip(positions(), SHAPE[1:], strict=True)
        ],
        0,
    )
    found = sample_nearest(label, positions(), outside=255)
    assert inside.any()
    assert not inside.all()
    assert np.array_equal(found, np.where(inside, expected, 255))


def test_strides_do_not_matter() -> None:
    strided = np.asfortranarray(volume())
    assert np.array_equal(sample_linear(strided, positions()), sample_linear(volume(), positions()))
    assert np.array_equal(
        sample_nearest(strided, positions(), outside=0), sample_nearest(volume(), positions(), outside=0)
    )


def test_a_volume_one_voxel_thick_is_sampled() -> None:
    thin = volume()[:, :1]
    assert sample_linear(thin, positions()).shape == (2, 3, 27, 31)
