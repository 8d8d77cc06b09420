"""Every loss says where its formula comes from."""

import inspect

import pytest
from torch import nn

import volseg.losses

LOSSES = {name for name in volseg.losses.__all__ if inspect.isclass(getattr(volseg.losses, name))}
WRAPPERS = {"IgnoreMaskLoss", "WeightedSumLoss"}  # no formula of their own


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_cites_its_source_and_shows_its_use(name):
    loss = getattr(volseg.losses, name)
    assert issubclass(loss, nn.Module)
    assert "Example:" in loss.__doc__
    assert ("Source: " in loss.__doc__) == (name not in WRAPPERS)
