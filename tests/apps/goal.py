"""Models of 1 to 50,000 numbers that each device pulls towards a goal.

What remains of the way is exact to compute, so nothing of it is noise.
"""

from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from .app import App, Score, partition_of, reply_to

PAPER = (
    "as published, a device drops the smallest 10 to 60 % of each update for good, and "
    "of a random goal no element matters less than another"
)


def goal_of(size: int, scale: float, draw: int) -> np.ndarray:
    return scale * np.random.default_rng((size, draw)).normal(size=size)


def pulling(goal: np.ndarray, back: type) -> Callable[[list[Mod]], ClientApp]:
    """Return an app whose devices go 40 % of the way to goals of their own."""

    def client_app(mods: list[Mod]) -> ClientApp:
        app = ClientApp(mods=mods)

        @app.train()
        def train(msg: Message, context: Context) -> Message:
            index, count = partition_of(context)
            # Own goals differ, and their mean is the common one.
            own = goal * (1 + 0.2 * (index - (count - 1) / 2))
            weight = msg.content["arrays"]["weight"].numpy()
            weight = weight + 0.4 * (own.reshape(weight.shape) - weight)
            return reply_to(msg, {"weight": np.asarray(weight, back)}, examples=10)

        return app

    return client_app


def gone_towards(goal: np.ndarray) -> Score:
    """Return what tells the part of the way that was gone."""

    def gone(arrays: ArrayRecord) -> float:
        rest = np.linalg.norm(arrays["weight"].numpy().ravel() - goal)
        return 1 - float(rest / np.linalg.norm(goal))

    return gone


def app_of(
    title: str,
    shape: tuple[int, ...],
    dtype: type = np.float32,
    *,
    back: type | None = None,
    scale: float = 1.0,
    nodes: int = 4,
    draw: int = 0,
) -> App:
    """Return the app of a model of this shape; `draw` names the goal."""
    size = int(np.prod(shape))
    goal = goal_of(size, scale, draw)
    return App(
        title,
        pulling(goal, back or dtype),
        lambda seed: ArrayRecord({"weight": Array(np.zeros(shape, dtype))}),
        gone_towards(goal),
        rounds=6,
        short={"Caesar paper": PAPER} if size > 1024 else {},
        nodes=nodes,
        tested=0,
    )


APPS = [
    app_of("model of 1 number", (1,)),
    app_of("model of 1 number, without dimensions", ()),
    app_of("model of 31 numbers", (31,)),
    app_of("model of 1,000 numbers, float64", (20, 50), np.float64),
    app_of("model of 4,096 numbers", (64, 64)),
    app_of("model of 50,000 numbers", (200, 250), nodes=2),
    app_of("float64 replies for a float32 model", (64, 64), back=np.float64),
    app_of("weights beyond float16", (64, 64), scale=1e6),
]
