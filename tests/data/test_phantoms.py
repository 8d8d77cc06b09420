from __future__ import annotations

import dataclasses

import cc3d
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from volseg.data.phantoms import (
    HipctSettings,
    drop_branches,
    grow_vessel_tree,
    render_hipct,
    render_hipct_signal,
    rescale_mask,
    write_sennet_phantom,
)

SHAPE = (47, 39, 33)
QUIET = HipctSettings(
    texture=(0.05, 0.05, 0.05, 0.05),
    blob_fraction=0.0,
    tubule_contrast=0.0,
    cortex_contrast=0.0,
    stripe_amplitude=0.0,
    lumen_variation=0.0,
)


@pytest.fixture(scope="module")
def tree():
    return grow_vessel_tree(SHAPE, seed=3)


@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 29, 41), SHAPE], ids=str)
def test_a_tree_is_a_binary_mask_of_the_shape_asked_for(shape):
    mask = grow_vessel_tree(shape, seed=1)
    assert mask.shape == shape
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize("trees", [1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_tree_hangs_together(seed, trees):
    mask = grow_vessel_tree(SHAPE, seed=seed, trees=trees)
    assert cc3d.connected_components(mask, connectivity=26, return_N=True)[1] <= trees


def test_a_tree_repeats_with_its_seed_and_changes_with_another(tree):
    assert grow_vessel_tree(SHAPE, seed=3).tobytes() == tree.tobytes()
    assert grow_vessel_tree(SHAPE, seed=4).tobytes() != tree.tobytes()


def test_growing_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()
    render_hipct(grow_vessel_tree((16, 17, 18), seed=0), seed=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_larger_root_radius_makes_a_thicker_tree():
    thin, thick = (grow_vessel_tree(SHAPE, seed=0, trees=1, root_radius=radius) for radius in (1.5, 5.0))
    assert thick.sum() > 1.5 * thin.sum()
    widest = ndimage.distance_transform_edt(np.pad(thick, 1)).max()
    assert 4.0 <= widest <= 7.5  # the root, where two branches may lie side by side


def test_the_end_branches_are_thin(tree):
    opened = ndimage.binary_opening(tree, iterations=2)
    assert 0.05 < 1 - opened.sum() / tree.sum() < 1.0


@pytest.mark.parametrize("shape", [(15, 20, 20), (20, 20)], ids=str)
def test_too_small_a_grid_is_refused(shape):
    with pytest.raises(ValueError, match="shape must be three sizes of at least 16, got"):
        grow_vessel_tree(shape, seed=0)


def test_three_trees_are_refused():
    with pytest.raises(ValueError, match="trees must be 1 or 2, got 3"):
        grow_vessel_tree(SHAPE, seed=0, trees=3)


def test_rescaling_by_one_changes_nothing(tree):
    np.testing.assert_array_equal(rescale_mask(tree, 1.0), tree)


@pytest.mark.parametrize("scale", [0.6, 0.8, 1.25, 1.4])
def test_a_thick_body_keeps_its_share_of_the_volume(scale):
    x, y, z = np.ogrid[:41, :37, :39]
    ball = (x - 20) ** 2 + (y - 18) ** 2 + (z - 19) ** 2 <= 13**2
    zoomed = rescale_mask(ball, scale)
    assert zoomed.shape == tuple(round(n * scale) for n in ball.shape)
    assert zoomed.mean() == pytest.approx(ball.mean(), rel=0.05)  # a quarter voxel of the radius


@pytest.mark.parametrize("scale", [0.6, 0.75])
def test_a_thin_vessel_survives_shrinking_in_one_piece(scale):
    rod = np.zeros((40, 21, 21), np.uint8)
    rod[:, 9:11, 10:12] = 1
    zoomed = rescale_mask(rod, scale)
    assert zoomed.any(axis=(1, 2)).all()
    assert cc3d.connected_components(zoomed, return_N=True)[1] == 1


def test_an_absurd_scale_is_refused(tree):
    with pytest.raises(ValueError, match=r"scale must lie between 0.2 and 5, got 0.1"):
        rescale_mask(tree, 0.1)


def test_settings_repeat_with_their_seed_and_change_with_another():
    assert HipctSettings.draw(5) == HipctSettings.draw(5)
    assert HipctSettings.draw(5) != HipctSettings.draw(6)


def test_drawn_settings_show_both_polarities_and_both_kinds_of_field():
    drawn = [HipctSettings.draw(seed) for seed in range(60)]
    darker = np.mean([look.lumen_contrast < 0 for look in drawn])
    assert 0.25 < darker < 0.75
    assert {look.organ_margin is None for look in drawn} == {True, False}
    assert all(0 < look.level < 65535 and look.counts_per_unit > 0 for look in drawn)


@pytest.mark.parametrize("seed", range(6))
def test_a_rendering_is_16_bit_and_uses_its_range(tree, seed):
    image = render_hipct(tree, seed=seed)
    assert image.dtype == np.uint16
    assert image.shape == tree.shape
    assert len(np.unique(image)) > 50
    assert np.mean((image == 0) | (image == 65535)) < 0.05


def test_a_rendering_repeats_with_its_seed_and_changes_with_another(tree):
    assert render_hipct(tree, seed=8).tobytes() == render_hipct(tree, seed=8).tobytes()
    assert render_hipct(tree, seed=8).tobytes() != render_hipct(tree, seed=9).tobytes()


def test_the_drawn_settings_tell_the_whole_look(tree):
    told = HipctSettings(**dataclasses.asdict(HipctSettings.draw(8)))
    assert render_hipct(tree, seed=8, settings=told).tobytes() == render_hipct(tree, seed=8).tobytes()


@pytest.mark.parametrize("contrast", [-1.0, 1.0], ids=["darker", "brighter"])
def test_the_lumen_has_the_polarity_of_the_settings(tree, contrast):
    look = dataclasses.replace(QUIET, lumen_contrast=contrast, wall_contrast=0.0)
    signal = render_hipct_signal(tree, seed=1, settings=look)
    difference = signal[tree == 1].mean() - signal[tree == 0].mean()
    assert 0.5 < difference * np.sign(contrast) < 1.2  # partial volume takes some of a thin vessel's contrast


def test_the_wall_is_seen_around_a_lumen_as_grey_as_the_tissue(tree):
    look = dataclasses.replace(QUIET, lumen_contrast=0.0, wall_contrast=1.0)
    signal = render_hipct_signal(tree, seed=1, settings=look)
    wall = ndimage.binary_dilation(tree) & (tree == 0)
    far = ~ndimage.binary_dilation(tree, iterations=5)
    assert signal[wall].mean() > signal[far].mean() + 0.3


def test_the_medium_lies_outside_and_every_vessel_inside_the_organ():
    mask = np.zeros((90, 60, 50), np.uint8)
    mask[5:20, 25:35, :] = 1
    look = dataclasses.replace(QUIET, organ_margin=5.0, medium_contrast=4.0, medium_texture=0.1)
    signal = render_hipct_signal(mask, seed=0, settings=look)
    assert signal[70:].mean() > 3.0
    assert signal[mask == 1].max() < 1.0


def test_an_empty_mask_renders_as_bare_tissue():
    image = render_hipct(np.zeros((20, 17, 9), np.uint8), seed=2)
    assert image.std() > 0


def test_rings_run_around_the_axis_of_rotation():
    look = dataclasses.replace(QUIET, ring_amplitude=3.0, noise_sigma=0.01, bias=0.0, ring_centre=(0.5, 0.5))
    empty = np.zeros((61, 61, 8), np.uint8)
    ringed = render_hipct(empty, seed=0, settings=look).astype(float)
    plain = render_hipct(empty, seed=0, settings=dataclasses.replace(look, ring_amplitude=0.0)).astype(float)
    rings = ringed - plain
    quarter_turn = np.rot90(rings)
    # The centre lies half a voxel off the grid's own centre, hence no equality.
    assert np.corrcoef(rings.ravel(), quarter_turn.ravel())[0, 1] > 0.3


def test_what_is_no_volume_is_refused():
    with pytest.raises(ValueError, match=r"mask must be a volume \(x, y, z\), got shape \(4, 4\)"):
        render_hipct(np.zeros((4, 4), np.uint8), seed=0)


def test_dropping_branches_keeps_a_subset_of_about_the_coverage():
    mask = grow_vessel_tree((64, 57, 50), seed=2)
    kept = drop_branches(mask, coverage=0.65, seed=0)
    assert not (kept & ~mask.astype(bool)).any()
    assert kept.sum() / mask.sum() == pytest.approx(0.65, abs=0.05)  # a twig more or less
    np.testing.assert_array_equal(drop_branches(mask, coverage=1.0, seed=0), mask)
    assert drop_branches(np.zeros_like(mask), coverage=0.5, seed=0).sum() == 0


def _names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".tif")


def test_the_phantom_lies_in_the_layout_of_the_challenge(tmp_path):
    write_sennet_phantom(tmp_path, shape=(24, 20, 16), seed=1)
    slices = [f"{k:04d}.tif" for k in range(16)]
    for case in ("kidney_1_dense", "kidney_2", "kidney_3_dense"):
        assert _names(tmp_path / case / "images") == slices
        assert _names(tmp_path / case / "labels") == slices
    assert _names(tmp_path / "test" / "kidney_5" / "images") == slices
    assert not (tmp_path / "test" / "kidney_5" / "labels").exists()
    assert _names(tmp_path / "truth" / "kidney_5" / "labels") == slices
    label = tifffile.imread(tmp_path / "kidney_2" / "labels" / "0008.tif")
    image = tifffile.imread(tmp_path / "kidney_2" / "images" / "0008.tif")
    assert label.shape == image.shape == (20, 24)
    assert (label.dtype, image.dtype) == (np.uint8, np.uint16)
    assert set(np.unique(label)) == {0, 255}


def test_the_kidneys_of_a_phantom_differ(tmp_path):
    write_sennet_phantom(tmp_path, shape=(24, 20, 16), seed=1, cases=("a", "b"), test_cases=())
    assert (tmp_path / "a/images/0008.tif").read_bytes() != (tmp_path / "b/images/0008.tif").read_bytes()
    assert (tmp_path / "a/labels/0008.tif").read_bytes() != (tmp_path / "b/labels/0008.tif").read_bytes()


def test_a_sparse_phantom_labels_kidney_3_over_a_range_of_another_folders_images(tmp_path):
    write_sennet_phantom(tmp_path, shape=(24, 20, 16), seed=1, sparse=True)
    assert not (tmp_path / "kidney_3_dense" / "images").exists()
    assert _names(tmp_path / "kidney_3_dense" / "labels") == [f"{k:04d}.tif" for k in range(4, 12)]
    assert len(_names(tmp_path / "kidney_3_sparse" / "images")) == 16
    dense = tifffile.imread(tmp_path / "kidney_3_dense" / "labels" / "0006.tif")
    sparse = tifffile.imread(tmp_path / "kidney_3_sparse" / "labels" / "0006.tif")
    assert (sparse <= dense).all()
