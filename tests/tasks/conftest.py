from __future__ import annotations

import copy

import pytest

BASE = {
    "name": "mnist5k",
    "batch_size": 16,
    "test_size": 1000,
    "partition": {"kind": "dirichlet", "alpha": 0.3},
}


@pytest.fixture
def data_cfg():
    """A valid ``data`` group, to be changed by the test."""
    return copy.deepcopy(BASE)
