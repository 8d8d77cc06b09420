"""What every network over slice stacks must do; a test class inherits it and says how to build one."""

import copy

import pytest
import torch


def outputs_of(result):
    """All tensors that a network returned in training."""
    return list(result.values()) if isinstance(result, dict) else [result]


class NetworkContract:
    """Inherit and override `build`; the four counts differ, so that no two can be mixed up."""

    in_channels, in_slices, out_channels, out_slices = 2, 3, 4, 3
    memory_format = torch.channels_last
    sizes = ((1, 1), (1, 9), (65, 70), (17, 12), (32, 32))

    def build(self, **keywords):
        raise NotImplementedError

    def network(self, seed=0, **keywords):
        counts = {
            "in_channels": self.in_channels,
            "in_slices": self.in_slices,
            "out_channels": self.out_channels,
            "out_slices": self.out_slices,
        }
        return self.build(**{**counts, "seed": seed, **keywords})

    def stack(self, height=17, width=12, items=2):
        generator = torch.Generator().manual_seed(1)
        return torch.rand(items, self.in_channels * self.in_slices, height, width, generator=generator)

    def test_any_size_comes_back_in_eval_mode(self):
        network = self.network().eval()
        with torch.no_grad():
            for size in self.sizes:
                assert network(self.stack(*size)).shape == (2, self.out_channels * self.out_slices, *size)

    def test_any_size_trains_to_a_finite_gradient_even_one_item_of_one_pixel(self):
        network = self.network().train()
        for items, size in ((1, (1, 1)), (2, (1, 9)), (1, (17, 12))):
            network.zero_grad()
            outputs = outputs_of(network(self.stack(*size, items=items)))
            sum(each.sum() for each in outputs).backward()
            assert all(each.shape[-2:] == size for each in outputs if each.ndim >= 4)
            assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None)

    def test_one_output_slice_is_allowed(self):
        network = self.network(out_slices=1).eval()
        with torch.no_grad():
            assert network(self.stack()).shape == (2, self.out_channels, 17, 12)

    def test_gradients_reach_every_parameter(self):
        network = self.network().train()
        outputs = outputs_of(network(self.stack(33, 20)))
        sum((each * torch.rand_like(each)).sum() for each in outputs).backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == []

    def test_an_item_does_not_see_its_batch_in_eval_mode(self):
        network = self.network().eval()
        stack = self.stack(items=3)
        with torch.no_grad():
            together, alone = network(stack), network(stack[1:2])
        # Kernels for other batch sizes may sum in another order.
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)

    def test_same_seed_gives_same_weights_and_leaves_the_global_generator(self):
        before = torch.get_rng_state()
        first, second, other = self.network(seed=3), self.network(seed=3), self.network(seed=4)
        assert torch.equal(before, torch.get_rng_state())
        pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))

    def test_without_a_seed_the_global_generator_draws(self):
        torch.manual_seed(5)
        first = self.network(seed=None)
        second = self.network(seed=None)
        torch.manual_seed(5)
        again = self.network(seed=None)
        weights = [next(p for p in net.parameters() if p.ndim > 1) for net in (first, second, again)]
        assert torch.equal(weights[0], weights[2])
        assert not torch.equal(weights[0], weights[1])

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    @pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # of torch itself
    def test_a_scripted_network_gives_the_same_logits(self, training):
        network = self.network().train(training)
        scripted = torch.jit.script(network).eval()
        network.eval()
        with torch.no_grad():
            for size in ((17, 12), (33, 20)):
                torch.testing.assert_close(scripted(self.stack(*size)), network(self.stack(*size)))

    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # the graph is for one size, as told
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of torch's exporters
    @pytest.mark.filterwarnings("ignore::FutureWarning")
    @pytest.mark.parametrize(
        "dynamo", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["traced", "exported"]
    )
    def test_an_onnx_graph_gives_the_same_logits(self, tmp_path, dynamo):
        pytest.importorskip("onnx")
        pytest.importorskip("onnxscript")
        runtime = pytest.importorskip("onnxruntime")
        network, stack, path = self.network().eval(), self.stack(), str(tmp_path / "network.onnx")
        torch.onnx.export(network, (stack,), path, input_names=["stack"], dynamo=dynamo)
        (logits,) = runtime.InferenceSession(path).run(None, {"stack": stack.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), network(stack), rtol=1e-3, atol=1e-4)

    def test_bfloat16_and_channels_last_stay_near_float32(self):
        network = self.network().eval()
        fast = copy.deepcopy(network).to(memory_format=self.memory_format)
        stack = self.stack()
        with torch.no_grad():
            exact = network(stack)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rough = fast(stack.contiguous(memory_format=torch.channels_last)).float()
        # bfloat16 has 8 bits: 0.4 % a step, a few steps over the layers.
        assert (rough - exact).abs().max() <= 0.1 * exact.abs().max() + 0.05

    def test_bfloat16_trains_to_finite_gradients(self):
        network = self.network().train().to(memory_format=self.memory_format)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = outputs_of(network(self.stack().contiguous(memory_format=torch.channels_last)))
        sum(each.float().square().mean() for each in outputs).backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None)

    def test_weights_survive_a_file(self, tmp_path):
        network, other = self.network(seed=0).eval(), self.network(seed=1).eval()
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        with torch.no_grad():
            assert torch.equal(network(self.stack()), other(self.stack()))

    @pytest.mark.parametrize(
        ("counts", "told"),
        [
            ({"in_slices": 4}, "in_slices must be an odd number of slices, got 4; use 3 or 5"),
            ({"out_slices": 2}, r"out_slices must be 1 \(the middle slice\) or 3 \(in_slices\), got 2"),
            ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
            ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ],
        ids=["even stack", "two out", "no class", "no channel"],
    )
    def test_impossible_counts_are_refused(self, counts, told):
        with pytest.raises(ValueError, match=told):
            self.network(**counts)
