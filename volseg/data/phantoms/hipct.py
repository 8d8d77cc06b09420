"""A HiP-CT-like 16-bit rendering of a kidney around a given vessel mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from volseg.data.phantoms.hipct_settings import HipctSettings
from volseg.data.phantoms.noise_fields import FloatVolume, blur, cells, resize_linear, smooth_noise, soft_step

__all__ = ["render_hipct", "render_hipct_signal"]


_CLOSING = 36.0  # voxels; half the widest vessel-free gap that is still taken as tissue


def render_hipct(
    mask: npt.ArrayLike, *, seed: int, settings: HipctSettings | None = None
) -> npt.NDArray[np.uint16]:
    """Render what a scanner might have recorded of the vessels in a mask.

    Args:
        mask: (x, y, z), nonzero inside a vessel; the axis of rotation of the scan is z.
        seed: of all textures and of the noise; same seed and settings, same bytes.
        settings: the look; drawn from the seed where not given.

    Returns:
        (x, y, z) uint16. Every vessel of the mask is rendered: the organ is laid around the vessels.

    Raises:
        ValueError: when the mask is not three-dimensional.
    """
    look = settings if settings is not None else HipctSettings.draw(seed)
    signal = render_hipct_signal(mask, seed=seed, settings=look)
    return _detect(np.random.default_rng([seed, 2]), signal, look)


def render_hipct_signal(mask: npt.ArrayLike, *, seed: int, settings: HipctSettings) -> FloatVolume:
    """Render the noise-free scene in contrast units: before artefacts, noise and the 16-bit scale.

    Raises:
        ValueError: when the mask is not three-dimensional.
    """
    binary = np.asarray(mask) != 0
    if binary.ndim != 3 or binary.size == 0:
        raise ValueError(f"mask must be a volume (x, y, z), got shape {binary.shape}; add the missing axis")
    rng = np.random.default_rng([seed, 1])
    depth = _organ_depth(rng, binary, settings)
    scene = _tissue(rng, binary.shape, depth, settings)
    scene = _embed(rng, scene, depth, settings)
    scene = _add_vessels(rng, scene, binary, settings)
    return blur(scene, settings.blur_sigma)


def _organ_depth(
    rng: np.random.Generator, mask: npt.NDArray[np.bool_], look: HipctSettings
) -> FloatVolume | None:
    """Depth of each voxel below the capsule, negative in the medium; None where no medium is in the field."""
    if look.organ_margin is None or not mask.any():
        return None
    step = 4
    coarse_shape = [-(-n // step) for n in mask.shape]
    padded = np.pad(mask, [(0, step * c - n) for c, n in zip(coarse_shape, mask.shape, strict=True)])
    blocks = padded.reshape([part for c in coarse_shape for part in (c, step)]).any(axis=(1, 3, 5))
    # The organ is the closing of its vessels: gaps between branches are tissue, also where they lead out of
    # the field, so the vessels at its faces are continued.
    reach = _CLOSING / step
    rim = int(reach) + 2
    wide = np.pad(blocks, rim, mode="edge")
    near = ndimage.distance_transform_edt(~wide) < reach + look.organ_margin / step
    depth = ndimage.distance_transform_edt(near) - ndimage.distance_transform_edt(~near) - reach
    depth = depth[tuple(slice(rim, -rim) for _ in range(3))] * step
    field = resize_linear(depth, [c * step for c in coarse_shape])[tuple(slice(n) for n in mask.shape)]
    return blur(field, 2.0) + 1.5 * smooth_noise(rng, mask.shape, 8.0)


def _tissue(
    rng: np.random.Generator, shape: tuple[int, ...], depth: FloatVolume | None, look: HipctSettings
) -> FloatVolume:
    scene = np.zeros(shape, dtype=np.float32)
    for sigma, amplitude in zip((1.2, 3.0, 8.0, 30.0), look.texture, strict=True):
        scene += np.float32(amplitude) * smooth_noise(rng, shape, sigma)
    # Without a capsule in the field, the cortico-medullary border is a level set of smooth noise.
    below = depth if depth is not None else 20.0 * smooth_noise(rng, shape, 35.0) + look.cortex_depth
    cortex = soft_step(look.cortex_depth - below + 4.0 * smooth_noise(rng, shape, 6.0), 6.0)
    scene += np.float32(look.cortex_contrast) * cortex
    if look.stripe_amplitude:
        scene += np.float32(look.stripe_amplitude) * (1.0 - 0.7 * cortex) * _stripes(rng, shape)
    if look.blob_fraction:
        blobs = _share(smooth_noise(rng, shape, look.blob_radius), look.blob_fraction, 0.5)
        scene += np.float32(look.blob_contrast) * blobs * (0.3 + 0.7 * cortex)
    if look.tubule_contrast:
        scene += np.float32(look.tubule_contrast) * _tubules(rng, shape, look.tubule_radius)
    if look.sheet_contrast:
        sheets = 1.0 - soft_step(np.abs(smooth_noise(rng, shape, 14.0)) - np.float32(0.05), 0.06)
        scene += (
            np.float32(look.sheet_contrast) * sheets * soft_step(smooth_noise(rng, shape, 20.0) - 0.5, 1.0)
        )
    if look.cavity_fraction:
        cavity = _share(smooth_noise(rng, shape, 18.0), look.cavity_fraction, 0.12)
        scene += cavity * (np.float32(look.cavity_contrast) - scene)
    return scene


def _share(field: FloatVolume, fraction: float, width: float) -> FloatVolume:
    """Soft indicator of the highest `fraction` of a field; quantiles come from a sparse sample."""
    return soft_step(field - np.quantile(field.ravel()[::17], 1.0 - fraction), width)


def _tubules(rng: np.random.Generator, shape: tuple[int, ...], radius: float) -> FloatVolume:
    # Where two smooth fields vanish together runs a winding curve.
    length = 4.0 * radius
    first, second = smooth_noise(rng, shape, length), smooth_noise(rng, shape, length)
    distance = np.sqrt(first * first + second * second) * np.float32(length)
    return soft_step(np.float32(radius) - distance, 1.0)


def _stripes(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatVolume:
    """Noise stretched along a random direction, as collecting ducts and vasa recta bundles are."""
    long_axis = int(rng.integers(3))
    sigma = [1.3, 1.3, 1.3]
    sigma[long_axis] = 25.0
    room = [int(1.5 * max(shape))] * 3
    field = smooth_noise(rng, room, sigma)
    tilt = np.eye(3) + rng.uniform(-0.35, 0.35, size=(3, 3)) * (1 - np.eye(3))
    offset = (np.asarray(room) - tilt @ np.asarray(shape, dtype=float)) / 2
    return ndimage.affine_transform(field, tilt, offset, tuple(shape), order=1, mode="nearest")


def _embed(
    rng: np.random.Generator, scene: FloatVolume, depth: FloatVolume | None, look: HipctSettings
) -> FloatVolume:
    if depth is None:
        return scene
    level, face = cells(rng, scene.shape, look.medium_block)
    rims = 1.0 - soft_step(face - 0.6, 1.0)
    medium = look.medium_contrast + look.medium_texture * (level + 0.5 * smooth_noise(rng, scene.shape, 10.0))
    # Only some block faces reflect: those where a slow field is high.
    medium += 1.5 * look.medium_texture * rims * soft_step(smooth_noise(rng, scene.shape, 12.0) - 1.0, 0.5)
    inside = soft_step(depth, 1.0)
    capsule = 1.0 - soft_step(np.abs(depth) - np.float32(1.0), 1.0)
    return (medium + inside * (scene - medium) + np.float32(look.capsule_contrast) * capsule).astype(
        np.float32
    )


def _add_vessels(
    rng: np.random.Generator, scene: FloatVolume, mask: npt.NDArray[np.bool_], look: HipctSettings
) -> FloatVolume:
    vessel = blur(mask, 0.45)
    dilated = ndimage.binary_dilation(mask, iterations=look.wall_width)
    wall = np.clip(blur(dilated, 0.45) - vessel, 0.0, 1.0)
    contrast = np.float32(look.lumen_contrast) * np.exp(
        np.float32(look.lumen_variation) * smooth_noise(rng, mask.shape, 9.0)
    )
    if look.clot_fraction:
        clot = _share(smooth_noise(rng, mask.shape, 7.0), look.clot_fraction, 0.3)
        contrast += clot * (np.float32(look.clot_contrast) - contrast)
    # A lumen holds no tissue texture, but lies at the level of the tissue around it plus its contrast.
    lumen = 0.6 * blur(scene, 5.0) + contrast
    scene = scene + wall * np.float32(look.wall_contrast)
    return scene + vessel * (lumen - scene)


def _detect(rng: np.random.Generator, signal: FloatVolume, look: HipctSettings) -> npt.NDArray[np.uint16]:
    shape = signal.shape
    image = signal * (1.0 + np.float32(0.3 * look.bias) * smooth_noise(rng, shape, 60.0))
    image += np.float32(look.bias) * smooth_noise(rng, shape, 70.0)
    if look.ring_amplitude:
        image += np.float32(look.ring_amplitude) * _rings(rng, shape, look.ring_centre)
    image += _spots_and_streaks(rng, shape, look)
    drift = look.drift * smooth_noise(rng, (shape[2], 1, 1), (6.0, 0.0, 0.0)).reshape(1, 1, -1)
    image = image * (1.0 + drift) + drift[..., ::-1]
    noise = rng.standard_normal(shape, dtype=np.float32)
    if look.noise_correlation > 0.2:
        noise = blur(noise, look.noise_correlation)
        noise /= noise.std()
    variance = look.noise_sigma**2 + look.noise_gain * look.noise_sigma * image
    image += noise * np.sqrt(np.maximum(variance, (0.3 * look.noise_sigma) ** 2)).astype(np.float32)
    counts = look.level + look.counts_per_unit * image
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def _rings(rng: np.random.Generator, shape: tuple[int, ...], centre: tuple[float, float]) -> FloatVolume:
    """Rings of one detector column each; their strength changes slowly along z."""
    x = np.arange(shape[0], dtype=np.float32)[:, None] - centre[0] * shape[0]
    y = np.arange(shape[1], dtype=np.float32)[None, :] - centre[1] * shape[1]
    radius = np.sqrt(x * x + y * y)
    columns = int(radius.max()) + 2
    profiles = smooth_noise(rng, (columns, shape[2]), (0.7, 40.0))
    # Most columns are good; a few bad ones make visible rings.
    profiles = np.float32(1.5) * (profiles - np.clip(profiles, -0.6, 0.6))
    low = radius.astype(np.intp)
    weight = (radius - low)[..., None]
    return profiles[low] * (1 - weight) + profiles[low + 1] * weight


def _spots_and_streaks(rng: np.random.Generator, shape: tuple[int, ...], look: HipctSettings) -> FloatVolume:
    """Small dense particles, and the streaks that some of them throw within their slices."""
    image = np.zeros(shape, dtype=np.float32)
    spots = rng.poisson(look.spots_per_million * image.size / 1e6)
    if spots:
        places = tuple(rng.integers(0, n, size=spots) for n in shape)
        np.add.at(image, places, (rng.exponential(1.0, size=spots) * 4.0).astype(np.float32))
        image = np.float32(look.spot_contrast) * blur(image, 0.6)
    if look.streak_amplitude:
        x, y = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape[:2]], indexing="ij")
        for _ in range(6):
            angle, reach = rng.uniform(0, np.pi), rng.uniform(4, 20)
            k, x0, y0 = rng.uniform(0, shape[2]), rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
            across = np.sin(angle) * (x - x0) - np.cos(angle) * (y - y0)
            along = np.cos(angle) * (x - x0) + np.sin(angle) * (y - y0)
            fan = np.exp(-0.5 * (across / (0.7 + 0.02 * np.abs(along))) ** 2) / (1 + np.abs(along) / 40)
            slices = np.exp(-0.5 * ((np.arange(shape[2]) - k) / reach) ** 2).astype(np.float32)
            sign = 1.0 if rng.random() < 0.5 else -1.0
            image += np.float32(sign * look.streak_amplitude * 2) * fan[..., None] * slices
    return image
