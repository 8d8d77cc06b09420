"""torchvision's VGG16 weights for the encoder of `Vgg16Fcn`, read from a local file."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from volseg.checks import refuse
from volseg.networks.encoder_inputs import fit_inputs
from volseg.networks.weights import apply_state, read_state

__all__ = ["load_vgg16_weights"]


def load_vgg16_weights(network: nn.Module, path: str | Path, *, in_channels: int = 3) -> None:
    """Start the encoder of a `Vgg16Fcn` from torchvision's `vgg16` or `vgg16_bn` state dict.

    Only tensors are read from the file. Its classifier is left out. `vgg16` belongs to norm "none" (or
    "instance", whose norms then keep their start), `vgg16_bn` to "batch".

    The filters of the first convolution fit red, green and blue; see `fit_inputs` for other inputs.
    The weights were trained on pictures minus (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225); any
    standardised picture will do.

    Args:
        network: whose `features` are filled, in place.
        path: of the file, as torch.save writes it.
        in_channels: C, channels of one slice.

    Raises:
        InputError: when the file cannot be read safely or is another network's; the network is then
            unchanged.
    """
    file = {
        name.removeprefix("features."): value
        for name, value in read_state(path).items()
        if name.startswith("features.")
    }
    encoder = network.get_submodule("features")
    theirs, ours = _convolutions_of(file), _convolutions_of(encoder.state_dict())
    if len(theirs) != len(ours):
        refuse(
            path,
            f"torchvision's vgg16 or vgg16_bn, {len(ours)} convolutions under 'features.'",
            f"{len(theirs)} of them",
            "save the state dict of torchvision.models.vgg16",
        )
    _check_norm(path, encoder, is_of_batch_norm=any(name.endswith("running_mean") for name in file))
    places = dict(zip(theirs, ours, strict=True))
    state = {}
    for name, value in file.items():
        layer, _, rest = name.partition(".")
        # The norm of a convolution stands right behind it.
        place = places.get(int(layer)) if int(layer) in places else places[int(layer) - 1] + 1
        state[f"{place}.{rest}"] = value
    first = f"{ours[0]}.weight"
    state[first] = fit_inputs(state[first], encoder.state_dict()[first].shape[1], in_channels)
    own = encoder.state_dict()
    state.update({name: own[name] for name in own if name not in state and _is_norm(encoder, name)})
    apply_state(encoder, state, source=path)


def _convolutions_of(state: dict[str, torch.Tensor]) -> list[int]:
    """Numbers of the layers whose weights have four axes, in order."""
    kernels = [name for name, value in state.items() if value.ndim == 4]
    return sorted(int(name.partition(".")[0]) for name in kernels if re.fullmatch(r"\d+\.weight", name))


def _is_norm(encoder: nn.Module, name: str) -> bool:
    return not isinstance(encoder.get_submodule(name.partition(".")[0]), nn.Conv2d)


def _check_norm(path: str | Path, encoder: nn.Module, *, is_of_batch_norm: bool) -> None:
    has_batch_norm = any(isinstance(layer, nn.BatchNorm2d) for layer in encoder)  # type: ignore[attr-defined]
    if has_batch_norm != is_of_batch_norm:
        expected, got = ("vgg16_bn", "vgg16") if has_batch_norm else ("vgg16", "vgg16_bn")
        norm = '"batch"' if is_of_batch_norm else '"none" or "instance"'
        refuse(path, f"torchvision's {expected}", f"its {got}", f"build the network with norm {norm}")
