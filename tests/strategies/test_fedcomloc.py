"""FedComLoc through Flower: the sum of all control variates is zero, whatever fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian

from flwr_caesar.clients import compression_mod
from flwr_caesar.clients.parts import extras
from flwr_caesar.codec import get_codec
from flwr_caesar.strategies import FedComLoc, Uncompressed
from flwr_caesar.strategies.fedcomloc import model_codec
from flwr_caesar.sync.context_store import ContextStore

from .local_grid import LocalGrid

LR = 0.05
SHAPES = {"weight": (48, 40), "bias": (40,)}


def start_model() -> ArrayRecord:
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def target(node: int) -> dict[str, np.ndarray]:
    """Minimiser of a device's loss ``|x - target|^2 / 2``."""
    rng = np.random.default_rng(node)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def quadratic_app(*, mod: bool = True) -> ClientApp:
    """Take the steps that are asked for, with the control variates that are given."""
    app = ClientApp(mods=[compression_mod] if mod else [])

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        config = msg.content.config_records["config"]
        control = msg.content.array_records.get("control", {})
        goal = target(context.node_id)
        out = {}
        for name, array in msg.content.array_records["arrays"].items():
            x = array.numpy().copy()
            h = control[name].numpy() if name in control else np.float32(0)
            for _ in range(int(config.get("local-steps", 1))):
                x -= np.float32(LR) * (x - goal[name] - h)
            out[name] = Array(x)
        metrics = MetricRecord({"num-examples": 10, "loss": 1.0})
        content = RecordDict({"arrays": ArrayRecord(out), "metrics": metrics})
        return Message(content, reply_to=msg)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 10})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    return app


def control_of(context: Context, strategy: FedComLoc) -> dict[str, np.ndarray]:
    """Return what a device would train with if it were asked now."""
    assert strategy._session is not None
    state = ContextStore(context.state).load(strategy._session.head.lineage)
    if state is None or "control-counts" not in state.extras:
        return {}
    if int(state.extras["control-counts"][0]) != strategy._epoch:
        return {}
    return extras(state, "control/")


class Watched(FedComLoc):
    """Checks the law at the end of every round."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.nonzero = 0

    def aggregate_train(self, server_round, replies):
        result = super().aggregate_train(server_round, replies)
        self.check()
        return result

    def aggregate_evaluate(self, server_round, replies):
        result = super().aggregate_evaluate(server_round, replies)
        self.check()
        return result

    def check(self) -> None:
        assert self._grid is not None
        contexts = self._grid._grid.contexts.values()
        held = [control_of(context, self) for context in contexts]
        for name in SHAPES:
            parts = [control[name] for control in held if name in control]
            if not parts:
                continue
            largest = max(float(np.abs(part).max()) for part in parts)
            self.nonzero += largest > 1e-3
            total = np.sum(parts, axis=0, dtype=np.float64)
            np.testing.assert_allclose(total, 0, atol=2e-5 * max(largest, 1.0))


def run(
    nodes: int = 6,
    rounds: int = 8,
    inner: Callable[..., Any] = FedAvg,
    tamper: Callable[[LocalGrid, Message, int], Message | None] | None = None,
    seed: int = 0,
    fraction: float = 1.0,
    evaluate: float = 0.0,
    **settings: Any,
) -> tuple[Watched, LocalGrid, Any]:
    random.seed(seed)
    grid = LocalGrid(quadratic_app(), nodes)
    if tamper:
        grid.tamper = lambda reply, node: tamper(grid, reply, node)
    strategy = Watched(
        inner(fraction_train=fraction, fraction_evaluate=evaluate, min_train_nodes=1),
        lr=LR,
        **{"p": 0.25, **settings},
    )
    result = strategy.start(grid, start_model(), num_rounds=rounds, timeout=0.01)
    return strategy, grid, result


COMPRESSION = [
    {},
    {"density": 0.3},
    {"density": 0.3, "values": "float32"},
    {"bits": 4},
    {"density": 0.3, "bits": 6},
]


@pytest.mark.parametrize("settings", COMPRESSION, ids=str)
@pytest.mark.parametrize("variant", ["com", "local", "global"])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_sum_is_zero_after_every_round(variant, fraction, settings) -> None:
    strategy, _, _ = run(fraction=fraction, evaluate=0.5, variant=variant, **settings)
    assert strategy.resets == 0
    assert strategy.nonzero > 8
    assert not any(record.dropped for record in strategy.history)
    phases = [record.phase for record in strategy.history]
    assert phases == ["train", "settle", "evaluate"] * 8
