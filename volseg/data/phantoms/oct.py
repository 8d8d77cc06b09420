"""Optical coherence tomography of a diabetic macula, drawn with the label of every voxel.

Nothing here is a measured pixel. Surfaces of layers are laid over a curved membrane and lifted by lesions;
tissue is described in coordinates that follow the layers, and looked up for each B-scan:

    depth y  ->  layer coordinate 0 ... 12  ->  level  ->  light  ->  speckle, noise  ->  logarithm  ->  grey
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import gamma

import numpy as np
import numpy.typing as npt

from volseg.data.phantoms.noise_fields import FloatVolume, blur
from volseg.data.phantoms.oct_layers import LAYERS, PED, RPE, SRF, lay_surfaces, motion_um
from volseg.data.phantoms.oct_lesions import OctLesions, place_lesions
from volseg.data.phantoms.oct_settings import OctField, OctSettings, Seed, seeded
from volseg.data.phantoms.oct_tissue import SAMPLES, choroid_levels, retina_levels

__all__ = ["draw_oct_volume"]

_SMALLEST = (8, 32, 1)
_GRAIN_UM2 = 50.0  # a voxel (x, y) of this area or less shows the grains unmixed
_FINE_UM = 4.0  # rows thicker than this are drawn in several thinner ones, or thin layers would flicker


def draw_oct_volume(
    size: Sequence[int], *, seed: Seed, settings: OctSettings | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw B-scans of one eye and their labels.

    A retinal edema area (1) reaches from the inner limiting membrane to the lower side of the pigment
    epithelium, as annotators draw it; subretinal fluid (2) within it is a class of its own, and so is the
    space below a detached epithelium (3).

    Args:
        size: (x, y, z): width and depth of a B-scan, and the number of B-scans; at least (8, 32, 1).
        seed: of everything; same seed and settings, same bytes.
        settings: the look and the probabilities of the lesions; drawn from the seed where not given.

    Returns:
        (x, y, z) uint8 image and (x, y, z) uint8 class indices 0 to 3.

    Raises:
        ValueError: when the size is too small.

    Example:
        >>> image, label = draw_oct_volume((33, 64, 5), seed=1)
        >>> image.shape, label.shape, image.dtype
        ((33, 64, 5), (33, 64, 5), dtype('uint8'))
    """
    if len(size) != 3 or any(n < least for n, least in zip(size, _SMALLEST, strict=True)):
        raise ValueError(f"size must be (x, y, z) of at least {_SMALLEST}, got {tuple(size)}; enlarge it")
    look = settings if settings is not None else OctSettings.draw(seed)
    scene = _Scene.build(OctField((size[0], size[1], size[2]), look.field_mm), look, seed)
    image = np.empty((size[2], size[0], size[1]), dtype=np.uint8)
    label = np.empty_like(image)
    seen = _averaged(look, scene.field)
    rng, flicker = seeded(seed, 5), seeded(seed, 6).normal(0.0, look.flicker, size=(size[2], 2))
    for k in range(size[2]):
        image[k] = _detect(rng, scene.light(k), seen, flicker[k])
        label[k] = scene.label(k)
    blank = _margins(seeded(seed, 7), scene.field, look)
    image[blank], label[blank] = look.margin_grey, 0
    return np.ascontiguousarray(np.moveaxis(image, 0, 2)), np.ascontiguousarray(np.moveaxis(label, 0, 2))


@dataclass(frozen=True)
class _Scene:
    """Everything that lies still while B-scans are taken."""

    field: OctField
    look: OctSettings
    lesions: OctLesions
    surfaces: FloatVolume
    retina: FloatVolume
    choroid: FloatVolume
    lost: FloatVolume
    hyaloid: FloatVolume | None

    @classmethod
    def build(cls, field: OctField, look: OctSettings, seed: Seed) -> _Scene:
        lesions = place_lesions(seeded(seed, 1), field, look)
        surfaces = lay_surfaces(seeded(seed, 2), field, look, lesions)
        retina, lost = retina_levels(seeded(seed, 3), field, look, lesions)
        rng = seeded(seed, 4)
        choroid = choroid_levels(rng, field, look)
        hyaloid = None
        if look.hyaloid_um is not None:
            height = np.maximum(look.hyaloid_um * (1.0 + field.waves(rng, 1.5)), 0.0)
            hyaloid = (blur(surfaces[0], 3.0) - height / field.um_per_row).astype(np.float32)
        return cls(field, look, lesions, surfaces, retina, choroid, lost, hyaloid)

    def label(self, k: int) -> npt.NDArray[np.uint8]:
        """(x, y) classes of a B-scan."""
        surfaces = self.surfaces[:, :, k]
        rows = np.arange(self.field.size[1], dtype=np.float32) + np.float32(0.5)
        classes = np.zeros((self.field.size[0], self.field.size[1]), dtype=np.uint8)
        thick = np.diff(surfaces, axis=0) >= 1.0  # a thinner film would be dotted with voxels
        area = self.lesions.edema_area[:, k]
        for index, present, top, bottom in (
            (1, area, 0, RPE + 1),
            (2, thick[SRF], SRF, SRF + 1),
            (3, thick[PED], PED, PED + 1),
        ):
            inside = (rows >= surfaces[top][:, None]) & (rows < surfaces[bottom][:, None])
            classes[inside & present[:, None]] = index
        return classes

    def light(self, k: int) -> FloatVolume:
        """(x, y) power of the returned light of a B-scan, 0 where there is only noise."""
        fine = int(np.ceil(self.field.um_per_row / _FINE_UM))
        first, last = self._lit_rows(k)
        rows = (np.arange(first * fine, last * fine, dtype=np.float32) + np.float32(0.5)) / np.float32(fine)
        surfaces = self.surfaces[:, :, k]
        level = _look_up(self.retina[k], _layer_coordinate(surfaces, rows))
        below = np.floor(rows - surfaces[LAYERS][:, None]).astype(np.intp)
        depth = np.clip(below, 0, self.choroid.shape[2] - 1)
        choroid = np.take_along_axis(self.choroid[k], depth, axis=1) - self.lost[:, k, None]
        level = np.where((below >= 0) & (below < self.choroid.shape[2]), choroid, level)
        level[below >= self.choroid.shape[2]] = 0.0
        if self.hyaloid is not None:
            distance = (rows - self.hyaloid[:, k, None]) * np.float32(self.field.um_per_row / 8.0)
            line = np.float32(0.3) * np.exp(-(distance**2))
            level = np.where(rows < surfaces[0][:, None], np.maximum(level, line), level)
        power = np.float32(self.look.range_db / 10.0 * np.log(10.0))
        lit = np.expm1(power * np.maximum(level, 0.0))
        light = np.zeros((self.field.size[0], self.field.size[1]), dtype=np.float32)
        light[:, first:last] = lit.reshape(len(lit), -1, fine).mean(axis=2)
        return light

    def _lit_rows(self, k: int) -> tuple[int, int]:
        """First and end row of a B-scan between which there is anything but noise; one row at least."""
        tops = self.surfaces[0, :, k] if self.hyaloid is None else self.hyaloid[:, k]
        top = min(float(tops.min()) - 30.0 / self.field.um_per_row, float(self.surfaces[0, :, k].min()))
        bottom = float(self.surfaces[LAYERS, :, k].max()) + self.choroid.shape[2] + 1
        first = int(np.clip(np.floor(top), 0, self.field.size[1] - 1))
        return first, int(np.clip(np.ceil(bottom), first + 1, self.field.size[1]))


def _layer_coordinate(surfaces: FloatVolume, rows: FloatVolume) -> FloatVolume:
    """0 above the retina, 12 below it, and within a layer the number of layers passed; (x, rows)."""
    passed = np.zeros((surfaces.shape[1], len(rows)), dtype=np.float32)
    for top, bottom in pairwise(surfaces):
        slope = 1.0 / np.maximum(bottom - top, np.float32(1e-3))
        passed += np.clip((rows - top[:, None]) * slope[:, None], 0.0, 1.0)
    return passed


def _look_up(table: FloatVolume, layer: FloatVolume) -> FloatVolume:
    """Interpolate a table (x, samples) at layer coordinates (x, rows)."""
    place = layer * np.float32(SAMPLES)
    low = np.minimum(place.astype(np.intp), table.shape[1] - 2)
    first = np.take_along_axis(table, low, axis=1)
    second = np.take_along_axis(table, low + 1, axis=1)
    return first + (place - low).astype(np.float32) * (second - first)


def _detect(
    rng: np.random.Generator, light: FloatVolume, look: OctSettings, flicker: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    seen = blur(light, look.spread) * _speckle(rng, light.shape, look)
    noise = rng.standard_exponential(light.shape, dtype=np.float32) ** np.float32(look.noise)
    seen += noise / np.float32(gamma(1.0 + look.noise))
    level = np.log(np.maximum(seen, 1e-4)) * np.float32(10.0 / np.log(10.0) / look.range_db)
    contrast = (look.white - look.black) * (1.0 + flicker[0])
    grey = np.float32(look.black * (1.0 + flicker[1])) + np.float32(contrast) * level
    return np.clip(np.rint(blur(grey, look.softness)), 0, 255).astype(np.uint8)


def _averaged(look: OctSettings, field: OctField) -> OctSettings:
    """The settings with the calmer speckle and noise that large voxels have."""
    grains = 1000.0 * field.edges_mm[0] * field.um_per_row / _GRAIN_UM2
    calm = min(1.0, grains**-0.2)
    return replace(look, speckle=calm * look.speckle, noise=calm * look.noise)


def _speckle(rng: np.random.Generator, shape: tuple[int, ...], look: OctSettings) -> FloatVolume:
    """Grains of mean 1: the power of a correlated complex Gaussian field, softened by averaging."""
    if not any(look.speckle_size):
        power = rng.standard_exponential(shape, dtype=np.float32)
    else:
        power = np.zeros(shape, dtype=np.float32)
        for _ in range(2):
            part = blur(rng.standard_normal(shape, dtype=np.float32), look.speckle_size)
            power += part * part
        power /= power.mean()
    return power ** np.float32(look.speckle) / np.float32(gamma(1.0 + look.speckle))


def _margins(rng: np.random.Generator, field: OctField, look: OctSettings) -> npt.NDArray[np.bool_]:
    """(z, x, y) where the scanner has no data."""
    blank = np.zeros((field.size[2], field.size[0], field.size[1]), dtype=np.bool_)
    if look.registered:
        shift = motion_um(rng, field, look)[:, None] / field.um_per_row
        rows = np.arange(field.size[1]) + shift
        blank |= ((rows < 0) | (rows > field.size[1] - 1))[:, None]
    columns = round(look.blank_columns * field.size[0])
    if columns:
        blank[:, slice(None, columns) if rng.random() < 0.5 else slice(-columns, None)] = True
    return blank
