"""The VGG16 network under the contract, its published encoder, presence head and gate."""

import importlib

import pytest
import torch

from volseg.checks import InputError
from volseg.losses import MultiTaskLoss
from volseg.networks import Vgg16Fcn, load_vgg16_weights

from .contract import NetworkContract

CONVOLUTIONS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def narrow(**keywords):
    return Vgg16Fcn(**{"width": 0.0625, "seed": 0, **keywords})


class TestVgg16Fcn(NetworkContract):
    sizes = ((1, 1), (1, 9), (65, 70), (17, 12), (64, 96))

    def build(self, **keywords):
        return narrow(**keywords)


class TestVgg16FcnWithEverything(NetworkContract):
    sizes = ((1, 9), (65, 70))

    def build(self, **keywords):
        options = {"norm": "batch", "decoder_features": (8, 6, 4), "presence_head": True, "dropout": 0.1}
        return narrow(**options, gate_by_presence=True, **keywords)


def torchvision_state(*, batch_norm=False, width=1.0, seed=0):
    """A state dict with the names and shapes of torchvision's, and a stub of its classifier."""
    generator = torch.Generator().manual_seed(seed)
    state, layer, inputs = {}, 0, 3
    for channels in CONVOLUTIONS:
        if channels == 0:
            layer += 1
            continue
        outputs = int(channels * width)
        state[f"features.{layer}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator)
        state[f"features.{layer}.bias"] = torch.randn(outputs, generator=generator)
        if batch_norm:
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[f"features.{layer + 1}.{name}"] = torch.rand(outputs, generator=generator)
            state[f"features.{layer + 1}.num_batches_tracked"] = torch.tensor(7)
        layer, inputs = layer + (3 if batch_norm else 2), outputs
    return {**state, "classifier.0.weight": torch.zeros(2, 2)}


def saved(tmp_path, state):
    torch.save(state, tmp_path / "vgg16.pth")
    return tmp_path / "vgg16.pth"


def test_the_encoder_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = Vgg16Fcn()
    assert sum(parameter.numel() for parameter in network.features.parameters()) == 14_714_688


@pytest.mark.parametrize("batch_norm", [False, True], ids=["vgg16", "vgg16_bn"])
def test_torchvisions_names_are_the_encoders_own(batch_norm):
    with torch.device("meta"):
        network = Vgg16Fcn(norm="batch" if batch_norm else "none")
        theirs = torchvision_state_shapes(batch_norm)
    ours = {f"features.{name}": tuple(value.shape) for name, value in network.features.state_dict().items()}
    assert ours == theirs


def torchvision_state_shapes(batch_norm):
    state = torchvision_state(batch_norm=batch_norm, width=0.0625)

    def grown(name, shape):
        if name == "features.0.weight":
            return (16 * shape[0], *shape[1:])
        return tuple(16 * size if axis < 2 else size for axis, size in enumerate(shape))

    features = {name: tuple(value.shape) for name, value in state.items() if name.startswith("features.")}
    return {name: grown(name, shape) for name, shape in features.items()}


def test_real_torchvision_weights_give_torchvisions_features(tmp_path):
    models = pytest.importorskip("torchvision.models")
    theirs = models.vgg16(weights=None).eval()
    network = Vgg16Fcn(encoder_weights=saved(tmp_path, theirs.state_dict())).eval()
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network._encode(picture)[-1], theirs.features(picture))


@pytest.mark.parametrize(("norm", "batch_norm"), [("none", False), ("batch", True), ("instance", False)])
def test_an_encoder_starts_from_a_file_of_torchvisions_weights(tmp_path, norm, batch_norm):
    state = torchvision_state(batch_norm=batch_norm, width=0.0625)
    network = narrow(norm=norm)
    load_vgg16_weights(network, saved(tmp_path, state))
    convolutions = [layer for layer in network.features if isinstance(layer, torch.nn.Conv2d)]
    kernels = [value for value in state.values() if value.ndim == 4]
    assert len(kernels) == len(convolutions) == 13
    assert all(torch.equal(a.weight, b) for a, b in zip(convolutions, kernels, strict=True))
    if batch_norm:
        assert torch.equal(network.features[1].running_mean, state["features.1.running_mean"])
    if norm == "instance":
        assert network.features[1].weight.eq(1).all()


def test_the_weights_are_taken_when_the_network_is_built(tmp_path):
    state = torchvision_state(width=0.0625)
    network = narrow(encoder_weights=saved(tmp_path, state))
    assert torch.equal(network.features[28].weight, state["features.28.weight"])


@pytest.mark.parametrize(
    ("in_channels", "in_slices"), [(1, 1), (1, 3), (3, 3), (2, 1)], ids=["grey", "stack", "colours", "two"]
)
def test_a_grey_picture_gives_the_same_whatever_the_number_of_inputs(tmp_path, in_channels, in_slices):
    path = saved(tmp_path, torchvision_state(width=0.0625))
    colour = narrow(encoder_weights=path)
    network = narrow(in_channels=in_channels, in_slices=in_slices, encoder_weights=path)
    grey = torch.rand(1, 1, 9, 11)
    ours = network.features[0](grey.expand(-1, in_channels * in_slices, -1, -1))
    torch.testing.assert_close(ours, colour.features[0](grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_the_slices_of_a_colour_share_its_filter(tmp_path):
    path = saved(tmp_path, torchvision_state(width=0.0625))
    network, plain = narrow(in_slices=3, encoder_weights=path), narrow(encoder_weights=path)
    for channel in range(9):
        expected = plain.features[0].weight[:, channel // 3] / 3
        torch.testing.assert_close(network.features[0].weight[:, channel], expected)


@pytest.mark.parametrize(
    ("state", "norm", "message"),
    [
        (torchvision_state(width=0.125), "none", r"0\.weight of shape \(4, 3, 3, 3\), got \(8, 3, 3, 3\)"),
        (torchvision_state(batch_norm=True, width=0.0625), "none", 'got its vgg16_bn; .* norm "batch"'),
        (torchvision_state(width=0.0625), "batch", 'got its vgg16; .* norm "none" or "instance"'),
        ({"conv1.weight": torch.zeros(4, 3, 3, 3)}, "none", "13 convolutions under 'features.', got 0 of th"),
        (
            {**torchvision_state(width=0.0625), "features.5.bias": torch.full((8,), torch.nan)},
            "none",
            "expected finite weights, got 8 NaN",
        ),
    ],
    ids=["width", "batch norm", "no batch norm", "resnet", "nan"],
)
def test_weights_of_another_network_are_refused(tmp_path, state, norm, message):
    network = narrow(norm=norm)
    before = [value.clone() for value in network.state_dict().values()]
    with pytest.raises(InputError, match=rf"vgg16\.pth: .*{message}"):
        load_vgg16_weights(network, saved(tmp_path, state))
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))


def test_weights_that_would_run_code_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"vgg16\.pth: expected tensors only"):
        narrow(encoder_weights=saved(tmp_path, {"features": importlib.import_module}))


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match="got no such file"):
        narrow(encoder_weights=tmp_path / "missing.pth")


@pytest.mark.parametrize("blocks", [0, 3, 5])
def test_frozen_blocks_neither_learn_nor_gather_statistics(blocks):
    network = narrow(norm="batch", frozen_blocks=blocks).train()
    before = {name: value.clone() for name, value in network.features.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.rand(2, 3, 33, 40)).square().mean().backward()
    optimizer.step()
    after = network.features.state_dict()
    changed = {int(name.split(".")[0]) for name in after if not torch.equal(after[name], before[name])}
    last = {0: -1, 3: 23, 5: 43}[blocks]  # the third and the fifth pooling of vgg16_bn
    assert all(layer > last for layer in changed)
    assert bool(changed) == (blocks < 5)
    assert network.features.training
    assert all(layer.training == (index > last) for index, layer in enumerate(network.features))


def test_unfrozen_weights_return_to_training_after_a_validation():
    network = narrow(norm="batch", frozen_blocks=2).eval().train()
    assert not network.features[1].training
    assert network.features[-3].training


def test_training_gives_what_a_multi_task_loss_takes():
    network = narrow(presence_head=True)
    outputs = network(torch.rand(2, 3, 33, 40))
    target = torch.zeros(2, 1, 33, 40)
    target[0, 0, 3:9, 4:12] = 1
    loss = MultiTaskLoss(torch.nn.BCEWithLogitsLoss())(outputs, target)
    loss.backward()
    assert network.detection.score.weight.grad.abs().sum() > 0


def test_the_presence_is_the_same_in_training_and_by_its_method():
    network, stack = narrow(presence_head=True), torch.rand(2, 3, 33, 40)
    torch.testing.assert_close(network.train()(stack)["detection"], network.eval().detect(stack))


def test_a_picture_judged_empty_gets_an_empty_mask():
    network, stack = narrow(presence_head=True, gate_by_presence=True).eval(), torch.rand(3, 3, 33, 40)
    with torch.no_grad():
        network.detection.score.bias += 0.3 - network.detect(stack).median()
        presence = network.detect(stack)
        network.gate = False
        plain = network(stack) + 5  # everything is foreground
        gated = network._gated(plain, presence)
    highest = presence[:, :, None, None].expand_as(gated)
    torch.testing.assert_close(gated, torch.minimum(plain, highest))
    assert (gated.flatten(1) >= 0).any(dim=1).tolist() == (presence[:, 0] >= 0).tolist()


def test_the_gate_only_shuts_in_eval_mode():
    options = {"presence_head": True, "presence_threshold": 0.999}
    gated, plain = narrow(gate_by_presence=True, **options), narrow(**options)
    stack = torch.rand(1, 3, 33, 40)
    assert torch.equal(gated.train()(stack)["logits"], plain.train()(stack)["logits"])
    expected = (plain.eval().detect(stack) - torch.logit(torch.tensor(0.999)))[..., None, None]
    torch.testing.assert_close(gated.eval()(stack), torch.minimum(plain(stack), expected))
    assert (gated(stack) < 0).all()


def test_of_several_classes_an_absent_one_never_beats_the_background():
    network = narrow(out_channels=3, presence_head=True, gate_by_presence=True)
    maps = torch.randn(2, 3, 5, 7)
    labels = network._gated(maps, torch.tensor([[-2.0, 9.0], [9.0, 9.0]])).argmax(dim=1)
    assert 1 not in labels[0]
    assert torch.equal(labels[1], maps[1].argmax(dim=0))


def test_a_transposed_step_starts_as_bilinear_interpolation():
    learnt, fixed = narrow(), narrow(upsample="bilinear")
    fixed.load_state_dict(learnt.state_dict(), strict=False)
    stack = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        inner = (slice(None), slice(None), slice(32, -32), slice(32, -32))  # edges: zeros outside or repeated
        torch.testing.assert_close(learnt(stack)[inner], fixed(stack)[inner], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # of torch itself
def test_a_scripted_network_tells_the_presence_too():
    network, stack = narrow(presence_head=True).eval(), torch.rand(2, 3, 17, 12)
    torch.testing.assert_close(torch.jit.script(network).detect(stack), network.detect(stack))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen_blocks": 6}, "frozen_blocks must be 0 to 5, got 6"),
        ({"norm": "layer"}, "norm must be one of batch, instance, none, got 'layer'"),
        ({"upsample": "nearest"}, "upsample must be one of bilinear, transposed, got 'nearest'"),
        ({"width": 0.0}, "width must be positive and finite, got 0.0"),
        ({"decoder_features": (8, 4)}, r"None or three positive widths, got \(8, 4\); use \(256, 128, 32\)"),
        ({"gate_by_presence": True}, "gate_by_presence needs a presence head; use presence_head=True"),
        ({"presence_threshold": 1.0}, "presence_threshold must lie between 0 and 1, both excluded, got 1.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_argument_without_a_meaning_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        narrow(**options)


def test_detecting_without_a_presence_head_is_refused():
    with pytest.raises(ValueError, match="no presence head; build it with presence_head=True"):
        narrow().detect(torch.rand(1, 3, 17, 12))
