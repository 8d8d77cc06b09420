from __future__ import annotations

import logging
import re
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # ignite has torch script a function
    from monai.data import DataLoader as MonaiDataLoader
    from monai.data import MetaTensor
    from monai.engines.workflow import Workflow
    from monai.transforms import Compose, MapTransform, RandFlipd, Randomizable

from volseg.checks import InputError
from volseg.data.slice_stack_dataset import EpochSampler, SliceStackDataset

LENGTH = 8


class RandRowd(Randomizable, MapTransform):
    """Cut a random row; data may not import transforms, and neither does its test."""

    def __call__(self, data):
        item = dict(data)
        row = int(self.R.randint(item["image"].shape[1]))
        return {**item, **{key: item[key][:, row].to(torch.float32) for key in self.keys}}


def load(case):
    values = np.random.default_rng(case["number"]).integers(0, 60000, (1, 7, 5, 6))
    image = MetaTensor(torch.from_numpy(values.astype(np.int32)), meta={"filename_or_obj": "a.tif"})
    return {
        **case,
        "image": image,
        "label": (image > 30000).to(torch.uint8),
        "label_foreground": torch.arange(9),
    }


def dataset(**changes) -> SliceStackDataset:
    both = ("image", "label")
    sample = Compose([RandRowd(both), RandFlipd(both, prob=0.5, spatial_axis=0)])
    arguments = {"load": load, "sample": sample, "length": LENGTH, "seed": 5, **changes}
    cases = [{"case": f"case_{number}", "number": number} for number in range(3)]
    return SliceStackDataset(arguments.pop("cases", cases), **arguments)


def drawn(loader) -> list[torch.Tensor]:
    return [batch[key].clone() for batch in loader for key in ("image", "label")]


def test_a_sample_depends_on_its_index_alone() -> None:
    first, second = dataset(), dataset()
    order = [9, 0, 3, 9]
    samples = [first[index] for index in order]
    assert torch.equal(samples[0]["image"], samples[3]["image"])
    assert torch.equal(second[3]["image"], samples[2]["image"])
    assert torch.equal(second[9]["label"], samples[0]["label"])


def test_epochs_and_seeds_differ() -> None:
    one = [dataset()[index]["image"] for index in range(LENGTH)]
    following = [dataset()[LENGTH + index]["image"] for index in range(LENGTH)]
    reseeded = [dataset(seed=6)[index]["image"] for index in range(LENGTH)]
    for other in (following, reseeded):
        assert sum(torch.equal(a, b) for a, b in zip(one, other, strict=True)) <= 2


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # Python 3.12 warns of threads that PyTorch keeps
def test_two_workers_give_the_bytes_of_none() -> None:
    source = dataset()
    sampler = EpochSampler(source)
    none = DataLoader(source, batch_size=2, sampler=sampler)
    two = DataLoader(source, batch_size=2, sampler=sampler, num_workers=2, persistent_workers=True)
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        expected, found = drawn(none), drawn(two)
        assert len(expected) == LENGTH
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_ranks_together_draw_what_one_rank_draws() -> None:
    source = dataset()
    alone = EpochSampler(source)
    ranks = [EpochSampler(source, num_replicas=4, rank=rank) for rank in range(4)]
    for sampler in (alone, *ranks):
        sampler.set_epoch(3)
    shares = [list(sampler) for sampler in ranks]
    assert list(alone) == list(range(3 * LENGTH, 4 * LENGTH))
    assert [index for step in zip(*shares, strict=True) for index in step] == list(alone)
    assert [len(sampler) for sampler in ranks] == [2] * 4


def test_a_running_process_group_tells_the_rank(monkeypatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 4)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 3)
    assert list(EpochSampler(dataset())) == [3, 7]


def test_an_engine_of_monai_moves_the_sampler_from_epoch_to_epoch() -> None:
    source = dataset()
    seen: list[torch.Tensor] = []

    class Recorder(Workflow):
        def _iteration(self, engine, batchdata):
            seen.append(batchdata["image"])
            return {}

    loader = MonaiDataLoader(source, batch_size=LENGTH, sampler=EpochSampler(source), num_workers=0)
    Recorder(device="cpu", max_epochs=2, data_loader=loader).run()
    for epoch, batch in enumerate(seen, start=1):
        expected = torch.stack([source[epoch * LENGTH + number]["image"] for number in range(LENGTH)])
        assert torch.equal(batch, expected)
    assert len(seen) == 2


def test_global_random_state_is_left_as_found() -> None:
    source = dataset()
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    source[4]
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_samples_are_plain_tensors_of_the_keys_asked_for() -> None:
    sample = dataset(keys=("image", "case"))[0]
    assert set(sample) == {"image", "case"}
    assert type(sample["image"]) is torch.Tensor
    assert sample["case"].startswith("case_")


def test_integers_widened_by_the_loader_are_held_narrow() -> None:
    source = dataset()
    for case in source.cases:
        assert case["image"].dtype == torch.uint16
        assert torch.equal(case["image"].to(torch.int32), load(case)["image"].as_tensor())
        assert case["label"].dtype == torch.uint8
        assert case["label_foreground"].dtype == torch.int64


def test_negative_and_floating_volumes_keep_their_values() -> None:
    def load_signed(case):
        return {
            "image": torch.tensor([[[-5, 7]]]),
            "label": torch.tensor([[[-5.5]]]),
            "wide": torch.tensor([[[1 << 40]]]),
        }

    held = dataset(load=load_signed).cases[0]
    assert held["image"].dtype == torch.int16
    assert held["image"].tolist() == [[[-5, 7]]]
    assert held["label"].dtype == torch.float32
    assert held["wide"].dtype == torch.int64


def test_each_case_is_loaded_once_and_told(caplog) -> None:
    loaded = []

    def counted(case):
        loaded.append(case["case"])
        return load(case)

    with caplog.at_level(logging.INFO):
        source = dataset(load=counted)
        for index in range(LENGTH):
            source[index]
    assert loaded == ["case_0", "case_1", "case_2"]
    assert "loaded case case_1 (2 of 3)" in caplog.text


def test_cases_are_drawn_by_their_weights() -> None:
    source = dataset(case_weights=(0, 1, 3), sample=lambda item: item, keys=("number",), length=400)
    numbers = [source[index]["number"] for index in range(400)]
    assert numbers.count(0) == 0
    assert numbers.count(2) == pytest.approx(300, abs=40)  # more than four standard deviations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": []}, "cases must not be empty; check the datalist and its split"),
        ({"length": 0}, "length must be positive and finite, got 0"),
        ({"case_weights": (1, 2)}, "case_weights must be 3 numbers >= 0 with a positive sum, got [1, 2]"),
    ],
    ids=["cases", "length", "weights"],
)
def test_wrong_arguments_are_told(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dataset(**changes)


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(IndexError, match="a sample's index must be at least 0, got -1"):
        dataset()[-1]


def test_ranks_that_cannot_share_an_epoch_are_refused() -> None:
    message = "length must be a multiple of the number of ranks (3), got 8; use 6 or 9"
    with pytest.raises(ValueError, match=re.escape(message)):
        EpochSampler(dataset(), num_replicas=3, rank=0)


def test_labels_that_are_all_empty_are_refused_and_one_empty_label_is_not() -> None:
    def load_empty(case):
        count = 2 if case["number"] == filled else 0
        return {**load(case), "label_foreground": torch.arange(count)}

    filled = 1
    assert len(dataset(load=load_empty).cases) == 3
    filled = -1
    with pytest.raises(InputError, match="a labelled voxel in at least one training case, got none in 3"):
        dataset(load=load_empty)
