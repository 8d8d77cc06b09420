"""Shared fixtures: quiet threads, seeds left as found."""

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def global_random_state_is_left_as_found():
    """No test changes what the next one draws."""
    python, legacy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(python)
    np.random.set_state(legacy)
    torch.set_rng_state(torch_state)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
