"""The drawn numbers behind one OCT phantom, and the grid that they are laid on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from volseg.data.phantoms.noise_fields import FloatVolume, smooth_noise

__all__ = ["OctField", "OctSettings"]

Seed = int | Sequence[int]


@dataclass(frozen=True)
class OctSettings:
    """Everything about one volume that is drawn once and then only applied.

    Reflectivity is a level: 0 is the noise of the vitreous, 1 about the retinal pigment epithelium, and steps
    are logarithmic, as they are on the screen. Layers are told from the top: nerve fibres, ganglion cells,
    inner plexiform, inner nuclear, outer plexiform, outer nuclear, inner segments, ellipsoid line, outer
    segments, pigment epithelium.

    Attributes:
        field_mm: extent (x, y, z) of the volume.
        edema_probability: of a retinal edema area (class 1) in a volume; unless 0, subretinal fluid mostly
            brings one along.
        srf_probability: of subretinal fluid (class 2).
        ped_probability: of pigment epithelial detachments (class 3).
        floor: depth of Bruch's membrane in the middle, as a fraction of the field.
        tilt_mm: rise of the retina from end to end along (x, z).
        sag_mm: how much higher the retina lies at the ends than in the middle.
        waves_um: deviation of its slow waves.
        layers_um: thickness of the ten layers away from the fovea.
        layer_levels: their reflectivity.
        fovea: its (x, z) place as fractions of the field; it may lie outside.
        pit: share of the inner layers that is missing in the fovea.
        fibre_slope: relative growth of the nerve fibres from one end of x to the other.
        edema_um: growth of the retina in the middle of an edema.
        cysts_per_mm2: dark spaces in an edema; 0 for a diffuse one.
        cyst_level: their reflectivity.
        ped_level: reflectivity below a detachment: serous ones are dark, vascular ones are grey.
        spots: number of bright spots without a label.
        vessels: number of vessels that throw shadows.
        shadow: what is lost below them.
        vignette: loss of signal that varies slowly over the field.
        hyaloid_um: distance of a detached vitreous membrane; None without one.
        choroid_level: reflectivity under the epithelium.
        choroid_fade_um: depth in which it falls to a third.
        choroid_texture: amplitude of the vessels in it.
        texture: amplitude of slow variation within layers.
        range_db: what level 1 is above the noise.
        speckle: exponent of the speckle in small voxels; 1 for a single look, less for averaged frames.
        speckle_size: deviation (x, y) of its grains in voxels; 0 for no correlation.
        noise: exponent of the detector noise in small voxels.
        spread: deviation of the point spread in voxels.
        softness: deviation of the blur of the finished picture in voxels.
        black: grey value of level 0.
        white: grey value of level 1.
        flicker: relative change of brightness from B-scan to B-scan.
        motion_um: axial movement of the eye between B-scans.
        registered: whether that was undone, which leaves blank margins instead.
        blank_columns: share of x without data at one end.
        margin_grey: grey value of margins.
    """

    field_mm: tuple[float, float, float] = (6.0, 2.0, 6.0)
    edema_probability: float = 0.7
    srf_probability: float = 0.5
    ped_probability: float = 0.4
    floor: float = 0.7
    tilt_mm: tuple[float, float] = (0.1, 0.0)
    sag_mm: float = 0.15
    waves_um: float = 15.0
    layers_um: tuple[float, ...] = (32.0, 38.0, 36.0, 34.0, 24.0, 68.0, 22.0, 14.0, 22.0, 26.0)
    layer_levels: tuple[float, ...] = (0.75, 0.55, 0.6, 0.38, 0.55, 0.28, 0.34, 0.85, 0.55, 1.0)
    fovea: tuple[float, float] = (0.5, 0.5)
    pit: float = 0.85
    fibre_slope: float = 0.6
    edema_um: float = 200.0
    cysts_per_mm2: float = 6.0
    cyst_level: float = 0.06
    ped_level: float = 0.1
    spots: int = 20
    vessels: int = 6
    shadow: float = 0.35
    vignette: float = 0.05
    hyaloid_um: float | None = None
    choroid_level: float = 0.65
    choroid_fade_um: float = 150.0
    choroid_texture: float = 0.12
    texture: float = 0.04
    range_db: float = 24.0
    speckle: float = 0.6
    speckle_size: tuple[float, float] = (0.6, 0.4)
    noise: float = 0.5
    spread: float = 0.5
    softness: float = 0.0
    black: float = 24.0
    white: float = 140.0
    flicker: float = 0.03
    motion_um: float = 10.0
    registered: bool = False
    blank_columns: float = 0.0
    margin_grey: int = 0

    @classmethod
    def draw(cls, seed: Seed) -> OctSettings:
        """Draw the settings of one volume; the probabilities of the lesions keep their defaults.

        Example:
            >>> OctSettings.draw(3) == OctSettings.draw(3)
            True
        """
        rng = np.random.default_rng([*_listed(seed), 20])
        numbers: dict[str, Any] = {}
        for part in (_draw_shape, _draw_tissue, _draw_detector, _draw_motion):
            numbers.update(part(rng))
        return cls(**numbers)


@dataclass(frozen=True)
class OctField:
    """A grid of (x, y, z) voxels over the field of one volume."""

    size: tuple[int, int, int]
    field_mm: tuple[float, float, float]

    @cached_property
    def edges_mm(self) -> tuple[float, ...]:
        """Edge lengths of a voxel."""
        return tuple(length / n for length, n in zip(self.field_mm, self.size, strict=True))

    @cached_property
    def um_per_row(self) -> float:
        """Depth of a voxel."""
        return 1000.0 * self.edges_mm[1]

    @cached_property
    def x_mm(self) -> FloatVolume:
        """(x, 1) places of A-scans."""
        return ((np.arange(self.size[0], dtype=np.float32) + np.float32(0.5)) * self.edges_mm[0])[:, None]

    @cached_property
    def z_mm(self) -> FloatVolume:
        """(1, z) places of B-scans."""
        return ((np.arange(self.size[2], dtype=np.float32) + np.float32(0.5)) * self.edges_mm[2])[None]

    def waves(self, rng: np.random.Generator, length_mm: float) -> FloatVolume:
        """Smooth noise (x, z) of that correlation length, unit deviation."""
        shape = (self.size[0], self.size[2])
        return smooth_noise(rng, shape, (length_mm / self.edges_mm[0], length_mm / self.edges_mm[2]))


def seeded(seed: Seed, part: int) -> np.random.Generator:
    """A generator for one part of a volume, so that parts do not shift each other's numbers."""
    return np.random.default_rng([*_listed(seed), part])


def _listed(seed: Seed) -> list[int]:
    return [seed] if isinstance(seed, int) else list(seed)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _often(rng: np.random.Generator, share: float, value: float) -> float:
    return float(value) if rng.random() < share else 0.0


def _draw_shape(rng: np.random.Generator) -> dict[str, object]:
    usual = np.asarray(OctSettings.layers_um)
    grown = usual * rng.uniform(0.85, 1.2) * np.exp(rng.normal(0.0, 0.12, size=len(usual)))
    return {
        "field_mm": (rng.uniform(4.5, 7.5), rng.uniform(1.7, 2.3), rng.uniform(5.0, 7.0)),
        "floor": rng.uniform(0.42, 0.88),
        "tilt_mm": (rng.normal(0.0, 0.22), rng.normal(0.0, 0.06)),
        "sag_mm": _log_uniform(rng, 0.03, 0.45) * (1.0 if rng.random() < 0.9 else -0.4),
        "waves_um": _log_uniform(rng, 4.0, 25.0),
        "layers_um": tuple(float(length) for length in grown),
        "fovea": (float(np.clip(rng.normal(0.5, 0.12), -0.2, 1.2)), float(rng.normal(0.5, 0.08))),
        "pit": rng.uniform(0.6, 0.95),
        "fibre_slope": rng.uniform(-1.2, 1.2),
        "edema_um": _log_uniform(rng, 50.0, 380.0),
        "cysts_per_mm2": _often(rng, 0.85, _log_uniform(rng, 3.0, 35.0)),
        "cyst_level": rng.uniform(0.02, 0.15),
    }


def _draw_tissue(rng: np.random.Generator) -> dict[str, object]:
    usual = np.asarray(OctSettings.layer_levels)
    levels = np.clip(usual + rng.normal(0.0, 0.06, size=len(usual)), 0.15, 1.1)
    levels[:6] += rng.uniform(-0.12, 0.12)
    return {
        "layer_levels": tuple(float(level) for level in np.clip(levels, 0.15, 1.1)),
        "ped_level": rng.uniform(0.02, 0.15) if rng.random() < 0.55 else rng.uniform(0.15, 0.45),
        "spots": int(_often(rng, 0.75, _log_uniform(rng, 5.0, 200.0))),
        "vessels": int(rng.integers(2, 13)),
        "shadow": rng.uniform(0.08, 0.45),
        "vignette": _log_uniform(rng, 0.01, 0.12),
        "hyaloid_um": float(rng.uniform(30.0, 200.0)) if rng.random() < 0.2 else None,
        "choroid_level": rng.uniform(0.45, 0.8),
        "choroid_fade_um": _log_uniform(rng, 60.0, 300.0),
        "choroid_texture": rng.uniform(0.05, 0.2),
        "texture": rng.uniform(0.01, 0.07),
    }


def _draw_detector(rng: np.random.Generator) -> dict[str, object]:
    black = rng.uniform(4.0, 45.0)
    # Averaged frames have both: little speckle and little noise.
    looks = rng.uniform(0.25, 0.95)
    return {
        "range_db": rng.uniform(16.0, 34.0),
        "speckle": float(np.clip(looks + rng.normal(0.0, 0.1), 0.2, 1.0)),
        "speckle_size": (_often(rng, 0.8, rng.uniform(0.3, 1.4)), rng.uniform(0.0, 0.8)),
        "noise": float(np.clip(looks + rng.normal(0.0, 0.15), 0.2, 1.0)),
        "spread": rng.uniform(0.3, 0.9),
        "softness": _often(rng, 0.5, rng.uniform(0.3, 0.8)),
        "black": black,
        "white": rng.uniform(max(90.0, black + 65.0), 245.0),
        "flicker": _log_uniform(rng, 0.005, 0.06),
    }


def _draw_motion(rng: np.random.Generator) -> dict[str, object]:
    registered = bool(rng.random() < 0.5)
    return {
        "motion_um": _log_uniform(rng, 3.0, 80.0 if registered else 25.0),
        "registered": registered,
        "blank_columns": _often(rng, 0.1, rng.uniform(0.01, 0.1)),
        "margin_grey": 255 if rng.random() < 0.1 else 0,
    }
