"""How bright the retina and the choroid of an OCT phantom are, in coordinates that follow the layers."""

from __future__ import annotations

import numpy as np

from volseg.data.phantoms.noise_fields import FloatVolume, smooth_noise, soft_step
from volseg.data.phantoms.oct_layers import LAYERS, PED, RPE, SRF
from volseg.data.phantoms.oct_lesions import OctLesions, paint_cysts, paint_spots
from volseg.data.phantoms.oct_settings import OctField, OctSettings

__all__ = ["SAMPLES", "choroid_levels", "retina_levels"]

SAMPLES = 16
"""Samples per layer."""

_FLUID = 0.03


def retina_levels(
    rng: np.random.Generator, field: OctField, look: OctSettings, lesions: OctLesions
) -> tuple[FloatVolume, FloatVolume]:
    """Levels along the layers, and what is lost below the retina.

    Returns:
        (z, x, 12 * SAMPLES + 1): the first sample is the vitreous, the last the top of the choroid; and the
        loss (x, z) that shadows and the vignette leave there.
    """
    levels = _layered(rng, field, look, lesions)
    neural = levels[:, : SRF * SAMPLES]
    cysts = paint_cysts(rng, field, look, lesions.edema, SAMPLES)[:, : SRF * SAMPLES]
    neural += cysts * (np.float32(look.cyst_level) - neural)
    spots = paint_spots(rng, field, look, SAMPLES)[:, : SRF * SAMPLES]
    np.maximum(neural, spots, out=neural)
    vessels = _vessels(rng, field, look)
    loss = np.float32(look.vignette) * np.abs(field.waves(rng, 1.5))
    levels -= loss[:, None]
    # A vessel lies among the nerve fibres: it is a little brighter, and what is below it is darker.
    top, bottom = SAMPLES // 3, int(1.3 * SAMPLES)
    levels[:, top:bottom] += np.float32(0.12) * vessels[:, None]
    shade = np.float32(look.shadow) * vessels
    levels[:, bottom:] -= shade[:, None]
    below_spots = np.minimum(np.cumsum(spots, axis=1) * np.float32(0.8 / SAMPLES), 0.4)
    levels[:, SAMPLES : SRF * SAMPLES] -= below_spots[:, :-SAMPLES]
    levels[:, SRF * SAMPLES :] -= below_spots[:, -1:]
    lost = loss + shade + below_spots[:, -1]
    np.maximum(levels, 0.0, out=levels)
    levels[:, 0] = 0.0
    return np.ascontiguousarray(np.moveaxis(levels, 2, 0)), lost


def choroid_levels(rng: np.random.Generator, field: OctField, look: OctSettings) -> FloatVolume:
    """(z, x, depth below Bruch's membrane in voxels), down to where nothing is left."""
    rows = int(np.clip(4.0 * look.choroid_fade_um / field.um_per_row, 4, field.size[1]))
    depth_um = (np.arange(rows, dtype=np.float32) + np.float32(0.5)) * np.float32(field.um_per_row)
    shape = (field.size[2], field.size[0], rows)
    dz, dx = field.edges_mm[2], field.edges_mm[0]
    # Vessels of the choroid are wide blobs; light scattered in the epithelium leaves streaks.
    blobs = smooth_noise(rng, shape, (0.12 / dz, 0.07 / dx, 40.0 / field.um_per_row))
    streaks = smooth_noise(rng, shape, (0.02 / dz, 0.03 / dx, 60.0 / field.um_per_row))
    level = look.choroid_level * np.exp(-depth_um / look.choroid_fade_um)
    deep = soft_step(depth_um - np.float32(30.0), 40.0)
    swing = np.float32(look.choroid_texture / look.choroid_level) * (blobs + np.float32(0.4) * streaks)
    return np.maximum(level * (1.0 + 1.5 * deep * np.tanh(swing)), 0.0).astype(np.float32)


def _layered(
    rng: np.random.Generator, field: OctField, look: OctSettings, lesions: OctLesions
) -> FloatVolume:
    """(x, 12 * SAMPLES + 1, z) without cysts, spots and shadows."""
    usual = look.layer_levels
    # The inner segments end above in a thin line, the external limiting membrane.
    steps = np.repeat(np.array([*usual[:SRF], _FLUID, usual[9], look.ped_level], np.float32), SAMPLES)
    steps[6 * SAMPLES : 6 * SAMPLES + SAMPLES // 3] += 0.12
    steps[1 : SAMPLES // 3] += np.float32(rng.uniform(-0.05, 0.15))
    neural = steps[: SRF * SAMPLES].copy()
    kernel = np.hanning(SAMPLES // 2 + 2)
    steps[: 6 * SAMPLES] = np.convolve(np.pad(neural, SAMPLES, "edge"), kernel / kernel.sum(), "same")[
        SAMPLES : 7 * SAMPLES
    ]
    shape = (field.size[0], LAYERS * SAMPLES + 1, field.size[2])
    levels = np.empty(shape, dtype=np.float32)
    levels[:] = np.append(steps, np.float32(look.choroid_level))[:, None]
    coarse = (0.15 / field.edges_mm[0], 0.4 * SAMPLES, 0.15 / field.edges_mm[2])
    levels += np.float32(look.texture) * smooth_noise(rng, shape, coarse)
    # Swollen layers scatter less, and less unlike each other.
    swollen = levels[:, 2 * SAMPLES : 6 * SAMPLES]
    blend = np.float32(rng.uniform(0.1, 0.5)) * lesions.edema[:, None]
    swollen += blend * (np.float32(rng.uniform(0.75, 1.0) * np.mean(usual[2:6])) - swollen)
    # A vascular detachment is grey in patches; both kinds of fluid are calm.
    patches = smooth_noise(rng, shape[::2], (0.2 / field.edges_mm[0], 0.2 / field.edges_mm[2]))
    levels[:, PED * SAMPLES : -1] += (np.float32(0.3 * look.ped_level) * patches)[:, None]
    levels[:, SRF * SAMPLES : RPE * SAMPLES] = _FLUID
    # Bruch's membrane stays as a thin line below a detachment.
    levels[:, -2] = np.maximum(levels[:, -2], 0.45)
    return levels


def _vessels(rng: np.random.Generator, field: OctField, look: OctSettings) -> FloatVolume:
    """(x, z) map of vessels seen from above, 1 in their middle; each runs on from B-scan to B-scan."""
    seen = np.zeros((field.size[0], field.size[2]), dtype=np.float32)
    for number in range(look.vessels):
        axes = (field.x_mm, field.z_mm) if number % 2 else (field.z_mm, field.x_mm)
        extents = field.field_mm[::2] if number % 2 else field.field_mm[::-2]
        along, across = axes[0] / extents[0], axes[1]
        middle = rng.uniform(0.0, 1.0) * extents[1] + rng.uniform(-0.6, 0.6) * (along - 0.5) * extents[1]
        for wave in (1, 2, 4):
            middle = middle + rng.normal(0.0, 0.25) / wave * np.sin(2 * np.pi * (wave * along + rng.random()))
        distance = np.abs(across - middle)
        radius, strength = rng.uniform(0.015, 0.07), np.float32(rng.uniform(0.35, 1.0))
        # A vessel that is thinner than a voxel still throws a part of its shadow.
        edge = max(0.05, 0.7 * field.edges_mm[0])
        ends = soft_step((along - np.float32(rng.uniform(-1.0, 0.7))).astype(np.float32), 0.05)
        here = strength * ends * soft_step((radius - distance).astype(np.float32), edge)
        seen = np.maximum(seen, here)
    return seen
