"""A device whose update was refused for its length takes part again."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec.contract.update import length
from flwr_caesar.strategies import (
    Caesar,
    CorrelationAware,
    ErrorBounded,
    MagnitudePruning,
    TopK,
)
from flwr_caesar.strategies.phase import Phase, Reply
from flwr_caesar.strategies.too_long import TooLong
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.transport import Plan

from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid, Tamper

VICTIM = 3
NODES = 6
STRATEGIES: dict[str, Any] = {
    "topk": TopK,
    "sparse": lambda inner, **kw: TopK(inner, density=0.01, **kw),
    "caesar": Caesar,
    "paper": lambda inner, **kw: Caesar(inner, codec="paper", **kw),
    "bounded": ErrorBounded,
    "feedback": lambda inner, **kw: ErrorBounded(inner, error_feedback=True, **kw),
    "correlation": CorrelationAware,
    "pruning": MagnitudePruning,
}


def run(
    strategy: Any,
    *,
    huge: float = 0.0,
    when: int = 2,
    tamper: Tamper | None = None,
    rounds: int = 6,
) -> LocalGrid:
    def step(arrays, node, server_round):
        out = drift(arrays, node, server_round)
        if node == VICTIM and server_round == when and huge:
            out["weight"] = np.full_like(out["weight"], huge)
        return out

    random.seed(0)
    app = numpy_app(mods=[compression_mod], step=step)
    grid = LocalGrid(app, NODES, tamper=tamper)
    strategy.start(grid, initial_model(), num_rounds=rounds)
    return grid


def of_victim(strategy: Any) -> list[str]:
    return [record.dropped.get(VICTIM, "") for record in strategy.history]


def state_of(grid: LocalGrid) -> Any:
    (name,) = (
        key.split(".")[1]
        for key in grid.contexts[VICTIM].state.config_records
        if key.endswith(".state")
    )
    return ContextStore(grid.contexts[VICTIM].state).load(int(name, 16))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("when", [1, 3])
def test_one_huge_update_is_refused_once(name, when) -> None:
    strategy = STRATEGIES[name](FedAvg(fraction_evaluate=0.0))
    grid = run(strategy, huge=1e10, when=when, rounds=when + 2)
    said = of_victim(strategy)
    assert "times as long as the median" in said[when - 1]
    assert said[when:] == ["", ""]
    assert length(state_of(grid).residual) < 1e6


@pytest.mark.parametrize("name", ["bounded", "correlation"])
def test_a_device_that_was_not_heard_for_long_catches_up_and_loses_nothing(
    name, caplog
) -> None:
    """What it computed meanwhile is longer than is believed, and is ordinary."""
    silent = range(2, 16)

    def tamper(reply: Message, node: int) -> Message | None:
        rounds[node] = rounds.get(node, 0) + 1
        return None if node == VICTIM and rounds[node] in silent else reply

    def step(arrays, node, server_round):
        out = {name: array.copy() for name, array in arrays.items()}
        out["weight"] += np.float32(0.25)
        return out

    rounds: dict[int, int] = {}
    strategy = STRATEGIES[name](FedAvg(fraction_evaluate=0.0), quorum=0.8)
    random.seed(0)
    app = numpy_app(mods=[compression_mod], step=step)
    grid = LocalGrid(app, NODES, tamper=tamper)
    strategy.start(grid, initial_model(), num_rounds=24, timeout=0.05)
    said = of_victim(strategy)
    assert sum("times as long as the median" in why for why in said) == 1
    assert said[-6:] == [""] * 6
    assert "given up" not in caplog.text
    told = [Plan.read(c)[1].longest for kind, c in grid.sent if kind == "train"]
    assert any(told)
    assert not all(told)


def test_who_is_told_what_is_believed() -> None:
    told = TooLong()
    header = DownloadHeader(1, (1, 1), 1, (0, bytes(8)), device="ab" * 16)
    assert told.told(header, 5.0) == header
    phase = Phase("train", 1, longest=8.0, too_long={7})
    told.note(phase, {7: header.device})
    assert told.told(header, 5.0).longest == 5.0
    assert told.told(header, 0.0).longest == 0
    assert told.told(header, 1e-60).longest == 0
    assert told.told(header, 1e60).longest == 0

    def sends(length: float) -> None:
        reply = Reply(7, Message.__new__(Message), None, length=length)
        told.note(
            Phase("train", 2, longest=8.0, replies={7: reply}), {7: header.device}
        )

    sends(4.0)
    assert told.told(header, 5.0).longest == 5.0
    sends(2.0)
    assert told.told(header, 5.0) == header
