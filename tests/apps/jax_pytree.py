"""A pytree as JAX and Flax keep it: nested names, and dtypes that are not float32.

Flower averages integers and booleans to float64; the app makes them what they were.
"""

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from .app import App, partition_of, reply_to
from .data import digits

Tree = dict[str, Any]


def first_tree(seed: int) -> Tree:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(64, 48)) / 8
    return {
        "params": {
            "Dense_0": {
                "kernel": hidden.astype(np.float32),
                "bias": np.zeros(48, np.float16),
            },
            "Dense_1": {
                "kernel": (rng.normal(size=(48, 10)) / 7).astype(np.float32),
                "bias": np.zeros(10, np.float64),
            },
        },
        "opt_state": {"count": np.int32(0), "rng_key": np.array([7, 9], np.uint32)},
        "mask": {"alive": np.ones(48, np.bool_)},
    }


def flatten(tree: Tree, path: str = "") -> dict[str, np.ndarray]:
    flat = {}
    for name, value in tree.items():
        inside = isinstance(value, dict)
        key = f"{path}{name}"
        flat |= flatten(value, f"{key}/") if inside else {key: np.asarray(value)}
    return flat


def like_first(arrays: ArrayRecord) -> dict[str, np.ndarray]:
    first = flatten(first_tree(0))
    return {n: np.asarray(a.numpy(), first[n].dtype) for n, a in arrays.items()}


def forward(flat: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, ...]:
    first, last = flat["params/Dense_0/bias"], flat["params/Dense_1/bias"]
    hidden = x @ flat["params/Dense_0/kernel"] + first.astype(np.float32)
    hidden = np.maximum(hidden, 0) * flat["mask/alive"]
    return hidden, hidden @ flat["params/Dense_1/kernel"] + last.astype(np.float32)


def step(flat: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, lr: float) -> None:
    hidden, logits = forward(flat, x)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    error = (odds / odds.sum(1, keepdims=True) - np.eye(10, dtype=np.float32)[y]) / len(
        y
    )
    back = error @ flat["params/Dense_1/kernel"].T * (hidden > 0)
    for name, slope in {
        "params/Dense_1/kernel": hidden.T @ error,
        "params/Dense_1/bias": error.sum(0),
        "params/Dense_0/kernel": x.T @ back,
        "params/Dense_0/bias": back.sum(0),
    }.items():
        flat[name] = (flat[name] - lr * slope).astype(flat[name].dtype)
    flat["opt_state/count"] = np.asarray(flat["opt_state/count"] + np.int32(1))


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        flat = like_first(msg.content["arrays"])
        index, count = partition_of(context)
        x, y = (part[index :: 3 * count] for part in digits()[:2])
        for _ in range(20):
            step(flat, x, y, 0.5)
        return reply_to(msg, flat, examples=len(y))

    return app


def initial_arrays(seed: int) -> ArrayRecord:
    return ArrayRecord({n: Array(a) for n, a in flatten(first_tree(seed)).items()})


def accuracy(arrays: ArrayRecord) -> float:
    _, logits = forward(like_first(arrays), digits()[2])
    return float((logits.argmax(1) == digits()[3]).mean())


APP = App(
    "pytree as in JAX: nested names, mixed dtypes",
    client_app,
    initial_arrays,
    accuracy,
    rounds=4,
)
