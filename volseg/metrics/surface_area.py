"""Area of the marching-cubes surface inside one 2x2x2 neighbourhood, for each of its 256 codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from volseg.checks import check_positive

__all__ = ["compute_surface_area_table"]

_Corner = tuple[int, int, int]
_Triangle = tuple[int, int, int]

# Bit b of a code says whether its corner is foreground. The code reads 000, 001, 010, ... 111 from its
# highest bit to its lowest, the first axis slowest, so that the code of a neighbourhood is (first plane <<
# 4) | second.
_CORNERS: tuple[_Corner, ...] = tuple((1 - (b >> 2 & 1), 1 - (b >> 1 & 1), 1 - (b & 1)) for b in range(8))


def compute_surface_area_table(spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """Area in mm² of the surface element that each neighbour code stands for.

    The surface cuts every edge between a foreground and a background corner in its middle. Each connected
    group of corners of the minority (the background's, when more than four are foreground) is cut off by one
    polygon, triangulated so that it bulges outwards: of all triangulations the one of largest area on a
    cubic voxel.

    Args:
        spacing_mm: edge lengths of a voxel along the three axes, in the order of the code's bits.

    Returns:
        256 areas; 0 for the codes 0 and 255, which hold no surface.

    Raises:
        ValueError: when there are not three spacings, all positive and finite.

    Source:
        Lorensen and Cline, Marching cubes (1987); used as weights in Nikolov et al., arXiv:1809.04430.

    Example:
        >>> table = compute_surface_area_table((1.0, 1.0, 2.0))
        >>> float(table[0b00001111]), float(table[0b01010101])  # a face across the first, the last axis
        (2.0, 1.0)
    """
    check_positive("spacing_mm", spacing_mm)
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (3,):
        raise ValueError(f"spacing_mm must hold three edge lengths, got {spacing_mm}; give one per axis")
    # A plane's area vector has in each component the area of its shadow, which two spacings scale.
    shadow = spacing.prod() / spacing
    areas = [np.linalg.norm(vectors * shadow, axis=1).sum() for vectors in _area_vectors()]
    return np.array(areas, dtype=np.float64)


@lru_cache(maxsize=1)
def _area_vectors() -> tuple[npt.NDArray[np.float64], ...]:
    return tuple(np.array(list(_vectors_of(code))).reshape(-1, 3) for code in range(256))


def _vectors_of(code: int) -> Iterator[npt.NDArray[np.float64]]:
    minority = code if code.bit_count() <= 4 else 255 - code
    for group in _connected_groups({corner for bit, corner in enumerate(_CORNERS) if minority >> bit & 1}):
        polygon = _polygon_around(group)
        choices = [_vectors(polygon, triangles) for triangles in _triangulations(tuple(range(len(polygon))))]
        yield from max(choices, key=lambda vectors: float(np.linalg.norm(vectors, axis=1).sum()))


def _connected_groups(corners: set[_Corner]) -> Iterator[set[_Corner]]:
    left = set(corners)
    while left:
        group, border = set(), {left.pop()}
        while border:
            group |= border
            border = {other for corner in border for other in _neighbours(corner)} & left
            left -= border
        yield group


def _neighbours(corner: _Corner) -> Iterator[_Corner]:
    for axis in range(3):
        moved = list(corner)
        moved[axis] = 1 - moved[axis]
        yield moved[0], moved[1], moved[2]


def _polygon_around(group: set[_Corner]) -> npt.NDArray[np.float64]:
    """Middles of the edges that leave a group, in the order in which the surface passes the cube's faces."""
    edges = [(inner, outer) for inner in sorted(group) for outer in _neighbours(inner) if outer not in group]
    path = [edges[0]]
    while len(path) < len(edges):
        path.append(next(edge for edge in edges if edge not in path and _share_a_face(path[-1], edge)))
    return np.array([(np.array(inner) + np.array(outer)) / 2.0 for inner, outer in path])


def _share_a_face(one: tuple[_Corner, _Corner], other: tuple[_Corner, _Corner]) -> bool:
    corners = np.array([*one, *other])
    return bool((corners == corners[0]).all(axis=0).any())


def _triangulations(polygon: tuple[int, ...]) -> Iterator[list[_Triangle]]:
    if len(polygon) < 3:
        yield []
        return
    for k in range(1, len(polygon) - 1):
        for before in _triangulations(polygon[: k + 1]):
            for after in _triangulations(polygon[k:]):
                yield [*before, (polygon[0], polygon[k], polygon[-1]), *after]


def _vectors(polygon: npt.NDArray[np.float64], triangles: list[_Triangle]) -> npt.NDArray[np.float64]:
    a, b, c = (polygon[[triangle[i] for triangle in triangles]] for i in range(3))
    return np.cross(b - a, c - a) / 2.0
