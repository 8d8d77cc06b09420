from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from volseg.transforms.resize import resize_classes, resize_linear, resize_nearest

SHAPE = (1, 17, 40, 13)


def noise() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(SHAPE, dtype=np.float32))


def test_enlarging_equals_trilinear_interpolation() -> None:
    expected = F.interpolate(noise()[None], size=(23, 61, 20), mode="trilinear", align_corners=False)[0]
    assert torch.allclose(resize_linear(noise(), (23, 61, 20)), expected, atol=1e-6)


def test_resizing_to_the_same_shape_changes_nothing() -> None:
    volume = noise()
    assert resize_linear(volume, SHAPE[1:]) is volume
    assert resize_nearest(volume, SHAPE[1:]) is volume


@pytest.mark.parametrize("shape", [(9, 21, 7), (30, 55, 29)], ids=["smaller", "larger"])
def test_a_constant_stays_constant_and_a_ramp_a_ramp(shape: tuple[int, ...]) -> None:
    assert torch.allclose(resize_linear(torch.full(SHAPE, 3.0), shape), torch.tensor(3.0))
    ramp = torch.arange(40.0).reshape(1, 1, 40, 1).expand(SHAPE)
    inner = resize_linear(ramp, shape)[0, :, 3:-3, :]
    # 0.05 voxels: PyTorch's triangle filter is sampled at whole voxels, so its weights are not quite centred
    centres = (torch.arange(shape[1]) + 0.5) * 40 / shape[1] - 0.5
    assert torch.allclose(inner, centres[3:-3].reshape(1, -1, 1).expand_as(inner), atol=0.05)


def test_shrinking_averages_what_plain_interpolation_would_alias() -> None:
    stripes = (torch.arange(40) % 2).float().reshape(1, 1, 40, 1).expand(SHAPE)
    assert float((resize_linear(stripes, (17, 13, 13)) - 0.5).abs().max()) < 0.1


def test_nearest_agrees_with_pytorch() -> None:
    label = (noise() * 5).to(torch.uint8)
    for shape in ((9, 21, 7), (30, 55, 29)):
        assert torch.equal(
            resize_nearest(label, shape), F.interpolate(label[None], size=shape, mode="nearest-exact")[0]
        )


def test_two_classes_are_the_linear_resize_above_one_half() -> None:
    label = (noise() > 0.6).to(torch.uint8)
    share = resize_linear(label.float(), (11, 25, 9))
    is_clear = (share - 0.5).abs() > 1e-5
    found = resize_classes(label, (11, 25, 9))
    assert torch.equal(found[is_clear] == 1, share[is_clear] > 0.5)


def test_permuting_classes_permutes_the_result() -> None:
    label = (noise() * 3).to(torch.uint8)
    table = torch.tensor([2, 0, 1], dtype=torch.uint8)
    one = table[resize_classes(label, (25, 61, 20)).long()]
    other = resize_classes(table[label.long()], (25, 61, 20))
    assert float((one == other).float().mean()) > 0.999  # ties go to the smaller index


def test_two_dimensional_images_are_resized_too() -> None:
    image = noise()[0][None, :, :, 0]
    expected = F.interpolate(image[None], size=(9, 60), mode="bilinear", antialias=True)[0]
    assert torch.allclose(resize_linear(image, (9, 60)), expected, atol=1e-6)
