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
def no_copies(tmp_path, monkeypatch):
    """Clear what functions remember, now and at the end, and what the disk does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cleared = []

    def forget(*cached):
        cleared.extend(cached)
        for function in cached:
            function.cache_clear()

    yield forget
    for function in cleared:
        function.cache_clear()


@pytest.fixture
def data_cfg():
    """A valid ``data`` group, to be changed by the test."""
    return copy.deepcopy(BASE)
