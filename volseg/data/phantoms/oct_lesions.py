"""Where an OCT phantom is ill: edema, domes of fluid, cysts and bright spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volseg.data.phantoms.noise_fields import FloatVolume, soft_step
from volseg.data.phantoms.oct_settings import OctField, OctSettings

__all__ = ["OctLesions", "paint_cysts", "paint_spots", "place_lesions"]

_EDGE = 0.25  # an annotator sees an edema where it has this share of its growth
_MOST_CYSTS = 250
_SRF_UM_PER_MM, _PED_UM_PER_MM = (80.0, 280.0), (140.0, 420.0)  # height for the radius
_INNER_NUCLEAR, _OUTER_NUCLEAR = 3, 5


@dataclass(frozen=True)
class OctLesions:
    """Maps (x, z) over the field.

    Attributes:
        edema: growth of the retina, 0 to 1.
        srf_um: height of the fluid below the photoreceptors.
        ped_um: height of the space below the pigment epithelium.
    """

    edema: FloatVolume
    srf_um: FloatVolume
    ped_um: FloatVolume

    @property
    def edema_area(self) -> npt.NDArray[np.bool_]:
        """(x, z) where an annotator would draw the retinal edema area."""
        return self.edema > _EDGE


def place_lesions(rng: np.random.Generator, field: OctField, look: OctSettings) -> OctLesions:
    """Draw which lesions there are, and their places."""
    shape = (field.size[0], field.size[2])
    edema, srf, ped = (np.zeros(shape, dtype=np.float32) for _ in range(3))
    probabilities = (look.edema_probability, look.srf_probability, look.ped_probability)
    has_edema, has_srf, has_ped = rng.random(3) < probabilities
    # Fluid below the retina seldom comes without an edema around it.
    is_around_srf = rng.random() < 0.9 and look.edema_probability > 0
    if has_edema:
        edema = _area(*_radius(rng, field, look, (0.8, 2.4)))
        if rng.random() < 0.25:
            edema = np.maximum(edema, _area(*_radius(rng, field, look, (0.6, 1.2))))
    if has_srf:
        for number in range(1 + int(rng.random() < 0.2)):
            radius, width_mm = _radius(rng, field, look, (0.6, 2.0) if number == 0 else (0.3, 0.7))
            height_um = width_mm * _log_uniform(rng, *_SRF_UM_PER_MM)
            srf = np.maximum(srf, height_um * _dome(rng, radius, steep=0.9))
            if is_around_srf:
                edema = np.maximum(edema, _area(radius / rng.uniform(1.05, 1.6), width_mm))
    if has_ped:
        for _ in range(1 + rng.poisson(0.8)):
            radius, width_mm = _radius(rng, field, look, (0.25, 1.2))
            height_um = min(width_mm * _log_uniform(rng, *_PED_UM_PER_MM), 450.0)
            ped = np.maximum(ped, height_um * _dome(rng, radius, steep=0.75))
    return OctLesions(edema=edema, srf_um=srf, ped_um=ped)


def paint_cysts(
    rng: np.random.Generator, field: OctField, look: OctSettings, edema: FloatVolume, samples: int
) -> FloatVolume:
    """Dark spaces in the edema with thin walls between them.

    Args:
        rng: of places and sizes.
        field: the grid.
        look: the settings.
        edema: (x, z) growth, 0 to 1.
        samples: per layer along the second axis.

    Returns:
        (x, 10 layers times samples, z), 1 within a cyst.
    """
    inside = np.zeros((field.size[0], 10 * samples, field.size[2]), dtype=np.float32)
    area_mm2 = np.count_nonzero(edema > 0.35) * field.edges_mm[0] * field.edges_mm[2]
    count = min(rng.poisson(look.cysts_per_mm2 * area_mm2), _MOST_CYSTS)
    if not count:
        return inside
    second = np.zeros_like(inside)
    chance = np.cumsum(np.where(edema > 0.35, edema, 0.0).ravel(), dtype=np.float64)
    places = np.searchsorted(chance / chance[-1], rng.random(count), side="right")
    largest = _log_uniform(rng, 0.08, 0.4)
    for place in places:
        x, z = divmod(int(place), field.size[2])
        radius = largest * rng.uniform(0.3, 1.0)
        kind = rng.random()
        if kind < 0.3:
            middle, height = _INNER_NUCLEAR + rng.uniform(0.4, 0.7), rng.uniform(0.25, 0.5)
        elif kind < 0.85 or radius < 0.12:
            middle, height = _OUTER_NUCLEAR + rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.6)
        else:
            middle, height = _OUTER_NUCLEAR + rng.uniform(-0.4, 0.0), rng.uniform(0.8, 1.3)
        window, ball = _ball(field, (x, middle * samples, z), radius, height * samples)
        second[window] = np.maximum(second[window], np.minimum(inside[window], ball))
        inside[window] = np.maximum(inside[window], ball)
    # Where two cysts are equally near, a wall stays.
    return soft_step(inside - np.float32(0.12), 0.24) * soft_step(inside - second - np.float32(0.1), 0.15)


def paint_spots(rng: np.random.Generator, field: OctField, look: OctSettings, samples: int) -> FloatVolume:
    """Bright exudates in clusters within the middle layers, (x, 10 layers times samples, z), up to 1."""
    bright = np.zeros((field.size[0], 10 * samples, field.size[2]), dtype=np.float32)
    clusters = rng.uniform(0.1, 0.9, size=(4, 2))
    for _ in range(look.spots):
        centre = clusters[rng.integers(len(clusters))] + rng.normal(0.0, 0.08, size=2)
        x, z = (np.clip(centre, 0.0, 0.999) * (field.size[0], field.size[2])).astype(int)
        middle = rng.uniform(1.5, 5.8) * samples
        window, ball = _ball(
            field, (int(x), middle, int(z)), _log_uniform(rng, 0.012, 0.06), rng.uniform(0.1, 0.3) * samples
        )
        strength = np.float32(rng.uniform(0.4, 1.0))
        bright[window] = np.maximum(bright[window], strength * soft_step(ball - np.float32(0.2), 0.4))
    return bright


def _radius(
    rng: np.random.Generator, field: OctField, look: OctSettings, reach_mm: tuple[float, float]
) -> tuple[FloatVolume, float]:
    """Distance (x, z) from a centre near the fovea in units of a wobbling radius, and that radius in mm."""
    extent = np.array([field.field_mm[0], field.field_mm[2]])
    centre = np.clip(rng.normal(look.fovea, 0.16), 0.15, 0.85) * extent
    radii = _log_uniform(rng, *reach_mm) * np.exp(rng.normal(0.0, 0.2) * np.array([1.0, -1.0]))
    # A lesion that fell between two B-scans would be none.
    radii = np.maximum(radii, 2.0 * np.array([field.edges_mm[0], field.edges_mm[2]]))
    dx, dz = (field.x_mm - centre[0]) / radii[0], (field.z_mm - centre[1]) / radii[1]
    wobble = 1.0 + 0.1 * np.clip(field.waves(rng, 0.9 * float(radii.min())), -2.0, 2.0)
    return (np.hypot(dx, dz) * wobble).astype(np.float32), float(radii.min())


def _area(radius: FloatVolume, width_mm: float) -> FloatVolume:
    """A hill with a soft shoulder; narrow ones are lower."""
    rise = np.clip((np.float32(1.3) - radius) / np.float32(0.9), 0.0, 1.0)
    return np.float32(np.clip(width_mm / 1.2, 0.5, 1.0)) * rise * rise * (3.0 - 2.0 * rise)


def _dome(rng: np.random.Generator, radius: FloatVolume, *, steep: float) -> FloatVolume:
    """1 in the middle, 0 from a radius of 1 on: a cone, a parabola or a bell, drawn."""
    power = rng.uniform(1.0, 2.5)
    return np.clip(1.0 - radius**power, 0.0, 1.0) ** np.float32(steep * rng.uniform(0.7, 1.4))


def _ball(
    field: OctField, centre: tuple[int, float, int], radius_mm: float, height: float
) -> tuple[tuple[slice, ...], FloatVolume]:
    """Where an ellipsoid lies in a grid (x, samples, z), and 1 in its middle to 0 at its surface there."""
    radii = (max(radius_mm / field.edges_mm[0], 0.75), height, max(radius_mm / field.edges_mm[2], 0.75))
    window, squares = [], []
    for axis, (middle, radius) in enumerate(zip(centre, radii, strict=True)):
        first, last = max(0, int(np.floor(middle - radius))), int(np.ceil(middle + radius)) + 1
        window.append(slice(first, last if axis == 1 else min(last, field.size[axis])))
        places = np.arange(window[-1].start, window[-1].stop, dtype=np.float32)
        along = ((places - middle) / radius) ** 2
        squares.append(along.reshape([-1 if k == axis else 1 for k in range(3)]))
    return tuple(window), np.clip(1.0 - sum(squares), 0.0, 1.0).astype(np.float32)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
