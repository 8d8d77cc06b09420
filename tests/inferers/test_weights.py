from __future__ import annotations

import pytest
import torch
from torch import nn

from volseg.inferers.weights import in_channels_last, with_fast_weights


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 2)
        )
        self.calls = 0

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.body(maps)


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Counting().eval()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_numbers_are_those_of_the_network_under_autocast(network, dtype, channels_last):
    maps = torch.linspace(-1, 1, 2 * 7 * 9).reshape(2, 1, 7, 9)
    fast = with_fast_weights(network, dtype, channels_last=channels_last)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        # Another memory format may sum in another order: float32 rounding, or one step of bfloat16.
        tolerance = 1e-6 if dtype is None else 2**-8
        torch.testing.assert_close(fast(maps), network(maps), atol=tolerance, rtol=tolerance)


def test_the_network_keeps_its_weights_and_counts_its_calls(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fast = with_fast_weights(network, torch.bfloat16, channels_last=True)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        fast(torch.zeros(1, 1, 4, 4))
    assert network.calls == 1
    for name, value in network.state_dict().items():
        assert value.dtype == before[name].dtype
        assert value.stride() == before[name].stride()
        assert torch.equal(value, before[name])


def test_a_changed_weight_is_seen_by_the_next_inference(network):
    with torch.no_grad():
        network.body[2].bias.fill_(7.0)
        network.body[2].weight.zero_()
        assert (with_fast_weights(network, None, channels_last=True)(torch.zeros(1, 1, 4, 4)) == 7).all()


@pytest.mark.parametrize("callable_", [torch.sigmoid, nn.Identity()], ids=["function", "no weights"])
def test_what_has_no_weights_is_returned_as_it_is(callable_):
    assert with_fast_weights(callable_, torch.bfloat16, channels_last=True) is callable_


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning"
)  # that it is deprecated is not the point
def test_a_scripted_network_is_returned_as_it_is():
    scripted = torch.jit.script(nn.Conv2d(1, 1, 1))
    assert with_fast_weights(scripted, None, channels_last=True) is scripted


def test_one_channel_gets_the_strides_of_channels_last():
    maps = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert in_channels_last(maps).stride() == (12, 1, 4, 1)
    assert torch.equal(in_channels_last(maps), maps)
    laid_out = in_channels_last(maps)
    assert in_channels_last(laid_out) is laid_out
