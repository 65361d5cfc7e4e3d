"""Whether the kernel is used: as the environment says, and only where it was built."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from flwr_caesar.codec import kernel

BUILT = find_spec("flwr_caesar.codec.kernel._native") is not None


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Give the other tests back what they had."""
    before = kernel.native, kernel.in_use
    yield
    kernel.native, kernel.in_use = before


@pytest.mark.parametrize("value", ["off", "OFF", "0", "no", "false"])
def test_it_can_be_switched_off(value, monkeypatch):
    monkeypatch.setenv("FLWR_CAESAR_KERNEL", value)
    importlib.reload(kernel)
    assert kernel.native is None
    assert kernel.in_use == "numpy, as FLWR_CAESAR_KERNEL is off"


@pytest.mark.parametrize("value", ["", "on"])
def test_it_is_used_where_it_was_built(value, monkeypatch):
    monkeypatch.setenv("FLWR_CAESAR_KERNEL", value)
    importlib.reload(kernel)
    assert (kernel.native is not None) == BUILT
    assert (kernel.in_use == "the compiled kernel") == BUILT


def test_where_it_was_not_built_numpy_is_used(monkeypatch):
    monkeypatch.delenv("FLWR_CAESAR_KERNEL", raising=False)
    monkeypatch.setitem(sys.modules, "flwr_caesar.codec.kernel._native", None)
    importlib.reload(kernel)
    assert kernel.native is None
    assert kernel.in_use.startswith("numpy, as the compiled kernel cannot be loaded")


@pytest.mark.parametrize("says", [{}, {"INTERFACE": 0}])
def test_a_kernel_of_other_sources_is_not_used(says, monkeypatch):
    monkeypatch.delenv("FLWR_CAESAR_KERNEL", raising=False)
    found = SimpleNamespace(**says)
    monkeypatch.setitem(sys.modules, "flwr_caesar.codec.kernel._native", found)
    importlib.reload(kernel)
    assert kernel.native is None
    assert kernel.in_use.endswith("of another version: install again")
