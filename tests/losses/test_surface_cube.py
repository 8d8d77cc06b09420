"""Expected surface Dice: the contract, MONAI's sub-voxel surface Dice as oracle, brute force over codes."""

import itertools

import pytest
import torch
from monai.metrics import compute_surface_dice
from monai.metrics.utils import get_code_to_measure_table

from volseg.losses import SurfaceCubeLoss

from .contract import LossContract, logits_of


class SurfaceContract(LossContract):
    def wrong_logits(self, labels, classes):
        # The inverse has the same surface; what is wrong is another place.
        return logits_of(labels.roll((2, 2), dims=(-2, -1)), classes)


class TestSurfaceCubeLoss(SurfaceContract):
    def build(self):
        return SurfaceCubeLoss((2.0, 1.0, 0.5))


class TestSurfaceSquareLoss(SurfaceContract):
    slices = 1

    def build(self):
        return SurfaceCubeLoss(batch=True)

    def test_shapes_that_do_not_fit_are_refused(self):
        with pytest.raises(ValueError, match=r"labels \(B, M, H, W\), got"):
            self.build()(torch.zeros(2, 3, 9, 7), torch.zeros(2, 2, 9, 7))


def blobs(seed, shape):
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(shape)
    inner = tuple(slice(2, -2) for _ in shape)
    picture[inner] = (torch.rand(picture[inner].shape, generator=generator) > 0.4).float()
    return picture


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 0.5, 1.5)], ids=["cubic", "anisotropic"])
@pytest.mark.parametrize("seed", range(3))
def test_on_masks_it_is_one_minus_surface_dice_at_tolerance_zero(spacing_mm, seed):
    truth, found = blobs(seed, (7, 12, 9)), blobs(seed + 10, (7, 12, 9))
    oracle = compute_surface_dice(
        found[None, None],
        truth[None, None],
        [0.0],
        include_background=True,
        spacing=spacing_mm,
        use_subvoxels=True,
    )
    loss = SurfaceCubeLoss(spacing_mm)((found * 198 - 99)[None], truth[None])
    assert loss.item() == pytest.approx(1 - oracle.item(), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_on_single_slices_it_is_one_minus_the_contour_dice(seed):
    truth, found = blobs(seed, (12, 9)), blobs(seed + 10, (12, 9))
    oracle = compute_surface_dice(
        found[None, None],
        truth[None, None],
        [0.0],
        include_background=True,
        spacing=(2.0, 1.0),
        use_subvoxels=True,
    )
    loss = SurfaceCubeLoss((1.0, 2.0, 1.0))((found * 198 - 99)[None, None], truth[None, None])
    assert loss.item() == pytest.approx(1 - oracle.item(), abs=1e-5)


def test_the_expected_area_is_the_mean_over_all_codes():
    probabilities = torch.rand(2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table, kernel = get_code_to_measure_table((1.0, 2.0, 3.0))
    expected, with_surface = 0.0, 0.0
    for bits in itertools.product((0, 1), repeat=8):
        pattern = torch.tensor(bits, dtype=torch.float64).reshape(2, 2, 2)
        chance = torch.where(pattern == 1, probabilities, 1 - probabilities).prod().item()
        code = int((pattern * kernel[0, 0]).sum())
        expected += chance * float(table[code])
        with_surface += chance * (0 < sum(bits) < 8)
    area, border = SurfaceCubeLoss((1.0, 2.0, 3.0))._expected(probabilities[None, :, None])
    assert area.item() == pytest.approx(expected)
    assert border.item() == pytest.approx(with_surface)


def test_the_inverse_has_the_same_surface():
    truth = blobs(0, (7, 12, 9))[None]
    assert SurfaceCubeLoss()(99 - truth * 198, truth).item() == pytest.approx(0, abs=1e-5)


def test_shifting_a_prediction_by_one_voxel_costs_what_does_not_touch():
    truth = torch.zeros(1, 5, 16, 16)
    truth[:, 1:4, 4:11, 4:11] = 1
    shifted = truth.roll(1, dims=-1)
    assert SurfaceCubeLoss()(shifted * 198 - 99, truth).item() > 0.2


def test_a_picture_without_a_square_is_refused():
    with pytest.raises(ValueError, match="H and W at least 2, got"):
        SurfaceCubeLoss()(torch.zeros(1, 3, 1, 5), torch.zeros(1, 3, 1, 5))


def test_impossible_spacings_are_refused():
    with pytest.raises(ValueError, match="spacing_mm must be positive and finite"):
        SurfaceCubeLoss((1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match=r"spacing_mm needs three numbers \(slices, H, W\), got 2"):
        SurfaceCubeLoss((1.0, 1.0))
