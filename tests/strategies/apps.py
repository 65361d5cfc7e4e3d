"""Ordinary Flower apps that know nothing of us."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod


def initial_model(seed: int = 0) -> ArrayRecord:
    """Float32 weights large enough to be lossy, a bias, and an integer counter."""
    rng = np.random.default_rng(seed)
    return ArrayRecord(
        {
            "weight": Array(rng.normal(size=(64, 48)).astype(np.float32)),
            "bias": Array(rng.normal(size=48).astype(np.float32)),
            "half": Array(rng.normal(size=2000).astype(np.float16)),
            "steps": Array(np.array(3, np.int64)),
        }
    )


def numpy_app(
    *,
    mods: list[Mod] | None = None,
    step: Callable[[dict[str, np.ndarray], int, int], dict[str, np.ndarray]]
    | None = None,
) -> ClientApp:
    """Pull each tensor to a target of the node's own; the counter counts."""
    app = ClientApp(mods=mods)
    step = step or drift

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        config = msg.content["config"]
        assert isinstance(config, ConfigRecord)
        arrays = {k: v.numpy() for k, v in msg.content["arrays"].items()}
        arrays = step(arrays, context.node_id, int(config["server-round"]))
        content = RecordDict(
            {
                "arrays": ArrayRecord({k: Array(v) for k, v in arrays.items()}),
                "metrics": MetricRecord(
                    {
                        "num-examples": 10 * context.node_id,
                        "loss": 1.0 / context.node_id,
                    }
                ),
            }
        )
        return Message(content, reply_to=msg)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        weight = msg.content["arrays"]["weight"].numpy()
        metrics = {"num-examples": context.node_id, "norm": float(np.abs(weight).sum())}
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)

    return app


def drift(
    arrays: dict[str, np.ndarray], node: int, server_round: int
) -> dict[str, np.ndarray]:
    """Move a tenth of the way to a target that depends on the node."""
    rng = np.random.default_rng(node)
    out = {}
    for name, array in arrays.items():
        if name == "steps":
            out[name] = np.array(round(float(array)) + node, np.int64)
        else:
            target = rng.normal(size=array.shape)
            out[name] = (array + 0.1 * (target - array)).astype(array.dtype)
    return out
