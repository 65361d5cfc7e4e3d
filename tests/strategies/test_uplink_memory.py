"""Codec states of devices on the server: kept once applied, within the cap."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec import CodecState, Layout
from flwr_caesar.codec.state import NO_DIGEST
from flwr_caesar.strategies.uplink_memory import UplinkMemory

LAYOUT = Layout.of({"w": np.zeros(10, np.float32)})
FRESH = CodecState(LAYOUT)


def state(version: int) -> CodecState:
    return CodecState(LAYOUT, version, {"m": np.full(25, version, np.float32)})


def test_only_what_was_applied_is_remembered() -> None:
    memory = UplinkMemory(1000)
    memory.stage(1, state(1))
    memory.stage(2, state(2))
    memory.drop(2)
    memory.commit({1: "a", 2: "b"})
    assert memory.digest("a") == state(1).digest
    assert memory.digest("b") == NO_DIGEST
    memory.stage(1, state(3))
    memory.forget_phase()
    memory.commit({})
    assert memory.get("a", FRESH).version == 1


def test_an_upload_without_memory_ends_what_was_remembered() -> None:
    memory = UplinkMemory(1000)
    memory.stage(1, state(1))
    memory.commit({1: "a"})
    memory.stage(1, FRESH)
    memory.commit({1: "a"})
    assert memory.digest("a") == NO_DIGEST


def test_the_longest_unused_is_forgotten_beyond_the_cap() -> None:
    memory = UplinkMemory(250)
    for node, device in enumerate("abc"):
        memory.stage(node, state(node + 1))
        memory.commit({node: device})
    assert memory.nbytes <= 250
    assert memory.digest("a") == NO_DIGEST
    assert memory.digest("c") != NO_DIGEST


def test_a_state_of_another_layout_is_not_used() -> None:
    memory = UplinkMemory(1000)
    memory.stage(1, state(1))
    memory.commit({1: "a"})
    other = CodecState(Layout.of({"w": np.zeros(11, np.float32)}))
    assert memory.get("a", other) is other


def test_a_cap_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="upload_memory"):
        UplinkMemory(-1)
