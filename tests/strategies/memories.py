"""What both sides remember of uploads, looked at from outside."""

from __future__ import annotations

import random

from flwr.app import Message

from flwr_caesar.codec import Codec, CodecState, Layout, inspect_frame, update_layout
from flwr_caesar.codec.contract.state import NO_DIGEST
from flwr_caesar.strategies import CompressedStrategy
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.protocol import device_id
from flwr_caesar.sync.state import DeviceState
from flwr_caesar.transport import record_to_frame

from .apps import initial_model
from .local_grid import LocalGrid, Tamper


def device_state(grid: LocalGrid, node: int) -> DeviceState:
    records = grid.contexts[node].state
    (lineage,) = {int(key.split(".")[1], 16) for key in records}
    state = ContextStore(records).load(lineage)
    assert state is not None
    return state


def digest_when_settled(
    codec: Codec, state: DeviceState, applied: tuple[int, ...]
) -> bytes:
    """Return the digest of a device's codec memory once it hears what was applied."""
    layout = update_layout(Layout.of(state.model))
    known = CodecState(layout, state.codec_version, state.codec_arrays)
    after = known
    for pending in state.pending:
        if pending.upload_id in applied:
            _, after = codec.decode(pending.frame, known)
    return after.digest


def assert_lock_step(
    strategy: CompressedStrategy, grid: LocalGrid, *, forgotten: int = 0
) -> None:
    """What the server remembers of a device is what that will predict from."""
    missing = 0
    for node, context in grid.contexts.items():
        if not context.state:
            continue
        state = device_state(grid, node)
        device = device_id(state.token)
        row = strategy._exchange.ledger.devices([device]).get(device)
        meant = digest_when_settled(
            strategy.method.upload, state, row.applied if row else ()
        )
        held = strategy._exchange.memory.digest(device)
        missing += held != meant
        assert held in (meant, NO_DIGEST), node
    assert missing == forgotten
    strategy._exchange.memory.forget_phase()


def predicted(grid: LocalGrid) -> list[bool]:
    """Whether each upload that arrived was coded from a history."""
    frames = [
        record_to_frame(content["arrays"])
        for _, content in grid.received
        if "arrays" in content
    ]
    return [inspect_frame(frame).state_digest != NO_DIGEST for frame in frames]


def dropped(strategy: CompressedStrategy) -> list[dict[int, str]]:
    return [record.dropped for record in strategy.history]


def losing(grid: LocalGrid) -> Tamper:
    """Lose a third of the replies, and with some of them the device's state."""
    chance = random.Random(7)

    def lose(reply: Message, node: int) -> Message | None:
        if chance.random() < 0.1:
            state = grid.contexts[node].state
            for key in list(state):
                del state[key]
            return None
        return None if chance.random() < 0.25 else reply

    return lose


def run_in_lock_step(
    strategy: CompressedStrategy, grid: LocalGrid, rounds: int
) -> None:
    """Lose replies and states; check after each round that memories are in step."""
    seen: list[int] = []

    def check(record) -> None:
        seen.append(record.server_round)
        assert_lock_step(strategy, grid)

    grid.tamper = losing(grid)
    strategy._recorder._sinks = (check,)
    strategy.start(grid, initial_model(), num_rounds=rounds, timeout=0.03)
    assert seen == list(range(1, rounds + 1))
    reasons = {reason for lost in dropped(strategy) for reason in lost.values()}
    allowed = ("no reply", "whole model")
    assert all(any(part in reason for part in allowed) for reason in reasons), reasons
    assert any(predicted(grid))
