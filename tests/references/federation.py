"""A federation of quadratic losses, and the model that it has after each round."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy

from flwr_caesar.clients import compression_mod

from ..strategies.local_grid import LocalGrid

Model = dict[str, np.ndarray[Any, Any]]

LR = 0.05
SHAPES = {"first": (40, 30), "second": (30, 20), "kernels": (12, 10, 3, 3)}


def start() -> Model:
    """Return the first model."""
    return _draw(0)


def target(node: int) -> Model:
    """Return the minimiser of a device's loss."""
    return _draw(node)


def curvature(node: int) -> float:
    """Return how steep a device's loss is."""
    return 0.5 + node


def _draw(seed: int) -> Model:
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=s).astype(np.float32) for n, s in SHAPES.items()}


def trained(
    model: Mapping[str, Any],
    node: int,
    steps: int,
    control: Mapping[str, Any] | None = None,
    compress: Callable[[Any], Any] = np.asarray,
) -> Model:
    """Return ``x - lr (g(C(x)) - h)``, `steps` times; in float64 if the model is."""
    goal, h = target(node), control or {}
    found = {}
    for name, array in model.items():
        x = np.array(array)
        for _ in range(steps):
            gradient = curvature(node) * (compress(x) - goal[name])
            x = x - x.dtype.type(LR) * (gradient - h.get(name, 0)).astype(x.dtype)
        found[name] = x
    return found


def federation_app(steps: int) -> ClientApp:
    """Return an app that trains so, with the control variates that it is given."""
    app = ClientApp(mods=[compression_mod])

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        config = msg.content.config_records["config"]
        model = {n: a.numpy() for n, a in msg.content.array_records["arrays"].items()}
        given = msg.content.array_records.get("control", {})
        control = {name: array.numpy() for name, array in given.items()}
        asked = int(config.get("local-steps", steps))
        after = trained(model, context.node_id, asked, control)
        arrays = ArrayRecord({name: Array(array) for name, array in after.items()})
        metrics = MetricRecord({"num-examples": 10 * context.node_id})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)

    return app


class Scheduled(FedAvg):
    """FedAvg that asks the nodes of a schedule; rounds are counted from 1."""

    def __init__(self, schedule: list[list[int]]) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=1)
        self._schedule = schedule

    def configure_train(self, server_round, arrays, config, grid):
        """Ask the nodes whose turn it is."""
        messages = super().configure_train(server_round, arrays, config, grid)
        chosen = self._schedule[server_round - 1]
        return [m for m in messages if m.metadata.dst_node_id in chosen]


def models_of(
    strategy: Strategy,
    nodes: int,
    rounds: int,
    *,
    app: ClientApp | None = None,
    steps: int = 5,
    after: Callable[[Model], None] = lambda model: None,
    first: Model | None = None,
) -> list[Model]:
    """Return the model after each round of a real federation."""
    random.seed(0)
    found: list[Model] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        if server_round:
            found.append({name: array.numpy() for name, array in arrays.items()})
            after(found[-1])
        return MetricRecord({"round": server_round})

    grid = LocalGrid(app or federation_app(steps), nodes)
    begun = (first or start()).items()
    initial = ArrayRecord({name: Array(array) for name, array in begun})
    strategy.start(grid, initial, num_rounds=rounds, timeout=1, evaluate_fn=evaluate)
    assert len(found) == rounds
    return found


def assert_same(found: list[Model], expected: list[Mapping[str, Any]]) -> None:
    """Compare the models of all rounds, to float32 rounding."""
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True), 1):
        for name, array in ours.items():
            np.testing.assert_allclose(
                array, theirs[name], atol=2e-5, err_msg=f"{name} in round {number}"
            )


def largest(x: Any, count: int) -> Any:
    """Return a vector or matrix with all but its `count` largest elements at zero."""
    flat = np.abs(x).reshape(-1)
    kept = np.zeros(flat.shape, bool)
    kept[np.argsort(-flat, kind="stable")[:count]] = True
    return np.where(kept.reshape(x.shape), x, 0)
