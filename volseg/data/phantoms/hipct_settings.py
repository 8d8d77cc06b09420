"""The drawn numbers behind one HiP-CT-like rendering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["HipctSettings"]


@dataclass(frozen=True)
class HipctSettings:
    """Everything about the look of one rendering that is drawn once and then only applied.

    Grey levels are in contrast units: tissue is about 0, one unit is the size of an ordinary difference
    between materials. `level` and `counts_per_unit` turn units into 16-bit counts at the very end. Lengths
    are voxels.

    Attributes:
        lumen_contrast: lumen minus tissue; its sign is the polarity.
        lumen_variation: deviation of the logarithm of the lumen contrast along the vessels.
        clot_fraction: share of the lumen that holds something of another grey level.
        clot_contrast: that level minus tissue.
        wall_contrast: vessel wall minus tissue.
        wall_width: thickness of the wall.
        texture: amplitudes of the tissue texture at 1.2, 3, 8 and 30 voxels.
        blob_contrast: glomerulus-like blobs minus tissue; either sign.
        blob_radius: their radius.
        blob_fraction: share of the tissue that they take.
        tubule_contrast: thin winding non-vascular tubules minus tissue.
        tubule_radius: their radius.
        sheet_contrast: septa and cracks minus tissue.
        cavity_contrast: large smooth spaces (calyces, fat) minus tissue.
        cavity_fraction: share of the tissue that they take.
        cortex_contrast: cortex minus medulla.
        cortex_depth: how far the cortex reaches below the capsule.
        stripe_amplitude: medullary striping.
        organ_margin: distance from the outermost vessels to the capsule; None where the field lies inside.
        capsule_contrast: bright or dark line at the capsule.
        medium_contrast: embedding medium minus tissue.
        medium_texture: amplitude of the crushed gel blocks of the medium.
        medium_block: width of these blocks.
        bias: amplitude of the smooth multiplicative and additive field.
        ring_amplitude: concentric rings around an axis along z.
        ring_centre: (x, y) of the axis as fractions of the field, inside it or near it.
        streak_amplitude: straight streaks from dense spots.
        spots_per_million: bright or dark outliers per million voxels.
        spot_contrast: their brightness.
        blur_sigma: deviation of the Gaussian point spread.
        noise_sigma: deviation of the noise at tissue level.
        noise_gain: growth of the noise variance per unit of signal, the Poisson part.
        noise_correlation: deviation of the Gaussian that correlates the noise.
        drift: slice-to-slice drift of level and gain.
        level: counts of tissue.
        counts_per_unit: counts of one contrast unit.
    """

    lumen_contrast: float = -1.0
    lumen_variation: float = 0.2
    clot_fraction: float = 0.0
    clot_contrast: float = 0.0
    wall_contrast: float = 0.5
    wall_width: int = 1
    texture: tuple[float, float, float, float] = (0.2, 0.15, 0.15, 0.2)
    blob_contrast: float = 0.3
    blob_radius: float = 2.0
    blob_fraction: float = 0.03
    tubule_contrast: float = 0.2
    tubule_radius: float = 1.0
    sheet_contrast: float = 0.0
    cavity_contrast: float = 0.0
    cavity_fraction: float = 0.0
    cortex_contrast: float = 0.3
    cortex_depth: float = 20.0
    stripe_amplitude: float = 0.1
    organ_margin: float | None = None
    capsule_contrast: float = 0.0
    medium_contrast: float = -1.0
    medium_texture: float = 0.4
    medium_block: float = 12.0
    bias: float = 0.1
    ring_amplitude: float = 0.1
    ring_centre: tuple[float, float] = (0.5, 0.5)
    streak_amplitude: float = 0.0
    spots_per_million: float = 5.0
    spot_contrast: float = 5.0
    blur_sigma: float = 0.7
    noise_sigma: float = 0.4
    noise_gain: float = 0.0
    noise_correlation: float = 0.3
    drift: float = 0.02
    level: float = 21400.0
    counts_per_unit: float = 600.0

    @classmethod
    def draw(cls, seed: int) -> HipctSettings:
        """Draw the settings of one rendering; about one in eight looks like light-sheet microscopy.

        Example:
            >>> HipctSettings.draw(3) == HipctSettings.draw(3)
            True
        """
        rng = np.random.default_rng([seed, 20])
        numbers: dict[str, Any] = {}
        for part in (_draw_vessels, _draw_tissue, _draw_surroundings, _draw_detector):
            numbers.update(part(rng))
        numbers.update(_keep_visible(numbers))
        if rng.random() < 0.12:
            numbers.update(_draw_fluorescence(rng))
        return cls(**numbers)


def _sign(rng: np.random.Generator, share_positive: float = 0.5) -> float:
    return 1.0 if rng.random() < share_positive else -1.0


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _often(rng: np.random.Generator, share: float, value: float) -> float:
    return float(value) if rng.random() < share else 0.0


def _draw_vessels(rng: np.random.Generator) -> dict[str, object]:
    # HiP-CT after ethanol embedding shows lumens darker than tissue more often than brighter; some are nearly
    # equal and only the wall tells them apart.
    kind = rng.choice(["clear", "faint", "wall"], p=[0.6, 0.3, 0.1])
    strength = {"clear": (0.8, 2.5), "faint": (0.35, 0.8), "wall": (0.1, 0.3)}[str(kind)]
    wall = _sign(rng, 0.8) * rng.uniform(0.1, 1.2)
    if kind == "wall":
        wall = _sign(rng, 0.8) * rng.uniform(0.8, 1.8)
    return {
        "lumen_contrast": _sign(rng, 0.4) * _log_uniform(rng, *strength),
        "lumen_variation": rng.uniform(0.0, 0.35),
        "clot_fraction": _often(rng, 0.25, rng.uniform(0.05, 0.3)),
        "clot_contrast": _sign(rng) * rng.uniform(0.3, 1.5),
        "wall_contrast": wall,
        "wall_width": int(rng.choice([1, 2], p=[0.85, 0.15])),
    }


def _draw_tissue(rng: np.random.Generator) -> dict[str, object]:
    return {
        "texture": tuple(_log_uniform(rng, 0.04, top) for top in (0.3, 0.45, 0.45, 0.7)),
        "blob_contrast": _sign(rng) * rng.uniform(0.2, 1.2),
        "blob_radius": rng.uniform(1.0, 3.5),
        "blob_fraction": _often(rng, 0.8, _log_uniform(rng, 0.004, 0.08)),
        "tubule_contrast": _often(rng, 0.6, _sign(rng) * rng.uniform(0.1, 0.5)),
        "tubule_radius": rng.uniform(0.6, 1.4),
        "sheet_contrast": _often(rng, 0.35, _sign(rng) * rng.uniform(0.2, 1.2)),
        "cavity_contrast": _sign(rng) * rng.uniform(0.4, 2.0),
        "cavity_fraction": _often(rng, 0.35, rng.uniform(0.01, 0.12)),
        "cortex_contrast": _sign(rng) * rng.uniform(0.0, 0.8),
        "cortex_depth": rng.uniform(10.0, 45.0),
        "stripe_amplitude": _often(rng, 0.6, _log_uniform(rng, 0.05, 0.4)),
    }


def _keep_visible(numbers: dict[str, Any]) -> dict[str, object]:
    """Weaken texture and noise in which even a patient reader could not follow a vessel."""
    coarse = numbers["texture"][3]
    hiding = float(np.dot(numbers["texture"][:3], (1.2, 1.2, 0.8))) + 0.6 * numbers["noise_sigma"]
    excess = max(1.0, hiding / max(abs(numbers["lumen_contrast"]), 0.7 * abs(numbers["wall_contrast"])))
    return {
        "texture": (*[amplitude / excess for amplitude in numbers["texture"][:3]], coarse),
        "noise_sigma": numbers["noise_sigma"] / excess,
    }


def _draw_surroundings(rng: np.random.Generator) -> dict[str, object]:
    return {
        "organ_margin": float(rng.uniform(3.0, 14.0)) if rng.random() < 0.65 else None,
        "capsule_contrast": _often(rng, 0.6, _sign(rng, 0.7) * rng.uniform(0.2, 1.2)),
        "medium_contrast": _sign(rng, 0.25) * rng.uniform(0.1, 2.0),
        "medium_texture": _log_uniform(rng, 0.05, 0.8),
        "medium_block": rng.uniform(6.0, 40.0),
    }


def _draw_detector(rng: np.random.Generator) -> dict[str, object]:
    # Half of the volumes sit in a narrow band of the 16-bit range, as the published kidneys do.
    narrow = rng.random() < 0.5
    level = float(rng.uniform(12000, 35000)) if narrow else _log_uniform(rng, 1500, 40000)
    most = min(level, 65535 - level) / 6.0
    return {
        "bias": rng.uniform(0.0, 0.5),
        "ring_amplitude": _often(rng, 0.7, _log_uniform(rng, 0.03, 0.4)),
        "ring_centre": (float(rng.uniform(-0.4, 1.4)), float(rng.uniform(-0.4, 1.4))),
        "streak_amplitude": _often(rng, 0.35, _log_uniform(rng, 0.05, 0.4)),
        "spots_per_million": _often(rng, 0.7, _log_uniform(rng, 0.5, 60.0)),
        "spot_contrast": _sign(rng, 0.8) * rng.uniform(2.0, 12.0),
        "blur_sigma": rng.uniform(0.35, 1.2),
        "noise_sigma": _log_uniform(rng, 0.05, 0.7),
        "noise_gain": _often(rng, 0.5, rng.uniform(0.0, 0.15)),
        "noise_correlation": rng.uniform(0.0, 0.7),
        "drift": _log_uniform(rng, 0.005, 0.1),
        "level": level,
        "counts_per_unit": min(
            _log_uniform(rng, 150, 1500) if narrow else level * rng.uniform(0.05, 0.3), most
        ),
    }


def _draw_fluorescence(rng: np.random.Generator) -> dict[str, object]:
    """Light-sheet look: bright uneven vessels on a dark and nearly empty background."""
    unit = _log_uniform(rng, 100, 600)
    return {
        "lumen_contrast": rng.uniform(4.0, 14.0),
        "lumen_variation": rng.uniform(0.3, 0.8),
        "clot_fraction": 0.0,
        "wall_contrast": rng.uniform(0.5, 2.0),
        "texture": tuple(rng.uniform(0.05, 0.3) for _ in range(4)),
        "cavity_fraction": 0.0,
        "medium_contrast": rng.uniform(-0.5, 0.0),
        "blob_contrast": rng.uniform(0.2, 1.0),
        "ring_amplitude": 0.0,
        "blur_sigma": rng.uniform(0.8, 1.4),
        "noise_sigma": rng.uniform(0.05, 0.3),
        "noise_gain": rng.uniform(0.02, 0.15),
        "level": unit * rng.uniform(1.5, 6.0),
        "counts_per_unit": unit,
    }
