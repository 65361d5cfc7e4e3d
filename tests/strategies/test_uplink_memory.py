"""What the server remembers of uploads: the cap holds, and what is needed stays."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecState, Layout, get_codec
from flwr_caesar.codec.contract.state import NO_DIGEST
from flwr_caesar.strategies.uplink_memory import UplinkMemory

LAYOUT = Layout.of({"w": np.zeros(4, np.float32)})
FRESH = CodecState(LAYOUT)


def state(number: int, nbytes: int = 100) -> CodecState:
    return CodecState(LAYOUT, number, {"a": np.full(nbytes, number % 256, np.uint8)})


def phase(memory: UplinkMemory, *devices: str, number: int = 1) -> None:
    """Ask devices, open their replies and apply them all."""
    for device in devices:
        memory.digest(device)
    for node, device in enumerate(devices):
        memory.opened(device)
        memory.stage(node, state(number))
    memory.commit(dict(enumerate(devices)))


def known(memory: UplinkMemory, *devices: str) -> list[bool]:
    found = [memory.digest(device) != NO_DIGEST for device in devices]
    memory.forget_phase()
    return found


def test_an_applied_upload_is_remembered_and_named() -> None:
    memory = UplinkMemory(1000)
    assert memory.digest("a") == NO_DIGEST
    assert memory.get("a", FRESH) is FRESH
    phase(memory, "a")
    assert memory.digest("a") == state(1).digest
    assert memory.get("a", FRESH).digest == state(1).digest
    other = CodecState(Layout.of({"v": np.zeros(4, np.float32)}))
    assert memory.get("a", other) is other


def test_an_upload_that_is_not_applied_changes_nothing() -> None:
    memory = UplinkMemory(1000)
    phase(memory, "a", "b")
    memory.stage(0, state(2))
    memory.drop(0)
    memory.stage(1, state(2))
    memory.forget_phase()
    assert memory.digest("a") == memory.digest("b") == state(1).digest
    assert memory.nbytes == 200


def test_an_applied_upload_without_a_state_forgets_the_device() -> None:
    memory = UplinkMemory(1000)
    phase(memory, "a")
    memory.commit({0: "a"})
    assert memory.digest("a") == NO_DIGEST
    assert memory.nbytes == 0


def test_the_longest_unused_is_forgotten_first() -> None:
    memory = UplinkMemory(300)
    for device in "abc":
        phase(memory, device)
    memory.opened("a")
    phase(memory, "d")
    assert known(memory, *"abcd") == [True, False, True, True]


def test_what_was_named_to_a_device_stays_until_its_reply() -> None:
    memory = UplinkMemory(300)
    phase(memory, *"abc")
    assert known(memory, *"abc") == [True] * 3
    for device in "abc":
        memory.digest(device)
    memory.stage(9, state(5))  # a newcomer's upload finds no room
    for device in "abc":
        assert memory.get(device, FRESH).digest == state(1).digest
        memory.opened(device)
    memory.commit({9: "d"})
    assert known(memory, *"abcd") == [True, True, True, False]


def test_a_cap_of_exactly_all_devices_serves_all_of_them_every_round() -> None:
    memory = UplinkMemory(300)
    for number in range(1, 5):
        phase(memory, *"abc", number=number)
        assert known(memory, *"abc") == [True] * 3
        assert memory.nbytes == 300


@pytest.mark.parametrize("cap", [0, 99])
def test_what_does_not_fit_at_all_is_not_remembered(cap: int) -> None:
    memory = UplinkMemory(cap)
    phase(memory, "a")
    assert known(memory, "a") == [False]
    assert memory.nbytes == 0


def test_a_negative_cap_is_refused() -> None:
    with pytest.raises(ValueError, match="upload_memory"):
        UplinkMemory(-1)


ROUNDS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["applied", "lost", "withdrawn"])),
        unique_by=lambda pair: pair[0],
        max_size=10,
    ),
    max_size=8,
)


@given(ROUNDS, st.integers(0, 1200))
def test_the_cap_holds_and_a_named_state_is_the_one_that_is_used(rounds, cap) -> None:
    memory = UplinkMemory(cap)
    truth: dict[int, CodecState] = {}
    number = 0
    for devices in rounds:
        named = {d: memory.digest(str(d)) for d, _ in devices}
        applied = {}
        for device, fate in devices:
            if named[device] != NO_DIGEST:
                assert named[device] == truth[device].digest
            if fate == "lost":
                continue
            used = memory.get(str(device), FRESH)
            memory.opened(str(device))
            assert used.digest == named[device]
            number += 1
            after = state(number, 100 + 10 * device)
            memory.stage(device, after)
            assert memory.nbytes <= cap
            if fate == "withdrawn":
                memory.drop(device)
            else:
                applied[device] = str(device)
                truth[device] = after
        memory.commit(applied)
        assert memory.nbytes <= cap
        total = sum(
            100 + 10 * d for d in range(10) if memory.digest(str(d)) != NO_DIGEST
        )
        assert memory.nbytes == total
        memory.forget_phase()


def test_a_memory_comes_back_with_who_was_heard_last() -> None:
    memory = UplinkMemory(1000)
    phase(memory, "a", "b", number=3)
    phase(memory, "a", number=4)
    again = UplinkMemory(1000)
    again.from_state(memory.to_state())
    assert again.nbytes == memory.nbytes == 200
    assert again.digest("a") == state(4).digest
    assert again.digest("b") == state(3).digest
    again.forget_phase()
    phase(again, "c", "d", *"efghij")
    assert list(again.to_state()) == ["b", "a", *"cdefghij"]
    phase(again, "k")  # the longest unused makes room
    assert next(iter(again.to_state())) == "a"


@pytest.mark.parametrize(
    ("cap", "devices"), [(300, "abc"), (299, "bc"), (100, "c"), (99, ""), (0, "")]
)
def test_a_checkpoint_has_as_many_as_fit_the_last_heard_first(
    cap: int, devices: str
) -> None:
    memory = UplinkMemory(1000)
    for device in "abc":
        phase(memory, device)
    assert list(memory.to_state(cap)) == list(devices)
    again = UplinkMemory(cap)
    again.from_state(memory.to_state())
    assert list(again.to_state()) == list(devices)
    assert again.nbytes == 100 * len(devices)


def test_a_damaged_state_is_forgotten_and_the_others_are_not() -> None:
    memory = UplinkMemory(1000)
    phase(memory, *"abcdef")
    states = memory.to_state()
    arrays = dict(states["a"].arrays)
    states["a"] = replace(
        states["a"], arrays={**arrays, "arrays/a": np.zeros(100, np.uint8)}
    )
    states["b"] = replace(states["b"], tree={"digest": "00"})
    states["c"] = replace(states["c"], arrays={"arrays/a": arrays["arrays/a"]})
    states["d"] = replace(
        states["d"], arrays={**arrays, "layout": np.zeros(3, np.uint8)}
    )
    states["e"] = replace(states["e"], tree={**states["e"].tree, "version": "x"})
    again = UplinkMemory(1000)
    again.from_state(states)
    assert known(again, *"abcdef") == [False] * 5 + [True]


def test_the_state_before_goes_tensor_by_tensor_as_the_next_is_made() -> None:
    codec = get_codec({"id": "error_bounded"})
    rng = np.random.default_rng(0)
    update = {f"{i}": rng.normal(size=(250, 400)).astype(np.float32) for i in range(8)}
    layout = Layout.of(update)
    size = codec.memory_nbytes(layout)
    memory, sender = UplinkMemory(10 * size), CodecState(layout)
    frames = []
    for _ in range(2):
        frame, sender = codec.encode(update, sender)
        frames.append(frame)
    digest = sender.digest
    tracemalloc.start()
    try:
        for frame in frames:
            known = memory.get("a", CodecState(layout))
            memory.stage(1, codec.decode(frame, known, shared=True)[1])
            del known
            tracemalloc.reset_peak()
            memory.commit({1: "a"})
        peak = tracemalloc.get_traced_memory()[1] / size
    finally:
        tracemalloc.stop()
    assert memory.nbytes == size
    assert memory.digest("a") == digest
    assert peak < 1.8  # 2.0 with all of both
