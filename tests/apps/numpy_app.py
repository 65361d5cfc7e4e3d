"""What apps of which the model is not the point share: softmax regression in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from .app import partition_of, reply_to
from .data import digits

Arrays = dict[str, np.ndarray]


def initial_arrays(seed: int = 0) -> ArrayRecord:
    """Weights of 64 pixels and a bias for each of ten digits, small at first."""
    rng = np.random.default_rng(seed)
    weight = (0.01 * rng.normal(size=(10, 64))).astype(np.float32)
    return record_of({"weight": weight, "bias": np.zeros(10, np.float32)})


def record_of(arrays: Arrays) -> ArrayRecord:
    """Return arrays as Flower carries them."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def arrays_of(record: ArrayRecord) -> Arrays:
    """Return the arrays of a record."""
    return {name: array.numpy() for name, array in record.items()}


def trained(record: ArrayRecord, context: Context, lr: float = 1.0) -> Arrays:
    """Take ten full steps on a node's part."""
    index, count = partition_of(context)
    x, y = (part[index::count] for part in digits()[:2])
    weight, bias = (array.copy() for array in arrays_of(record).values())
    for _ in range(10):
        logits = x @ weight.T + bias
        odds = np.exp(logits - logits.max(1, keepdims=True))
        error = odds / odds.sum(1, keepdims=True) - np.eye(10, dtype=np.float32)[y]
        weight -= lr * error.T @ x / len(y)
        bias -= lr * error.mean(0)
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def examples_of(context: Context) -> int:
    """Return how many images a node has."""
    index, count = partition_of(context)
    return len(digits()[1][index::count])


def accuracy(record: ArrayRecord) -> float:
    """Return the accuracy on the test part."""
    weight, bias = arrays_of(record).values()
    _, _, x, y = digits()
    logits = x @ weight.T + bias
    if not np.isfinite(logits).all():
        return float("nan")
    return float((logits.argmax(1) == y).mean())


def plain_app(
    mods: list[Mod], evaluate: Callable[[Message, Context], Message] | None = None
) -> ClientApp:
    """Return an app that trains, and evaluates if it is told how."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = trained(msg.content["arrays"], context)
        return reply_to(msg, arrays, examples=examples_of(context))

    if evaluate is not None:
        app.evaluate()(evaluate)
    return app
