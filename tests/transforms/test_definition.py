"""A definition tells every argument, the same one for the same arguments, in plain JSON."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from monai.transforms import (
    Compose,
    GaussianSmoothd,
    HistogramNormalized,
    Lambdad,
    RandFlipd,
    Resized,
    ScaleIntensityRanged,
)

from volseg.transforms import ChooseChanneld, LimitContrastd, definition_of


def power(image, exponent):
    return image**exponent


def raised(exponent):
    return lambda image: image**exponent


PAIRS = {
    "clip limit": [partial(LimitContrastd, clip_limit=limit) for limit in (0.01, 0.02)],
    "flag": [partial(LimitContrastd, on=on) for on in ("luminance", "channels")],
    "channel": [partial(ChooseChanneld, channel=channel) for channel in (0, 1)],
    "inner transform": [partial(GaussianSmoothd, sigma=sigma) for sigma in (1.0, 2.0)],
    "array": [partial(HistogramNormalized, mask=np.eye(2) > limit) for limit in (0, 1)],
    "enumeration": [partial(Resized, spatial_size=(4, 5), mode=mode) for mode in ("area", "nearest")],
    "random state": [partial(RandFlipd, prob=prob) for prob in (0.1, 0.2)],
    "function": [partial(Lambdad, func=function) for function in (torch.sqrt, torch.exp)],
    "lambda": [
        partial(Lambdad, func=function) for function in (lambda image: image * 2, lambda image: image * 3)
    ],
    "closure": [partial(Lambdad, func=raised(exponent)) for exponent in (2, 3)],
    "partial function": [partial(Lambdad, func=partial(power, exponent=exponent)) for exponent in (2, 3)],
    "transforms inside": [partial(Compose, [ScaleIntensityRanged("image", 0, high)]) for high in (255, 127)],
}


def made(build):
    return build() if build.func is Compose else build("image")


@pytest.mark.parametrize("builds", PAIRS.values(), ids=PAIRS)
def test_another_argument_makes_another_definition(builds):
    one, other = (json.dumps(definition_of([made(build)]), sort_keys=True) for build in builds)
    assert one != other


@pytest.mark.parametrize("builds", PAIRS.values(), ids=PAIRS)
def test_equal_arguments_make_equal_definitions_without_an_address(builds):
    one, again = (json.dumps(definition_of([made(builds[0])]), sort_keys=True) for _ in range(2))
    assert one == again
    assert "0x" not in one


def test_a_definition_names_the_class_and_its_values():
    assert definition_of([LimitContrastd("image", tiles=4)]) == [
        {
            "class": "volseg.transforms.contrast.LimitContrastd",
            "keys": ["image"],
            "allow_missing_keys": False,
            "clip_limit": 0.01,
            "tiles": 4,
            "on": "luminance",
            "mask_key": "field_of_view",
        }
    ]


def test_plain_values_are_themselves():
    values = {"a": [1, 2.5, None, True, "x"], "b": {}}
    assert definition_of(values) == values
    assert definition_of((np.float32(0.5), torch.tensor([1, 2]), {"b", "a"})) == [0.5, [1, 2], ["a", "b"]]
