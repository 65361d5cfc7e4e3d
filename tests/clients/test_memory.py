from __future__ import annotations

import ctypes
import gc
import itertools
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flwr_caesar.clients import memory
from flwr_caesar.clients.memory import LEAST_BYTES, collecting_less, give_back


class Cyclic:
    """Of which only the collector knows that nobody has it."""

    def __init__(self) -> None:
        self.myself = self


def resident() -> int:
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    return 1024 * int(line.split()[1])


def test_what_only_a_cycle_holds_goes_back() -> None:
    give_back(LEAST_BYTES)
    before = resident()
    cycle: list[object] = [np.ones(1 << 14) for _ in range(800)]  # 105 MB
    cycle.append(cycle)
    assert resident() > before + (90 << 20)
    keep = np.ones(1 << 14)  # above the others on the heap
    del cycle
    give_back(LEAST_BYTES)
    assert resident() < before + (30 << 20)
    assert keep.all()


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    give_back(LEAST_BYTES)


def test_small_models_are_not_worth_a_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(gc, "collect", lambda: calls.append(True))
    give_back(LEAST_BYTES - 1)
    assert not calls
    give_back(LEAST_BYTES)
    assert calls


@pytest.fixture
def first_message(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have no message handled here before, and nothing frozen by whoever runs this."""
    monkeypatch.setattr(memory, "_messages", itertools.count())
    had_frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    yield
    if had_frozen:
        gc.freeze()


@pytest.mark.usefixtures("first_message")
def test_collections_pass_over_what_was_there_before_the_first_message() -> None:
    with collecting_less():
        assert gc.get_freeze_count() > 1000
        gone = weakref.ref(Cyclic())
        gc.collect()
        assert gone() is None
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("first_message")
def test_what_was_there_before_is_passed_over_where_all_that_is_dropped_goes() -> None:
    class Record:
        pass

    record = Record()
    dropped = weakref.ref(record)
    with collecting_less():
        view = Cyclic()
        view.record = record  # type: ignore[attr-defined]
        young = weakref.ref(view)
        del view, record
        give_back(LEAST_BYTES, dropped=[dropped])
        assert young() is None
        assert dropped() is None
        assert gc.get_freeze_count() > 1000


@pytest.mark.usefixtures("first_message")
def test_garbage_of_one_message_is_collected_in_the_next() -> None:
    with collecting_less():
        gone = weakref.ref(Cyclic())
    with collecting_less():
        gc.collect()
        assert gone() is None


@pytest.mark.usefixtures("first_message")
def test_what_somebody_else_froze_stays_frozen() -> None:
    # The number of frozen objects tells less: those that other threads drop leave it.
    there = Cyclic()
    frozen = weakref.ref(there)
    gc.freeze()
    del there
    try:
        with collecting_less():
            gc.collect()
            assert frozen() is not None
        gc.collect()
        assert frozen() is not None
    finally:
        gc.unfreeze()
    gc.collect()
    assert frozen() is None


@pytest.mark.usefixtures("first_message")
def test_the_first_message_of_a_large_model_is_given_back() -> None:
    first = Cyclic()
    gone = weakref.ref(first)
    gc.disable()
    try:
        with collecting_less():
            del first
            gc.collect()
            assert gone() is not None
            give_back(LEAST_BYTES, dropped=[gone])
            assert gone() is None
            assert gc.get_freeze_count() == 0
    finally:
        gc.enable()
