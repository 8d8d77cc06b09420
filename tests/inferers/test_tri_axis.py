from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SliceInferer, SlidingWindowInferer
from torch import nn

from volseg.inferers.tri_axis import TriAxisInferer

ODD = (2, 2, 5, 7, 9)
SHAPES = [ODD, (1, 1, 1, 1, 1), (1, 2, 1, 6, 3), (3, 1, 4, 1, 5), (1, 1, 2, 3, 1)]


def volume(shape: tuple[int, ...] = ODD, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Identity:
    """Returns the middle slice of every channel, or the whole stack."""

    def __init__(self, in_slices: int, out_slices: int = 1) -> None:
        self.in_slices, self.out_slices, self.calls = in_slices, out_slices, 0

    def __call__(self, stacks: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        first = (self.in_slices - self.out_slices) // 2
        return stacks.unflatten(1, (-1, self.in_slices))[:, :, first : first + self.out_slices].flatten(1, 2)


def convolution(inputs: int = 3, outputs: int = 2, *, is_equivariant: bool = False) -> nn.Conv2d:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layer = nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)
    if is_equivariant:
        weight = layer.weight
        turned = [
            torch.rot90(image, turns, (2, 3)) for turns in range(4) for image in (weight, weight.flip(3))
        ]
        layer.weight.copy_(torch.stack(turned).mean(0))
    return layer


def exact(**options) -> TriAxisInferer:
    return TriAxisInferer(**({"amp": "off", "activation": None} | options))


OPTIONS = {
    "defaults": {},
    "one slice": {"in_slices": 1},
    "five slices": {"in_slices": 5},
    "whole stack out": {"in_slices": 3, "out_slices": 3},
    "stacks with a step": {"in_slices": 7, "out_slices": 7, "slice_step": 4},
    "windows": {"roi_size": (4, 3)},
    "one window size": {"roi_size": 4, "overlap": 0.25},
    "gaussian windows": {"roi_size": (3, 5), "blend": "gaussian", "overlap": 0.7},
    "windows beyond the plane": {"roi_size": 16, "tta": "d4"},
    "flips": {"tta": "flips"},
    "d4": {"tta": "d4"},
    "two axes": {"axes": (2, 0), "axis_weights": (3, 1)},
    "mean of logits": {"fusion": "logit_mean", "tta": "d4"},
    "max": {"fusion": "max", "tta": "flips"},
    "small batches": {"batch_size": 2, "roi_size": 4},
    "one big batch": {"batch_size": 1000, "roi_size": 4},
    "contiguous": {"channels_last": False},
    "auto amp": {"amp": "auto"},
    "everything": {
        "in_slices": 3,
        "out_slices": 3,
        "slice_step": 2,
        "roi_size": (4, 6),
        "tta": "d4",
        "blend": "gaussian",
        "batch_size": 3,
    },
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_an_identity_network_returns_its_input(options, shape):
    network = Identity(options.get("in_slices", 3), options.get("out_slices", 1))
    output = exact(**options)(volume(shape), network)
    assert output.dtype == torch.float32
    # Weights such as 1/3 are summed in float32.
    torch.testing.assert_close(output, volume(shape), atol=2e-6, rtol=1e-6)


def test_one_axis_without_augmentation_returns_the_input_bit_for_bit():
    assert torch.equal(exact(axes=(1,), batch_size=3)(volume(), Identity(3)), volume())


@pytest.mark.parametrize("fusion", ["union", "vote"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_identity_network_returns_a_mask_by_union_and_vote(fusion, shape):
    mask = (volume(shape) > 0).float()
    output = exact(fusion=fusion, tta="d4", roi_size=4)(mask, Identity(3))
    assert torch.equal(output, mask)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_permuting_the_axes_of_a_cube_permutes_the_output(order):
    cube = volume((1, 1, 9, 9, 9))
    dims = (0, 1, *(axis + 2 for axis in order))
    # All eight views make any network indifferent to the order of rows and columns.
    inferer = exact(tta="d4", roi_size=6)
    torch.testing.assert_close(
        inferer(cube.permute(dims), convolution()),
        inferer(cube, convolution()).permute(dims),
        atol=1e-5,
        rtol=1e-5,
    )


def test_eight_views_of_an_equivariant_network_change_nothing():
    network = convolution(is_equivariant=True)
    plain, averaged = (exact(tta=tta)(volume((1, 1, 7, 7, 5)), network) for tta in ("none", "d4"))
    torch.testing.assert_close(averaged, plain, atol=1e-5, rtol=1e-5)


def test_eight_views_make_any_network_equivariant():
    cube = volume((1, 1, 7, 7, 5))
    inferer = exact(tta="d4", axes=(2,))
    turned = inferer(torch.rot90(cube, 1, (2, 3)), convolution())
    expected = torch.rot90(inferer(cube, convolution()), 1, (2, 3))
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("roi_size", [(3, 3), (5, 7), (4, 6)], ids=str)
def test_single_slices_along_one_axis_equal_monais_slice_inferer(axis, roi_size):
    image, network = volume((2, 1, 8, 9, 7)), convolution(1)
    ours = exact(in_slices=1, axes=(axis,), roi_size=roi_size, overlap=0.5)(image, network)
    theirs = SliceInferer(spatial_dim=axis, roi_size=roi_size, overlap=0.5)(image, network)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_changes_nothing(batch_size):
    options = {"in_slices": 3, "roi_size": 4, "tta": "flips"}
    reference = exact(batch_size=7, **options)(volume(), convolution(6))
    torch.testing.assert_close(
        exact(batch_size=batch_size, **options)(volume(), convolution(6)), reference, atol=1e-5, rtol=1e-5
    )


def test_a_stack_of_several_channels_is_channel_major():
    image = volume()
    # Output 0 is the slice before in channel 1, output 1 the slice after in channel 0.
    shifted = exact(axes=(0,))(image, lambda stacks: stacks[:, [3, 2]])
    before = image[:, 1, [0, 0, 1, 2, 3]]
    after = image[:, 0, [1, 2, 3, 4, 4]]
    assert torch.equal(shifted, torch.stack([before, after], dim=1))


def test_overlapping_predictions_of_neighbouring_stacks_are_averaged():
    depth = torch.arange(5.0)[:, None, None].expand(1, 1, 5, 2, 2)
    # Every stack says 1 for its last slice and 0 for the others. Slice 0 is the last of no stack; slices 1 to
    # 3 are seen by three stacks and are the last of one; slice 4 is seen by two.
    is_last = exact(out_slices=3, axes=(0,))(
        depth, lambda stacks: torch.zeros_like(stacks).index_fill_(1, torch.tensor(2), 1)
    )
    torch.testing.assert_close(is_last[0, 0, :, 0, 0], torch.tensor([0, 1 / 3, 1 / 3, 1 / 3, 1 / 2]))


def test_several_classes_of_whole_stacks_are_class_major():
    image = volume((1, 1, 6, 3, 4))
    network = lambda stacks: torch.cat([stacks, -stacks], dim=1)  # noqa: E731 - K = 2, M = 3
    output = exact(out_slices=3)(image, network)
    torch.testing.assert_close(output, torch.cat([image, -image], dim=1), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("fusion", ["mean", "logit_mean"])
@pytest.mark.parametrize("out_slices", [1, 3])
def test_softmax_probabilities_sum_to_one(fusion, out_slices):
    inferer = TriAxisInferer(
        activation="softmax", fusion=fusion, tta="flips", out_slices=out_slices, roi_size=4
    )
    output = inferer(volume(), convolution(6, 3 * out_slices))
    assert output.shape == (2, 3, 5, 7, 9)
    torch.testing.assert_close(output.sum(1), torch.ones(2, 5, 7, 9))


def test_the_activation_comes_before_the_mean_of_axes_and_views():
    image, network = volume(), convolution(6)
    options = {"tta": "flips", "amp": "off"}
    total = torch.zeros(2, 2, 5, 7, 9)
    for axis in range(3):
        plane = [other + 2 for other in range(3) if other != axis]
        for dims in ([], plane[:1], plane[1:], plane):
            alone = exact(axes=(axis,))(image.flip(dims), network).flip(dims)
            total += alone.sigmoid() / 12
    torch.testing.assert_close(TriAxisInferer(**options)(image, network), total, atol=1e-6, rtol=1e-5)


def test_a_mean_of_logits_is_activated_last():
    image, network = volume(), convolution(6)
    logits = exact(tta="flips")(image, network)
    output = exact(tta="flips", fusion="logit_mean", activation="sigmoid")(image, network)
    torch.testing.assert_close(output, logits.sigmoid())


def test_a_union_holds_every_view_and_a_vote_most_axes():
    image, network = volume(), convolution(6)
    masks = {axis: torch.zeros(2, 2, 5, 7, 9, dtype=torch.bool) for axis in range(3)}
    for axis in range(3):
        plane = [other + 2 for other in range(3) if other != axis]
        for dims in ([], plane[:1], plane[1:], plane):
            masks[axis] |= exact(axes=(axis,))(image.flip(dims), network).flip(dims) >= 0.3
    votes = torch.stack(list(masks.values())).sum(0)
    options = {"tta": "flips", "threshold": 0.3}
    assert torch.equal(exact(fusion="union", **options)(image, network), (votes > 0).float())
    assert torch.equal(exact(fusion="vote", **options)(image, network), (votes > 1).float())


@pytest.mark.parametrize("fusion", ["mean", "logit_mean", "max", "union", "vote"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", None])
def test_the_disagreement_is_the_deviation_of_runs_along_each_axis(fusion, activation):
    options = {"fusion": fusion, "activation": activation, "tta": "flips", "roi_size": 6, "amp": "off"}
    network = convolution(6, 2)
    output = TriAxisInferer(outputs=("mean", "disagreement"), **options)(volume(), network)
    alone = [TriAxisInferer(axes=(axis,), **options)(volume(), network).numpy() for axis in range(3)]
    np.testing.assert_allclose(output[:, 2:], np.std(alone, axis=0), atol=2e-6)
    fused = TriAxisInferer(**options)(volume(), network)
    torch.testing.assert_close(output[:, :2], fused, atol=2e-6, rtol=1e-5)


def test_the_disagreement_costs_no_call_of_the_network():
    plain, measured = Identity(3), Identity(3)
    exact(tta="d4")(volume(), plain)
    output = exact(tta="d4", outputs=("mean", "disagreement"))(volume(), measured)
    assert plain.calls == measured.calls > 0
    assert output.shape == (2, 4, 5, 7, 9)
    assert output[:, 2:].abs().max() < 1e-6


def test_a_batch_holds_slices_windows_and_cases():
    network = Identity(1)
    exact(in_slices=1, axes=(0,), roi_size=4, overlap=0.0, batch_size=100)(volume((3, 1, 1, 8, 16)), network)
    assert network.calls == 1  # 3 cases of 2 x 4 windows


def test_axis_weights_need_not_sum_to_one():
    image, network = volume(), convolution(6)
    alone = [exact(axes=(axis,))(image, network) for axis in range(3)]
    output = exact(axis_weights=(6, 1, 1))(image, network)
    torch.testing.assert_close(output, 0.75 * alone[0] + 0.125 * (alone[1] + alone[2]), atol=1e-6, rtol=1e-5)


def test_a_meta_tensor_keeps_its_affine():
    affine = torch.diag(torch.tensor([-0.5, 0.5, 3.0, 1.0], dtype=torch.float64))
    image = MetaTensor(volume(), affine=affine, meta={"filename_or_obj": "a.nii.gz"})
    output = exact()(image, Identity(3))
    assert isinstance(output, MetaTensor)
    assert torch.equal(output.affine, affine)
    assert output.meta["filename_or_obj"] == "a.nii.gz"
    torch.testing.assert_close(output.as_tensor(), volume(), atol=2e-6, rtol=1e-6)


def test_a_plain_tensor_gives_a_plain_tensor():
    assert type(exact()(volume(), Identity(3))) is torch.Tensor


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.int16, torch.float16, torch.float64], ids=str
)
def test_any_real_dtype_is_accepted(dtype):
    image = (volume() * 10).abs().to(dtype)
    torch.testing.assert_close(exact(roi_size=16)(image, Identity(3)), image.float(), atol=1e-4, rtol=1e-6)


def test_the_input_is_left_as_it_was():
    image = volume()
    exact(tta="d4")(image, lambda stacks: stacks[:, 1:2].sigmoid_())
    assert torch.equal(image, volume())


def test_the_network_is_left_as_it_was_and_no_gradient_is_kept():
    network = convolution(6).requires_grad_(True)
    before = network.weight.detach().clone()
    output = TriAxisInferer(amp="bf16")(volume(), network)
    assert not output.requires_grad
    assert network.weight.requires_grad
    assert network.weight.dtype == torch.float32
    assert torch.equal(network.weight, before)


def test_bfloat16_stays_near_float32():
    image, network = volume(), convolution(6)
    near, reference = (TriAxisInferer(amp=amp, tta="d4")(image, network) for amp in ("bf16", "off"))
    torch.testing.assert_close(near, reference, atol=0.01, rtol=0)  # 8 bits of mantissa through one layer
    assert not torch.equal(near, reference)


def test_the_number_of_threads_changes_nothing():
    threads = torch.get_num_threads()
    outputs = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            outputs.append(exact(tta="d4")(volume((1, 2, 16, 17, 18)), convolution(6)))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


def test_the_same_call_gives_the_same_bytes():
    image, network = volume(), convolution(6)
    first, second = (TriAxisInferer(tta="d4", roi_size=4)(image, network) for _ in range(2))
    assert torch.equal(first, second)


def test_it_is_an_inferer_of_monai_and_hands_arguments_on():
    inferer = exact(axes=(0,))
    assert isinstance(inferer, Inferer)
    output = inferer(
        volume(), lambda stacks, factor, *, offset: stacks[:, [1, 4]] * factor + offset, 2.0, offset=1
    )
    torch.testing.assert_close(output, volume() * 2 + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_slices": 2}, "in_slices must be an odd number of slices, got 2; use 1 or 3"),
        ({"out_slices": 2}, r"out_slices must be 1 or in_slices \(3\), got 2"),
        ({"slice_step": 2}, r"slice_step must not exceed out_slices \(1\), got 2"),
        ({"axes": ()}, r"axes must be distinct and out of 0, 1, 2, got \(\)"),
        ({"axes": (0, 0)}, r"axes must be distinct and out of 0, 1, 2, got \(0, 0\)"),
        ({"axes": (3,)}, r"axes must be distinct and out of 0, 1, 2, got \(3,\)"),
        ({"roi_size": (3, 3, 3)}, r"roi_size must be a number, \(h, w\) or None, got \(3, 3, 3\)"),
        ({"roi_size": 0}, r"roi_size must be positive and finite, got \(0, 0\)"),
        ({"overlap": 1.0}, "overlap must be below 1, got 1.0; windows would not advance"),
        ({"overlap": -0.5}, "overlap must lie between 0 and 1, got -0.5"),
        ({"blend": "linear"}, "blend must be one of constant, gaussian, got 'linear'"),
        ({"tta": "all"}, "tta must be one of d4, flips, mirror, none, got 'all'"),
        ({"fusion": "median"}, "fusion must be one of"),
        ({"activation": "relu"}, "activation must be one of sigmoid, softmax, got 'relu'"),
        ({"axis_weights": (1, 2)}, r"axis_weights must be one per axis \(3\), got 2"),
        ({"threshold": 2}, "threshold must lie between 0 and 1, got 2"),
        ({"batch_size": 0}, "batch_size must be positive and finite, got 0"),
        ({"amp": "yes"}, "amp must be one of auto, bf16, fp16, off, got 'yes'"),
        ({"outputs": ("std",)}, r"outputs must be \('mean',\) or \('mean', 'disagreement'\), got \('std',\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_argument_without_a_meaning_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TriAxisInferer(**options)


@pytest.mark.parametrize("shape", [(5, 7, 9), (1, 1, 5, 0, 9)], ids=str)
def test_an_input_that_is_no_volume_is_refused(shape):
    with pytest.raises(
        ValueError, match=r"must be volumes \(B, C, D0, D1, D2\) or pictures \(B, C, H, W\), got shape"
    ):
        exact()(torch.zeros(shape), Identity(3))


def test_a_network_in_training_mode_that_returns_a_mapping_is_refused():
    with pytest.raises(TypeError, match="must return a tensor of logits, got dict; put it in eval mode"):
        exact()(volume(), lambda stacks: {"logits": stacks})


@pytest.mark.parametrize(
    ("out_slices", "network"),
    [
        (1, lambda stacks: stacks[..., :-1]),
        (1, lambda stacks: stacks[:1, :, :]),
        (1, lambda stacks: stacks.sum()),
        (1, lambda stacks: stacks[:, :0]),
        (3, lambda stacks: stacks[:, :2]),
    ],
    ids=["smaller", "fewer", "scalar", "no class", "no multiple of M"],
)
def test_a_network_that_returns_another_shape_is_refused(out_slices, network):
    with pytest.raises(ValueError, match=r"must return logits \(N=.*check in_slices, out_slices"):
        exact(out_slices=out_slices)(volume(), network)


PICTURES = {
    "plain": {},
    "d4": {"tta": "d4"},
    "windows": {"roi_size": (16, 11), "overlap": 0.5, "tta": "flips"},
    "gaussian windows beyond the plane": {"roi_size": 24, "blend": "gaussian", "tta": "d4"},
    "logits": {"fusion": "logit_mean", "tta": "d4", "roi_size": 16},
    "max": {"fusion": "max", "tta": "flips"},
    "small batches": {"batch_size": 1, "roi_size": 16},
    "auto amp": {"amp": "auto"},
}


def flat(**options) -> TriAxisInferer:
    return exact(**({"axes": (2,), "in_slices": 1} | options))


@pytest.mark.parametrize("options", PICTURES.values(), ids=PICTURES.keys())
@pytest.mark.parametrize("shape", [(2, 3, 37, 23), (1, 1, 1, 1), (1, 3, 1, 9)], ids=str)
def test_an_identity_network_returns_pictures(options, shape):
    output = flat(**options)(volume(shape), Identity(1))
    torch.testing.assert_close(output, volume(shape), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("fusion", ["mean", "logit_mean"])
def test_eight_views_of_pictures_are_averaged(fusion):
    images, network = volume((2, 3, 37, 23)), convolution(3, 3)
    views = []
    for turns, is_flipped in itertools.product(range(4), (False, True)):
        seen = torch.rot90(images.flip(3) if is_flipped else images, turns, (2, 3))
        back = torch.rot90(network(seen), -turns, (2, 3))
        views.append(back.flip(3) if is_flipped else back)
    each = torch.stack(views)
    expected = each.mean(0).softmax(1) if fusion == "logit_mean" else each.softmax(2).mean(0)
    output = flat(tta="d4", activation="softmax", fusion=fusion)(images, network)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(output.sum(1), torch.ones(2, 37, 23))


@pytest.mark.parametrize("fusion", ["mean", "logit_mean", "max", "union", "vote"])
def test_the_disagreement_of_pictures_is_that_of_their_views(fusion):
    images, network = volume((2, 3, 13, 9)), convolution(3, 2)
    options = {"fusion": fusion, "activation": "sigmoid", "threshold": 0.4, "tta": "flips"}
    output = flat(outputs=("mean", "disagreement"), **options)(images, network)
    alone = flat(**(options | {"tta": "none"}))
    dims = ([], [2], [3], [2, 3])
    each = np.stack([alone(images.flip(flipped), network).flip(flipped).numpy() for flipped in dims])
    np.testing.assert_allclose(output[:, 2:], each.std(axis=0), atol=2e-6)
    torch.testing.assert_close(output[:, :2], flat(**options)(images, network), atol=2e-6, rtol=1e-5)


def test_the_disagreement_of_pictures_costs_no_call_of_the_network():
    plain, measured = Identity(1), Identity(1)
    flat(tta="d4")(volume((1, 3, 9, 7)), plain)
    output = flat(tta="d4", outputs=("mean", "disagreement"))(volume((1, 3, 9, 7)), measured)
    assert plain.calls == measured.calls == 8
    assert output[:, 3:].abs().max() < 1e-6


def test_windows_of_pictures_are_those_of_monais_sliding_window():
    images, network = volume((2, 3, 40, 24)), convolution(3, 2)
    theirs = SlidingWindowInferer((16, 16), overlap=0.5, mode="constant")(images, network)
    ours = flat(roi_size=16, overlap=0.5)(images, network)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_pictures_are_volumes_of_one_slice():
    images, network = volume((2, 3, 13, 9)), convolution(3, 2)
    inferer = TriAxisInferer(axes=(2,), in_slices=1, tta="d4", roi_size=8)
    assert torch.equal(inferer(images, network), inferer(images[..., None], network)[..., 0])


def test_pictures_of_meta_keep_their_affine():
    affine = torch.diag(torch.tensor([0.5, 0.25, 1.0, 1.0], dtype=torch.float64))
    output = flat()(MetaTensor(volume((1, 3, 5, 7)), affine=affine), Identity(1))
    assert isinstance(output, MetaTensor)
    assert torch.equal(output.affine, affine)


def test_pictures_in_bfloat16_stay_near_float32():
    images, network = volume((1, 3, 13, 9)), convolution(3, 2)
    options = {"tta": "d4", "activation": "sigmoid"}
    near, reference = (flat(amp=amp, **options)(images, network) for amp in ("bf16", "off"))
    torch.testing.assert_close(near, reference, atol=0.01, rtol=0)


@pytest.mark.parametrize("options", [{"axes": (0, 1, 2)}, {"in_slices": 3}, {"axes": (1,)}], ids=str)
def test_pictures_across_other_axes_or_of_several_slices_are_refused(options):
    with pytest.raises(
        ValueError, match=r"axes must be \(2,\) for pictures \(B, C, H, W\) and in_slices 1, got"
    ):
        flat(**options)(volume((1, 3, 5, 7)), Identity(1))


def test_the_network_sees_zoomed_planes_of_each_axis() -> None:
    seen = []

    def watching(stacks: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(stacks.shape[2:]))
        return stacks[:, 1:2]

    zooms = ((1, 4), (0.5, 1), (1, 1))
    result = exact(axis_zoom=zooms)(volume((1, 1, 6, 10, 5)), watching)
    assert set(seen) == {(10, 20), (3, 5), (6, 10)}
    assert result.shape == (1, 1, 6, 10, 5)


@pytest.mark.parametrize("tta", ["none", "d4"])
def test_a_zoomed_identity_returns_what_is_smooth(tta: str) -> None:
    ramp = torch.linspace(0, 1, 24).reshape(1, 1, 1, 24, 1).expand(1, 1, 9, 24, 7)
    result = exact(axis_zoom=((2, 3), (1, 4), (2, 2)), tta=tta)(ramp, Identity(3))
    torch.testing.assert_close(result[..., 2:-2, :], ramp[..., 2:-2, :], atol=1e-3, rtol=0)


def test_a_zoom_of_one_changes_nothing() -> None:
    plain = exact(roi_size=(4, 3), tta="flips")(volume(), convolution(6))
    zoomed = exact(roi_size=(4, 3), tta="flips", axis_zoom=((1, 1),) * 3)(volume(), convolution(6))
    assert torch.equal(plain, zoomed)


def test_zoomed_probabilities_stay_probabilities() -> None:
    inferer = TriAxisInferer(axis_zoom=((1, 3), (2, 1), (1, 1)), activation="softmax", roi_size=4)
    result = inferer(volume() * 50, convolution(6, 3))
    torch.testing.assert_close(result.sum(1), torch.ones_like(result[:, 0]))
    assert result.min() >= 0


@pytest.mark.parametrize("options", [{}, {"tta": "d4"}, {"roi_size": (4, 3)}, {"activation": "sigmoid"}])
def test_scales_are_the_mean_of_runs_at_each_size(options: dict) -> None:
    zooms, scales = ((1, 2), (0.5, 1), (1, 1)), (0.75, 1, 1.5)

    def run(**more) -> torch.Tensor:
        return exact(**options, **more)(volume(), convolution(6))

    single = [run(axis_zoom=[[scale * part for part in zoom] for zoom in zooms]) for scale in scales]
    together = run(axis_zoom=zooms, tta_scales=scales)
    torch.testing.assert_close(together, torch.stack(single).mean(0), atol=1e-5, rtol=1e-5)


def test_a_picture_is_seen_at_every_scale_in_every_view() -> None:
    seen = []

    def watching(stacks: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(stacks.shape[2:]))
        return stacks

    TriAxisInferer(in_slices=1, axes=(2,), tta="mirror", tta_scales=(0.5, 1, 2))(
        volume((1, 1, 8, 6)), watching
    )
    assert sorted(seen) == [(4, 3)] * 2 + [(8, 6)] * 2 + [(16, 12)] * 2


@pytest.mark.parametrize("fusion", ["union", "vote"])
def test_masks_are_decided_after_the_mean_over_scales(fusion: str) -> None:
    options = {"fusion": fusion, "axes": (2,), "activation": "sigmoid"}
    mean = exact(axes=(2,), activation="sigmoid", tta_scales=(0.5, 1))(volume(), convolution(6))
    masks = exact(**options, tta_scales=(0.5, 1))(volume(), convolution(6))
    assert torch.equal(masks, (mean >= 0.5).float())


@pytest.mark.parametrize("scales", [(), (0,), (1, -1), (1, float("nan"))])
def test_scales_that_are_no_size_are_refused(scales: tuple) -> None:
    with pytest.raises(ValueError, match="tta_scales must be positive"):
        TriAxisInferer(tta_scales=scales)


@pytest.mark.parametrize("tta", ["none", "flips", "d4"])
@pytest.mark.parametrize("roi_size", [None, (5, 4)])
def test_upright_planes_across_axis_0_are_planes_of_the_transposed_volume(tta: str, roi_size) -> None:
    inputs, network = volume(), convolution(6)
    upright = exact(axes=(0,), upright=True, tta=tta, roi_size=roi_size)
    plain = exact(axes=(0,), tta=tta, roi_size=roi_size and roi_size[::-1])
    expected = plain(inputs.transpose(3, 4), network).transpose(3, 4)
    torch.testing.assert_close(upright(inputs, network), expected)


def test_upright_planes_have_down_last_and_are_mirrored_across_it() -> None:
    seen = []

    def watching(stacks: torch.Tensor) -> torch.Tensor:
        seen.append(stacks[:, 1])
        return stacks[:, 1:2]

    inputs = volume((1, 1, 4, 7, 5))
    exact(axes=(0,), upright=True, tta="mirror", batch_size=4)(inputs, watching)
    torch.testing.assert_close(seen[0], inputs[0, 0].transpose(1, 2))
    torch.testing.assert_close(seen[1], inputs[0, 0].transpose(1, 2).flip(1))


def test_upright_changes_nothing_across_the_other_axes() -> None:
    options = {"axes": (1, 2), "tta": "mirror", "axis_zoom": ((1, 2), (1, 1))}
    plain = exact(**options)(volume(), convolution(6))
    assert torch.equal(exact(**options, upright=True)(volume(), convolution(6)), plain)


@pytest.mark.parametrize("zoom", [((1, 1),), ((1, 0), (1, 1), (1, 1)), ((1,), (1, 1), (1, 1))])
def test_a_zoom_that_fits_no_axis_is_refused(zoom: tuple) -> None:
    with pytest.raises(ValueError, match="axis_zoom must be"):
        TriAxisInferer(axis_zoom=zoom)


@pytest.mark.parametrize(("axis", "depth_dim"), [(0, 2), (2, 3)])
def test_a_mirrored_volume_is_never_seen_upside_down(axis: int, depth_dim: int) -> None:
    def depth(stacks: torch.Tensor) -> torch.Tensor:
        shape = [1, 1, 1, 1]
        shape[depth_dim] = -1
        return (
            torch.arange(float(stacks.shape[depth_dim]))
            .reshape(shape)
            .expand(len(stacks), 1, *stacks.shape[2:])
        )

    plain, mirrored = (exact(axes=(axis,), tta=tta)(volume(), depth) for tta in ("none", "mirror"))
    assert torch.equal(plain, mirrored)
    assert not torch.equal(plain, exact(axes=(axis,), tta="flips")(volume(), depth))
