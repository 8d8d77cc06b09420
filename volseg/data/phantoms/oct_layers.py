"""Surfaces of the retinal layers of an OCT phantom, lifted by what lies below and within them.

surface 0  ---- inner limiting membrane          layers 0 to 8: nerve fibres to outer segments
surface 9  ---- tips of the photoreceptors       layer 9: subretinal fluid, mostly nothing
surface 10 ---- top of the pigment epithelium    layer 10: pigment epithelium
surface 11 ---- its lower side                   layer 11: detachment, mostly nothing
surface 12 ---- Bruch's membrane                 choroid below
"""

from __future__ import annotations

import numpy as np

from volseg.data.phantoms.noise_fields import FloatVolume, blur
from volseg.data.phantoms.oct_lesions import OctLesions
from volseg.data.phantoms.oct_settings import OctField, OctSettings

__all__ = ["LAYERS", "PED", "RPE", "SRF", "lay_surfaces", "motion_um"]

LAYERS = 12
"""Number of layers, two of which are empty in health."""

SRF, RPE, PED = 9, 10, 11

_BLANKET_MM = 0.17
_PIT = np.array([1.0, 1.0, 1.0, 0.95, 0.6, -0.55, -0.15, 0.0, -0.3, 0.0])  # who makes room in the fovea
_SWELLING = np.array([0.02, 0.08, 0.06, 0.28, 0.14, 0.42, 0.0, 0.0, 0.0, 0.0])  # who takes up an edema


def lay_surfaces(
    rng: np.random.Generator, field: OctField, look: OctSettings, lesions: OctLesions
) -> FloatVolume:
    """Depth of the thirteen surfaces in voxels, (13, x, z), from the inner limiting membrane down."""
    thickness = _drape(field, _thickness(rng, field, look, lesions.edema), lesions)
    heights = [*thickness[:9], lesions.srf_um, thickness[9], lesions.ped_um]
    rows = [height / np.float32(field.um_per_row) for height in heights]
    surfaces = [_membrane(rng, field, look)]
    for layer in reversed(rows):
        surfaces.append(surfaces[-1] - layer)
    return np.stack(surfaces[::-1]).astype(np.float32)


def _drape(field: OctField, thickness: list[FloatVolume], lesions: OctLesions) -> list[FloatVolume]:
    """Stretch and squeeze the layers above a dome, so that the retina lies over it as a blanket does."""
    lift = lesions.srf_um + lesions.ped_um
    smooth = blur(lift, (_BLANKET_MM / field.edges_mm[0], _BLANKET_MM / field.edges_mm[2]))
    factor = np.clip(1.0 + (smooth - lift) / sum(thickness[:6]), 0.6, 1.8).astype(np.float32)
    return [height * factor if number < 6 else height for number, height in enumerate(thickness)]


def _membrane(rng: np.random.Generator, field: OctField, look: OctSettings) -> FloatVolume:
    """Depth of Bruch's membrane (x, z) in voxels."""
    x, z = field.x_mm / field.field_mm[0] - 0.5, field.z_mm / field.field_mm[2] - 0.5
    depth_mm = look.floor * field.field_mm[1] + look.tilt_mm[0] * x + look.tilt_mm[1] * z
    depth_mm = depth_mm - 4.0 * look.sag_mm * (x * x + 0.3 * z * z)
    depth_um = 1000.0 * depth_mm + look.waves_um * field.waves(rng, 1.2)
    if not look.registered:
        depth_um = depth_um + motion_um(rng, field, look)
    return (depth_um / field.um_per_row).astype(np.float32)


def motion_um(rng: np.random.Generator, field: OctField, look: OctSettings) -> FloatVolume:
    """(z,) axial place of the eye: breathing and pulse, and a little that has no rhythm."""
    time = np.arange(field.size[2])
    waves = sum(
        np.sin(2.0 * np.pi * (time / rng.uniform(4.0, 24.0) + rng.random())) / number for number in (1, 2, 3)
    )
    return (look.motion_um * (waves / 1.5 + rng.normal(0.0, 0.15, size=len(time)))).astype(np.float32)


def _thickness(
    rng: np.random.Generator, field: OctField, look: OctSettings, edema: FloatVolume
) -> list[FloatVolume]:
    """Ten maps (x, z) in micrometres."""
    from_fovea = np.hypot(
        field.x_mm - look.fovea[0] * field.field_mm[0], field.z_mm - look.fovea[1] * field.field_mm[2]
    )
    pit = np.exp(-0.5 * (from_fovea / rng.uniform(0.3, 0.5)) ** 2)
    rim = np.exp(-0.5 * ((from_fovea - 1.1) / 0.6) ** 2)
    fibres = 1.0 + look.fibre_slope * (field.x_mm / field.field_mm[0] - 0.5) * (1.0 - pit)
    swelling = _SWELLING * np.exp(rng.normal(0.0, 0.35, size=10))
    swelling *= look.edema_um / swelling.sum()
    swollen = edema * (1.0 + 0.12 * np.clip(field.waves(rng, 0.8), -2.0, 2.0))
    open_pit = look.pit * pit * (1.0 - 0.7 * edema)
    maps = []
    for number, usual in enumerate(look.layers_um):
        height = usual * (1.0 - _PIT[number] * open_pit) * (1.0 + 0.12 * rim * (number < 4))
        height = height * (1.0 + 0.05 * np.clip(field.waves(rng, 0.5), -3.0, 3.0))
        if number == 0:
            height = height * np.maximum(fibres, 0.3)
        maps.append(np.maximum(height + swelling[number] * swollen, 1.0).astype(np.float32))
    return maps
